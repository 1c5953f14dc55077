//! User records on their way to a processor.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ledger::Place;
use super::{BatchSettings, Doom};
use crate::{Monotonic, UserRecord};

/// User records on their way to a processor, cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    pub(super) id: u64,
    pub(super) records: Arc<Vec<UserRecord>>,
}

impl Batch {
    /// A batch of a single record that belongs to no delivery.
    pub fn of_one(record: UserRecord) -> Self {
        Self { id: 0, records: Arc::new(vec![record]) }
    }

    /// What the batch is called: the same for every attempt at it, another one for its parts when it is split. Unique
    /// within the delivery of a shard.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The records, in order, at least one.
    pub fn records(&self) -> &[UserRecord] {
        &self.records
    }
}

/// A record in its lane, with its place in the shard.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) place: Place,
    pub(super) record: UserRecord,
    /// Why it is dead before it was ever tried.
    pub(super) doom: Option<Box<Doom>>,
}

/// The records of a lane that wait for their batch.
#[derive(Debug, Default)]
pub(super) struct Collecting {
    queue: VecDeque<Queued>,
    bytes: usize,
    /// When something was there to send and the lane was idle.
    since: Option<Monotonic>,
}

/// What a batch is made of.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) places: Vec<Place>,
    pub(super) records: Vec<UserRecord>,
    pub(super) doom: Option<Box<Doom>>,
}

impl Collecting {
    pub(super) fn push(&mut self, queued: Queued) {
        self.bytes += queued.record.data.len();
        self.queue.push_back(queued);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The oldest record.
    pub(super) fn first(&self) -> Option<(&Place, &UserRecord)> {
        self.queue.front().map(|first| (&first.place, &first.record))
    }

    /// The place of the newest record.
    pub(super) fn newest(&self) -> Option<&Place> {
        self.queue.back().map(|queued| &queued.place)
    }

    /// The place of the oldest record.
    pub(super) fn first_place_mut(&mut self) -> Option<&mut Place> {
        self.queue.front_mut().map(|queued| &mut queued.place)
    }

    /// The places of all records, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.queue.iter().map(|queued| &queued.place)
    }

    /// Starts the window if there is something to send; to be called whenever the lane is idle.
    pub(super) fn idle(&mut self, now: Monotonic) {
        if !self.queue.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// When the next batch is due if nothing more comes.
    pub(super) fn due(&self, settings: &BatchSettings, flush: bool) -> Option<Monotonic> {
        let since = self.since?;
        let full = self.queue.len() >= settings.records || self.bytes >= settings.bytes;
        let doomed = self.queue.front().is_some_and(|first| first.doom.is_some());
        Some(if flush || full || doomed { since } else { since.plus(settings.window) })
    }

    /// The next batch. `boundary` is where a batch must end before, if there is such a place.
    pub(super) fn take(&mut self, settings: &BatchSettings, boundary: Option<u64>) -> Option<Collected> {
        let first = self.queue.front()?;
        let count = if first.doom.is_some() { 1 } else { self.fitting(settings, boundary) };
        let mut collected =
            Collected { places: Vec::with_capacity(count), records: Vec::with_capacity(count), doom: None };
        for queued in self.queue.drain(..count) {
            self.bytes -= queued.record.data.len();
            collected.places.push(queued.place);
            collected.records.push(queued.record);
            collected.doom = queued.doom;
        }
        self.since = None;
        Some(collected)
    }

    fn fitting(&self, settings: &BatchSettings, boundary: Option<u64>) -> usize {
        let mut bytes = 0;
        let fits = |(index, queued): &(usize, &Queued)| {
            bytes += queued.record.data.len();
            let beyond = boundary.is_some_and(|boundary| queued.place.ordinal >= boundary);
            *index == 0 || (bytes <= settings.bytes && queued.doom.is_none() && !beyond)
        };
        self.queue.iter().take(settings.records.max(1)).enumerate().take_while(fits).count()
    }
}
