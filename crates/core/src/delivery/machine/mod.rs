//! What happens next to a shard's records.

mod progress;

use std::collections::BTreeMap;

use super::events::{Burial, BurialOutcome, Command, Doom, Event, Intake, Now, Settled};
use super::lane::{Formation, Lane, lane_of};
use super::ledger::Ledger;
use super::restored::Restored;
use super::segment::Segment;
use super::verdict::{Decision, Then, decide};
use super::{BatchSettings, CrashRecord, DeliveryPolicy, Failure, OnSinkFailure, ResumeState, Suspect, Verdict};
use crate::dead_letter::DeadReason;
use crate::{ExtendedSequenceNumber, Monotonic, PartitionKey, UserRecord};

/// The delivery of a shard: see the [module](super).
#[derive(Debug)]
pub struct Delivery {
    policy: DeliveryPolicy,
    lanes: Vec<Lane>,
    ledger: Ledger,
    restored: Restored,
    crashes: CrashRecord,
    /// What is told of it for as long as nothing of this term may be stored: as the last term left it before this one has
    /// begun, and as this one began until what was restored is confirmed.
    told: CrashRecord,
    has_begun: bool,
    condemned: Vec<ExtendedSequenceNumber>,
    /// Keys that are held back, and since when on the quarantine's clock.
    quarantine: BTreeMap<PartitionKey, u64>,
    quarantine_clock: u64,
    shard_ended: bool,
    next_batch: u64,
    /// Whether a batch is being processed alone.
    alone: bool,
}

impl Delivery {
    /// A delivery with nothing to do. The policy must be [resolved](DeliveryPolicy::resolve). `resume` is what was stored
    /// with the checkpoint that the delivery begins after.
    pub fn new(policy: DeliveryPolicy, resume: &ResumeState) -> Self {
        let reach = u64::from(policy.lanes).saturating_mul(policy.batch.records as u64);
        let crashes = resume.crashes.at_start(reach);
        Self {
            lanes: (0..policy.lanes.max(1)).map(|_| Lane::default()).collect(),
            ledger: Ledger::default(),
            restored: Restored::new(resume),
            condemned: crashes.condemned().collect(),
            told: resume.crashes.clone(),
            has_begun: false,
            crashes,
            quarantine: BTreeMap::new(),
            quarantine_clock: 0,
            shard_ended: false,
            next_batch: 0,
            alone: false,
            policy,
        }
    }

