//! A framework for services that consume and produce Amazon Kinesis data streams: no JVM, no sidecar, no daemon.
//!
//! A consumer is a [`RecordProcessor`] that is handed to a [`Worker`]. Run as many processes of it as you like: they
//! share the shards of the stream through a lease table, follow it through splits and merges, and note how far each
//! shard is done (its checkpoint), so that the next process goes on where the last one stopped. Every record is
//! delivered at least once, and records of one partition key arrive in order. A batch that fails is delivered again,
//! narrowed down to the record that is to blame; that one goes to the dead letters, if there is a place for them, and
//! nothing else is lost, or late for it.
//!
//! # A consumer in twenty lines
//!
//! Stream and leases live in memory here; the lines around the worker are the same for any other.
//!
//! ```
//! use std::sync::Arc;
//!
//! use shardwell::memory::{MemoryLeaseStore, MemoryStream};
//! use shardwell::{
//!     Batch, InitialPosition, Outcome, ProcessError, ProcessResultExt, RecordProcessor, SystemEnv, Worker, async_trait,
//! };
//!
//! struct Print;
//!
//! #[async_trait]
//! impl RecordProcessor for Print {
//!     async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
//!         for record in batch {
//!             println!("{}: {}", batch.lane().shard, std::str::from_utf8(&record.data).at(record)?);
//!         }
//!         Ok(Outcome::Done)
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let stream = MemoryStream::create(Arc::new(SystemEnv::new()?), "flights", 4)?;
//!     stream.append("N14228", "EWR to IAH")?;
//!
//!     let worker = Worker::builder("delays", stream, MemoryLeaseStore::new(), |_lane| Print)
//!         .initial_position(InitialPosition::TrimHorizon)
//!         .build()?;
//!     // A service gives `tokio::signal::ctrl_c()` here.
//!     let stop = std::future::ready(());
//!     Ok(worker.run_until(stop).await?)
//! }
//! ```
//!
//! On AWS the stream is a `KinesisStream`, made from an SDK client that you have configured, and the leases are in a
//! file that all processes of the machine share:
//!
//! ```no_run
//! # use shardwell::{Batch, Outcome, ProcessError, RecordProcessor, Worker, async_trait};
//! # struct Print;
//! # #[async_trait]
//! # impl RecordProcessor for Print {
//! #     async fn process(&mut self, _: &Batch) -> Result<Outcome, ProcessError> { Ok(Outcome::Done) }
//! # }
//! # #[cfg(all(feature = "aws", feature = "sqlite"))]
//! # async fn demo(client: shardwell::aws::aws_sdk_kinesis::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let stream = shardwell::aws::KinesisStream::new(&client, "flights");
//! let leases = shardwell::sqlite::SqliteLeaseStore::open("leases.db", "delays").await?;
//! Worker::builder("delays", stream, leases, |_lane| Print).build()?.run().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What to know before production
//!
//! - **At least once.** After a crash, what was done since the last checkpoint is delivered again, up to a third of
//!   [`lease_duration`](WorkerBuilder::lease_duration). Write to your sink so that a second time does no harm: by a key
//!   of the record, or by its [`position`](UserRecord::position), which is unique in its shard.
//! - **Where it starts.** A new application starts at the newest record (`LATEST`), as the KCL does. To read what is
//!   there, set [`initial_position`](WorkerBuilder::initial_position).
//! - **Errors.** A plain `?` in a processor is fine: the batch is split and comes again after a backoff. Say which record
//!   failed ([`at`](ProcessResultExt::at)), and those before it are not delivered again; say that an error is
//!   [transient](ErrorClass::Transient), and an outage costs no record.
//! - **Dead letters.** Without a place for them, a record that can never succeed stops its lane, loudly: see `failures`
//!   and `last_error` in [`ShardStatus`], and watch the iterator age. With [`dead_letters`](WorkerBuilder::dead_letters) it
//!   is kept there after its retries, whole and with its error, before the checkpoint goes past it; look at it and try it
//!   again with `shardwell dead-letters`. A record over which the process dies ends there too, after some restarts.
//! - **Lanes.** With [`DeliveryPolicy::with_lanes`] a shard is processed by many processors at once, each with its own
//!   keys, and a record that is stuck holds up its lane alone.
//! - **Stopping.** [`Worker::run_until`] and [`WorkerHandle::shutdown`] let running batches finish, store the
//!   checkpoints and release the leases: nothing is delivered twice, and other processes take over at once.
//! - **Blocking.** A processor may block its thread. Leases are renewed elsewhere, so that costs throughput and never a
//!   lease.
//! - **Looking at it.** [`WorkerHandle::status`] says for each shard what it does and why it is not being read; the
//!   command `shardwell leases list` shows a lease table; [`metric_names`] has the metrics, recorded through the
//!   [`metrics`] facade; spans and events go through `tracing`. No log line holds a payload or a partition key.
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `aws` | yes | `shardwell::aws`: Amazon Kinesis, on the AWS SDK |
//! | `dynamodb` | no | `shardwell::aws::DynamoLeaseStore`: the lease table in DynamoDB, that of the Java KCL 3.5; `shardwell::idempotent`: idempotent writes |
//! | `file` | yes | `shardwell::file`: dead letters as JSON lines in a file |
//! | `producer` | yes | [`Producer`]: user records into a stream, aggregated, paced, retried, each with an answer |
//! | `sqlite` | yes | `shardwell::sqlite`: the lease table, and dead letters, in a file for all processes of one machine |
//! | `local` | no | `shardwell::local`: an engine that speaks the Kinesis protocol on loopback, for tests and trying things out |
//! | `cli` | no | the command `shardwell` (`local`, `leases`, `fleet`, `dead-letters`, `put`, `tail`, `records`) |
//!
//! # Where to go next
//!
//! | to | look at |
//! |---|---|
//! | see all of it work on your machine | the example `quickstart` |
//! | put records into a stream | [`Producer`], [`ProducerBuilder`], [`Ticket`] |
//! | write a processor | [`RecordProcessor`], [`Batch`], [`Outcome`] |
//! | tune a worker | [`WorkerBuilder`]: every setting with its default and what too small and too large do |
//! | decide what happens when processing fails | [`DeliveryPolicy`], [`ProcessError`], [`dead_letter`] |
//! | write into DynamoDB so that a repetition does no harm | `idempotent` (feature `dynamodb`) |
//! | checkpoint by hand | [`CheckpointMode`], [`Checkpointer`] |
//! | run, pause, stop and watch it | [`WorkerHandle`], [`WorkerStatus`] |
//! | bring a stream or a lease table of your own | [`Stream`], [`LeaseStore`], and the conformance suites in [`core`] |
//! | test with time under control | [`Env`] |

