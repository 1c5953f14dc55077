//! The conformance suites of [`DeadLetterSink`] and of [`DeadLetterArchive`](crate::dead_letter::DeadLetterArchive).
//!
//! A crate that implements the seam runs [`exercise_sink`] in a test of its own and, where letters can be read back through
//! the seam, [`exercise_archive`], once on the value and once on `Arc<dyn DeadLetterSink>`:
//!
//! ```
//! # use std::sync::Arc;
//! use shardwell_core::memory::MemoryDeadLetters;
//! use shardwell_core::testing::dead_letters::exercise_archive;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(async {
//! exercise_archive(|| async { Arc::new(MemoryDeadLetters::new()) }).await;
//! # });
//! ```
//!
//! They run on real time and need a multi-threaded runtime to be worth their name: some of it lets tasks compete.

mod competition;
mod fixtures;
mod listing;
mod model;
mod redrive;
mod sink;

use std::sync::Arc;

use async_trait::async_trait;

use crate::dead_letter::{DeadLetter, DeadLetterSink};

pub use fixtures::letter;
pub use model::agrees_with_the_model;

/// A place where a sink keeps its letters, seen from outside.
#[async_trait]
pub trait Place: Send + Sync {
    /// A sink on this place, as another process would open it. Where no other process can, another handle.
    async fn open(&self) -> Arc<dyn DeadLetterSink>;

    /// What is kept there, in any order, one letter per identity.
    async fn kept(&self) -> Vec<DeadLetter>;
}

/// Runs the suite of sinks. `make` gives a fresh, empty place each time it is called.
///
/// # Panics
/// When the sink breaks its contract; the message says how.
pub async fn exercise_sink<P, M, F>(make: M)
where
    P: Place,
    M: Fn() -> F + Sync,
    F: Future<Output = P> + Send,
{
    sink::exercise(&make).await;
}

/// Runs the suite of archives. `make` gives a sink that is an archive, on a fresh, empty place, each time it is called.
///
/// # Panics
/// When the archive breaks its contract; the message says how. For a failure of the randomised part it holds the seed,
/// for [`agrees_with_the_model`].
pub async fn exercise_archive<S, M, F>(make: M)
where
    S: DeadLetterSink + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    listing::exercise(&make).await;
    redrive::exercise(&make).await;
    competition::exercise(&make).await;
    for seed in [1, 2, 3, fastrand::u64(..)] {
        agrees_with_the_model(&*make().await, seed, 200).await;
    }
}
