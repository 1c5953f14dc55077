//! A shard, a clock, a driver of its delivery that can crash, and a model that checks every step.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{
    Batch, BurialOutcome, Delivery, Doom, ErrorClass, Event, FinishedRecords, Intake, Now, ResumeState, Verdict,
};
use shardwell_core::{Checkpoint, CheckpointState, ExtendedSequenceNumber, Monotonic, PartitionKey, UserRecord};

use super::rules::Rules;

/// A user record in the shard.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) record: UserRecord,
    pub(crate) undecodable: bool,
}

/// What has become of a record, in this term of the lease or in what was stored by earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unread,
    Pending,
    Filtered,
    Done,
    Dead(DeadReason),
}

impl Fate {
    pub(crate) const fn is_terminal(self) -> bool {
        matches!(self, Self::Filtered | Self::Done | Self::Dead(_))
    }
}

/// What is out of the machine's hands.
#[derive(Clone, Debug)]
pub(crate) enum Flight {
    Call { id: u64, attempt: u32, records: Vec<usize>, alone: bool },
    Burial { id: u64, records: Vec<usize>, reason: DeadReason },
}

/// What the lease table has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// The records up to the checkpoint.
    pub(crate) settled: usize,
    pub(crate) state: Option<CheckpointState>,
}

impl Stored {
    pub(crate) fn resume(&self) -> ResumeState {
        self.state.as_ref().map(|state| ResumeState::decode(state).expect("what was encoded")).unwrap_or_default()
    }

    /// The record that ran alone, as far as was written.
    pub(crate) fn alone(&self) -> Option<ExtendedSequenceNumber> {
        let suspect = self.resume().crashes.running.filter(|suspect| suspect.records == 1)?;
        suspect.first.position()
    }
}

/// How the newest attempt at a batch ended.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    at: Monotonic,
    attempt: u32,
    random: u64,
    class: Option<ErrorClass>,
}

/// A shard and the term of its lease.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) log: Vec<Entry>,
    places: BTreeMap<ExtendedSequenceNumber, usize>,
    pub(crate) rules: Rules,
    pub(crate) machine: Delivery,
    pub(crate) clock: Now,
    pub(crate) may_deliver: bool,
    /// How much of the log was read.
    pub(crate) read: usize,
    /// Where this term began.
    base: usize,
    ended: bool,
    pub(crate) fates: Vec<Fate>,
    pub(crate) flights: BTreeMap<u32, Flight>,
    /// Durable letters, across crashes.
    pub(crate) letters: BTreeMap<usize, DeadReason>,
    pub(crate) stored: Stored,
    /// What was restored as finished. Until the last of it has come, it is not confirmed.
    restored: BTreeSet<usize>,
    /// What was read, to be delivered, and is not settled yet, in bytes.
    weight: usize,
    outcomes: BTreeMap<u64, Outcome>,
    /// Given up for their age; they stay it if the clock jumps back.
    aged: BTreeSet<usize>,
    /// How often the process died while a record was written down as running alone.
    pub(crate) alone_deaths: BTreeMap<usize, u32>,
    /// Keys held back.
    held: BTreeSet<PartitionKey>,
    /// An archive was asked for its keys: the answer, the clock then, and which keys died since.
    asked: Option<(BTreeSet<PartitionKey>, u64, BTreeSet<PartitionKey>)>,
    /// Letters that were redriven since.
    redriven: BTreeSet<usize>,
    seed: u64,
    /// Whether the world stores around what runs alone by itself, as the command demands.
    pub(crate) stores_alone: bool,
    pub(crate) crashes: usize,
}

impl World {
    pub(crate) fn new(log: Vec<Entry>, rules: Rules, seed: u64) -> Self {
        let places = log.iter().enumerate().map(|(index, entry)| (entry.record.position, index)).collect();
        let fates = vec![Fate::Unread; log.len()];
        let mut world = Self {
            log,
            places,
            machine: begun(&rules, &ResumeState::default()),
            rules,
            clock: Now { monotonic: Monotonic::from_origin(Duration::from_secs(1)), ..Now::default() },
            may_deliver: true,
            read: 0,
            base: 0,
            ended: false,
            fates,
            flights: BTreeMap::new(),
            letters: BTreeMap::new(),
            stored: Stored::default(),
            restored: BTreeSet::new(),
            weight: 0,
            outcomes: BTreeMap::new(),
            aged: BTreeSet::new(),
            alone_deaths: BTreeMap::new(),
            held: BTreeSet::new(),
            asked: None,
            redriven: BTreeSet::new(),
            seed: seed | 1,
            stores_alone: true,
            crashes: 0,
        };
        world.store();
        world
    }

