//! A lane: an ordered part of a shard, by partition key. Only its oldest segment is ever worked on.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

use super::batch::{Collecting, Queued};
use super::ledger::Place;
use super::segment::Segment;
use super::{BatchSettings, DeliveryPolicy, Doom, FailedBatch, Now};
use crate::dead_letter::DeadReason;
use crate::{ExtendedSequenceNumber, Monotonic, PartitionKey, UserRecord};

/// The lane of a record, of so many. Keys are spread by a hash that never changes, since what is stored about lanes is
/// read by later versions too; records without a key take lanes in turn, by their ordinals.
pub(super) fn lane_of(key: Option<&PartitionKey>, ordinal: u64, lanes: u64) -> usize {
    let number = match key {
        _ if lanes <= 1 => return 0,
        Some(key) => {
            let mut hasher = SipHasher13::new();
            key.as_str().hash(&mut hasher);
            hasher.finish()
        }
        None => ordinal,
    };
    (number % lanes) as usize
}

/// The records of a lane, from the oldest segment to what waits for its batch.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) segments: VecDeque<Segment>,
    pub(super) collecting: Collecting,
    /// Whether the oldest segment is with the processor or a sink.
    pub(super) busy: bool,
}

/// What may go into the next batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Formation<'a> {
    pub(super) settings: &'a BatchSettings,
    /// Whether nothing more will come, so that waiting is useless.
    pub(super) flush: bool,
    /// An ordinal that a batch must end before.
    pub(super) boundary: Option<u64>,
    pub(super) now: Monotonic,
}

impl Lane {
    /// Takes a record in that comes after one at `before`.
    pub(super) fn push(
        &mut self,
        ordinal: u64,
        before: Option<ExtendedSequenceNumber>,
        record: UserRecord,
        doom: Option<Doom>,
    ) {
        let is_next = self.newest().is_some_and(|newest| newest + 1 == ordinal);
        let place = Place { ordinal, before: before.filter(|_| !is_next).map(Box::new) };
        self.collecting.push(Queued { place, record, doom: doom.map(Box::new) });
    }

    /// The ordinal of the record that came last, if it waits.
    fn newest(&self) -> Option<u64> {
        let newest = self.collecting.newest().or_else(|| self.segments.back()?.places.last());
        newest.map(|place| place.ordinal)
    }

    /// A record is settled: the one behind it, if that waits here, has to know what was before it.
    pub(super) fn settled(&mut self, ordinal: u64, position: ExtendedSequenceNumber) {
        let next = ordinal + 1;
        let mut segments = self.segments.iter_mut().flat_map(|segment| segment.place_mut(next));
        if let Some(place) = segments.next().or_else(|| self.collecting.first_place_mut()).filter(|p| p.ordinal == next)
        {
            place.before.get_or_insert_with(|| Box::new(position));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.collecting.is_empty()
    }

    /// The oldest record that is not settled. The oldest of a segment is its first: records never change places.
    pub(super) fn first(&self) -> Option<(&Place, &UserRecord)> {
        let segments = self.segments.iter().filter_map(Segment::first);
        segments.min_by_key(|(place, _)| place.ordinal).or_else(|| self.collecting.first())
    }

    /// Whether its oldest record is below a limit.
    pub(super) fn is_below(&self, limit: Option<u64>) -> bool {
        limit.is_none_or(|limit| self.first().is_some_and(|(place, _)| place.ordinal < limit))
    }

    /// The places of all records that are not settled, in any order.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.segments.iter().flat_map(|segment| &segment.places).chain(self.collecting.places())
    }

    /// Makes a segment of what waits, if it is time. `failed` is what is known of a batch that begins at the same record
    /// and failed in an earlier term of the lease.
    pub(super) fn form(
        &mut self,
        formation: &Formation<'_>,
        failed: Option<&FailedBatch>,
        next_id: &mut impl FnMut() -> u64,
    ) {
        self.collecting.idle(formation.now);
        if self.collecting.due(formation.settings, formation.flush).is_none_or(|due| due > formation.now) {
            return;
        }
        let mut settings = *formation.settings;
        if let Some(failed) = failed {
            settings.records = settings.records.min(failed.records as usize);
        }
        if let Some(collected) = self.collecting.take(&settings, formation.boundary) {
            let mut segment = Segment::new(next_id(), collected.records, collected.places);
            segment.failures = failed.map_or(0, |failed| failed.failures);
            segment.doom = collected.doom.map(|doom| *doom);
            self.segments.push_back(segment);
        }
    }

    /// Sets those records of the oldest segment aside that must not be tried any more: T1, and those whose key is held
    /// back.
    pub(super) fn set_doomed_aside(
        &mut self,
        policy: &DeliveryPolicy,
        is_quarantined: impl Fn(&PartitionKey) -> bool,
        now: Now,
        next_id: &mut impl FnMut() -> u64,
    ) {
        let is_too_old =
            |record: &UserRecord| policy.max_record_age.is_some_and(|age| now.timestamp.since(record.arrival) >= age);
        let is_held_back = |record: &UserRecord| record.partition_key.as_ref().is_some_and(&is_quarantined);
        if policy.max_record_age.is_some() {
            let age = policy.max_record_age.unwrap_or_default();
            self.set_aside(is_too_old, Doom::new(DeadReason::RecordAgeExceeded, too_old(age)), next_id);
        }
        if policy.quarantine {
            let doom = Doom::new(DeadReason::Quarantined, "an earlier record of its partition key is dead");
            self.set_aside(is_held_back, doom, next_id);
        }
    }

    fn set_aside(&mut self, doomed: impl Fn(&UserRecord) -> bool, doom: Doom, next_id: &mut impl FnMut() -> u64) {
        let Some(head) = self.segments.front_mut() else { return };
        let Some(dead) = head.take_doomed(next_id, doomed, doom) else { return };
        if head.len() == 0 {
            self.segments.pop_front();
        }
        self.segments.push_front(dead);
    }

    /// When there is something to do if nothing else happens.
    pub(super) fn due(&self, settings: &BatchSettings, flush: bool) -> Option<Monotonic> {
        match self.segments.front() {
            _ if self.busy => None,
            Some(head) => Some(head.not_before),
            None => self.collecting.due(settings, flush),
        }
    }
}

fn too_old(age: std::time::Duration) -> String {
    format!("it was not processed within {age:?} of its arrival")
}