#![warn(missing_docs)]

/// The programs in there compile.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(feature = "dynamodb")]
pub mod idempotent;

pub use async_trait::async_trait;
/// The facade that all metrics are recorded through. Install a recorder for this very version of it, or nothing is seen.
pub use metrics;

pub use shardwell_consumer::metrics as metric_names;
#[doc(inline)]
pub use shardwell_consumer::{
    Batch, BuildError, CheckpointError, CheckpointMode, Checkpointer, ConsumedStreamStatus, DataLoss, DeliveryPolicy,
    ErrorClass, FusePolicy, InitialPosition, LaneContext, OnDataLoss, OnSinkFailure, OnUndecodable, OutOfRange,
    Outcome, ProcessError, ProcessResultExt, RangePolicy, RecordFailure, RecordProcessor, ShardState, ShardStatus,
    Start, Streams, Worker, WorkerBuilder, WorkerError, WorkerHandle, WorkerPhase, WorkerStatus,
};

/// The model, the decisions and the seams, all of them: for who implements a seam. The feature `testing` of that crate
/// has a conformance suite for each.
pub use shardwell_core as core;
#[doc(inline)]
pub use shardwell_core::dead_letter;
#[doc(inline)]
pub use shardwell_core::memory;
#[doc(inline)]
pub use shardwell_core::{
    BoxError, Bytes, Checkpoint, ChildShard, Env, EnvExt, ExtendedSequenceNumber, HashKeyRange, InvalidSequenceNumber,
    Lease, LeaseKey, LeaseListing, LeaseStore, PartitionKey, Placed, PutEntry, PutError, PutErrorKind, PutResult,
    ReadLimits, RetryPolicy, SequenceNumber, Shard, ShardFilter, ShardId, StartPosition, StoreError, StoreErrorKind,
    Stream, StreamDescription, StreamError, StreamErrorKind, StreamIdentity, StreamStatus, StreamWriter, SystemEnv,
    Timestamp, UserRecord, WorkerId,
};

#[cfg(feature = "aws")]
#[doc(inline)]
pub use shardwell_aws as aws;
#[cfg(feature = "file")]
#[doc(inline)]
pub use shardwell_file as file;
#[cfg(feature = "local")]
#[doc(inline)]
pub use shardwell_local as local;
#[cfg(feature = "producer")]
#[doc(inline)]
pub use shardwell_producer as producer;
#[cfg(feature = "producer")]
#[doc(inline)]
pub use shardwell_producer::{Producer, ProducerBuilder, Ticket};
#[cfg(feature = "sqlite")]
#[doc(inline)]
pub use shardwell_sqlite as sqlite;
