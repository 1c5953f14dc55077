//! The streams that a worker consumes, or would if it could.
//!
//! Where there are several, a stream first waits until it is recognized: it can be reached, and it is known which stream of its
//! name it is. One that is found to be deleted waits again; if it comes back, it is another stream of that name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use shardwell_core::{Lease, Monotonic, Stream, StreamDescription, StreamIdentifier, StreamIdentity};

use super::Streams;
use crate::watch::{Watched, Watcher};

/// A stream that is consumed.
#[derive(Debug)]
pub(crate) struct ConsumedStream {
    /// The stream as the pipeline reads it.
    pub(crate) reading: Arc<dyn Stream>,
    /// The stream as the coordination uses it, with connections of its own.
    pub(crate) control: Arc<dyn Stream>,
    /// Which of all streams that ever had this name it is, once that is known.
    identity: OnceLock<StreamIdentity>,
    /// What its leases name it by; never known where there is one stream only.
    identifier: OnceLock<String>,
    /// What the stream keeps, in milliseconds.
    retention_ms: AtomicU64,
    /// Whether the stream spreads records by itself.
    automatic_distribution: AtomicBool,
}

impl ConsumedStream {
    fn new(stream: Arc<dyn Stream>) -> Self {
        Self {
            control: stream.dedicated(),
            reading: stream,
            identity: OnceLock::new(),
            identifier: OnceLock::new(),
            retention_ms: AtomicU64::new(u64::MAX),
            automatic_distribution: AtomicBool::new(false),
        }
    }

    /// The name of the stream.
    pub(crate) fn name(&self) -> String {
        self.reading.to_string()
    }

    /// What its leases name it by; `None` where there is one stream only.
    pub(crate) fn identifier(&self) -> Option<&str> {
        self.identifier.get().map(String::as_str)
    }

    /// Remembers which stream it is. The first time counts.
    pub(crate) fn recognize_as(&self, identity: &StreamIdentity) {
        self.identity.get_or_init(|| identity.clone());
    }

    /// Whether a stream of that name is this one, as far as is known.
    pub(crate) fn may_be(&self, identity: &StreamIdentity) -> bool {
        self.identity.get().is_none_or(|ours| ours == identity)
    }

    /// Remembers what the stream promises.
    pub(crate) fn set_promises(&self, stream: &StreamDescription) {
        let retention = u64::try_from(stream.retention.as_millis()).unwrap_or(u64::MAX);
        self.retention_ms.store(retention, Ordering::Relaxed);
        self.automatic_distribution.store(stream.automatic_distribution, Ordering::Relaxed);
    }

    /// Whether hash keys say nothing about shards.
    pub(crate) fn automatic_distribution(&self) -> bool {
        self.automatic_distribution.load(Ordering::Relaxed)
    }

    /// How long the stream keeps records.
    pub(crate) fn retention(&self) -> Duration {
        Duration::from_millis(self.retention_ms.load(Ordering::Relaxed))
    }
}

/// Every stream of a worker, by name.
#[derive(Debug)]
pub(crate) struct ConsumedStreams {
    /// What the user wants; `None` where there is one stream only.
    wanted: Option<Streams>,
    entries: Watched<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    /// As the user gave it.
    given: Arc<dyn Stream>,
    stream: Arc<ConsumedStream>,
    /// Why it is not consumed yet, or not any more.
    waiting: Option<Waiting>,
}

#[derive(Clone, Debug, Default)]
struct Waiting {
    failures: u32,
    next_try: Monotonic,
    /// It is being tried just now.
    is_tried: bool,
    last_error: Option<String>,
}

/// A stream of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumedStreamStatus {
    /// The name of the stream.
    pub name: String,
    /// Whether it is consumed: this worker may be given its leases.
    pub consumed: bool,
    /// Why it is not consumed: it cannot be reached, or was deleted. It is tried again until it is removed.
    pub last_error: Option<String>,
}

impl Entry {
    fn new(given: Arc<dyn Stream>, waiting: Option<Waiting>) -> Self {
        Self { stream: Arc::new(ConsumedStream::new(given.clone())), given, waiting }
    }
}

impl ConsumedStreams {
    /// One stream, whose leases do not name it.
    pub(crate) fn single(stream: Arc<dyn Stream>) -> Self {
        let entries = BTreeMap::from([(stream.to_string(), Entry::new(stream, None))]);
        Self { wanted: None, entries: Watched::new(entries) }
    }

    /// Streams that come and go.
    pub(crate) fn several(wanted: Streams) -> Self {
        Self { wanted: Some(wanted), entries: Watched::new(BTreeMap::new()) }
    }

    pub(crate) fn are_several(&self) -> bool {
        self.wanted.is_some()
    }

    /// Sees when the user adds or removes streams; `None` where there is one stream only.
    pub(crate) fn watch_wanted(&self) -> Option<Watcher<BTreeMap<String, Arc<dyn Stream>>>> {
        self.wanted.as_ref().map(|wanted| wanted.watched().watch())
    }

    /// Sees when a stream begins or ceases to be consumed.
    pub(crate) fn watch(&self) -> Watcher<BTreeMap<String, Entry>> {
        self.entries.watch()
    }

