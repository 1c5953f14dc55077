//! Records of a lane that are tried, retried and given up together.

use std::ops::Range;
use std::sync::Arc;

use super::ledger::Place;
use super::verdict::{Piece, Then, Wait};
use super::{Batch, DeliveryPolicy, Doom, Failure, Now};
use crate::dead_letter::{Attempt, DeadReason, push_attempt};
use crate::{Monotonic, UserRecord};

/// Records of one lane, in order, with what happened to them as a batch.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) batch: Batch,
    pub(super) places: Vec<Place>,
    /// Retries spent.
    pub(super) failures: u32,
    /// Outages in a row.
    outages: u32,
    pub(super) invocations: u32,
    pub(super) attempts: Vec<Attempt>,
    /// Whether the newest failure named records.
    pub(super) partial: bool,
    pub(super) not_before: Monotonic,
    /// Set once the records are to be given up: why.
    pub(super) doom: Option<Doom>,
    /// How often no sink took the letters.
    sink_failures: u32,
}

impl Segment {
    pub(super) fn new(id: u64, records: Vec<UserRecord>, places: Vec<Place>) -> Self {
        Self {
            batch: Batch { id, records: Arc::new(records) },
            places,
            failures: 0,
            outages: 0,
            invocations: 0,
            attempts: Vec::new(),
            partial: false,
            not_before: Monotonic::ZERO,
            doom: None,
            sink_failures: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn first(&self) -> Option<(&Place, &UserRecord)> {
        self.places.first().zip(self.batch.records.first())
    }

    /// The place of the record with this ordinal.
    pub(super) fn place_mut(&mut self, ordinal: u64) -> Option<&mut Place> {
        let index = self.places.binary_search_by_key(&ordinal, |place| place.ordinal).ok()?;
        self.places.get_mut(index)
    }

    /// Notes that an attempt failed.
    pub(super) fn failed(&mut self, failure: &Failure, partial: bool, now: Now) {
        self.partial = partial;
        push_attempt(&mut self.attempts, Attempt { at: now.timestamp, error: failure.error.to_vec() });
    }

    /// Waits before the next attempt.
    pub(super) fn wait(&mut self, wait: Wait, policy: &DeliveryPolicy, now: Now, random: u64) {
        let delay = match wait {
            Wait::None => return,
            Wait::Backoff => {
                self.failures = self.failures.saturating_add(1);
                self.outages = 0;
                policy.backoff.with_max_retries(None).delay(self.failures, random)
            }
            Wait::Outage => {
                self.outages = self.outages.saturating_add(1);
                policy.outage_backoff.with_max_retries(None).delay(self.outages, random)
            }
        };
        self.not_before = now.monotonic.plus(delay.unwrap_or_default());
    }

    /// No sink took the letters.
    pub(super) fn not_buried(&mut self, policy: &DeliveryPolicy, now: Now, random: u64) {
        self.sink_failures = self.sink_failures.saturating_add(1);
        let delay = policy.backoff.with_max_retries(None).delay(self.sink_failures, random);
        self.not_before = now.monotonic.plus(delay.unwrap_or_default());
    }

    /// Is not given up after all, if that was a matter of failures.
    pub(super) fn reprieve(&mut self) {
        let reason = self.doom.as_ref().map(|doom| doom.reason);
        if matches!(reason, Some(DeadReason::RetryAttemptsExhausted | DeadReason::Permanent)) {
            self.doom = None;
            self.failures = 0;
        }
    }

    /// How often something was tried in vain, for the status.
    pub(super) fn troubles(&self) -> u32 {
        self.failures.max(self.outages).max(self.sink_failures)
    }

    /// A part as a segment of its own.
    pub(super) fn part(&self, id: u64, piece: Piece, policy: &DeliveryPolicy, now: Now, random: u64) -> Option<Self> {
        let Piece { range, then } = piece;
        let mut part = self.cut(id, range);
        match then {
            Then::Done => return None,
            // T4'' is "attempts 0, after a backoff": the wait counts no failure.
            Then::Deliver(Wait::Backoff) => {
                part.wait(Wait::Backoff, policy, now, random);
                part.failures = 0;
            }
            Then::Deliver(wait) => part.wait(wait, policy, now, random),
            Then::Bury(reason, failure) => {
                part.give_up(self, Doom { reason, error: failure.error });
            }
        }
        Some(part)
    }

    fn cut(&self, id: u64, range: Range<usize>) -> Self {
        Self::new(id, self.batch.records[range.clone()].to_vec(), self.places[range].to_vec())
    }

    /// Is to be given up, with the history of the segment that it comes from.
    fn give_up(&mut self, from: &Self, doom: Doom) {
        self.attempts.clone_from(&from.attempts);
        self.invocations = from.invocations;
        self.partial = from.partial;
        self.doom = Some(doom);
        if self.len() == from.len() {
            self.batch.id = from.batch.id;
        }
    }

    /// Takes the records out that are doomed for a reason, as a segment that is to be given up. The others stay, with
    /// their attempts.
    pub(super) fn take_doomed(
        &mut self,
        next_id: &mut impl FnMut() -> u64,
        doomed: impl Fn(&UserRecord) -> bool,
        doom: Doom,
    ) -> Option<Self> {
        if self.doom.is_some() || !self.batch.records.iter().any(&doomed) {
            return None;
        }
        let (mut dead, mut rest) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for (record, place) in self.batch.records.iter().zip(&self.places) {
            let part = if doomed(record) { &mut dead } else { &mut rest };
            part.0.push(record.clone());
            part.1.push(place.clone());
        }
        let mut dead = Self::new(next_id(), dead.0, dead.1);
        dead.give_up(self, doom);
        self.batch = Batch { id: next_id(), records: Arc::new(rest.0) };
        self.places = rest.1;
        Some(dead)
    }
}

impl Doom {
    pub(super) fn new(reason: DeadReason, error: impl Into<String>) -> Self {
        Self { reason, error: Arc::from([error.into()]) }
    }
}
