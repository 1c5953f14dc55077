//! Implementations of the seams in memory.

pub mod kinesis;
mod leases;
mod stream;

pub use leases::MemoryLeaseStore;
pub use stream::MemoryStream;
