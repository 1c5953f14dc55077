//! What the processors of both kinds of worker saw, in the order in which it is heard here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// Something that befell a worker's processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Began { worker: String, shard: String },
    Record { worker: String, key: String, number: u64 },
    Ended { worker: String, shard: String },
    Lost { worker: String, shard: String },
}

/// All that befell them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    pub(crate) fn push(&self, event: Event) {
        self.0.lock().expect("nobody panics while it holds this").push(event);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().expect("nobody panics while it holds this").clone()
    }

    /// How often each record was handled.
    pub(crate) fn times(&self) -> BTreeMap<u64, usize> {
        let mut times = BTreeMap::new();
        for event in self.events() {
            if let Event::Record { number, .. } = event {
                *times.entry(number).or_default() += 1;
            }
        }
        times
    }

    /// How many records each worker handled.
    pub(crate) fn by_worker(&self) -> BTreeMap<String, usize> {
        let mut by_worker = BTreeMap::new();
        for event in self.events() {
            if let Event::Record { worker, .. } = event {
                *by_worker.entry(worker).or_default() += 1;
            }
        }
        by_worker
    }

    /// How many records were handled again.
    pub(crate) fn repeated(&self) -> usize {
        self.times().values().map(|times| times - 1).sum()
    }

    /// Panics unless every record from 0 to `count` was handled, each for the first time after the earlier ones of its key.
    pub(crate) fn assert_complete_and_in_order(&self, count: u64) {
        let times = self.times();
        let lost: Vec<u64> = (0..count).filter(|number| !times.contains_key(number)).collect();
        assert!(lost.is_empty(), "{} of {count} records were never handled, first {:?}", lost.len(), lost.first());
        let (mut newest, mut seen) = (BTreeMap::new(), BTreeSet::new());
        for event in self.events() {
            if let Event::Record { worker, key, number } = event
                && seen.insert(number)
            {
                let earlier = newest.insert(key.clone(), number);
                assert!(earlier < Some(number), "{worker} handled {number} of key {key} after {earlier:?}");
            }
        }
    }
}
