//! The model, the decisions and the seams of shardwell, without I/O.
//!
//! | what | where |
//! |---|---|
//! | positions and progress | [`SequenceNumber`], [`ExtendedSequenceNumber`], [`Checkpoint`], [`CheckpointState`] |
//! | what is read and written | [`Record`], [`UserRecord`], [`PutEntry`] |
//! | shards | [`Shard`], [`ChildShard`], [`HashKeyRange`] |
//! | the seam to a stream | [`Stream`], [`ShardReader`], [`StreamWriter`] |
//! | leases and the seam to their table | [`Lease`], [`LeaseStore`] |
//! | dead letters and the seam to where they are kept | [`dead_letter`] |
//! | the seam to time, tasks and randomness | [`Env`] |
//! | implementations in memory | [`memory`] |
//! | decisions | [`fetching`], [`delivery`], [`leasing`] |
//!
//! Decisions are pure functions here, and the crates around this one carry them out.

#![warn(missing_docs)]

mod checkpoint;
pub mod dead_letter;
pub mod delivery;
mod env;
pub mod fetching;
mod ids;
mod lease;
pub mod leasing;
pub mod memory;
mod record;
mod retry;
mod sequence;
mod shard;
mod stream;
#[cfg(feature = "testing")]
pub mod testing;
mod time;

pub use async_trait::async_trait;
pub use bytes::Bytes;
pub use shardwell_aggregation as aggregation;
pub use shardwell_aggregation::{HashKeyRange, InvalidRange, hash_key};

pub use checkpoint::{Checkpoint, CheckpointState, MAX_CHECKPOINT_STATE_BYTES, PendingCheckpoint};
pub use env::{CpuTime, Elapsed, Env, EnvExt, Place, SystemEnv, Task, TaskError};
pub use ids::{LeaseKey, ShardId, WorkerId};
pub use lease::{
    Assignment, CheckpointWrite, Conditional, Created, Eviction, FleetSettings, HandoffStart, Heartbeat, LeaderLock,
    Lease, LeaseListing, LeaseMeta, LeaseStore, MetricsWrite, PendingWrite, RenewOutcome, Renewal, Renewed, Reset,
    Seen, StoreError, StoreErrorKind, WorkerMetrics, WriteToken,
};
pub use record::{PartitionKey, Record, UserRecord};
pub use retry::RetryPolicy;
pub use sequence::{ExtendedSequenceNumber, InvalidSequenceNumber, MAX_SEQUENCE_NUMBER_DIGITS, SequenceNumber};
pub use shard::{ChildShard, Shard};
pub use stream::{
    Placed, PutEntry, PutError, PutErrorKind, PutResult, Read, ReadLimits, ShardFilter, ShardReader, StartPosition,
    Stream, StreamDescription, StreamError, StreamErrorKind, StreamIdentifier, StreamIdentity, StreamStatus,
    StreamWriter,
};
pub use time::{InvalidTimestamp, Monotonic, Timestamp};

/// Any error that can cross threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
