//! Why a record is not read as an aggregated record.

use crate::InvalidExplicitHashKey;

/// Why a record is no aggregated record: it was put by something else than an aggregating producer, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAggregated {
    /// 20 bytes or fewer, which leaves no room for a message beside magic and digest.
    #[error("it is too short")]
    TooShort,
    /// It starts with something else than the magic.
    #[error("it starts with something else than the magic")]
    OtherMagic,
    /// It starts with the magic, but its last 16 bytes are not the MD5 of the bytes between.
    #[error("its digest does not match")]
    DigestMismatch,
}

/// Why a record with the magic and a matching digest has no user records. Chance does not make these: the encoder is
/// broken, or hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The body is not the message that the format prescribes.
    #[error("its body cannot be parsed: {0}")]
    Unparsable(#[from] ParseError),
    /// A user record points behind the end of the table of partition keys.
    #[error("user record {record} has partition key {index} of {entries}")]
    PartitionKeyIndex {
        /// The sub-sequence number of the first such user record.
        record: u64,
        /// The index, from 0.
        index: u64,
        /// How many entries the table has.
        entries: usize,
    },
    /// A user record points behind the end of the table of explicit hash keys.
    #[error("user record {record} has explicit hash key {index} of {entries}")]
    ExplicitHashKeyIndex {
        /// The sub-sequence number of the first such user record.
        record: u64,
        /// The index, from 0.
        index: u64,
        /// How many entries the table has.
        entries: usize,
    },
    /// A user record's partition key is not UTF-8.
    #[error("the partition key of user record {record} is not UTF-8")]
    PartitionKeyEncoding {
        /// The sub-sequence number of the first such user record.
        record: u64,
    },
    /// A user record's explicit hash key is no hash key.
    #[error("the explicit hash key of user record {record} is none: {error}")]
    ExplicitHashKey {
        /// The sub-sequence number of the first such user record.
        record: u64,
        /// What is wrong with it.
        error: InvalidExplicitHashKey,
    },
}

impl Malformed {
    /// Whether the KCL delivers such a record as it is, as if it were not aggregated, without any loss. It does so
    /// for a body that cannot be parsed; of every other malformed record it drops some or all user records.
    pub const fn passes_through(&self) -> bool {
        matches!(self, Self::Unparsable(_))
    }
}

/// Why a body is not the message that the format prescribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// A field ends behind the end of the message that it is in.
    #[error("a field is cut off")]
    Truncated,
    /// A varint is longer than ten bytes or does not fit 64 bits.
    #[error("a varint does not fit 64 bits")]
    Varint,
    /// A field number that is 0 or above 2^29 - 1.
    #[error("a field number is out of range")]
    FieldNumber,
    /// A wire type that protobuf does not define.
    #[error("a wire type is unknown")]
    WireType,
    /// A group ends that did not begin, or another one than began last.
    #[error("a group ends that did not begin")]
    Group,
    /// Messages and groups nest deeper than 100 levels, which is where protobuf implementations stop.
    #[error("groups are nested too deeply")]
    TooDeep,
    /// A user record without partition key index, without data, or with a tag without key.
    #[error("a required field is missing")]
    MissingField,
}
