//! Implementations of the seams in memory.

mod dead_letters;
pub mod kinesis;
mod leases;
mod stream;

pub use dead_letters::MemoryDeadLetters;
pub use leases::MemoryLeaseStore;
pub use stream::MemoryStream;
