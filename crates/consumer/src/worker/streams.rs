//! The streams that a worker is to consume, as its user names them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use shardwell_core::Stream;

use crate::watch::Watched;

/// The streams that a worker is to consume, by name. They may be added and removed while it runs. Cheap to clone; all clones are
/// one set, and more than one worker may have it.
///
/// Every process has its own set: a stream is added to each that is to work on it. Leases of a stream are given to those workers
/// alone that consume it, so a set may differ from process to process, for a while or for good.
///
/// A stream's name is what its [`Display`](fmt::Display) says; two streams of one name, in two accounts, cannot be in one set.
#[derive(Clone)]
pub struct Streams(Arc<Watched<BTreeMap<String, Arc<dyn Stream>>>>);

impl Streams {
    /// A set of these streams. Of two with the same name the first counts.
    pub fn new(streams: impl IntoIterator<Item = Arc<dyn Stream>>) -> Self {
        let mut named = BTreeMap::new();
        for stream in streams {
            named.entry(stream.to_string()).or_insert(stream);
        }
        Self(Arc::new(Watched::new(named)))
    }

    /// Adds a stream, unless one of its name is there; tells whether it did. Workers start on it at once: where its leases say
    /// that it was left, or at the initial position where it has none. One that cannot be reached is tried again and again, and
    /// shows in [`WorkerStatus::streams`](crate::WorkerStatus::streams).
    pub fn add(&self, stream: impl Stream) -> bool {
        self.add_shared(Arc::new(stream))
    }

    /// As [`add`](Self::add), with a stream that was chosen at run time.
    pub fn add_shared(&self, stream: Arc<dyn Stream>) -> bool {
        let mut added = false;
        self.0.change(|streams| {
            streams.entry(stream.to_string()).or_insert_with(|| {
                added = true;
                stream
            });
            added
        });
        added
    }

    /// Removes a stream; tells whether it was there. Running batches finish, for as long as the handoff deadline allows, what is
    /// done is checkpointed, and its leases are released. They stay in the table: whoever adds the stream again goes on there.
    pub fn remove(&self, name: &str) -> bool {
        let mut removed = false;
        self.0.change(|streams| {
            removed = streams.remove(name).is_some();
            removed
        });
        removed
    }

    /// The names of the streams, in order.
    pub fn names(&self) -> Vec<String> {
        self.0.look().keys().cloned().collect()
    }

    pub(crate) fn watched(&self) -> &Watched<BTreeMap<String, Arc<dyn Stream>>> {
        &self.0
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
