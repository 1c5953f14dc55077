//! Checkpoints: how far a shard has been processed, with the KCL's sentinels.

use std::fmt;

use bytes::Bytes;

use crate::{ExtendedSequenceNumber, InvalidSequenceNumber, SequenceNumber};

/// How far a shard has been processed. The order is the KCL's: `AT_TIMESTAMP` < `TRIM_HORIZON` < `LATEST` < any
/// position < `SHARD_END`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Checkpoint {
    /// Nothing is done; start at the first record that arrived at or after the time that the worker is configured with
    /// (the time itself is not stored, as in the KCL).
    AtTimestamp,
    /// Nothing is done; start at the oldest record that the stream still holds.
    TrimHorizon,
    /// Nothing is done; start after the newest record.
    Latest,
    /// Everything up to and including this user record is done.
    At(ExtendedSequenceNumber),
    /// Every record of the shard is done, and no more will come.
    ShardEnd,
}

const AT_TIMESTAMP: &str = "AT_TIMESTAMP";
const TRIM_HORIZON: &str = "TRIM_HORIZON";
const LATEST: &str = "LATEST";
const SHARD_END: &str = "SHARD_END";

impl Checkpoint {
    /// The checkpoint as a lease table stores it: a decimal sequence number or a sentinel, and the sub-sequence number
    /// (0 for a sentinel).
    pub fn to_stored(self) -> (String, u64) {
        match self {
            Self::AtTimestamp => (AT_TIMESTAMP.into(), 0),
            Self::TrimHorizon => (TRIM_HORIZON.into(), 0),
            Self::Latest => (LATEST.into(), 0),
            Self::At(position) => (position.sequence_number.to_string(), position.sub_sequence_number),
            Self::ShardEnd => (SHARD_END.into(), 0),
        }
    }

    /// The inverse of [`to_stored`](Self::to_stored).
    ///
    /// # Errors
    /// When `checkpoint` is neither a sentinel nor a sequence number.
    pub fn from_stored(checkpoint: &str, sub_sequence_number: u64) -> Result<Self, InvalidSequenceNumber> {
        Ok(match checkpoint {
            AT_TIMESTAMP => Self::AtTimestamp,
            TRIM_HORIZON => Self::TrimHorizon,
            LATEST => Self::Latest,
            SHARD_END => Self::ShardEnd,
            number => Self::At(ExtendedSequenceNumber::new(number.parse::<SequenceNumber>()?, sub_sequence_number)),
        })
    }

    /// The position up to which everything is done; `None` for a sentinel.
    pub const fn position(&self) -> Option<ExtendedSequenceNumber> {
        match self {
            Self::At(position) => Some(*position),
            Self::AtTimestamp | Self::TrimHorizon | Self::Latest | Self::ShardEnd => None,
        }
    }

    /// Whether every record of the shard is done.
    pub const fn is_shard_end(&self) -> bool {
        matches!(self, Self::ShardEnd)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtTimestamp => f.pad(AT_TIMESTAMP),
            Self::TrimHorizon => f.pad(TRIM_HORIZON),
            Self::Latest => f.pad(LATEST),
            Self::At(position) => fmt::Display::fmt(position, f),
            Self::ShardEnd => f.pad(SHARD_END),
        }
    }
}

/// An opaque, versioned blob that rides with a checkpoint and is written in the same conditional write.
///
/// It names the exact checkpoint that it belongs to. Beside any other (a Java worker's, a reset's) it means nothing and
/// is ignored; see [`Lease::state`](crate::Lease::state).
#[derive(Clone, PartialEq, Eq)]
pub struct CheckpointState {
    /// The checkpoint that the blob was written with.
    pub belongs_to: Checkpoint,
    /// The format of the blob. A reader ignores versions that it does not know.
    pub version: u32,
    /// The blob. Stores accept at least [`MAX_CHECKPOINT_STATE_BYTES`].
    pub data: Bytes,
}

/// The bytes of checkpoint state that every store must accept: far above the 1 KiB that the framework writes by
/// default, far below DynamoDB's item limit of 400 KB.
pub const MAX_CHECKPOINT_STATE_BYTES: usize = 64 * 1024;

impl fmt::Debug for CheckpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointState")
            .field("belongs_to", &self.belongs_to)
            .field("version", &self.version)
            .field("bytes", &self.data.len())
            .finish()
    }
}

/// A checkpoint that was announced but not committed (the KCL's two-phase `prepareCheckpoint`).
#[derive(Clone, PartialEq, Eq)]
pub struct PendingCheckpoint {
    /// The checkpoint that a later write is to commit.
    pub checkpoint: Checkpoint,
    /// What the application stored with it.
    pub state: Option<Bytes>,
}

impl fmt::Debug for PendingCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCheckpoint")
            .field("checkpoint", &self.checkpoint)
            .field("state_bytes", &self.state.as_ref().map(Bytes::len))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64, sub: u64) -> Checkpoint {
        Checkpoint::At(ExtendedSequenceNumber::new(number.into(), sub))
    }

    #[test]
    fn the_order_is_the_kcls() {
        let ascending = [
            Checkpoint::AtTimestamp,
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            at(0, 0),
            at(9, 0),
            at(9, 1),
            at(10, 0),
            Checkpoint::ShardEnd,
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn stored_form_round_trips() {
        for checkpoint in
            [Checkpoint::AtTimestamp, Checkpoint::TrimHorizon, Checkpoint::Latest, at(7, 3), Checkpoint::ShardEnd]
        {
            let (text, sub) = checkpoint.to_stored();
            assert_eq!(Checkpoint::from_stored(&text, sub), Ok(checkpoint));
        }
        assert!(Checkpoint::from_stored("latest", 0).is_err());
        assert!(Checkpoint::from_stored("", 0).is_err());
    }

    #[test]
    fn debug_shows_the_length_of_state_and_not_its_bytes() {
        let state = CheckpointState { belongs_to: at(1, 0), version: 1, data: Bytes::from_static(b"secret") };
        assert_eq!(format!("{state:?}"), "CheckpointState { belongs_to: At(1/0), version: 1, bytes: 6 }");
    }
}
