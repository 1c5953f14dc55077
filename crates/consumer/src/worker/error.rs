//! Why a worker cannot start, or had to stop.

use std::time::Duration;

use shardwell_core::aggregation::Malformed;
use shardwell_core::dead_letter::SinkError;
use shardwell_core::{Checkpoint, SequenceNumber, ShardId, StoreError, StreamError, Timestamp, WorkerId};

/// Why a worker could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting is out of its bounds, or two of them contradict each other.
    #[error("{0}")]
    Invalid(String),
    /// There is no tokio runtime here, or the system refused a thread.
    #[error("cannot set up the worker's threads; build it inside a tokio runtime")]
    Environment(#[source] std::io::Error),
}

/// Why a worker stopped by itself. Its leases were released as far as that was possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The lease table cannot be used.
    #[error("the lease table cannot be used")]
    Store(#[source] StoreError),
    /// The stream cannot be used.
    #[error("the stream cannot be used")]
    Stream(#[source] StreamError),
    /// No answer from lease table or stream within the start-up deadline.
    #[error("not started within {deadline:?}: {last_error}")]
    NotStarted {
        /// The deadline.
        deadline: Duration,
        /// The last error.
        last_error: String,
    },
    /// The stream is another one than that the leases were created for: it was deleted and created again under the same
    /// name. The checkpoints in the table mean nothing on it.
    #[error(
        "stream {stream} was deleted and created again: the leases of application `{application}` belong to the stream \
         created at {leases_from}, and this one was created at {created_at}. If the old records are not needed any \
         more, stop all workers of the application, run `shardwell leases reset`, and start again"
    )]
    StreamRecreated {
        /// The stream.
        stream: String,
        /// The application.
        application: String,
        /// When the stream that the leases belong to was created.
        leases_from: Timestamp,
        /// When the present one was.
        created_at: Timestamp,
    },
    /// The stream was deleted while the worker ran.
    #[error(
        "stream {stream} was deleted; create it again or remove the application's leases with `shardwell leases reset`"
    )]
    StreamDeleted {
        /// The stream.
        stream: String,
    },
    /// Other workers of the application run with another lease duration, so neither could tell a live lease from an
    /// expired one.
    #[error(
        "this worker has a lease duration of {ours:?}, and the running workers of application `{application}` have \
         {theirs:?}; give all of them the same, or stop the others first"
    )]
    LeaseDurationMismatch {
        /// The application.
        application: String,
        /// This worker's setting.
        ours: Duration,
        /// The other workers' setting.
        theirs: Duration,
    },
    /// The table has leases of workers of several streams, and this one is of a single stream, or the other way round: neither
    /// finds the leases of the other.
    #[error(
        "the leases of application `{application}` are {}. Build the worker for those, or give it another application name; \
         or stop all workers of the application and run `shardwell leases reset`",
        if *.several { "those of several streams, and this worker consumes a single one" }
        else { "those of a single stream, and this worker consumes several" }
    )]
    StreamModeMismatch {
        /// The application.
        application: String,
        /// Whether the leases are those of several streams.
        several: bool,
    },
    /// Another process that is alive has this worker's id. Nothing of what it has was touched.
    #[error(
        "another process works for application `{application}` as worker `{worker}`; give every process an id of its own, \
         or leave the choice to shardwell"
    )]
    DuplicateWorkerId {
        /// The id.
        worker: WorkerId,
        /// The application.
        application: String,
    },
    /// Records were trimmed before they were read, and the worker is set to stop then.
    #[error("{0}")]
    DataLoss(Box<DataLoss>),
    /// A record claims to be aggregated and cannot be read, and the worker is set to stop then.
    #[error(
        "shard {shard}: record {sequence_number} claims to be aggregated and cannot be read: {reason}. Look at it with \
         `shardwell records decode`; to go on, set the worker to deliver such records as they are"
    )]
    Undecodable {
        /// The shard.
        shard: ShardId,
        /// The record.
        sequence_number: Box<SequenceNumber>,
        /// What is wrong with it.
        reason: Box<Malformed>,
    },
    /// The sinks for dead letters cannot be used.
    #[error("dead letters cannot be kept")]
    DeadLetters(#[source] SinkError),
    /// More records died than the fuse lets through.
    #[error(
        "the fuse has blown: too many records died in too short a time, the last one with: {last_error}. Nothing was \
         dead-lettered beyond the limit; mend what is broken and start again"
    )]
    FuseBlown {
        /// Why the record that was too much was to be given up.
        last_error: String,
    },
    /// A task of the worker panicked, which is a fault of shardwell; its leases are left to expire.
    #[error("the worker broke down: {0}")]
    Broken(String),
}

/// Records that the stream trimmed before they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataLoss {
    /// The shard.
    pub shard: ShardId,
    /// Everything up to here was done. What came after it is lost up to `first_left`.
    pub after: Checkpoint,
    /// The oldest record that is left, and when it arrived; `None` if none is.
    pub first_left: Option<(SequenceNumber, Timestamp)>,
}

impl std::fmt::Display for DataLoss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { shard, after, first_left } = self;
        write!(f, "shard {shard}: the checkpoint {after} is behind the trim horizon; what followed it ")?;
        match first_left {
            Some((number, arrival)) => write!(f, "before {number} (arrived at {arrival}) is lost")?,
            None => write!(f, "is lost, and nothing is left")?,
        }
        f.write_str("; raise the stream's retention, or add throughput, so that the application keeps up")
    }
}
