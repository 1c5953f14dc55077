//! Idempotent writes from a processor into DynamoDB.
//!
//! A record may be delivered more than once: after a crash, after a lease was lost, when a batch is retried. Each of these ways to
//! write says what a repetition does:
//!
//! ```text
//!  record ──► Version (sortable) ──► insert_once       the first record of a key wins
//!                                    upsert_if_newer   the newest one does
//!                                    Accumulator       each is counted once
//!                                    ExactlyOnce       whatever it changes, in one transaction with the position
//!                                         │
//!                                         ▼
//!                                       Report ──► Outcome of the batch (`shardwell::idempotent::outcome`)
//! ```

mod accumulate;
mod exactly_once;
mod group;
mod put;
mod report;
mod table;
mod transaction;
mod version;

pub use accumulate::{Accumulator, Delta, NoQuarantine};
pub use exactly_once::{ExactlyOnce, Step};
pub use report::{Applied, Report, SINK_WRITES, WriteError};
pub use table::{IdempotentTable, Write};
pub use version::{InvalidVersion, Version};
