//! The lease table and the dead letters of shardwell in SQLite, for many processes on one machine.
//!
//! ```
//! use shardwell_core::{Checkpoint, Lease, LeaseStore};
//! use shardwell_sqlite::SqliteLeaseStore;
//!
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let path = directory.path().join("leases.db");
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
//! let store = SqliteLeaseStore::open(&path, "delays").await?;
//! store.create_lease(&Lease::new("shardId-000000000000".into(), Checkpoint::TrimHorizon)).await?;
//!
//! assert_eq!(SqliteLeaseStore::applications(&path).await?, ["delays"]);
//! # Ok::<_, shardwell_core::StoreError>(())
//! # }).expect("it works");
//! ```
//!
//! Writes to the lease table are single statements that check their condition and take effect at once; see `sql.rs`. Dead
//! letters have a file of their own, where a write is on the disk before it is answered; see `dead_letters/`. The schemas
//! are in `migrations/`.

#![warn(missing_docs)]

mod database;
mod dead_letters;
mod error;
mod renew;
mod row;
mod schema;
mod sql;
mod store;

pub use dead_letters::SqliteDeadLetters;
pub use store::SqliteLeaseStore;
