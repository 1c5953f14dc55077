//! Decisions about reading: how much may be buffered, how many records to ask for, and when.

mod budget;
mod pacing;
mod sizing;

pub use budget::{Admission, Budget, Slot};
pub use pacing::ReadPacer;
pub use sizing::{ReadSizer, share_of_retention};
