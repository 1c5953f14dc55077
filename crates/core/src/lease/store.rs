//! The seam to a lease table.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use super::{
    Assignment, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseMeta, Renewal, Reset, StoreError,
    WorkerMetrics,
};
use crate::{LeaseKey, StreamIdentity, WorkerId};

/// One application's lease table: leases with their checkpoints, the workers' metrics, the leader lock, and the few
/// facts that a fleet must agree on.
///
/// # Contract
/// - **Conditional writes are atomic.** Each of them is described, with its condition and effect, at its type in this
///   module; a condition that does not hold is [`Conditional::Refused`] with the row as it is, not an error.
/// - **A write is durable when it is answered**, to the degree that the store documents.
/// - **Single reads are consistent**: [`lease`](Self::lease) sees every write that was answered before it was called.
///   [`leases`](Self::leases), [`leases_of`](Self::leases_of) and [`worker_metrics`](Self::worker_metrics), and with
///   them [`look`](Self::look), may lag behind (DynamoDB's scans and indexes do).
/// - **No call hangs.** A store bounds every request by a time-out of its own, and its callers bound it by what remains
///   of a lease.
/// - Stores do not retry; the caller knows what remains of its lease.
/// - Rows that a store cannot read are counted in the listing, never dropped silently, and never written.
///
/// # Cancel safety
/// A read may be dropped at any time. When the future of a write is dropped it is not known whether the write was
/// applied; a [`Renewal`] can be repeated with its token to find out.
///
/// # Conformance
/// `testing::lease_store` holds the suite that every implementation runs (feature `testing`).
#[async_trait]
pub trait LeaseStore: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// A handle on the same table that shares no connection, task or runtime with this one. A worker makes one for its
    /// coordination, so that nothing that blocks elsewhere delays a renewal. Made without I/O.
    fn dedicated(&self) -> Arc<dyn LeaseStore>;

    /// Makes the table ready: creates or migrates it where needed. Safe to call from many processes at once, and again.
    ///
    /// # Errors
    /// [`StoreErrorKind::Unusable`](super::StoreErrorKind::Unusable) for a table that is not ours, newer or corrupt;
    /// [`StoreErrorKind::Denied`](super::StoreErrorKind::Denied) for one that cannot be written.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Adds a lease unless its key is taken. The row starts with the lease's checkpoint and ancestry; it must have no
    /// owner, a counter of 0 and no state.
    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError>;

    /// Every lease of the application, ordered by key.
    async fn leases(&self) -> Result<LeaseListing, StoreError>;

    /// One lease.
    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError>;

    /// The keys of the leases whose owner is `worker`, ordered: how a worker discovers what was assigned to it.
    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError>;

    /// Renews leases as `worker`, and checkpoints some with the same write. The answers come one per lease, in any
    /// order, each as soon as it is known; a lease without an answer when the stream ends or is dropped is unknown.
    ///
    /// A caller trusts a renewed lease from the moment before it called this.
    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed>;

    /// Gives a lease to a worker; see [`Assignment`].
    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError>;

    /// Asks an owner to hand a lease over; see [`HandoffStart`].
    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError>;

    /// Takes a lease from its owner; see [`Eviction`].
    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError>;

    /// Puts a lease's checkpoint anywhere; see [`Reset`]. Refused only when the row does not exist.
    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError>;

    /// Writes a fact about a shard; see [`LeaseMeta`]. Refused only when the row does not exist.
    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError>;

    /// Removes a lease, whatever its state (the KCL's delete is unconditional too). Gone already is fine.
    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError>;

    /// Writes a worker's metrics, replacing what was there; refused where that [may not be
    /// replaced](WorkerMetrics::may_replace), since another process has the worker's id.
    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError>;

    /// Every worker's metrics, ordered by worker.
    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError>;

    /// Every lease and every worker's metrics: what a leader looks at again and again. A store whose listings read the whole table
    /// reads it once.
    ///
    /// By default, a call of [`leases`](Self::leases) and then, since a worker registers before it is given any, one of
    /// [`worker_metrics`](Self::worker_metrics).
    async fn look(&self) -> Result<(LeaseListing, Vec<WorkerMetrics>), StoreError> {
        let listing = self.leases().await?;
        Ok((listing, self.worker_metrics().await?))
    }

    /// Removes a worker's metrics if they were last updated when `seen` says, by the same process; answers whether they were.
    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError>;

    /// The leader lock, if there is one. Consistent.
    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError>;

    /// Replaces the leader lock (or, with `None`, deletes it) if its version is `seen` (`None`: if there is no lock);
    /// answers whether it did. Taking, heartbeat and release are all this.
    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError>;

    /// The settings that the fleet agreed on, if any worker has written them.
    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError>;

    /// Replaces the settings of the fleet if they are still `seen`; answers whether it did.
    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError>;

    /// Who the stream of this name was when its leases were created. Consistent.
    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError>;

    /// Every stream that is remembered, ordered by name.
    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError>;

    /// Remembers who a stream is, unless its name is taken.
    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError>;

    /// Forgets who the stream of this name was. Gone already is fine.
    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError>;
}

/// The answer to a write that adds a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The row is new.
    New,
    /// A row was there already, and stays as it is.
    Existed,
}

/// The answer to a write of a worker's metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum MetricsWrite {
    /// They are written.
    Written,
    /// Another process has the worker's id; what it wrote last.
    Foreign(WorkerMetrics),
}

/// The answer to a conditional write.
#[derive(Clone, Debug, PartialEq)]
pub enum Conditional {
    /// The condition held; the row as it is now.
    Applied(Lease),
    /// The condition did not hold; the row as it is, if there is one.
    Refused(Option<Lease>),
}

impl Conditional {
    /// The row after the write, if the write was applied.
    pub fn applied(self) -> Option<Lease> {
        match self {
            Self::Applied(lease) => Some(lease),
            Self::Refused(_) => None,
        }
    }
}

/// One answer of [`LeaseStore::renew`].
#[derive(Debug)]
pub struct Renewed {
    /// The lease.
    pub key: LeaseKey,
    /// What happened.
    pub outcome: RenewOutcome,
}

/// What happened to a renewal.
#[derive(Debug)]
pub enum RenewOutcome {
    /// Applied; the row as it is now.
    Renewed(Lease),
    /// Applied, and the row asks its owner to hand the lease over. The lease still holds.
    HandoffRequested(Lease),
    /// Refused: somebody else has the lease. The row as it is, if there is one.
    Lost(Option<Lease>),
    /// Not known. Repeat it with the same token while the lease is still trusted.
    Unknown(StoreError),
}

impl RenewOutcome {
    /// The outcome of a renewal that was applied and left this row.
    pub const fn applied(row: Lease) -> Self {
        if row.handoff_requested() { Self::HandoffRequested(row) } else { Self::Renewed(row) }
    }
}

/// Every lease of an application.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LeaseListing {
    /// The leases, ordered by key.
    pub leases: Vec<Lease>,
    /// The keys of rows that could not be read: written by something newer, or damaged.
    pub unreadable: Vec<LeaseKey>,
}
