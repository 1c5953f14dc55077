//! The way of a lease.
//!
//! ```text
//!  leader:        lead ──► sync (shards ⇒ leases) ──► plan ──► assign / start handoff
//!  every worker:  prepare ──► register ──► discover ──► hold ──► hand over / finish / lose ──► stop
//!                 (table,     (in the      (what I      │ ▲
//!                  identity)   plan)        was given)  │ │ checkpoint
//!                                                       ▼ │
//!                                                      renew (once per lease and period)
//! ```
//!
//! Where there are several streams, `follow` says which of them are consumed, and each of the others acts on that.
//!
//! All of it runs at [`Place::Coordination`](shardwell_core::Place::Coordination), on its own thread with its own
//! connections; the consumer of each held lease runs at `Place::Pipeline`, and they meet in [`HeldLease`].

mod discover;
mod follow;
mod hand_over;
mod held;
mod hold;
mod lead;
mod liveness;
mod prepare;
mod register;
mod renew;
mod roster;
mod stop;
mod sync;

pub(crate) use discover::run as discover;
pub(crate) use follow::run as follow;
pub(crate) use hand_over::flush;
pub(crate) use held::{HeldLease, HeldLeases, Stop};
pub(crate) use lead::run as lead;
pub(crate) use prepare::{may_pass, prepare};
pub(crate) use register::{Registration, first as register_first, leave as leave_plan, run as register, undrain};
pub(crate) use renew::{Flush, LeaseGone, run as renew};
pub(crate) use roster::Roster;
pub(crate) use sync::run as sync;
