//! The producer of shardwell: a Kinesis Producer Library for Rust, without a daemon.
//!
//! A [`Producer`] takes user records ([`put`](Producer::put)), and gives a [`Ticket`] for each, which tells in the end where the record is
//! or why it is not there. It puts user records of one shard together into aggregated records, keeps to the pace that each shard takes,
//! tries again what is worth it, and holds no more than it may: whoever puts more waits.
//!
//! ```
//! use std::sync::Arc;
//!
//! use shardwell_core::memory::MemoryStream;
//! use shardwell_core::{PutEntry, SystemEnv};
//! use shardwell_producer::Producer;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let env = Arc::new(SystemEnv::new()?);
//! let stream = MemoryStream::create(env.clone(), "flights", 4)?;
//! let producer = Producer::builder(stream).env(env).build()?;
//! let ticket = producer.put(PutEntry::new("N14228", "EWR to IAH")).await?;
//! producer.flush().await;
//! let landed = ticket.await?;
//! println!("{} of {}", landed.position, landed.shard);
//! # Ok(())
//! # }
//! ```
//!
//! The way of a user record is `pipeline/`, a pure state machine; `driver.rs` is all that waits and sends, and `tell.rs` resolves tickets.

#![warn(missing_docs)]

mod budget;
mod builder;
mod driver;
mod failure;
mod hooks;
mod hot_keys;
mod lock;
pub mod metrics;
mod pipeline;
mod producer;
mod settings;
mod tell;
mod ticket;

pub use builder::{BuildError, ProducerBuilder};
pub use failure::{PutFailure, PutFailureKind, Rejected, TryPutError};
pub use hooks::{AnsweredRecord, ProducerHooks, SettledRecord};
pub use hot_keys::HotKey;
pub use pipeline::ShardLoad;
pub use producer::{Producer, ProducerStatus, Reservation};
pub use settings::Ordering;
pub use ticket::{Attempt, AttemptError, AttemptErrorKind, Attempts, Landed, Ticket};
