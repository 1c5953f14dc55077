//! An embedded development engine that speaks the Amazon Kinesis protocol on loopback.
//!
//! It serves the model of Kinesis in [`shardwell_core::memory::kinesis`] over HTTP, so that any AWS SDK, the AWS CLI and
//! shardwell itself can be tried without an account, a container or a JVM. Streams live in memory and are gone when the
//! engine stops.
//!
//! ```no_run
//! # async fn run() -> Result<(), shardwell_local::StartError> {
//! let engine = shardwell_local::LocalEngine::start().await?;
//! println!("aws --endpoint-url {} kinesis list-streams", engine.endpoint());
//! # Ok(())
//! # }
//! ```
//!
//! | what | where |
//! |---|---|
//! | start, stop, clock | [`LocalEngine`], [`LocalEngineBuilder`] |
//! | one file per operation, each with what is not modelled | `operations/` |
//! | from a request to its operation | `dispatch.rs` |
//! | JSON, tokens, errors | `wire/` |

#![warn(missing_docs)]

mod dispatch;
mod engine;
mod operations;
mod server;
mod state;
mod wire;

pub use engine::{LocalEngine, LocalEngineBuilder, StartError};