    /// Xorshift: delays need no better.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn indices(&self, batch: &Batch) -> Vec<usize> {
        batch.records().iter().map(|record| self.places[&record.position]).collect()
    }

    fn key(&self, index: usize) -> Option<&PartitionKey> {
        self.log[index].record.partition_key.as_ref()
    }

    fn is_too_old(&self, index: usize) -> bool {
        let age = self.clock.timestamp.since(self.log[index].record.arrival);
        self.rules.can_bury && self.rules.age.is_some_and(|limit| age >= limit)
    }

    fn is_oversize(&self, index: usize) -> bool {
        let size = self.log[index].record.data.len();
        self.rules.can_bury && self.rules.max_record_bytes.is_some_and(|limit| size > limit)
    }

    // What can happen.

    /// The next records come in.
    pub(crate) fn arrive(&mut self, count: usize) {
        let mut intake = Vec::new();
        let mut repeated = 0;
        for index in self.read..self.log.len().min(self.read + count) {
            let entry = &self.log[index];
            let known = self.fates[index].is_terminal();
            if self.rules.filters(index) {
                intake.push(Intake::Passed(entry.record.position));
                self.fates[index] = if known { self.fates[index] } else { Fate::Filtered };
            } else {
                let record = entry.record.clone();
                self.weight += record.weight();
                repeated += if known { record.weight() } else { 0 };
                self.fates[index] = if known { self.fates[index] } else { Fate::Pending };
                intake.push(match entry.undecodable && self.rules.can_bury {
                    true => Intake::Doomed(record, doom()),
                    false => Intake::Record(record),
                });
            }
            self.read = index + 1;
        }
        self.step(Event::Arrived(intake), &Books { weight: repeated, ..Books::default() });
    }

    /// The shard ends, once all of it was read.
    pub(crate) fn end(&mut self) {
        if self.read == self.log.len() && !self.ended {
            self.ended = true;
            self.step(Event::ShardEnded, &Books::default());
        }
    }

    /// The invocation in a lane is over.
    pub(crate) fn finish(&mut self, lane: u32, verdict: Verdict) {
        let Some(Flight::Call { id, attempt, records, alone }) = self.flights.remove(&lane) else {
            panic!("nothing to finish in lane {lane}")
        };
        let random = self.random();
        let class = self.counted_class(&verdict);
        self.outcomes.insert(id, Outcome { at: self.clock.monotonic, attempt, random, class });
        let done = self.done_by(&verdict, &records);
        let books = Books { done: done.len(), weight: self.weigh(&done), dead: 0 };
        self.settle(&done, |_| Fate::Done);
        self.step_with(Event::Finished { lane, verdict }, &books, random);
        if alone && self.stores_alone {
            self.store();
        }
    }

    /// The burial in a lane is over.
    pub(crate) fn buried(&mut self, lane: u32, outcome: BurialOutcome) {
        let Some(Flight::Burial { id, records, reason }) = self.flights.remove(&lane) else {
            panic!("nothing to bury in lane {lane}")
        };
        if outcome == BurialOutcome::Kept {
            for index in &records {
                self.letters.insert(*index, reason);
                self.redriven.remove(index);
                if let Some(key) = self.key(*index).filter(|_| self.rules.quarantine).cloned() {
                    self.held.insert(key.clone());
                    self.asked.iter_mut().for_each(|(_, _, since)| since.extend([key.clone()]));
                }
            }
        }
        if outcome == BurialOutcome::Withheld {
            // What failed too often is tried again from the start.
            self.outcomes.remove(&id);
        }
        let discarded = outcome == BurialOutcome::Failed && self.rules.discard_on_failure;
        let dead = if outcome == BurialOutcome::Kept || discarded { records } else { Vec::new() };
        let books = Books { dead: dead.len(), weight: self.weigh(&dead), done: 0 };
        self.settle(&dead, |_| Fate::Dead(reason));
        self.step(Event::Buried { lane, outcome }, &books);
    }

    pub(crate) fn tick(&mut self) {
        self.step(Event::Tick, &Books::default());
    }

    /// Sleeps until the machine wants to be woken; it must have something to do then.
    pub(crate) fn sleep(&mut self) -> bool {
        let Some(at) = self.machine.wake_at().filter(|_| self.may_deliver) else { return false };
        self.advance(at.since(self.clock.monotonic));
        let before = self.flights.len();
        self.tick();
        assert!(self.flights.len() > before, "woken for nothing");
        true
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.clock.monotonic = self.clock.monotonic.plus(by);
        self.clock.timestamp = self.clock.timestamp.plus(by);
    }

    /// An archive is asked for the keys of its letters.
    pub(crate) fn ask(&mut self) {
        let there = self.letters.keys().filter(|index| !self.redriven.contains(index));
        let keys = there.filter_map(|index| self.key(*index).cloned()).collect();
        self.asked = Some((keys, self.machine.quarantine_clock(), BTreeSet::new()));
    }

    /// It answers.
    pub(crate) fn answer(&mut self) {
        if let Some((keys, asked_at, since)) = self.asked.take() {
            self.held = keys.union(&since).cloned().collect();
            self.step(Event::DeadKeys { keys: keys.into_iter().collect(), asked_at }, &Books::default());
        }
    }

    /// The letters of a key are taken out of the archive.
    pub(crate) fn redrive(&mut self, key: &PartitionKey) {
        let of_key: Vec<usize> = self.letters.keys().copied().filter(|index| self.key(*index) == Some(key)).collect();
        self.redriven.extend(of_key);
    }

    /// The lease table takes what the machine says now.
    pub(crate) fn store(&mut self) {
        let settled = self.machine.watermark().map_or(self.base, |position| self.places[&position] + 1);
        assert!(settled >= self.stored.settled, "P10: the checkpoint goes back");
        for index in self.stored.settled..settled {
            assert!(self.fates[index].is_terminal(), "P2: {index} is {:?} below the checkpoint", self.fates[index]);
            if let Fate::Dead(reason) = self.fates[index] {
                let kept = self.letters.contains_key(&index) || self.rules.discard_on_failure;
                assert!(kept, "P2: {index} is {reason} without a letter");
            }
        }
        let state = self.encoded();
        self.stored = Stored { settled, state };
    }

    fn encoded(&self) -> Option<CheckpointState> {
        let resume = self.machine.resume();
        // The driver adds the times.
        let times = ResumeState { caught_up_at: Some(1 << 42), opened_at: Some(1 << 42), ..resume.clone() };
        let bytes = times.encode().map_or(0, |(_, data)| data.len());
        assert!(bytes <= self.rules.state_bytes, "{bytes} bytes of state: {resume:?}");
        let belongs_to = self.machine.watermark().map_or(Checkpoint::TrimHorizon, Checkpoint::At);
        let state = resume.encode().map(|(version, data)| CheckpointState { belongs_to, version, data });
        assert_eq!(state.as_ref().map_or(Some(ResumeState::default()), ResumeState::decode), Some(resume));
        state
    }

    /// The process dies; another one goes on with what was stored.
    pub(crate) fn crash(&mut self, rules: Rules) {
        if let Some(position) = self.stored.alone() {
            *self.alone_deaths.entry(self.places[&position]).or_default() += 1;
        }
        let resume = self.stored.resume();
        let finished = self.finished(&resume, self.stored.settled);
        for index in self.stored.settled..self.log.len() {
            match (finished.contains(&index), self.fates[index]) {
                (true, fate) => assert!(fate.is_terminal(), "{index} was stored as finished and is {fate:?}"),
                (false, _) => self.fates[index] = Fate::Unread,
            }
        }
        (self.base, self.read, self.ended) = (self.stored.settled, self.stored.settled, false);
        self.restored = finished;
        self.machine = begun(&rules, &resume);
        self.rules = rules;
        self.flights.clear();
        self.outcomes.clear();
        self.aged.clear();
        self.weight = 0;
        self.crashes += 1;
        self.held.clear();
        self.asked = None;
        self.store();
        if self.rules.quarantine && self.rules.can_bury {
            self.ask();
            self.answer();
        }
    }

    // What the model says.

    fn weigh(&self, records: &[usize]) -> usize {
        records.iter().map(|index| self.log[*index].record.weight()).sum()
    }

    fn settle(&mut self, records: &[usize], fate: impl Fn(usize) -> Fate) {
        for index in records {
            assert_eq!(self.fates[*index], Fate::Pending, "P1: {index} ends twice");
            self.fates[*index] = fate(*index);
        }
    }

    /// The records that a verdict calls done.
    fn done_by(&self, verdict: &Verdict, records: &[usize]) -> Vec<usize> {
        let len = records.len();
        match verdict {
            Verdict::Done => records.to_vec(),
            Verdict::Failed(_) | Verdict::NotInvoked => Vec::new(),
            Verdict::FailedFrom { index, .. } if *index >= len => Vec::new(),
            Verdict::FailedFrom { index, .. } => records[..*index].to_vec(),
            Verdict::FailedExactly(failed) => {
                let failed: BTreeSet<usize> = failed.iter().map(|(index, _)| *index).collect();
                match failed.first() {
                    None => records.to_vec(),
                    Some(_) if failed.iter().any(|index| *index >= len) => Vec::new(),
                    Some(first) if self.rules.lambda => records[..*first].to_vec(),
                    Some(_) => (0..len).filter(|index| !failed.contains(index)).map(|index| records[index]).collect(),
                }
            }
        }
    }

    /// The class of a failure, if it keeps the batch together.
    fn counted_class(&self, verdict: &Verdict) -> Option<ErrorClass> {
        let failure = match verdict {
            Verdict::Failed(failure) | Verdict::FailedFrom { failure, .. } => failure,
            Verdict::FailedExactly(failed) => &failed.first()?.1,
            Verdict::Done | Verdict::NotInvoked => return None,
        };
        Some(match failure.class {
            ErrorClass::Transient if self.rules.lambda => ErrorClass::Retryable,
            ErrorClass::Permanent if !self.rules.can_bury => ErrorClass::Retryable,
            class => class,
        })
    }

    /// How many records are settled out of order and known to the stored state, against those that are.
    pub(crate) fn forgotten(&self) -> usize {
        let settled = self.machine.watermark().map_or(self.base, |position| self.places[&position] + 1);
        let known = |index: &usize| matches!(self.fates[*index], Fate::Done | Fate::Dead(_));
        let kept = self.finished(&self.machine.resume(), settled).into_iter().filter(known).count();
        (settled..self.read).filter(known).count().saturating_sub(kept)
    }

    /// The finished set as places in the log.
    fn finished(&self, resume: &ResumeState, settled: usize) -> BTreeSet<usize> {
        let Some(finished) = &resume.finished else { return BTreeSet::new() };
        let small = |ordinal: u64| usize::try_from(ordinal).expect("a small number");
        match &finished.records {
            FinishedRecords::Ordinals(ordinals) => {
                ordinals.runs().into_iter().flatten().map(|ordinal| settled + small(ordinal)).collect()
            }
            FinishedRecords::Lanes(lanes) => (0..=finished.last.0)
                .filter(|ordinal| lanes.contains(*ordinal, self.key(settled + small(*ordinal))))
                .map(|ordinal| settled + small(ordinal))
                .collect(),
        }
    }

    /// The records of the invocation in a lane.
    pub(crate) fn call(&self, lane: u32) -> Option<Vec<usize>> {
        match self.flights.get(&lane) {
            Some(Flight::Call { records, .. }) => Some(records.clone()),
            _ => None,
        }
    }
}

/// What is settled in a step.
#[derive(Debug, Default, PartialEq, Eq)]
struct Books {
    done: usize,
    dead: usize,
    weight: usize,
}

fn doom() -> Doom {
    Doom { reason: DeadReason::Undecodable, error: std::sync::Arc::from(["unreadable".to_owned()]) }
}

/// A delivery whose driver has something to deliver at once.
fn begun(rules: &Rules, resume: &ResumeState) -> Delivery {
    let mut machine = Delivery::new(rules.policy(), resume);
    machine.begin();
    machine
}
