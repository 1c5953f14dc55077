//! The delivery of a shard's user records to its processors: a pure state machine.
//!
//! ```text
//!          by key                count, bytes, window        oldest first, one at a time
//! Arrived ────────► lanes ─────────────────────────► segments ─────────────────────────► Invoke
//!                                                       ▲ │                                │ Finished
//!              split, isolated, or as it was; later ────┘ │ given up                       │
//!                                                         ▼                                ▼ done
//!                                                       Bury ──── Buried ───► dead ───► ledger ───► watermark
//! ```
//!
//! [`Delivery::step`] takes an event and the time and gives commands; whoever drives it carries them out and does
//! nothing else. There is one path for everything, failures or not:
//!
//! - Each partition key has its **lane**; a lane is worked on in order, one batch at a time.
//! - What a processor says of a batch ([`Verdict`]) splits it, isolates records, retries it, or ends it: a pure function
//!   of its own.
//! - What is done or dead is **settled** in the ledger. The watermark never passes a record that is not. What is settled
//!   beyond it rides with the checkpoint ([`ResumeState`]) and is not delivered again after a restart.
//! - Records over which the process dies are found and given up by what is stored about them before
//!   ([`CrashRecord`]).

mod batch;
mod crashes;
mod events;
mod fuse;
mod lane;
mod ledger;
mod machine;
mod ordinals;
mod policy;
mod restored;
mod resume;
mod segment;
mod verdict;

pub use batch::Batch;
pub use crashes::{CrashRecord, Suspect};
pub use events::{Burial, BurialOutcome, Command, Doom, Event, Intake, Now, Settled};
pub use fuse::{Fuse, FuseAction, FusePolicy};
pub use machine::Delivery;
pub use ordinals::OrdinalSet;
pub use policy::{BatchSettings, DeliveryPolicy, OnSinkFailure, OnUndecodable};
pub use resume::{FailedBatch, Finished, FinishedRecords, LaneMarks, ResumeState, StoredPosition};
pub use verdict::{ErrorClass, Failure, Verdict};
