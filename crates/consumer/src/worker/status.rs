//! What a worker is doing, for people and health checks.

use std::sync::Mutex;
use std::time::Duration;

use shardwell_core::leasing::Unfinished;
use shardwell_core::{Checkpoint, Lease, LeaseListing, Monotonic, ShardId, WorkerId};

use super::{ConsumedStreamStatus, ConsumedStreams, DataLoss};
use crate::leases::{HeldLease, HeldLeases};
use crate::lock::lock;

/// What a worker is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// The worker.
    pub worker: WorkerId,
    /// Where it is in its life.
    pub phase: WorkerPhase,
    /// Whether it leads: it plans who has which lease.
    pub leads: bool,
    /// The shards whose leases this worker holds, and on the leader every shard that has a lease; ordered by lease key.
    pub shards: Vec<ShardStatus>,
    /// The streams that this worker is to consume, by name.
    pub streams: Vec<ConsumedStreamStatus>,
    /// Bytes of records between fetching and done.
    pub buffered_bytes: usize,
    /// The highest that `buffered_bytes` ever was.
    pub peak_buffered_bytes: usize,
    /// Rows of the lease table that cannot be read: written by something newer, or damaged.
    pub unreadable_leases: usize,
    /// Why the worker paused by itself, if it did.
    pub paused_because: Option<String>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerPhase {
    /// Making lease table and leases ready.
    Starting,
    /// Reading and processing.
    Running,
    /// Told to pause: leases are kept, nothing is read or handed to processors.
    Paused,
    /// Told to stop: running batches finish, leases are released.
    Stopping,
    /// Done.
    Stopped,
}

/// What happens to a shard.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardStatus {
    /// The name of its stream.
    pub stream: String,
    /// The shard.
    pub shard: ShardId,
    /// The worker that has its lease.
    pub owner: Option<WorkerId>,
    /// What it is doing.
    pub state: ShardState,
    /// Why nothing is read from it, in words; `None` while it is read.
    pub not_reading: Option<String>,
    /// The checkpoint that the lease table holds.
    pub checkpoint: Checkpoint,
    /// How long ago the table was last known to hold all that was done; `None` for a shard of another worker.
    pub checkpoint_age: Option<Duration>,
    /// How far the newest read was behind the tip of the shard.
    pub behind_latest: Option<Duration>,
    /// How often the batch at hand has failed.
    pub failures: u32,
    /// The newest error, of a read or of the processor; cleared by success.
    pub last_error: Option<String>,
    /// How many records were given up since this worker took the shard.
    pub dead: u64,
    /// Records that were found trimmed when this worker opened the shard.
    pub data_loss: Option<DataLoss>,
}

/// What a shard is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShardState {
    /// Nobody has its lease yet.
    Unassigned,
    /// Another worker has it.
    Elsewhere,
    /// It waits for these parents to be finished.
    WaitingForParents(Vec<ShardId>),
    /// This worker prepares its processor and opens the shard.
    Starting,
    /// This worker reads and processes it.
    Processing,
    /// This worker's processor failed on a batch, and will be called again.
    Retrying,
    /// This worker finishes what is running and lets it go.
    Stopping,
    /// Every record of it is done.
    Finished,
}

/// What the tasks of a held shard tell about themselves.
#[derive(Debug, Default)]
pub(crate) struct Activity(Mutex<ActivityState>);

#[derive(Clone, Debug, Default)]
pub(crate) struct ActivityState {
    pub(crate) fetching: Fetching,
    pub(crate) behind_latest: Option<Duration>,
    pub(crate) failures: u32,
    pub(crate) last_error: Option<String>,
    pub(crate) dead: u64,
    pub(crate) stopping: bool,
    /// Records that were trimmed before they were read.
    pub(crate) data_loss: Option<DataLoss>,
    /// Whether the shard has been opened once: records put from now on will be read.
    pub(crate) opened: bool,
}

/// What the fetching of a shard is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fetching {
    #[default]
    Starting,
    WaitingForParents(Vec<ShardId>),
    Reading,
    WaitingForRoom,
    Paused,
    BackingOff,
    Ended,
}

