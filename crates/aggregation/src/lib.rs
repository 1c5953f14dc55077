//! Hash-key routing of Amazon Kinesis data streams.
//!
//! Every record has a 128-bit hash key: its explicit hash key if it was put with one, else the MD5 of its partition
//! key's bytes, read as a big-endian number. Every shard owns an inclusive range of hash keys, and a record belongs to
//! the open shard whose range holds its hash key. This crate computes both; it does no I/O and needs no runtime.
//!
//! ```
//! use shardwell_aggregation::{HashKeyRange, hash_key};
//!
//! let shards = HashKeyRange::even_split(4);
//! let key = hash_key(b"N14228");
//! assert_eq!(shards.iter().filter(|range| range.contains(key)).count(), 1);
//! ```

#![warn(missing_docs)]

mod hash_key;
mod range;

pub use hash_key::hash_key;
pub use range::{HashKeyRange, InvalidRange};
