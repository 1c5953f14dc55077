//! Amazon DynamoDB: a lease table that Java KCL 3.5 workers share, and, in `sink`, tables that processors write to.
//!
//! ```text
//!  store ── the seam ──► change (what is written to a lease, and when) ──► requests ──► clients (a role each)
//!    │                                                                        │
//!    └── prepare: the table, its index, how far the fleet has migrated        ▼
//!  item/ ── what is in the table: leases, workers, the leader lock ◄──────── answers
//! ```

mod capacity;
mod change;
mod clients;
mod error;
mod expression;
mod item;
mod migration;
mod prepare;
mod requests;
pub mod sink;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use capacity::CONSUMED_HALF_UNITS;
pub use clients::DynamoTimeouts;
pub use store::DynamoLeaseStore;
pub use table::{Billing, TableSettings};
