//! What a worker tells its fleet about itself.

use std::collections::BTreeMap;

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
}

impl WorkerMetrics {
    /// A sign of life without any metric: the KCL balances such a worker by the throughput of its leases.
    pub fn new(worker: WorkerId, now: Timestamp) -> Self {
        // Stored in whole seconds, so that what is read back equals what was written.
        let now = Timestamp::from_millis(now.as_millis().div_euclid(1000) * 1000);
        Self {
            worker,
            last_update: now,
            samples: BTreeMap::new(),
            operating_range: BTreeMap::new(),
            support_code: 1,
            support_heartbeat: now,
        }
    }
}
