//! What rides with a checkpoint, so that the next owner of a lease goes on where the last one was.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::lane::lane_of;
use super::{CrashRecord, OrdinalSet};
use crate::{CheckpointState, ExtendedSequenceNumber, PartitionKey, SequenceNumber, Timestamp};

/// What is known beyond a checkpoint.
///
/// It is written as [`postcard`](https://docs.rs/postcard), format version 2, in the blob of the checkpoint that it belongs
/// to. A reader ignores versions that it does not know, and what it cannot read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeState {
    /// When everything that had arrived in the shard was done, in milliseconds since 1970.
    pub caught_up_at: Option<i64>,
    /// From when on nothing may be missed although the checkpoint names no record, in milliseconds since 1970. Beside `LATEST`:
    /// when the shard was first opened at its tip. Beside `TRIM_HORIZON`: the time that an operator wants it to be read from.
    pub opened_at: Option<i64>,
    /// The position of the first user record after the checkpoint, which has ordinal 0 and is neither done nor dead. If
    /// another one comes first, ordinals mean nothing.
    pub first: Option<StoredPosition>,
    /// What is finished beyond the checkpoint.
    pub finished: Option<Finished>,
    /// The failures of batches that wait for another attempt.
    pub failed: Vec<FailedBatch>,
    /// Whether processes die over this shard.
    pub crashes: CrashRecord,
}

/// The records beyond a checkpoint that are settled, by ordinal, filtered ones counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Which they are.
    pub records: FinishedRecords,
    /// The ordinal of the last of them, and its position. If it is another one, ordinals mean nothing.
    pub last: (u64, StoredPosition),
}

/// Which records are settled, in few bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishedRecords {
    /// Those with these ordinals.
    Ordinals(OrdinalSet),
    /// Of each lane, those before an ordinal: where the others would take too many bytes. What is finished in a lane beyond
    /// one that is not, as happens where single failures are reported, is not among them.
    Lanes(LaneMarks),
}

/// For each lane the ordinal of its first record that is not settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneMarks {
    /// What is added to the ordinal of a record without a key, which decides its lane.
    pub(super) turn: u64,
    pub(super) marks: Vec<u64>,
}

impl LaneMarks {
    /// Whether a record with this ordinal and key is among them.
    pub fn contains(&self, ordinal: u64, key: Option<&PartitionKey>) -> bool {
        let lane = lane_of(key, ordinal.wrapping_add(self.turn), self.marks.len() as u64);
        self.marks.get(lane).is_some_and(|mark| ordinal < *mark)
    }
}

/// A batch that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedBatch {
    /// The ordinal of its first record.
    pub first: u64,
    /// How many records of its lane it has.
    pub records: u32,
    /// How often it has failed.
    pub failures: u32,
}

/// A position in few bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPosition {
    sequence_number: Number,
    sub_sequence_number: u64,
}

/// Kinesis's numbers have 56 digits and fit into 192 bits; engines may use more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Number {
    Limbs(u64, u64, u64),
    Text(String),
}

impl From<ExtendedSequenceNumber> for StoredPosition {
    fn from(position: ExtendedSequenceNumber) -> Self {
        let sequence_number = match position.sequence_number.to_limbs() {
            Some([high, middle, low]) => Number::Limbs(high, middle, low),
            None => Number::Text(position.sequence_number.to_string()),
        };
        Self { sequence_number, sub_sequence_number: position.sub_sequence_number }
    }
}

impl StoredPosition {
    /// The position; `None` for what is none.
    pub fn position(&self) -> Option<ExtendedSequenceNumber> {
        let sequence_number = match &self.sequence_number {
            Number::Limbs(high, middle, low) => SequenceNumber::from_limbs([*high, *middle, *low]),
            Number::Text(text) => text.parse().ok()?,
        };
        Some(ExtendedSequenceNumber::new(sequence_number, self.sub_sequence_number))
    }
}

/// The format of the blob.
const VERSION: u32 = 2;

impl ResumeState {
    /// The blob and its version; `None` where there is nothing to say.
    pub fn encode(&self) -> Option<(u32, Bytes)> {
        if *self == Self::default() {
            return None;
        }
        // Only types that postcard refuses (maps of unknown length, say) could fail, and there are none.
        postcard::to_allocvec(self).ok().map(|bytes| (VERSION, bytes.into()))
    }

    /// What a blob says; nothing for a format that is not known, and for what is damaged.
    pub fn decode(state: &CheckpointState) -> Option<Self> {
        if state.version != VERSION {
            return None;
        }
        postcard::from_bytes(&state.data).ok()
    }

    /// How many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        self.encode().map_or(0, |(_, bytes)| bytes.len())
    }

    /// Without what matters least, until it takes at most so many bytes: how often batches failed, then all deaths but the
    /// newest, then what is finished, which only costs that it is delivered again.
    #[must_use]
    pub(super) fn cut_to(mut self, max_bytes: usize) -> Self {
        while self.bytes() > max_bytes {
            let deaths = &mut self.crashes.deaths;
            let is_cut = self.failed.pop().is_some()
                || (deaths.len() > 1 && deaths.pop().is_some())
                || self.finished.take().is_some();
            if !is_cut {
                break;
            }
        }
        self
    }

    /// When everything that had arrived in the shard was done.
    pub fn caught_up_at(&self) -> Option<Timestamp> {
        self.caught_up_at.map(Timestamp::from_millis)
    }

    /// From when on nothing may be missed although the checkpoint names no record.
    pub fn opened_at(&self) -> Option<Timestamp> {
        self.opened_at.map(Timestamp::from_millis)
    }

    /// What the tip of a quiet shard does not change: the rest.
    #[must_use]
    pub fn without_time(self) -> Self {
        Self { caught_up_at: None, ..self }
    }

    /// What holds whatever the records after the checkpoint are.
    #[must_use]
    pub fn without_records(self) -> Self {
        Self { first: None, finished: None, failed: Vec::new(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Checkpoint;

    fn state(version: u32, data: Bytes) -> CheckpointState {
        CheckpointState { belongs_to: Checkpoint::Latest, version, data }
    }

    #[test]
    fn a_position_of_kinesis_takes_few_bytes() {
        let text = "49590338271490256608559692538361571095921575989136588898";
        let position = ExtendedSequenceNumber::new(text.parse().expect("a number"), 7);
        let place = StoredPosition::from(position);
        assert_eq!(place.position(), Some(position));
        assert!(postcard::to_allocvec(&place).expect("it encodes").len() <= 30);
    }

    #[test]
    fn nothing_takes_no_bytes_and_other_versions_are_ignored() {
        assert_eq!(ResumeState::default().encode(), None);
        let resume = ResumeState { caught_up_at: Some(7), ..ResumeState::default() };
        let (version, data) = resume.encode().expect("something");
        assert_eq!(ResumeState::decode(&state(version, data.clone())), Some(resume));
        assert_eq!(ResumeState::decode(&state(version + 1, data.clone())), None);
        assert_eq!(ResumeState::decode(&state(version, data.slice(1..))), None);
    }

    proptest! {
        #[test]
        fn positions_round_trip(number in "0|[1-9][0-9]{0,128}", sub: u64) {
            let position = ExtendedSequenceNumber::new(number.parse().expect("a number"), sub);
            prop_assert_eq!(StoredPosition::from(position).position(), Some(position));
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ResumeState::decode(&state(VERSION, bytes.into()));
        }
    }
}
