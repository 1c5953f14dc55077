//! The way of user records to one shard: aggregated, queued, paced.

use std::collections::VecDeque;

use shardwell_core::aggregation::{
    AddError, Aggregator, Deaggregated, HashKeyRange, Limits, Outer as Keys, deaggregate,
};
use shardwell_core::{Monotonic, PutEntry, ShardId};

use super::outer::{Member, OuterRecord};
use super::pace::Pace;
use crate::settings::Settings;

/// What goes to one shard; or to the stream as a whole, where it is not known what goes where.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) shard: Option<ShardId>,
    pub(crate) range: HashKeyRange,
    /// How many records of unknown fate its records must wait for: see `order.rs`.
    pub(super) blockers: usize,
    /// None where nothing is aggregated.
    aggregation: Option<Aggregation>,
    /// To be sent, in this order.
    queue: VecDeque<OuterRecord>,
    /// What failed and waits for its next attempt, while others go on; empty where the order is kept.
    backing_off: Vec<OuterRecord>,
    pace: Option<Pace>,
    max_record: Limits,
}

/// What is being aggregated.
struct Aggregation {
    aggregator: Aggregator,
    members: Vec<Member>,
    /// When the first of them is to be sent.
    due: Monotonic,
}

impl std::fmt::Debug for Aggregation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aggregation").field("members", &self.members.len()).field("due", &self.due).finish()
    }
}

impl Lane {
    /// The lane of a shard.
    pub(crate) fn of_shard(shard: ShardId, range: HashKeyRange, settings: &Settings, now: Monotonic) -> Self {
        let aggregation = settings
            .aggregates
            .then(|| settings.aggregate_limits().ok())
            .flatten()
            .map(|limits| Aggregation::new(limits, now));
        let pace = settings.shard_rate.map(|rate| Pace::new(rate, now));
        Self { shard: Some(shard), range, aggregation, pace, ..Self::of_stream(settings) }
    }

    /// The one lane where it is not known which shard a record goes to: nothing is aggregated, nothing paced.
    pub(crate) fn of_stream(settings: &Settings) -> Self {
        Self {
            shard: None,
            range: HashKeyRange::FULL,
            blockers: 0,
            aggregation: None,
            queue: VecDeque::new(),
            backing_off: Vec::new(),
            pace: None,
            max_record: Limits::new(settings.max_record_bytes).unwrap_or_default(),
        }
    }

    /// A user record joins; it is to be sent at `due`. If there is no room beside it, what was there has nothing to wait for, and is to
    /// be sent at `soon`. Gives how many records are queued for that.
    pub(crate) fn add(&mut self, entry: PutEntry, member: Member, due: Monotonic, soon: Monotonic) -> usize {
        let before = self.queue.len();
        let Some(aggregation) = &mut self.aggregation else {
            self.queue.push_back(OuterRecord::plain(entry, member, due));
            return 1;
        };
        if is_taken_for_aggregated(&entry) {
            self.push(OuterRecord::wrapped(entry, member, self.max_record, due));
            return self.queue.len() - before;
        }
        match aggregation.try_add(&entry) {
            Ok(()) => aggregation.push(member, due),
            Err(AddError::NoRoom) => {
                let soon = aggregation.due.min(soon);
                self.finish(soon);
                self.add(entry, member, due, soon);
            }
            // Too large to be aggregated; everything else was checked before.
            Err(_) => self.push(OuterRecord::plain(entry, member, due)),
        }
        self.queue.len() - before
    }

    /// A record joins as it is.
    pub(crate) fn push(&mut self, record: OuterRecord) {
        self.finish(record.unit.due);
        self.queue.push_back(record);
    }

    /// Queues what is being aggregated, to be sent at `due`.
    fn finish(&mut self, due: Monotonic) {
        let Some(Aggregation { aggregator, members, .. }) = &mut self.aggregation else { return };
        self.queue.extend(OuterRecord::finish(aggregator, std::mem::take(members), due));
    }

    /// Queues what is being aggregated if it is to be sent by `by`, and what failed and may be tried again.
    pub(crate) fn advance(&mut self, now: Monotonic, by: Monotonic) {
        if let Some(due) = self.aggregation_due().filter(|due| *due <= by) {
            self.finish(due);
        }
        let (ready, backing_off) =
            std::mem::take(&mut self.backing_off).into_iter().partition(|record| record.unit.not_before <= now);
        self.backing_off = backing_off;
        let ready: Vec<OuterRecord> = ready;
        self.put_back(ready);
    }

    /// Everything is to be sent as soon as possible.
    pub(crate) fn flush(&mut self, now: Monotonic) {
        self.finish(now);
        self.queue.iter_mut().for_each(|record| record.unit.due = record.unit.due.min(now));
    }

    /// When something is to be sent, as far as it may be.
    pub(crate) fn due(&self) -> Option<Monotonic> {
        let front = self.queue.front().map(|record| record.unit.due);
        [self.aggregation_due(), front].into_iter().flatten().min()
    }

    /// When what is being aggregated is to be sent.
    fn aggregation_due(&self) -> Option<Monotonic> {
        self.aggregation
            .as_ref()
            .filter(|aggregation| !aggregation.members.is_empty())
            .map(|aggregation| aggregation.due)
    }

