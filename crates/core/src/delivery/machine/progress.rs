//! What of a delivery is stored: how far the shard is settled, and what is known beyond that.

use super::super::lane::Lane;
use super::super::ledger::{Place, settled};
use super::super::{CrashRecord, FailedBatch, Finished, FinishedRecords, LaneMarks, OrdinalSet, ResumeState};
use super::Delivery;
use crate::{ExtendedSequenceNumber, UserRecord};

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

impl Delivery {
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
        if self.ledger.waiting == self.ledger.arrived() - base {
            return;
        }
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

    /// The ordinal that no lane may begin at or behind, because what is settled beyond the watermark could not be told in the
    /// bytes that may ride with a checkpoint: a lane that is held up holds up the others when they are that far ahead.
    pub(super) fn limit(&self) -> Option<u64> {
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
}
