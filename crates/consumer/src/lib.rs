//! The worker of shardwell: a Kinesis Client Library for Rust.
//!
//! Implement [`RecordProcessor`], hand it to a [`Worker`], and run as many processes as you like. They share the shards
//! of the stream through a lease table, follow resharding, and checkpoint what is done.
//!
//! The way of a record is `records/`, stage by stage; the way of a lease is `leases/`; `worker/` puts both together. All
//! time, tasks and randomness come from [`Env`](shardwell_core::Env), so a whole worker runs in virtual time too.

#![warn(missing_docs)]

mod causes;
mod checkpointer;
mod dead_letters;
mod host;
mod leases;
mod lock;
pub mod metrics;
mod processor;
mod records;
mod watch;
mod worker;

pub use ::metrics as metrics_facade;
pub use async_trait::async_trait;
pub use shardwell_core::aggregation::RangePolicy;
pub use shardwell_core::delivery::{DeliveryPolicy, ErrorClass, FusePolicy, OnSinkFailure, OnUndecodable};
pub use shardwell_core::leasing::InitialPosition;

pub use checkpointer::{CheckpointError, CheckpointMode, Checkpointer, OutOfRange};
pub use processor::{
    Batch, LaneContext, Outcome, ProcessError, ProcessResultExt, RecordFailure, RecordProcessor, Start,
};
pub use worker::{
    BuildError, ConsumedStreamStatus, DataLoss, OnDataLoss, ShardState, ShardStatus, Streams, Worker, WorkerBuilder,
    WorkerError, WorkerHandle, WorkerPhase, WorkerStatus,
};
