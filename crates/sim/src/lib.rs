//! Simulated environments: whole workers, unchanged, in virtual time.
//!
//! A [`SimEnv`] is one worker's process: its clocks, its tasks, its randomness. It runs on a paused, current-thread tokio
//! runtime, where time passes only when every task waits; so a minute costs a moment, and the same seed gives the same
//! run, to the byte.
//!
//! A process can be frozen (its tasks stand still while the world goes on, as under `SIGSTOP`), thawed, and crashed (its
//! tasks are dropped, as by `kill -9`); and its clock can run faster or slower than the others'. A [`FaultyLeaseStore`]
//! refuses, loses replies and hangs as a plan says; so does a [`FaultyDeadLetterSink`].

#![warn(missing_docs)]

mod dead_letters;
mod env;
mod fleet;
mod lease_store;

pub use dead_letters::FaultyDeadLetterSink;
pub use env::SimEnv;
pub use fleet::{Invariant, Kind, Lie, Options, Outcome, Tally, Violation, run};
pub use lease_store::{Fault, FaultPlan, FaultyLeaseStore};
