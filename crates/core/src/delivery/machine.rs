//! What happens next to a shard's records.

use std::collections::BTreeMap;

use super::events::{Burial, BurialOutcome, Command, Doom, Event, Intake, Now, Settled};
use super::lane::{Formation, Lane, lane_of};
use super::ledger::{Ledger, Place, settled};
use super::restored::Restored;
use super::segment::Segment;
use super::verdict::{Decision, Then, decide};
use super::{
    BatchSettings, CrashRecord, DeliveryPolicy, FailedBatch, Failure, Finished, FinishedRecords, LaneMarks,
    OnSinkFailure, OrdinalSet, ResumeState, Suspect, Verdict,
};
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

    /// The ordinal that no lane may begin at or behind, because what is settled beyond the watermark could not be told in the
    /// bytes that may ride with a checkpoint: a lane that is held up holds up the others when they are that far ahead.
    fn limit(&self) -> Option<u64> {
        if self.lanes.len() == 1 {
            return None;
        }
        let budget = self.finished_budget();
        let most_ahead = if self.lanes.len() * MARK_BYTES <= budget { MOST_AHEAD } else { 6 * budget as u64 };
        // As long as nothing is too far ahead, nothing needs to be looked for.
        (self.ledger.arrived() > most_ahead).then(|| self.base().saturating_add(most_ahead))
    }

    fn finished_budget(&self) -> usize {
        self.policy.max_state_bytes - RESERVED_STATE_BYTES
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

    /// The position up to which everything is settled; `None` while that is where the delivery began, and while what was
    /// restored is not confirmed yet.
    pub fn watermark(&self) -> Option<ExtendedSequenceNumber> {
        self.settled_up_to().filter(|_| self.restored.is_confirmed())
    }

    /// What is to be stored with the watermark as the checkpoint. Without times.
    pub fn resume(&self) -> ResumeState {
        let max_bytes = self.policy.max_state_bytes - TIMES_BYTES;
        if let Some(unconfirmed) = self.restored.unconfirmed() {
            let crashes = self.told_of_crashes();
            return ResumeState { crashes, ..unconfirmed.clone().without_time() }.cut_to(max_bytes);
        }
        let mut crashes = if self.has_begun { self.crashes.clone() } else { self.told.clone() };
        if self.settled_up_to().is_some() {
            // Another checkpoint: nothing began at it yet.
            crashes.starts = 0;
        }
        let Some((place, first)) = self.first() else { return ResumeState { crashes, ..ResumeState::default() } };
        let (base, first, failed) = (place.ordinal, Some(first.position.into()), self.failed_batches());
        let mut state = ResumeState { first, failed, crashes, ..ResumeState::default() }.cut_to(max_bytes);
        self.add_finished(&mut state, base, max_bytes);
        if state.finished.is_none() && state.failed.is_empty() {
            state.first = None;
        }
        state
    }

    fn told_of_crashes(&self) -> CrashRecord {
        match self.has_begun {
            true => CrashRecord { running: self.crashes.running.clone(), ..self.told.clone() },
            false => self.told.clone(),
        }
    }

    /// Adds what is settled beyond the first record that waits, in the way that says most in the room there is.
    fn add_finished(&self, state: &mut ResumeState, base: u64, max_bytes: usize) {
        let mut budget = self.finished_budget();
        let waiting = self.lanes.iter().flat_map(Lane::places).map(|place| place.ordinal);
        let (runs, highest) = settled(base, self.ledger.arrived(), waiting, 8 * budget);
        let Some(highest) = highest else { return };
        let (ordinals, told) = OrdinalSet::encode(&runs, budget);
        if told == runs.len() && runs.last().is_some_and(|run| run.end == highest + 1) {
            state.finished = self.finished_with(base, highest, FinishedRecords::Ordinals(ordinals));
            if state.bytes() <= max_bytes {
                return;
            }
        }
        state.finished = self.finished_with(base, highest, FinishedRecords::Lanes(self.lane_marks(base)));
        while state.bytes() > max_bytes && state.finished.is_some() {
            let (ordinals, told) = OrdinalSet::encode(&runs, budget);
            let last = told.checked_sub(1).map(|last| runs[last].end - 1);
            let records = FinishedRecords::Ordinals(ordinals);
            state.finished = last.and_then(|last| self.finished_with(base, last, records));
            budget = budget.saturating_sub(state.bytes().saturating_sub(max_bytes));
        }
    }

    /// What is settled, of which the last one lies at `last` as seen from `base`.
    fn finished_with(&self, base: u64, last: u64, records: FinishedRecords) -> Option<Finished> {
        let next = base + last + 1;
        let position = if next == self.ledger.arrived() {
            self.ledger.newest()?
        } else {
            // The record behind it waits, and knows what was before it.
            **self.lanes.iter().flat_map(Lane::places).find(|place| place.ordinal == next)?.before.as_ref()?
        };
        Some(Finished { records, last: (last, position.into()) })
    }

    fn lane_marks(&self, base: u64) -> LaneMarks {
        let mark = |lane: &Lane| lane.first().map_or(self.ledger.arrived(), |(place, _)| place.ordinal) - base;
        LaneMarks { turn: base % self.lanes.len() as u64, marks: self.lanes.iter().map(mark).collect() }
    }

    /// The first record that is not settled.
    fn first(&self) -> Option<(&Place, &UserRecord)> {
        self.lanes.iter().filter_map(Lane::first).min_by_key(|(place, _)| place.ordinal)
    }

    /// The ordinal of the first record that is not settled, or of the next to arrive.
    fn base(&self) -> u64 {
        self.first().map_or(self.ledger.arrived(), |(place, _)| place.ordinal)
    }

    /// The position below which everything is settled.
    fn settled_up_to(&self) -> Option<ExtendedSequenceNumber> {
        match self.first() {
            Some((place, _)) => place.before.as_deref().copied(),
            None => self.ledger.newest(),
        }
    }

    /// Those of this term, and those of earlier ones that were not formed again yet.
    fn failed_batches(&self) -> Vec<FailedBatch> {
        let base = self.base();
        let heads = self.lanes.iter().filter_map(|lane| lane.segments.front());
        let failed = heads.filter(|head| head.failures > 0 && head.doom.is_none()).filter_map(|head| {
            let first = head.first()?.0.ordinal - base;
            Some(FailedBatch { first, records: head.len() as u32, failures: head.failures })
        });
        failed.chain(self.restored.not_formed(base)).take(MAX_FAILED_BATCHES_STORED).collect()
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

/// What is left of the state for everything but the finished set: three positions (the first record, the last finished one,
/// the one that runs alone) and a death of up to 43 bytes each, the times, and counters.
const RESERVED_STATE_BYTES: usize = 224;
/// What the times take that are added by whoever stores the state.
const TIMES_BYTES: usize = 20;
/// What the mark of a lane takes at most, as far ahead as a lane may be.
const MARK_BYTES: usize = 4;
/// How far ahead of a lane that is held up another may be, in records.
const MOST_AHEAD: u64 = 1 << 22;
/// How many failed batches are stored: with more, the outage is the news and not how often each has failed.
const MAX_FAILED_BATCHES_STORED: usize = 8;

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
