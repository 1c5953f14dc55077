//! The delivery of a shard's user records to its processor: a pure state machine.
//!
//! ```text
//!             Arrived                    Invoke                     Finished
//! records ──────────────► collecting ──────────────► in flight ──────────────► Done (watermark)
//!                         (count, bytes, window)        ▲   │ failed
//!                                                       └───┘ after a backoff
//! ```
//!
//! [`Delivery::step`] takes an event and the time and gives commands; whoever drives it carries them out and does
//! nothing else. A shard has one lane here: lane 0. Nothing is delivered out of order, nothing is skipped, and a batch
//! that fails is delivered again, whole, until it is done.

mod batch;
mod machine;

pub use batch::{Batch, BatchSettings};
pub use machine::{Command, Delivery, Event, Verdict};
