//! Collecting user records into batches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::{Monotonic, UserRecord};

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// Records at most, at least 1.
    pub records: usize,
    /// Payload bytes at most; one record always fits.
    pub bytes: usize,
    /// How long to wait for more once something is there and the lane is idle.
    pub window: Duration,
}

/// User records on their way to a processor, cheap to clone.
#[derive(Clone, Debug)]
pub struct Batch {
    records: Arc<Vec<UserRecord>>,
}

impl Batch {
    /// The records, in order, at least one.
    pub fn records(&self) -> &[UserRecord] {
        &self.records
    }
}

/// The records of a lane that wait for their batch.
#[derive(Debug, Default)]
pub(super) struct Collecting {
    records: VecDeque<UserRecord>,
    bytes: usize,
    /// When something was there to send and the lane was idle.
    since: Option<Monotonic>,
}

impl Collecting {
    pub(super) fn push(&mut self, records: impl IntoIterator<Item = UserRecord>) {
        for record in records {
            self.bytes += record.data.len();
            self.records.push_back(record);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Starts the window if there is something to send; to be called whenever the lane is idle.
    pub(super) fn idle(&mut self, now: Monotonic) {
        if !self.records.is_empty() {
            self.since.get_or_insert(now);
        }
    }

    /// When the window ends by itself.
    pub(super) fn window_end(&self, settings: &BatchSettings) -> Option<Monotonic> {
        self.since.map(|since| since.plus(settings.window))
    }

    /// The next batch, if one is full, or its window is over, or `flush` asks for whatever is there.
    pub(super) fn take(&mut self, settings: &BatchSettings, flush: bool, now: Monotonic) -> Option<Batch> {
        let window_over = self.window_end(settings).is_some_and(|end| now >= end);
        let full = self.records.len() >= settings.records || self.bytes >= settings.bytes;
        if self.records.is_empty() || !(flush || window_over || full) {
            return None;
        }
        let mut bytes = 0;
        let mut count = 0;
        for record in self.records.iter().take(settings.records.max(1)) {
            bytes += record.data.len();
            if count > 0 && bytes > settings.bytes {
                break;
            }
            count += 1;
        }
        let records: Vec<UserRecord> = self.records.drain(..count).collect();
        self.bytes -= records.iter().map(|record| record.data.len()).sum::<usize>();
        self.since = None;
        Some(Batch { records: Arc::new(records) })
    }
}
