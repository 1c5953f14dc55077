//! The roster: what a worker that hands leases over knows of the others.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use shardwell_core::leasing::plan::Fleet;
use shardwell_core::{Lease, LeaseKey, Monotonic, StoreError, WorkerId, WorkerMetrics};
use tokio::sync::Mutex;

use crate::worker::Shared;

/// Answers about the fleet, each good for a while, so that many leases that are handed over at once cost few reads.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    workers: Cached<Vec<WorkerMetrics>>,
    successors: Cached<BTreeMap<LeaseKey, WorkerId>>,
}

#[derive(Debug)]
struct Cached<T>(Mutex<Option<(Monotonic, Arc<T>)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Send + Sync> Cached<T> {
    /// An answer that was asked for at `not_before` or later. Whoever comes while another one asks waits for that answer.
    async fn get<F>(
        &self,
        shared: &Shared,
        not_before: Monotonic,
        ask: impl FnOnce() -> F + Send,
    ) -> Result<Arc<T>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut cached = self.0.lock().await;
        if let Some((asked, answer)) = &*cached
            && *asked >= not_before
        {
            return Ok(answer.clone());
        }
        let asked = shared.env.now();
        let answer = Arc::new(ask().await?);
        *cached = Some((asked, answer.clone()));
        Ok(answer)
    }
}

impl Roster {
    /// Whether a worker was registered at `not_before` or later.
    pub(super) async fn is_registered(
        &self,
        shared: &Shared,
        worker: &WorkerId,
        not_before: Monotonic,
    ) -> Result<bool, StoreError> {
        let workers = self.workers(shared, not_before).await?;
        Ok(workers.iter().any(|metrics| metrics.worker == *worker))
    }

    /// Whether a worker was registered at `not_before` or later as one that consumes the stream of a lease.
    pub(super) async fn takes(
        &self,
        shared: &Shared,
        worker: &WorkerId,
        lease: &Lease,
        not_before: Monotonic,
    ) -> Result<bool, StoreError> {
        let workers = self.workers(shared, not_before).await?;
        let stream = lease.stream.as_deref();
        Ok(workers.iter().any(|metrics| metrics.worker == *worker && metrics.consumes(stream)))
    }

    async fn workers(&self, shared: &Shared, not_before: Monotonic) -> Result<Arc<Vec<WorkerMetrics>>, StoreError> {
        self.workers.get(shared, not_before, || shared.bounded(shared.store.worker_metrics())).await
    }

    /// Who is to have a lease of this worker when it stops; nobody, if nobody has room.
    pub(super) async fn successor(
        &self,
        shared: &Shared,
        lease: &LeaseKey,
        not_before: Monotonic,
    ) -> Result<Option<WorkerId>, StoreError> {
        let plan = async || {
            let settings = shared.bounded(shared.store.fleet_settings()).await?;
            let (listing, workers) = shared.bounded(shared.store.look()).await?;
            let draining = settings.map(|settings| settings.draining).unwrap_or_default();
            let fleet = Fleet { leases: &listing.leases, workers: &workers, draining: &draining };
            Ok(fleet.successors(&shared.worker, &shared.settings.plan, shared.env.timestamp()))
        };
        let successors = self.successors.get(shared, not_before, plan).await?;
        Ok(successors.get(lease).cloned())
    }
}
