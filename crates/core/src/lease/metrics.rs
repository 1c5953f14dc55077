//! What a worker tells its fleet about itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Timestamp, WorkerId};

/// A worker's item in the lease table (the KCL's `WorkerMetricStats`): its sign of life, and its load.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// The worker.
    pub worker: WorkerId,
    /// When it last wrote this, by its wall clock (`lut`). Stored in whole seconds.
    pub last_update: Timestamp,
    /// The newest averages of each metric, oldest first, by the KCL's short names such as `C` for CPU (`sts`); -1 where
    /// it could not be measured.
    pub samples: BTreeMap<String, Vec<f64>>,
    /// The highest sensible value of each metric, at index 0 (`opr`).
    pub operating_range: BTreeMap<String, Vec<f64>>,
    /// What the worker supports; 1 is the single-table layout (`sup`).
    pub support_code: u32,
    /// When it last wrote its support code (`slu`). Stored in whole seconds.
    pub support_heartbeat: Timestamp,
    /// Which process wrote this, and that it is alive: an attribute of our own. `None` for a Java worker.
    pub heartbeat: Option<Heartbeat>,
    /// The streams that the worker consumes, as leases name them: an attribute of our own. It is given leases of these alone.
    /// `None` for a worker of a single stream and for a Java worker: they may be given any lease.
    pub streams: Option<BTreeSet<String>>,
}

/// What tells one process's item from that of another one with the same id, and one write of it from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// A random number that a process draws once.
    pub incarnation: u64,
    /// Rises with every write. Whoever sees it change knows that the worker is alive, without asking any clock.
    pub beat: u64,
}

impl WorkerMetrics {
    /// A sign of life without any metric: the KCL balances such a worker by the throughput of its leases.
    pub fn new(worker: WorkerId, now: Timestamp) -> Self {
        let now = whole_seconds(now);
        Self {
            worker,
            last_update: now,
            samples: BTreeMap::new(),
            operating_range: BTreeMap::new(),
            support_code: 1,
            support_heartbeat: now,
            heartbeat: None,
            streams: None,
        }
    }

    /// Whether the worker may be given a lease of this stream, as the lease names it; `None` for the table's only stream.
    pub fn consumes(&self, stream: Option<&str>) -> bool {
        consume(self.streams.as_ref(), stream)
    }

    /// Whether this item may replace one that is there: only a process's own may. Another process has the id otherwise.
    pub fn may_replace(&self, stored: &Self) -> bool {
        let incarnation = |metrics: &Self| metrics.heartbeat.map(|heartbeat| heartbeat.incarnation);
        incarnation(self) == incarnation(stored)
    }

    /// The item as a store keeps it and gives it back: the times in whole seconds.
    #[must_use]
    pub fn as_stored(&self) -> Self {
        Self {
            last_update: whole_seconds(self.last_update),
            support_heartbeat: whole_seconds(self.support_heartbeat),
            ..self.clone()
        }
    }
}

/// Whether who consumes these streams, or any where there is no set, may be given a lease of this one.
pub(crate) fn consume(streams: Option<&BTreeSet<String>>, stream: Option<&str>) -> bool {
    streams.is_none_or(|streams| stream.is_some_and(|stream| streams.contains(stream)))
}

/// The KCL's resolution.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.as_millis().div_euclid(1000).saturating_mul(1000))
}
