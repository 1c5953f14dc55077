//! The conformance suite of [`LeaseStore`].
//!
//! A crate that implements the seam runs [`exercise`] in a test of its own, once on the value and once on
//! `Arc<dyn LeaseStore>`:
//!
//! ```
//! # use std::sync::Arc;
//! use shardwell_core::memory::MemoryLeaseStore;
//! use shardwell_core::testing::lease_store::exercise;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(async {
//! exercise(|| async { Arc::new(MemoryLeaseStore::new()) }).await;
//! # });
//! ```
//!
//! It runs on real time and needs a multi-threaded runtime to be worth its name: some of it lets tasks compete. Listings
//! are expected to be up to date whenever nothing is being written, which engines on one machine are.

mod competition;
mod fixtures;
mod fleet;
mod handover;
mod model;
mod renewals;
mod rows;

use std::sync::Arc;

use crate::LeaseStore;

pub use model::agrees_with_the_model;

/// Runs the whole suite. `make` gives a store on a fresh, empty table each time it is called.
///
/// # Panics
/// When the store breaks its contract; the message says how. For a failure of the randomised part it holds the seed,
/// for [`agrees_with_the_model`].
pub async fn exercise<S, M, F>(make: M)
where
    S: LeaseStore + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    rows::exercise(&make).await;
    renewals::exercise(&make).await;
    handover::exercise(&make).await;
    fleet::exercise(&make).await;
    competition::exercise(&make).await;
    for seed in [1, 2, 3, fastrand::u64(..)] {
        agrees_with_the_model(&*make().await, seed, 250).await;
    }
}