    /// Takes an event and gives what to do about it. `random` spreads retries; `may_deliver` is whether the driver would
    /// carry out an [`Command::Invoke`] or a [`Command::Bury`] now (it is not paused or stopping).
    pub fn step(&mut self, event: Event, now: Now, random: u64, may_deliver: bool) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Arrived(records) => {
                // What was finished before has been counted then; its room is free.
                let weight = records.into_iter().map(|record| self.arrived(record)).sum();
                commands.extend((weight > 0).then(|| Command::Settled(Settled { weight, ..Settled::default() })));
            }
            Event::ShardEnded => self.shard_ended = true,
            Event::Finished { lane, verdict } => commands.extend(self.finished(lane, verdict, now, random)),
            Event::Buried { lane, outcome } => commands.extend(self.buried(lane, outcome, now, random)),
            Event::DeadKeys { keys, asked_at } => self.set_quarantine(keys, asked_at),
            Event::Tick => {}
        }
        if may_deliver {
            self.deliver(now, &mut commands);
        }
        commands
    }

    /// Takes a record in. Answers what it weighs if it is settled already.
    fn arrived(&mut self, intake: Intake) -> usize {
        let (record, doom) = match intake {
            Intake::Passed(position) => {
                self.restored.arrived(self.ledger.arrived(), position, None);
                self.ledger.arrive(position);
                return 0;
            }
            Intake::Record(record) => {
                let doom = self.doom(&record);
                (record, doom)
            }
            Intake::Doomed(record, doom) => (record, Some(doom)),
        };
        let (ordinal, before) = (self.ledger.arrived(), self.ledger.newest());
        self.ledger.arrive(record.position);
        let key = record.partition_key.as_ref();
        if self.restored.arrived(ordinal, record.position, key) {
            return record.weight();
        }
        let lane = lane_of(key, ordinal, self.lanes.len() as u64);
        self.lanes[lane].push(ordinal, before, record, doom);
        self.ledger.waiting += 1;
        0
    }

    /// Why a record must not be tried at all, if so.
    fn doom(&self, record: &UserRecord) -> Option<Doom> {
        if !self.policy.can_bury {
            return None;
        }
        if self.condemned.contains(&record.position) {
            let error = "the process died repeatedly while it processed this record, and nothing else";
            return Some(Doom::new(DeadReason::CrashLoop, error));
        }
        let limit = self.policy.max_record_bytes().filter(|limit| record.data.len() > *limit)?;
        let error = format!("its payload has {} bytes, and at most {limit} are delivered", record.data.len());
        Some(Doom::new(DeadReason::Oversize, error))
    }

    fn finished(&mut self, lane: u32, verdict: Verdict, now: Now, random: u64) -> Option<Command> {
        let mut head = self.lanes.get_mut(lane as usize).filter(|lane| lane.busy)?.segments.pop_front()?;
        self.lanes[lane as usize].busy = false;
        if self.alone {
            self.alone = false;
            self.crashes.running = None;
        }
        if verdict != Verdict::NotInvoked {
            head.invocations = head.invocations.saturating_add(1);
        }
        if let Some((failure, partial)) = first_failure(&verdict) {
            head.failed(failure, partial, now);
        }
        match decide(&self.policy, head.len(), head.failures, verdict) {
            Decision::Keep(wait) => {
                head.wait(wait, &self.policy, now, random);
                self.lanes[lane as usize].segments.push_front(head);
                None
            }
            Decision::Pieces(pieces) => {
                let mut settled = Settled::default();
                for piece in pieces.into_iter().rev() {
                    if piece.then == Then::Done {
                        settled.done += piece.range.len();
                        let records = &head.batch.records[piece.range.clone()];
                        // Of the others, those behind them are settled with them.
                        if let (Some(last), Some(record)) = (head.places[piece.range].last(), records.last()) {
                            self.lanes[lane as usize].settled(last.ordinal, record.position);
                        }
                        self.settle(records, &mut settled);
                    } else {
                        self.next_batch += 1;
                        if let Some(part) = head.part(self.next_batch, piece, &self.policy, now, random) {
                            self.lanes[lane as usize].segments.push_front(part);
                        }
                    }
                }
                (settled.done > 0).then_some(Command::Settled(settled))
            }
        }
    }

    fn buried(&mut self, lane: u32, outcome: BurialOutcome, now: Now, random: u64) -> Option<Command> {
        let busy = self.lanes.get_mut(lane as usize).filter(|lane| lane.busy)?;
        busy.busy = false;
        let discard = self.policy.on_sink_failure == OnSinkFailure::Discard;
        match outcome {
            BurialOutcome::NotTried => return None,
            BurialOutcome::Withheld => {
                busy.segments.front_mut()?.reprieve();
                return None;
            }
            BurialOutcome::Failed if !discard => {
                busy.segments.front_mut()?.not_buried(&self.policy, now, random);
                return None;
            }
            BurialOutcome::Kept | BurialOutcome::Failed => {}
        }
        let dead = busy.segments.pop_front()?;
        let mut settled =
            Settled { dead: dead.len(), reason: dead.doom.as_ref().map(|doom| doom.reason), ..Settled::default() };
        if outcome == BurialOutcome::Failed {
            settled.discarded = dead.len();
        } else if self.policy.quarantine {
            self.quarantine_clock += 1;
            let keys = dead.batch.records.iter().filter_map(|record| record.partition_key.clone());
            self.quarantine.extend(keys.map(|key| (key, self.quarantine_clock)));
        }
        for (place, record) in dead.places.iter().zip(dead.batch.records.iter()) {
            self.lanes[lane as usize].settled(place.ordinal, record.position);
        }
        self.settle(&dead.batch.records, &mut settled);
        Some(Command::Settled(settled))
    }

    /// Records are gone from their lane, and settled by that.
    fn settle(&mut self, records: &[UserRecord], settled: &mut Settled) {
        self.ledger.waiting -= records.len() as u64;
        self.crashes.zone = self.crashes.zone.saturating_sub(records.len() as u64);
        if !self.crashes.deaths.is_empty() {
            records.iter().for_each(|record| self.crashes.settled(record.position));
        }
        settled.weight += records.iter().map(UserRecord::weight).sum::<usize>();
        settled.newest = settled.newest.max(records.last().map(|record| record.arrival));
    }

    fn set_quarantine(&mut self, keys: Vec<PartitionKey>, asked_at: u64) {
        self.quarantine.retain(|_, since| *since > asked_at);
        for key in keys {
            self.quarantine.entry(key).or_insert(asked_at);
        }
    }

    /// Starts whatever can be started.
    fn deliver(&mut self, now: Now, commands: &mut Vec<Command>) {
        let limit = self.limit();
        let settings = self.batch_settings();
        if self.crashes.is_suspicious() {
            return self.deliver_oldest_first(limit, &settings, now, commands);
        }
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].is_below(limit) {
                commands.extend(self.start(lane, &settings, now));
            }
        }
    }

    /// One at a time, by age: a lane that always has something to do must not keep the others, one of which may hold the
    /// record that the process dies of, from their turn.
    fn deliver_oldest_first(
        &mut self,
        limit: Option<u64>,
        settings: &BatchSettings,
        now: Now,
        commands: &mut Vec<Command>,
    ) {
        let with_first = |(index, lane): (usize, &Lane)| Some((lane.first()?.0.ordinal, index));
        let mut lanes: Vec<_> = self.lanes.iter().enumerate().filter_map(with_first).collect();
        lanes.sort_unstable();
        for (_, lane) in lanes.into_iter().filter(|(first, _)| limit.is_none_or(|limit| *first < limit)) {
            if self.alone {
                return;
            }
            commands.extend(self.start(lane, settings, now));
        }
    }

    /// What the oldest segment of a lane needs now, if anything.
    fn start(&mut self, index: usize, settings: &BatchSettings, now: Now) -> Option<Command> {
        let lane = &mut self.lanes[index];
        if lane.busy {
            return None;
        }
        let mut next_id = || {
            self.next_batch += 1;
            self.next_batch
        };
        if lane.segments.is_empty() {
            let first = lane.collecting.first()?.0.ordinal;
            let boundary = self.restored.boundary(first);
            let formation = Formation { settings, flush: self.shard_ended, boundary, now: now.monotonic };
            lane.form(&formation, self.restored.failed(first), &mut next_id);
            if !lane.segments.is_empty() {
                self.restored.formed(first);
            }
        }
        lane.segments.front().filter(|head| head.not_before <= now.monotonic)?;
        lane.set_doomed_aside(&self.policy, |key| self.quarantine.contains_key(key), now, &mut next_id);
        lane.busy = true;
        let head = lane.segments.front()?;
        Some(match &head.doom {
            Some(doom) => Command::Bury { lane: index as u32, burial: burial(head, doom) },
            None => {
                self.alone = self.crashes.is_suspicious();
                let (batch, attempt) = (head.batch.clone(), head.failures.saturating_add(1));
                Command::Invoke { lane: index as u32, batch, attempt, alone: self.alone }
            }
        })
    }

    fn batch_settings(&self) -> BatchSettings {
        let mut settings = self.policy.batch;
        if self.crashes.is_suspicious() {
            settings.records = settings.records.min(self.crashes.unit.max(1) as usize);
        }
        settings
    }

    /// When to step again with [`Event::Tick`] if nothing else happens.
    pub fn wake_at(&self) -> Option<Monotonic> {
        if self.alone {
            return None;
        }
        let settings = self.batch_settings();
        let limit = self.limit();
        let lanes = self.lanes.iter().filter(|lane| lane.is_below(limit));
        lanes.filter_map(|lane| lane.due(&settings, self.shard_ended)).min()
    }

    /// The term begins: from here on the process can die of this shard, and [`resume`](Self::resume) says so. To be called,
    /// and that to be stored, before the first [`Command::Invoke`] is carried out. A term in which nothing came is none.
    pub fn begin(&mut self) {
        if !self.has_begun {
            self.has_begun = true;
            self.told = self.crashes.clone();
        }
    }

    /// Whether the shard is under suspicion: see [`CrashRecord`].
    pub const fn suspicion(&self) -> Option<&CrashRecord> {
        if self.crashes.is_suspicious() { Some(&self.crashes) } else { None }
    }

    /// The batch in flight in a lane is about to be processed, and nothing else runs in the process now: from here on,
    /// until its [`Event::Finished`], [`resume`](Self::resume) says so. For a [`Command::Invoke`] with `alone`.
    pub fn announce(&mut self, lane: u32) {
        let head = self.lanes.get(lane as usize).filter(|lane| lane.busy).and_then(|lane| lane.segments.front());
        self.crashes.running = head.and_then(|head| {
            let (_, first) = head.first()?;
            Some(Suspect { first: first.position.into(), records: head.len() as u32 })
        });
    }

    /// Nothing died: the next term of the lease may forget that this one began.
    pub fn stopped_in_order(&mut self) {
        if self.has_begun {
            self.crashes.stopped_in_order();
            self.told.stopped_in_order();
        }
    }

    /// Whether what was restored turned out to belong to other records. The shard must be opened anew, with
    /// [`ResumeState::without_records`], since some records may have been passed over; nothing was stored since.
    pub fn is_misled(&self) -> bool {
        self.restored.is_refuted() || (self.shard_ended && !self.restored.is_confirmed())
    }

    /// How far the quarantine's clock is: to be read before an archive is asked for its dead keys.
    pub const fn quarantine_clock(&self) -> u64 {
        self.quarantine_clock
    }

    /// Whether anything is with a processor or a sink.
    pub fn is_in_flight(&self) -> bool {
        self.lanes.iter().any(|lane| lane.busy)
    }

    /// How often the oldest batch of any lane was tried in vain.
    pub fn failures(&self) -> u32 {
        self.lanes.iter().filter_map(|lane| lane.segments.front()).map(Segment::troubles).max().unwrap_or(0)
    }

    /// How many lanes have a batch that was tried in vain.
    pub fn failing_lanes(&self) -> usize {
        self.lanes.iter().filter_map(|lane| lane.segments.front()).filter(|head| head.troubles() > 0).count()
    }

    /// Whether the shard has ended and every record of it is settled.
    pub fn is_complete(&self) -> bool {
        self.shard_ended && self.restored.is_confirmed() && self.lanes.iter().all(Lane::is_empty)
    }
}

fn first_failure(verdict: &Verdict) -> Option<(&Failure, bool)> {
    match verdict {
        Verdict::Done | Verdict::NotInvoked => None,
        Verdict::Failed(failure) => Some((failure, false)),
        Verdict::FailedFrom { failure, .. } => Some((failure, true)),
        Verdict::FailedExactly(failed) => failed.first().map(|(_, failure)| (failure, true)),
    }
}

fn burial(head: &Segment, doom: &Doom) -> Burial {
    Burial {
        batch: head.batch.clone(),
        doom: doom.clone(),
        attempts: head.attempts.clone(),
        invocations: head.invocations,
        partial: head.partial,
    }
}
