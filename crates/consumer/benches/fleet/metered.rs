//! A lease table around another one, which takes its time and writes down every call.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use shardwell_core::{
    Assignment, Conditional, Created, Env, EnvExt, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseKey,
    LeaseListing, LeaseMeta, LeaseStore, MetricsWrite, Monotonic, Renewal, Renewed, Reset, StoreError, StreamIdentity,
    WorkerId, WorkerMetrics,
};
use shardwell_sim::SimEnv;

/// How long a call takes.
const LATENCY: Duration = Duration::from_millis(5);

/// A call that was made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When it took effect.
    pub(crate) at: Monotonic,
    pub(crate) by: WorkerId,
    pub(crate) method: &'static str,
    pub(crate) access: Access,
    /// How many rows it read or wrote.
    pub(crate) rows: usize,
    /// Whether its condition held, if it had one.
    pub(crate) applied: bool,
}

/// How a call gets at its rows, which is what DynamoDB bills by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Access {
    Write,
    /// Rows by their keys.
    Get,
    /// The index of owners.
    Query,
    Scan,
}

impl Call {
    /// Its cost, approximately: rows are below 1 KiB, and half of that in a scan.
    pub(crate) fn units(&self) -> f64 {
        match self.access {
            Access::Write => self.rows as f64,
            Access::Get => 0.5 * self.rows as f64,
            Access::Query => 0.5,
            Access::Scan => (self.rows as f64 / 16.0).max(0.5),
        }
    }
}

/// Every call of a fleet, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Call>>>);

impl Journal {
    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls from `since` on.
    pub(crate) fn since(&self, since: Monotonic) -> Vec<Call> {
        self.calls().iter().filter(|call| call.at >= since).cloned().collect()
    }

    /// How often a lease was given to somebody from `since` on: the end of every move.
    pub(crate) fn assigned_since(&self, since: Monotonic) -> usize {
        self.since(since).iter().filter(|call| call.method == "assign" && call.applied).count()
    }

    /// When somebody who is not `gone` took the lead after `since`, and looked at the table.
    pub(crate) fn next_plan(&self, since: Monotonic, gone: &[WorkerId]) -> Option<Monotonic> {
        let mut calls = self.since(since).into_iter().filter(|call| !gone.contains(&call.by));
        let taken = calls.find(|call| call.method == "swap_leader_lock" && call.applied)?;
        calls.find(|call| call.method == "leases" && call.by == taken.by).map(|call| call.at)
    }
}

/// One worker's view of the table.
#[derive(Clone)]
pub(crate) struct MeteredLeaseStore {
    inner: Arc<dyn LeaseStore>,
    env: SimEnv,
    worker: WorkerId,
    journal: Journal,
}

impl MeteredLeaseStore {
    /// The table as `worker` sees it; `env` tells the time.
    pub(crate) fn new(inner: Arc<dyn LeaseStore>, env: SimEnv, worker: WorkerId, journal: Journal) -> Self {
        Self { inner, env, worker, journal }
    }

    fn note(&self, method: &'static str, access: Access, rows: usize, applied: bool) {
        let call = Call { at: self.env.now(), by: self.worker.clone(), method, access, rows, applied };
        self.journal.calls().push(call);
    }

    async fn read<T>(
        &self,
        method: &'static str,
        access: Access,
        call: impl Future<Output = Result<T, StoreError>> + Send,
        rows: impl Fn(&T) -> usize + Send,
    ) -> Result<T, StoreError> {
        self.env.sleep(LATENCY).await;
        let answer = call.await?;
        self.note(method, access, rows(&answer), true);
        Ok(answer)
    }

    async fn write<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, StoreError>> + Send,
        applied: impl Fn(&T) -> bool + Send,
    ) -> Result<T, StoreError> {
        self.env.sleep(LATENCY).await;
        let answer = call.await?;
        self.note(method, Access::Write, 1, applied(&answer));
        Ok(answer)
    }
}

fn always<T>(_: &T) -> bool {
    true
}

fn one<T>(_: &T) -> usize {
    1
}

fn applied(answer: &Conditional) -> bool {
    matches!(answer, Conditional::Applied(_))
}

impl fmt::Debug for MeteredLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredLeaseStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Display for MeteredLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, metered", self.inner)
    }
}

#[async_trait]
impl LeaseStore for MeteredLeaseStore {
    fn dedicated(&self) -> Arc<dyn LeaseStore> {
        Arc::new(Self { inner: self.inner.dedicated(), ..self.clone() })
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.env.sleep(LATENCY).await;
        self.inner.prepare().await
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError> {
        self.write("create_lease", self.inner.create_lease(lease), always).await
    }

    async fn leases(&self) -> Result<LeaseListing, StoreError> {
        self.read("leases", Access::Scan, self.inner.leases(), |listing| listing.leases.len()).await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        self.read("lease", Access::Get, self.inner.lease(key), one).await
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        self.read("leases_of", Access::Query, self.inner.leases_of(worker), Vec::len).await
    }

    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed> {
        let answers = async move {
            self.env.sleep(LATENCY).await;
            self.note("renew", Access::Write, renewals.len(), true);
            self.inner.renew(worker, renewals)
        };
        answers.flatten_stream().boxed()
    }

    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError> {
        self.write("assign", self.inner.assign(assignment), applied).await
    }

    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
        self.write("start_handoff", self.inner.start_handoff(handoff), applied).await
    }

    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError> {
        self.write("evict", self.inner.evict(eviction), applied).await
    }

    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError> {
        self.write("reset", self.inner.reset(reset), applied).await
    }

    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError> {
        self.write("update_meta", self.inner.update_meta(key, meta), applied).await
    }

    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.write("delete_lease", self.inner.delete_lease(key), always).await
    }

    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError> {
        self.write("put_worker_metrics", self.inner.put_worker_metrics(metrics), always).await
    }

    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError> {
        self.read("worker_metrics", Access::Scan, self.inner.worker_metrics(), Vec::len).await
    }

    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError> {
        self.write("delete_worker_metrics", self.inner.delete_worker_metrics(seen), bool::clone).await
    }

    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError> {
        self.read("leader_lock", Access::Get, self.inner.leader_lock(), one).await
    }

    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError> {
        self.write("swap_leader_lock", self.inner.swap_leader_lock(seen, lock), bool::clone).await
    }

    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError> {
        self.read("fleet_settings", Access::Get, self.inner.fleet_settings(), one).await
    }

    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError> {
        self.write("swap_fleet_settings", self.inner.swap_fleet_settings(seen, settings), bool::clone).await
    }

    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError> {
        self.read("stream_identity", Access::Get, self.inner.stream_identity(name), one).await
    }

    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError> {
        self.read("stream_identities", Access::Scan, self.inner.stream_identities(), Vec::len).await
    }

    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError> {
        self.write("record_stream_identity", self.inner.record_stream_identity(identity), always).await
    }

    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError> {
        self.write("delete_stream_identity", self.inner.delete_stream_identity(name), always).await
    }
}
