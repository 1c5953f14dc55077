//! Dead letters: what becomes of a record that cannot be processed, and the seam to where they are kept.
//!
//! ```text
//!               put                     request              claim                 resolve
//! delivery ───────────► Dead ─────────────────────► Requested ──────► Redriving ──────────────► Redriven
//!                        ▲                                                │ failed again
//!                        └────────────────────────────────────────────────┴──► Parked (after the last round)
//! ```
//!
//! A [`DeadLetter`] holds everything that is known of a record's end, payload included. A [`DeadLetterSink`] makes it
//! durable; one that can read letters back is a [`DeadLetterArchive`] too, and letters can be redriven from there.

mod archive;
mod error;
mod json;
mod lambda;
mod letter;
mod sink;

pub use archive::{ArchivedLetter, Claim, DeadLetterArchive, LetterPage, LetterQuery, LetterState, Resolution};
pub use error::{SinkError, SinkErrorKind};
pub use json::{InvalidLetter, LETTER_FORMAT_VERSION};
pub use lambda::lambda_document;
pub(crate) use letter::push_attempt;
pub use letter::{Attempt, BatchInfo, DeadLetter, DeadReason, InvalidLetterId, LetterId, MAX_ATTEMPTS_KEPT};
pub use sink::DeadLetterSink;
