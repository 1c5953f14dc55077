//! Positions in a stream, written so that they sort.

use std::fmt;
use std::str::FromStr;

use aws_sdk_dynamodb::types::AttributeValue;
use shardwell_core::{ExtendedSequenceNumber, UserRecord};

/// The version that a record gives an item: its extended sequence number.
///
/// It is stored as text that sorts as the numbers do: before the digits of the sequence number how many there are, in three digits,
/// and before those of the sub-sequence number, in two. A sequence number of Kinesis has 56 digits, and a number in DynamoDB
/// no more than 38.
///
/// Versions of one partition key are comparable for ever, across reshards too; those of unrelated shards are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(ExtendedSequenceNumber);

/// Text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a version: 3 digits, as many digits as they say, 2 digits, as many digits as they say")]
pub struct InvalidVersion(pub String);

impl Version {
    /// The position of the record.
    pub const fn position(self) -> ExtendedSequenceNumber {
        self.0
    }

    pub(super) fn to_attribute(self) -> AttributeValue {
        AttributeValue::S(self.to_string())
    }

    pub(super) fn from_attribute(value: &AttributeValue) -> Option<Self> {
        value.as_s().ok()?.parse().ok()
    }
}

impl From<ExtendedSequenceNumber> for Version {
    fn from(position: ExtendedSequenceNumber) -> Self {
        Self(position)
    }
}

impl From<&UserRecord> for Version {
    fn from(record: &UserRecord) -> Self {
        Self(record.position)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, sub) = (self.0.sequence_number.to_string(), self.0.sub_sequence_number.to_string());
        write!(f, "{:03}{number}{:02}{sub}", number.len(), sub.len())
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (number, rest) = counted(text, 3)?;
            let (sub, rest) = counted(rest, 2)?;
            let position = ExtendedSequenceNumber::new(number.parse().ok()?, sub.parse().ok()?);
            // Only what sorts is a version: nothing after it, and no digit that could be left out.
            (rest.is_empty() && Self(position).to_string() == text).then_some(Self(position))
        };
        parse().ok_or_else(|| InvalidVersion(text.chars().take(160).collect()))
    }
}

/// What follows its own length, which takes `width` digits; and the rest.
fn counted(text: &str, width: usize) -> Option<(&str, &str)> {
    let length = text.get(..width)?.parse::<usize>().ok()?;
    Some((text.get(width..width + length)?, text.get(width + length..)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(digits: &str, sub: u64) -> Version {
        Version(ExtendedSequenceNumber::new(digits.parse().expect("digits"), sub))
    }

    #[test]
    fn text_of_another_form_is_no_version() {
        assert_eq!(version("4711", 12).to_string(), "00447110212");
        for wrong in ["", "4711", "0044711", "00447110212x", "0050471101", "00447110301", "999"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn versions_sort_as_positions_do_and_round_trip(
            a in "0|[1-9][0-9]{0,60}", b in "0|[1-9][0-9]{0,60}", x in any::<u64>(), y in any::<u64>()
        ) {
            let (one, other) = (version(&a, x), version(&b, y));
            prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
            prop_assert_eq!(one.to_string().parse(), Ok(one));
            let same = version(&a, y);
            prop_assert_eq!(one.cmp(&same), one.to_string().cmp(&same.to_string()));
        }
    }
}
