//! A lease table that notes who writes what, before it is written.

use std::fmt;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use shardwell_core::{
    Assignment, Conditional, Created, Env, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseKey,
    LeaseListing, LeaseMeta, LeaseStore, MetricsWrite, Renewal, Renewed, Reset, StoreError, StreamIdentity, WorkerId,
    WorkerMetrics, async_trait,
};

use crate::{Event, EventKind, EventLog};

/// A lease table, of one stream, around another one. Every renewal and every change of the owner is in the log before it
/// reaches the table, so whatever is found in the table was written by a process whose log tells of it; and since a token is
/// random, by only one.
#[derive(Clone, Debug)]
pub struct LoggedLeaseStore {
    inner: Arc<dyn LeaseStore>,
    env: Arc<dyn Env>,
    log: Arc<EventLog>,
}

impl LoggedLeaseStore {
    /// A table whose writes are noted in `log`.
    pub fn new(inner: impl LeaseStore, env: Arc<dyn Env>, log: Arc<EventLog>) -> Self {
        Self { inner: Arc::new(inner), env, log }
    }

    fn note(&self, lease: &LeaseKey, kind: EventKind) {
        // In a table of one stream a lease is called as its shard.
        let event = Event { at: self.env.timestamp(), shard: lease.as_str().into(), kind };
        if let Err(error) = self.log.write(&event) {
            tracing::error!(%error, "cannot write the log");
        }
    }
}

impl fmt::Display for LoggedLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, with a log", self.inner)
    }
}

#[async_trait]
impl LeaseStore for LoggedLeaseStore {
    fn dedicated(&self) -> Arc<dyn LeaseStore> {
        Arc::new(Self { inner: self.inner.dedicated(), ..self.clone() })
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.inner.prepare().await
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError> {
        self.inner.create_lease(lease).await
    }

    async fn leases(&self) -> Result<LeaseListing, StoreError> {
        self.inner.leases().await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        self.inner.lease(key).await
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        self.inner.leases_of(worker).await
    }

    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed> {
        for renewal in &renewals {
            let checkpoint = renewal.checkpoint.as_ref().map(|write| write.checkpoint);
            let (counter, token) = (renewal.counter, renewal.token);
            self.note(&renewal.key, EventKind::Renewing { counter, token, checkpoint });
        }
        self.inner.renew(worker, renewals)
    }

    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError> {
        let (counter, to) = (assignment.seen.counter, Some(assignment.to.clone()));
        self.note(&assignment.key, EventKind::Passing { counter, to });
        self.inner.assign(assignment).await
    }

    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
        self.inner.start_handoff(handoff).await
    }

    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError> {
        self.note(&eviction.key, EventKind::Passing { counter: eviction.seen.counter, to: None });
        self.inner.evict(eviction).await
    }

    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError> {
        self.inner.reset(reset).await
    }

    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError> {
        self.inner.update_meta(key, meta).await
    }

    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.inner.delete_lease(key).await
    }

    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError> {
        self.inner.put_worker_metrics(metrics).await
    }

    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError> {
        self.inner.worker_metrics().await
    }

    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError> {
        self.inner.delete_worker_metrics(seen).await
    }

    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError> {
        self.inner.leader_lock().await
    }

    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError> {
        self.inner.swap_leader_lock(seen, lock).await
    }

    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError> {
        self.inner.fleet_settings().await
    }

    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError> {
        self.inner.swap_fleet_settings(seen, settings).await
    }

    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError> {
        self.inner.stream_identity(name).await
    }

    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError> {
        self.inner.stream_identities().await
    }

    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError> {
        self.inner.record_stream_identity(identity).await
    }

    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete_stream_identity(name).await
    }
}
