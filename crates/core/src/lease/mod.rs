//! Leases: who works on which shard and how far it got, and the seam to the table that holds them.

mod error;
mod metrics;
mod store;
mod write;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use shardwell_aggregation::HashKeyRange;

use crate::{Checkpoint, CheckpointState, LeaseKey, PendingCheckpoint, ShardId, WorkerId};

pub use error::{StoreError, StoreErrorKind};
pub(crate) use metrics::consume;
pub use metrics::{Heartbeat, WorkerMetrics};
pub use store::{Conditional, Created, LeaseListing, LeaseStore, MetricsWrite, RenewOutcome, Renewed};
pub use write::{
    Assignment, CheckpointWrite, Eviction, HandoffStart, LeaseMeta, PendingWrite, Renewal, Reset, Seen, WriteToken,
};

/// One shard's row in the lease table: the attributes of the Java KCL 3.5, and two of our own (`state` and `token`)
/// that a Java worker leaves alone.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Lease {
    /// The key of the row.
    pub key: LeaseKey,
    /// The stream, serialized as the KCL does; `None` where the table holds one stream only.
    pub stream: Option<String>,
    /// The shard.
    pub shard: ShardId,
    /// The worker that the lease is assigned to. During a handoff, the one that it is going to.
    pub owner: Option<WorkerId>,
    /// Rises by one with every write that owns, renews or checkpoints. Every such write is conditional on it.
    pub counter: u64,
    /// How often the owner changed since the last checkpoint.
    pub owner_switches_since_checkpoint: u64,
    /// How far the shard is done.
    pub checkpoint: Checkpoint,
    /// A checkpoint that was announced and not committed.
    pub pending_checkpoint: Option<PendingCheckpoint>,
    /// The parents of the shard.
    pub parents: BTreeSet<ShardId>,
    /// The children of the shard, known from its end on.
    pub children: BTreeSet<ShardId>,
    /// The hash keys of the shard.
    pub hash_key_range: Option<HashKeyRange>,
    /// The throughput that its owner saw lately, in KiB per second.
    pub throughput_kbps: Option<f64>,
    /// During a handoff: the old owner, who must checkpoint and then assign the lease to `owner`.
    pub checkpoint_owner: Option<WorkerId>,
    /// The blob written with a checkpoint. Read it through [`Lease::state`].
    pub checkpoint_state: Option<CheckpointState>,
    /// The token of the owner's last renewal: tells a lost reply from a lost lease. Removed when the lease is given away, so a
    /// row with a token was taken up by its owner. (A Java worker neither writes nor removes it.)
    pub token: Option<WriteToken>,
}

impl Lease {
    /// A lease that nobody owns, for a shard of the table's only stream.
    pub fn new(shard: ShardId, checkpoint: Checkpoint) -> Self {
        Self {
            key: LeaseKey::from(&shard),
            stream: None,
            shard,
            owner: None,
            counter: 0,
            owner_switches_since_checkpoint: 0,
            checkpoint,
            pending_checkpoint: None,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            hash_key_range: None,
            throughput_kbps: None,
            checkpoint_owner: None,
            checkpoint_state: None,
            token: None,
        }
    }

    /// The lease of a shard of one of several streams, given the stream as the KCL serializes it (see
    /// [`StreamIdentifier`](crate::StreamIdentifier)); `None` for the table's only stream.
    pub fn in_stream(stream: Option<&str>, shard: ShardId, checkpoint: Checkpoint) -> Self {
        Self {
            key: LeaseKey::in_stream(stream, &shard),
            stream: stream.map(ToOwned::to_owned),
            ..Self::new(shard, checkpoint)
        }
    }

    /// The name of the stream that the lease names, or whatever it names it by; `None` for the table's only stream.
    pub fn stream_name(&self) -> Option<&str> {
        self.stream.as_deref().map(crate::StreamIdentifier::name_in)
    }

    /// The worker that may renew and checkpoint now: the old owner during a handoff, else the owner (KCL's
    /// `actualOwner`).
    pub const fn actual_owner(&self) -> Option<&WorkerId> {
        match &self.checkpoint_owner {
            Some(old) => Some(old),
            None => self.owner.as_ref(),
        }
    }

    /// Whether the old owner is asked to hand the lease over.
    pub const fn handoff_requested(&self) -> bool {
        self.checkpoint_owner.is_some()
    }

    /// The key of the lease of another shard of the same stream.
    pub fn key_of(&self, shard: &ShardId) -> LeaseKey {
        LeaseKey::in_stream(self.stream.as_deref(), shard)
    }

    /// Whether every record of the shard is done.
    pub const fn is_finished(&self) -> bool {
        self.checkpoint.is_shard_end()
    }

    /// Whether the row may be created as it is: what an owner or a renewal writes must not be there yet.
    ///
    /// # Errors
    /// [`StoreErrorKind::Invalid`] with the name of what is there.
    pub fn ensure_creatable(&self) -> Result<(), StoreError> {
        let written_later = [
            ("an owner", self.owner.is_some()),
            ("a checkpoint owner", self.checkpoint_owner.is_some()),
            ("a counter above 0", self.counter != 0),
            ("owner switches", self.owner_switches_since_checkpoint != 0),
            ("a pending checkpoint", self.pending_checkpoint.is_some()),
            ("checkpoint state", self.checkpoint_state.is_some()),
            ("a throughput", self.throughput_kbps.is_some()),
            ("a write token", self.token.is_some()),
        ];
        match written_later.iter().find(|(_, is_there)| *is_there) {
            None => Ok(()),
            Some((what, _)) => {
                let message = format!("the lease {} cannot be created with {what}", self.key);
                Err(StoreError::new(StoreErrorKind::Invalid, message))
            }
        }
    }

    /// The state that was written with exactly this checkpoint; state left beside another checkpoint is ignored.
    pub fn state(&self) -> Option<&CheckpointState> {
        self.checkpoint_state.as_ref().filter(|state| state.belongs_to == self.checkpoint)
    }
}

/// The lock that one worker of a fleet holds to plan for all (the KCL's `Leader` item).
///
/// There is no clock in it: whoever sees the same `version` for longer than `duration` on its own monotonic clock may
/// take the lock over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderLock {
    /// The leader.
    pub owner: WorkerId,
    /// How long the lock holds after a write.
    pub duration: Duration,
    /// Differs with every write.
    pub version: String,
    /// Whether it was given up without being deleted.
    pub released: bool,
    /// The workers that the leader asks to watch the leases too, so that they can take over at once (in the KCL's `data`,
    /// which a Java worker leaves empty).
    pub standbys: Vec<WorkerId>,
}

/// Settings on which all workers of an application must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetSettings {
    /// How long a lease holds after a renewal.
    pub lease_duration: Duration,
    /// The workers that are to hand over what they have and get nothing more.
    pub draining: BTreeSet<WorkerId>,
}

impl FleetSettings {
    /// The settings of a fleet of which no worker is drained.
    pub const fn new(lease_duration: Duration) -> Self {
        Self { lease_duration, draining: BTreeSet::new() }
    }
}

impl fmt::Display for FleetSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease duration {:?}", self.lease_duration)
    }
}