    /// Whether its records must wait for the fate of another one.
    pub(crate) const fn is_blocked(&self) -> bool {
        self.blockers > 0
    }

    /// The next record to send, if one may be sent now.
    pub(crate) fn sendable(&mut self, now: Monotonic) -> Option<&OuterRecord> {
        let may_go = |pace: &mut Pace| pace.next(now) <= now;
        let is_paced = self.queue.front().is_some() && !self.pace.as_mut().is_none_or(may_go);
        self.queue.front().filter(|record| record.unit.not_before <= now && !is_paced && self.blockers == 0)
    }

    /// Takes the next record to send.
    pub(crate) fn take(&mut self) -> Option<OuterRecord> {
        let record = self.queue.pop_front()?;
        if let Some(pace) = &mut self.pace {
            pace.take(record.bytes());
        }
        Some(record)
    }

    /// When something is to be done next, other than what a request under way decides.
    pub(crate) fn next(&mut self, now: Monotonic, may_send: bool) -> Option<Monotonic> {
        let pace = self.pace.as_mut().map_or(now, |pace| pace.next(now));
        let front =
            self.queue.front().filter(|_| may_send).map(|record| record.unit.due.max(record.unit.not_before).max(pace));
        let retry = self.backing_off.iter().map(|record| record.unit.not_before).min();
        [self.aggregation_due(), front, retry].into_iter().flatten().min()
    }

    /// A record comes back, to be tried again.
    pub(crate) fn retry(&mut self, record: OuterRecord, keeps_order: bool) {
        if keeps_order { self.queue.push_front(record) } else { self.backing_off.push(record) }
    }

    /// User records come back, before all that is queued.
    pub(crate) fn put_back(&mut self, records: Vec<OuterRecord>) {
        records.into_iter().rev().for_each(|record| self.queue.push_front(record));
    }

    /// A lane like this one, with nothing in it.
    pub(crate) fn like(&self) -> Self {
        let alike = |aggregation: &Aggregation| Aggregation::new(aggregation.aggregator.limits(), aggregation.due);
        let aggregation = self.aggregation.as_ref().map(alike);
        let (queue, backing_off) = (VecDeque::new(), Vec::new());
        Self {
            shard: self.shard.clone(),
            range: self.range,
            blockers: 0,
            aggregation,
            queue,
            backing_off,
            pace: None,
            max_record: self.max_record,
        }
    }

    /// All that is in it, in order; it is empty afterwards.
    pub(crate) fn drain(&mut self, due: Monotonic) -> Vec<OuterRecord> {
        let due = self.aggregation_due().unwrap_or(due);
        self.finish(due);
        self.backing_off.drain(..).chain(self.queue.drain(..)).collect()
    }

    /// Removes what came before `oldest` and was not sent yet.
    pub(crate) fn expire(&mut self, oldest: Monotonic) -> Vec<OuterRecord> {
        let is_over = |record: &OuterRecord| record.unit.arrived().is_some_and(|arrived| arrived <= oldest);
        let mut over: Vec<OuterRecord> = Vec::new();
        if self.backing_off.iter().any(is_over) {
            let (expired, left) = std::mem::take(&mut self.backing_off).into_iter().partition(is_over);
            (over, self.backing_off) = (expired, left);
        }
        // They are about in the order in which they came.
        while self.queue.front().is_some_and(is_over) {
            over.extend(self.queue.pop_front());
        }
        over
    }

    /// When the first one that is queued came.
    pub(crate) fn oldest(&self) -> Option<Monotonic> {
        self.backing_off.iter().chain(self.queue.front()).filter_map(|record| record.unit.arrived()).min()
    }

    pub(crate) fn pace_mut(&mut self) -> Option<&mut Pace> {
        self.pace.as_mut()
    }

    /// How many records for Kinesis are in it, and the share of the shard's limits that is used.
    pub(crate) fn load(&self) -> (usize, f64) {
        let aggregating = usize::from(self.aggregation_due().is_some());
        let share = self.pace.as_ref().map_or(1.0, Pace::share);
        (self.queue.len() + self.backing_off.len() + aggregating, share)
    }

    /// How many records are queued.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How many bytes are queued; not counted beyond `enough`.
    pub(crate) fn queued_bytes(&self, enough: usize) -> usize {
        let mut bytes = 0;
        for record in &self.queue {
            bytes += record.bytes();
            if bytes >= enough {
                break;
            }
        }
        bytes
    }

    pub(crate) const fn aggregates(&self) -> bool {
        self.aggregation.is_some()
    }
}

impl Aggregation {
    fn new(limits: Limits, due: Monotonic) -> Self {
        Self { aggregator: Aggregator::new(limits), members: Vec::new(), due }
    }

    fn try_add(&mut self, entry: &PutEntry) -> Result<(), AddError> {
        self.aggregator.try_add(entry.partition_key.as_str(), entry.explicit_hash_key, &entry.data)
    }

    fn push(&mut self, member: Member, due: Monotonic) {
        self.due = if self.members.is_empty() { due } else { self.due.min(due) };
        self.members.push(member);
    }
}

/// Whether its reader would take it for an aggregated record.
fn is_taken_for_aggregated(entry: &PutEntry) -> bool {
    !matches!(deaggregate(entry.data.clone(), Keys::default()), Deaggregated::NotAggregated { .. })
}
