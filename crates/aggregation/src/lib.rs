//! The aggregated record format of the Kinesis Producer Library (KPL), both ways, and the hash-key routing of Amazon
//! Kinesis data streams. It does no I/O and needs no runtime.
//!
//! # Aggregation
//!
//! A producer puts many user records into one record; a consumer takes them out again. [`Aggregator`] does the one and
//! [`deaggregate`] the other:
//!
//! ```
//! use shardwell_aggregation::{Aggregator, Deaggregated, Limits, Outer, deaggregate};
//!
//! let mut aggregator = Aggregator::new(Limits::default());
//! aggregator.try_add("N14228", None, b"departed")?;
//! aggregator.try_add("N24211", None, b"arrived")?;
//! let record = aggregator.finish().expect("it holds two user records");
//!
//! // `record.data` goes to Kinesis with `record.partition_key` and `record.explicit_hash_key`, and comes back.
//! let Deaggregated::Aggregated(user_records) = deaggregate(record.data, Outer::default()) else {
//!     panic!("it was aggregated");
//! };
//! for user_record in user_records {
//!     println!("{}: {:?}", user_record.partition_key, user_record.data);
//! }
//! # Ok::<(), shardwell_aggregation::AddError>(())
//! ```
//!
//! Most of the time of both goes into the MD5 at the end of each record. Many records at once, as a read from a stream
//! returns them, take a fraction of it: see [`deaggregate_batch`].
//!
//! [`deaggregate`] tells apart what is not aggregated, what is broken and how, and what is good, and never yields a
//! part of a broken record. [`deaggregate_like_kcl`] reads as the Java KCL does, losses included. What to do with user
//! records that belong to another shard is a [`RangePolicy`].
//!
//! ## Layout
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | the magic `F3 89 9A C2` |
//! | 4 | n | a protobuf (proto2) message `AggregatedRecord` |
//! | 4 + n | 16 | the MD5 of the n bytes of the message |
//!
//! ```text
//! message AggregatedRecord {
//!   repeated string partition_key_table     = 1;   // 0A length key
//!   repeated string explicit_hash_key_table = 2;   // 12 length decimal digits
//!   repeated Record records                 = 3;   // 1A length record
//! }
//! message Record {
//!   required uint64 partition_key_index     = 1;   // 08 index, from 0
//!   optional uint64 explicit_hash_key_index = 2;   // 10 index, from 0; only where the user record has one
//!   required bytes  data                    = 3;   // 1A length data
//!   repeated Tag    tags                    = 4;   // written and read by nobody
//! }
//! message Tag { required string key = 1; optional string value = 2; }
//! ```
//!
//! The user records (`a`, `1`) and (`b`, `2`) are these 40 bytes:
//!
//! ```text
//! F3 89 9A C2                                          magic
//! 0A 01 61                                             partition key 0: "a"
//! 0A 01 62                                             partition key 1: "b"
//! 1A 05 08 00 1A 01 31                                 partition key 0, data "1"
//! 1A 05 08 01 1A 01 32                                 partition key 1, data "2"
//! E2 B8 EA E4 16 63 8C 34 9A A5 39 37 E4 4A 58 FA      MD5 of the 20 bytes in the middle
//! ```
//!
//! # Routing
//!
//! Every record has a 128-bit hash key: its explicit hash key if it was put with one, else the MD5 of its partition
//! key's bytes, read as a big-endian number. Every shard owns an inclusive range of hash keys, and a record belongs to
//! the open shard whose range holds its hash key:
//!
//! ```
//! use shardwell_aggregation::{HashKeyRange, hash_key};
//!
//! let shards = HashKeyRange::even_split(4);
//! let key = hash_key(b"N14228");
//! assert_eq!(shards.iter().filter(|range| range.contains(key)).count(), 1);
//! ```
//!
//! [`hash_keys`] hashes many keys at once, [`ShardMap`] looks shards up, [`parse_explicit_hash_key`] reads hash keys as the API writes them.

#![warn(missing_docs)]

mod decode;
mod digest;
mod encode;
mod explicit_hash_key;
mod format;
mod hash_key;
mod range;
mod shard_map;

pub use decode::{
    Aggregate, Classification, Deaggregated, DeaggregatedBatch, KclDeaggregated, KclLoss, KclLossReason, Malformed,
    NotAggregated, Outer, ParseError, RangeCounts, RangePolicy, RawRecord, UserRecord, UserRecordView, UserRecordViews,
    UserRecords, deaggregate, deaggregate_batch, deaggregate_like_kcl,
};
pub use encode::{AddError, AggregatedRecord, Aggregator, InvalidLimits, Limits, Single};
pub use explicit_hash_key::{InvalidExplicitHashKey, parse_explicit_hash_key};
pub use hash_key::{effective_hash_key, hash_key, hash_keys};
pub use range::{HashKeyRange, InvalidRange};
pub use shard_map::{OverlappingRanges, ShardMap};
