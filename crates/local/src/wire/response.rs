//! Writing answers.

use std::io::Write as _;

use serde::Serialize;
use serde::ser::Serializer;
use shardwell_core::memory::kinesis::StreamMode;
use shardwell_core::{HashKeyRange, SequenceNumber, Shard, StreamStatus, Timestamp};

use super::ApiError;

/// An answer as JSON.
pub(crate) fn to_json(answer: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(answer).map_err(|error| ApiError::serialization(error.to_string()))
}

/// A time as seconds since 1970: exact to the millisecond, since such numbers have fewer digits than an `f64` holds.
pub(crate) fn seconds<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_millis() as f64 / 1000.0)
}

/// Appends a time as seconds since 1970.
pub(crate) fn push_seconds(out: &mut Vec<u8>, time: Timestamp) {
    let (sign, millis) = (if time.as_millis() < 0 { "-" } else { "" }, time.as_millis().unsigned_abs());
    // Writing to a vector cannot fail.
    let _ = write!(out, "{sign}{}.{:03}", millis / 1000, millis % 1000);
}

/// Appends `"<name>":"<number>"`.
pub(crate) fn push_number_field(out: &mut Vec<u8>, name: &str, number: SequenceNumber) {
    let _ = write!(out, "\"{name}\":\"");
    match number.to_limbs() {
        Some(limbs) => push_decimal(out, limbs),
        None => {
            let _ = write!(out, "{number}");
        }
    }
    out.push(b'"');
}

/// Appends a number of 192 bits, given from its most significant limb on. Every record of every answer passes here, and
/// its general `Display` is twice the work.
fn push_decimal(out: &mut Vec<u8>, mut limbs: [u64; 3]) {
    const CHUNK: u128 = 10u128.pow(19);
    let mut digits = [b'0'; 4 * 19];
    for chunk in digits.rchunks_mut(19) {
        let mut remainder = 0u128;
        for limb in &mut limbs {
            let dividend = (remainder << 64) | u128::from(*limb);
            *limb = (dividend / CHUNK) as u64;
            remainder = dividend % CHUNK;
        }
        let mut rest = remainder as u64;
        for digit in chunk.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        if limbs == [0; 3] {
            break;
        }
    }
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    out.extend_from_slice(&digits[zeros.min(digits.len() - 1)..]);
}

/// `StreamStatus` as the API writes it.
pub(crate) const fn status_name(status: StreamStatus) -> &'static str {
    match status {
        StreamStatus::Creating => "CREATING",
        StreamStatus::Active => "ACTIVE",
        StreamStatus::Updating => "UPDATING",
        StreamStatus::Deleting => "DELETING",
    }
}

/// `StreamModeDetails` as the API writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StreamModeView {
    stream_mode: &'static str,
}

pub(crate) const fn mode_view(mode: StreamMode) -> StreamModeView {
    let stream_mode = match mode {
        StreamMode::Provisioned => "PROVISIONED",
        StreamMode::OnDemand => "ON_DEMAND",
    };
    StreamModeView { stream_mode }
}

/// `Shard` as the API writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ShardView {
    shard_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_shard_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjacent_parent_shard_id: Option<String>,
    hash_key_range: HashKeyRangeView,
    sequence_number_range: SequenceNumberRangeView,
}

/// `HashKeyRange` as the API writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HashKeyRangeView {
    starting_hash_key: String,
    ending_hash_key: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SequenceNumberRangeView {
    starting_sequence_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ending_sequence_number: Option<String>,
}

impl From<&Shard> for ShardView {
    fn from(shard: &Shard) -> Self {
        Self {
            shard_id: shard.id.to_string(),
            parent_shard_id: shard.parent.as_ref().map(ToString::to_string),
            adjacent_parent_shard_id: shard.adjacent_parent.as_ref().map(ToString::to_string),
            hash_key_range: shard.hash_key_range.into(),
            sequence_number_range: SequenceNumberRangeView {
                starting_sequence_number: shard.starting_sequence_number.to_string(),
                ending_sequence_number: shard.ending_sequence_number.as_ref().map(ToString::to_string),
            },
        }
    }
}

impl From<HashKeyRange> for HashKeyRangeView {
    fn from(range: HashKeyRange) -> Self {
        Self { starting_hash_key: range.start().to_string(), ending_hash_key: range.end().to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_display() {
        for limbs in [[0, 0, 0], [0, 0, 9], [0, 0, 10u64.pow(19)], [0, 1, 0], [1 << 57, 2, 3], [u64::MAX; 3]] {
            let number = SequenceNumber::from_limbs(limbs);
            let mut out = Vec::new();
            push_number_field(&mut out, "n", number);
            assert_eq!(String::from_utf8_lossy(&out), format!("\"n\":\"{number}\""));
        }
        let mut out = Vec::new();
        let large: SequenceNumber = "9".repeat(129).parse().expect("a number");
        push_number_field(&mut out, "n", large);
        assert_eq!(String::from_utf8_lossy(&out), format!("\"n\":\"{large}\""));
    }

    #[test]
    fn times_are_written_as_seconds() {
        for (millis, text) in [(0, "0.000"), (1_357_017_300_007, "1357017300.007"), (-1_500, "-1.500")] {
            let mut out = Vec::new();
            push_seconds(&mut out, Timestamp::from_millis(millis));
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}
