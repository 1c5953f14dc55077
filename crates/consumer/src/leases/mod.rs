//! The way of a lease.
//!
//! ```text
//!  prepare ──► sync ──► claim ──► hold ──► finish / release
//!  (table,     (list    (free or   │ ▲
//!   identity)   shards,  expired)   │ │ checkpoint
//!               create             ▼ │
//!               leases)           renew (once per lease and period)
//! ```
//!
//! All of it runs at [`Place::Coordination`](shardwell_core::Place::Coordination), on its own thread with its own
//! connections; the consumer of each held lease runs at `Place::Pipeline`, and they meet in [`HeldLease`].

mod claim;
mod held;
mod hold;
mod prepare;
mod renew;
mod sync;

pub(crate) use claim::run as claim;
pub(crate) use held::{HeldLease, HeldLeases, Stop};
pub(crate) use hold::flush;
pub(crate) use prepare::{may_pass, prepare};
pub(crate) use renew::{Flush, LeaseGone, run as renew};
pub(crate) use sync::{once as sync_once, run as sync};
