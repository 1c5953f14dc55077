//! A lease table that fails on demand.

use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use shardwell_core::{
    Assignment, Conditional, Created, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseKey, LeaseListing,
    LeaseMeta, LeaseStore, MetricsWrite, RenewOutcome, Renewal, Renewed, Reset, StoreError, StoreErrorKind,
    StreamIdentity, WorkerId, WorkerMetrics,
};

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It fails, and nothing was written.
    Refuse,
    /// It is carried out, and its caller is told that it timed out.
    LoseReply,
    /// It is carried out, and its caller never hears of it.
    Hang,
}

/// Decides what happens to a call, by the name of its method and the order of calls.
pub type FaultPlan = Arc<dyn Fn(&'static str) -> Fault + Send + Sync>;

/// A lease table around another one, whose calls fail as a plan says.
#[derive(Clone)]
pub struct FaultyLeaseStore {
    inner: Arc<dyn LeaseStore>,
    plan: FaultPlan,
}

impl FaultyLeaseStore {
    /// A table whose calls fail as `plan` says.
    pub fn new(inner: Arc<dyn LeaseStore>, plan: impl Fn(&'static str) -> Fault + Send + Sync + 'static) -> Self {
        Self { inner, plan: Arc::new(plan) }
    }

    async fn call<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match (self.plan)(method) {
            Fault::None => call.await,
            Fault::Refuse => Err(refused()),
            Fault::LoseReply => {
                let _ = call.await;
                Err(reply_lost())
            }
            Fault::Hang => {
                let _ = call.await;
                pending().await
            }
        }
    }
}

fn refused() -> StoreError {
    StoreError::new(StoreErrorKind::Throttled, "throttled, as planned")
}

fn reply_lost() -> StoreError {
    StoreError::new(StoreErrorKind::Timeout, "the reply was lost, as planned")
}

impl fmt::Debug for FaultyLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyLeaseStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Display for FaultyLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults", self.inner)
    }
}

#[async_trait]
impl LeaseStore for FaultyLeaseStore {
    fn dedicated(&self) -> Arc<dyn LeaseStore> {
        Arc::new(Self { inner: self.inner.dedicated(), plan: self.plan.clone() })
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.call("prepare", self.inner.prepare()).await
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError> {
        self.call("create_lease", self.inner.create_lease(lease)).await
    }

    async fn leases(&self) -> Result<LeaseListing, StoreError> {
        self.call("leases", self.inner.leases()).await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        self.call("lease", self.inner.lease(key)).await
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        self.call("leases_of", self.inner.leases_of(worker)).await
    }

    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed> {
        match (self.plan)("renew") {
            Fault::None => self.inner.renew(worker, renewals),
            Fault::Refuse => {
                let answer = |renewal: Renewal| Renewed { key: renewal.key, outcome: RenewOutcome::Unknown(refused()) };
                stream::iter(renewals).map(answer).boxed()
            }
            Fault::LoseReply => {
                let lose = |renewed: Renewed| Renewed { outcome: RenewOutcome::Unknown(reply_lost()), ..renewed };
                self.inner.renew(worker, renewals).map(lose).boxed()
            }
            Fault::Hang => {
                let swallowed = self.inner.renew(worker, renewals).filter(|_| std::future::ready(false));
                swallowed.chain(stream::pending()).boxed()
            }
        }
    }

    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError> {
        self.call("assign", self.inner.assign(assignment)).await
    }

    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
        self.call("start_handoff", self.inner.start_handoff(handoff)).await
    }

    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError> {
        self.call("evict", self.inner.evict(eviction)).await
    }

    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError> {
        self.call("reset", self.inner.reset(reset)).await
    }

    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError> {
        self.call("update_meta", self.inner.update_meta(key, meta)).await
    }

    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.call("delete_lease", self.inner.delete_lease(key)).await
    }

    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError> {
        self.call("put_worker_metrics", self.inner.put_worker_metrics(metrics)).await
    }

    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError> {
        self.call("worker_metrics", self.inner.worker_metrics()).await
    }

    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError> {
        self.call("delete_worker_metrics", self.inner.delete_worker_metrics(seen)).await
    }

    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError> {
        self.call("leader_lock", self.inner.leader_lock()).await
    }

    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError> {
        self.call("swap_leader_lock", self.inner.swap_leader_lock(seen, lock)).await
    }

    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError> {
        self.call("fleet_settings", self.inner.fleet_settings()).await
    }

    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError> {
        self.call("swap_fleet_settings", self.inner.swap_fleet_settings(seen, settings)).await
    }

    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError> {
        self.call("stream_identity", self.inner.stream_identity(name)).await
    }

    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError> {
        self.call("stream_identities", self.inner.stream_identities()).await
    }

    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError> {
        self.call("record_stream_identity", self.inner.record_stream_identity(identity)).await
    }

    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError> {
        self.call("delete_stream_identity", self.inner.delete_stream_identity(name)).await
    }
}