    /// Drops what the user does not want any more, and lets wait what is new.
    pub(crate) fn follow_wanted(&self) {
        let Some(wanted) = &self.wanted else { return };
        let wanted = wanted.watched().look().clone();
        self.entries.change(|entries| {
            let mut dropped = false;
            entries.retain(|name, entry| {
                let stays = wanted.get(name).is_some_and(|given| Arc::ptr_eq(given, &entry.given));
                dropped |= !stays && entry.waiting.is_none();
                stays
            });
            for (name, given) in wanted {
                entries.entry(name).or_insert_with(|| Entry::new(given, Some(Waiting::default())));
            }
            dropped
        });
    }

    /// The streams that are consumed, by name.
    pub(crate) fn consumed(&self) -> Vec<Arc<ConsumedStream>> {
        let entries = self.entries.look();
        entries.values().filter(|entry| entry.waiting.is_none()).map(|entry| entry.stream.clone()).collect()
    }

    /// The streams, up to a number, that wait and whose turn it is to be tried, each with how often that failed. None of them is
    /// told again before its try has ended, as it must.
    pub(crate) fn begin_tries(&self, now: Monotonic, limit: usize) -> Vec<(Arc<ConsumedStream>, u32)> {
        let mut begun = Vec::new();
        self.entries.change(|entries| {
            for entry in entries.values_mut() {
                let due = entry.waiting.as_mut().filter(|waiting| !waiting.is_tried && waiting.next_try <= now);
                if let Some(waiting) = due.filter(|_| begun.len() < limit) {
                    waiting.is_tried = true;
                    begun.push((entry.stream.clone(), waiting.failures));
                }
            }
            false
        });
        begun
    }

    /// When a stream is to be tried next.
    pub(crate) fn next_try(&self) -> Option<Monotonic> {
        let entries = self.entries.look();
        let waiting = entries.values().filter_map(|entry| entry.waiting.as_ref()).filter(|waiting| !waiting.is_tried);
        waiting.map(|waiting| waiting.next_try).min()
    }

    /// A stream that waited is consumed from now on.
    pub(crate) fn recognized(&self, stream: &Arc<ConsumedStream>, identifier: &StreamIdentifier) {
        stream.identifier.get_or_init(|| identifier.to_string());
        self.change(stream, |entry| entry.waiting.take().is_some());
    }

    /// A stream that waits could not be recognized.
    pub(crate) fn failed(&self, stream: &Arc<ConsumedStream>, error: String, next_try: Monotonic) {
        self.change(stream, |entry| {
            if let Some(waiting) = &mut entry.waiting {
                waiting.failures = waiting.failures.saturating_add(1);
                (waiting.next_try, waiting.is_tried, waiting.last_error) = (next_try, false, Some(error));
            }
            false
        });
    }

    /// A stream that was consumed is gone, and waits for another one of its name. Tells whether that is news.
    pub(crate) fn lost(&self, stream: &Arc<ConsumedStream>, error: String) -> bool {
        self.change(stream, |entry| {
            let waiting = Waiting { last_error: Some(error), ..Waiting::default() };
            *entry = Entry::new(entry.given.clone(), Some(waiting));
            true
        })
    }

    /// Changes the entry of a stream, if it has one still.
    fn change(&self, stream: &Arc<ConsumedStream>, change: impl FnOnce(&mut Entry) -> bool) -> bool {
        let mut changed = false;
        self.entries.change(|entries| {
            let entry = entries.get_mut(&stream.name()).filter(|entry| Arc::ptr_eq(&entry.stream, stream));
            changed = entry.is_some_and(change);
            changed
        });
        changed
    }

    /// Whether a stream is still consumed.
    pub(crate) fn has(&self, stream: &Arc<ConsumedStream>) -> bool {
        let entries = self.entries.look();
        entries.values().any(|entry| entry.waiting.is_none() && Arc::ptr_eq(&entry.stream, stream))
    }

    /// The stream of a lease, if it is consumed.
    pub(crate) fn of(&self, lease: &Lease) -> Option<Arc<ConsumedStream>> {
        let named = lease.stream.as_deref();
        self.consumed().into_iter().find(|stream| stream.identifier() == named)
    }

    /// What the worker's item says about its streams.
    pub(crate) fn registered(&self) -> Option<BTreeSet<String>> {
        self.wanted.as_ref()?;
        Some(self.consumed().iter().filter_map(|stream| stream.identifier()).map(ToOwned::to_owned).collect())
    }

    /// The name of the stream of a lease, whoever consumes it.
    pub(crate) fn name_of(&self, lease: &Lease) -> String {
        match lease.stream_name() {
            Some(name) => name.to_owned(),
            None => self.entries.look().keys().next().cloned().unwrap_or_default(),
        }
    }

    pub(crate) fn status(&self) -> Vec<ConsumedStreamStatus> {
        let status = |(name, entry): (&String, &Entry)| ConsumedStreamStatus {
            name: name.clone(),
            consumed: entry.waiting.is_none(),
            last_error: entry.waiting.as_ref().and_then(|waiting| waiting.last_error.clone()),
        };
        self.entries.look().iter().map(status).collect()
    }
}