impl Activity {
    pub(crate) fn update(&self, change: impl FnOnce(&mut ActivityState)) {
        change(&mut lock(&self.0));
    }

    pub(crate) fn get(&self) -> ActivityState {
        lock(&self.0).clone()
    }
}

impl ActivityState {
    fn not_reading(&self) -> Option<String> {
        match &self.fetching {
            Fetching::Reading => None,
            Fetching::WaitingForParents(parents) => Some(waiting_for(parents)),
            Fetching::Starting => Some("the processor is being initialized, or the shard opened".into()),
            Fetching::WaitingForRoom => Some("what was read before is not done yet, and the buffer is full".into()),
            Fetching::Paused => Some("the worker is paused".into()),
            Fetching::BackingOff => {
                Some(format!("reading failed: {}", self.last_error.as_deref().unwrap_or("no reason known")))
            }
            Fetching::Ended => Some("the end of the shard was read; its last records are being processed".into()),
        }
    }

    fn state(&self) -> ShardState {
        match &self.fetching {
            Fetching::WaitingForParents(parents) if !self.stopping => ShardState::WaitingForParents(parents.clone()),
            _ if self.stopping => ShardState::Stopping,
            _ if self.failures > 0 => ShardState::Retrying,
            Fetching::Starting | Fetching::WaitingForParents(_) => ShardState::Starting,
            Fetching::Reading
            | Fetching::WaitingForRoom
            | Fetching::Paused
            | Fetching::BackingOff
            | Fetching::Ended => ShardState::Processing,
        }
    }
}

/// The status of every shard, from the newest listing of the table and what this worker holds.
pub(crate) fn shard_statuses(
    listing: &LeaseListing,
    held: &HeldLeases,
    streams: &ConsumedStreams,
    now: Monotonic,
) -> Vec<ShardStatus> {
    let mut statuses: Vec<ShardStatus> = Vec::new();
    let unfinished = Unfinished::of(&listing.leases);
    for lease in &listing.leases {
        statuses.push(match held.get(&lease.key) {
            Some(held) => of_held(&held, now),
            None => of_listed(lease, streams.name_of(lease), &unfinished),
        });
    }
    for lease in held.all() {
        if !listing.leases.iter().any(|listed| listed.key == *lease.key()) {
            statuses.push(of_held(&lease, now));
        }
    }
    statuses
}

fn of_held(lease: &HeldLease, now: Monotonic) -> ShardStatus {
    let activity = lease.activity().get();
    let (checkpoint, stored_at) = lease.progress().last_stored();
    ShardStatus {
        stream: lease.stream().name(),
        shard: lease.shard().clone(),
        owner: lease.image().actual_owner().cloned(),
        state: activity.state(),
        not_reading: activity.not_reading(),
        checkpoint,
        checkpoint_age: Some(now.since(stored_at)),
        behind_latest: activity.behind_latest,
        failures: activity.failures,
        last_error: activity.last_error,
        dead: activity.dead,
        data_loss: activity.data_loss,
    }
}

fn waiting_for(parents: &[ShardId]) -> String {
    let names = parents.iter().map(ShardId::as_str).collect::<Vec<_>>().join(", ");
    format!("its parents are not finished: {names}")
}

fn of_listed(lease: &Lease, stream: String, unfinished: &Unfinished<'_>) -> ShardStatus {
    let parents: Vec<ShardId> = unfinished.parents_of(lease).cloned().collect();
    let (state, why) = if lease.is_finished() {
        (ShardState::Finished, "every record of it is done".to_owned())
    } else if !parents.is_empty() {
        let why = waiting_for(&parents);
        (ShardState::WaitingForParents(parents), why)
    } else if let Some(owner) = lease.actual_owner() {
        (ShardState::Elsewhere, format!("worker {owner} has its lease"))
    } else {
        (ShardState::Unassigned, "nobody has its lease yet".to_owned())
    };
    ShardStatus {
        stream,
        shard: lease.shard.clone(),
        owner: lease.actual_owner().cloned(),
        state,
        not_reading: Some(why),
        checkpoint: lease.checkpoint,
        checkpoint_age: None,
        behind_latest: None,
        failures: 0,
        last_error: None,
        dead: 0,
        data_loss: None,
    }
}
