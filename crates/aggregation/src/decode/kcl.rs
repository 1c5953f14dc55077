//! Reading as the Java KCL reads (`AggregatorUtil`, 3.5), including what it loses.

use bytes::Bytes;

use super::aggregate::{Aggregate, body};
use super::body::Fields;
use super::filter::Membership;
use super::tables::{Rules, Scan, Tables};
use super::{Classification, Outer, RawRecord, envelope};
use crate::{HashKeyRange, InvalidExplicitHashKey, explicit_hash_key};

/// The KCL casts indexes to 32 bits before it looks them up.
const INDEX_MASK: u64 = 0xFFFF_FFFF;

/// What the KCL makes of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KclDeaggregated {
    /// It is delivered as it is: not aggregated, or its body cannot be parsed.
    Raw {
        /// The record.
        record: RawRecord,
        /// Which of the two.
        classification: Classification,
    },
    /// Its user records are delivered, or some of them, or none.
    UserRecords {
        /// Those that are delivered.
        records: Aggregate,
        /// Those that are not, if any.
        lost: Option<KclLoss>,
    },
}

/// User records that the KCL drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KclLoss {
    /// How many.
    pub records: u64,
    /// The sub-sequence number of the user record that is to blame.
    pub at: u64,
    /// Why.
    pub reason: KclLossReason,
}

/// Why the KCL drops user records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KclLossReason {
    /// A partition key index points behind its table. This user record and those after it are dropped, and an error
    /// is logged.
    PartitionKeyIndex,
    /// An explicit hash key index points behind its table. As above.
    ExplicitHashKeyIndex,
    /// An explicit hash key is no number. As above.
    ExplicitHashKey,
    /// A hash key lies outside the range of the shard. Every user record of the aggregated record is dropped, and
    /// nothing is logged.
    OutOfRange,
}

/// Reads a record exactly as the KCL does, losses included; they are told here. `range` is that of the shard it was
/// read from, [`HashKeyRange::FULL`] where the KCL would not know it.
///
/// Keys that are not UTF-8 are repaired as Java repairs them, indexes are cut to 32 bits, and explicit hash keys may
/// have a sign and leading zeros. One thing differs: digits of other scripts than ASCII, which Java takes in explicit
/// hash keys, are no digits here.
pub fn deaggregate_like_kcl(data: Bytes, outer: Outer, range: HashKeyRange) -> KclDeaggregated {
    let raw = |data, classification| KclDeaggregated::Raw { record: RawRecord::new(data, outer), classification };
    if let Err(reason) = envelope(&data) {
        return raw(data, reason.into());
    }
    let Ok(scan) = Scan::new(body(&data), Rules::Kcl) else {
        return raw(data, Classification::Unparsable);
    };
    let fault = first_fault(&scan.tables, body(&data), range);
    let kept = match fault {
        None => scan.records,
        Some((_, KclLossReason::OutOfRange)) => 0,
        Some((at, _)) => at,
    };
    let lost = fault.map(|(at, reason)| KclLoss { records: scan.records - kept, at, reason });
    let records = Aggregate::new(data, scan.tables, kept).with_index_mask(INDEX_MASK);
    KclDeaggregated::UserRecords { records, lost }
}

/// The first user record at which the KCL stops, and why.
fn first_fault(tables: &Tables, body: &[u8], range: HashKeyRange) -> Option<(u64, KclLossReason)> {
    let mut fields = Fields::new(body);
    let records = std::iter::from_fn(|| fields.next_record());
    let mut membership = Membership::new(range, tables);
    (0..).zip(records).find_map(|(n, record)| {
        let partition_key = record.partition_key & INDEX_MASK;
        let explicit = record.explicit_hash_key.map(|index| index & INDEX_MASK);
        fault(tables, partition_key, explicit, &mut membership).map(|reason| (n, reason))
    })
}

/// What the KCL finds wrong with one user record, in the order in which it looks.
fn fault(
    tables: &Tables,
    partition_key: u64,
    explicit_hash_key: Option<u64>,
    membership: &mut Membership,
) -> Option<KclLossReason> {
    if tables.partition_key(partition_key).is_none() {
        return Some(KclLossReason::PartitionKeyIndex);
    }
    let explicit = match explicit_hash_key {
        None => None,
        Some(index) => match (tables.explicit_hash_key(index), tables.explicit_hash_key_error(index)) {
            (None, _) => return Some(KclLossReason::ExplicitHashKeyIndex),
            (_, Some(InvalidExplicitHashKey::NotCanonical)) => return Some(KclLossReason::ExplicitHashKey),
            (_, Some(InvalidExplicitHashKey::OutOfRange)) => return Some(KclLossReason::OutOfRange),
            (explicit, None) => explicit,
        },
    };
    let inside = membership.is_full() || membership.decide(tables, partition_key, explicit);
    (!inside).then_some(KclLossReason::OutOfRange)
}

/// Parses a number as Java's `BigInteger` does, and checks that it is a hash key.
pub(super) fn parse_big_integer(text: &[u8]) -> Result<u128, InvalidExplicitHashKey> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidExplicitHashKey::NotCanonical);
    }
    match explicit_hash_key::sum(digits) {
        Some(0) => Ok(0),
        Some(value) if !negative => Ok(value),
        _ => Err(InvalidExplicitHashKey::OutOfRange),
    }
}

/// Appends bytes as text, with U+FFFD for what is not UTF-8, as Java does. It differs from Rust's repair for encoded
/// surrogates alone: these are one character to Java, three to Rust.
pub(super) fn push_repaired(text: &mut String, mut bytes: &[u8]) {
    loop {
        let error = match str::from_utf8(bytes) {
            Ok(rest) => return text.push_str(rest),
            Err(error) => error,
        };
        let (valid, broken) = bytes.split_at(error.valid_up_to());
        text.push_str(str::from_utf8(valid).unwrap_or_default());
        text.push(char::REPLACEMENT_CHARACTER);
        let skipped = match broken {
            [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..] => 3,
            [0xED, 0xA0..=0xBF, ..] => 2,
            _ => error.error_len().unwrap_or(broken.len()),
        };
        bytes = broken.get(skipped..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn big_integers_have_signs_and_leading_zeros() {
        for (text, expected) in [
            ("7", Ok(7)),
            ("+7", Ok(7)),
            ("007", Ok(7)),
            ("-0", Ok(0)),
            ("-7", Err(InvalidExplicitHashKey::OutOfRange)),
            ("340282366920938463463374607431768211456", Err(InvalidExplicitHashKey::OutOfRange)),
            ("0000000000000000000000000000000000000000001", Ok(1)),
            ("+", Err(InvalidExplicitHashKey::NotCanonical)),
            ("", Err(InvalidExplicitHashKey::NotCanonical)),
            ("+-7", Err(InvalidExplicitHashKey::NotCanonical)),
            ("7-", Err(InvalidExplicitHashKey::NotCanonical)),
        ] {
            assert_eq!(parse_big_integer(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn an_encoded_surrogate_is_one_replacement() {
        for (bytes, expected) in [
            (&b"a\xED\xA0\x80b"[..], "a\u{FFFD}b"),
            (b"\xED\xA0", "\u{FFFD}"),
            (b"\xED\xA0b", "\u{FFFD}b"),
            (b"\xED\xA0\x80\xED\xB0\x80", "\u{FFFD}\u{FFFD}"),
            (b"\xFF\xFE", "\u{FFFD}\u{FFFD}"),
            (b"\xF0\x9F\xA6", "\u{FFFD}"),
        ] {
            let mut text = String::new();
            push_repaired(&mut text, bytes);
            assert_eq!(text, expected, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn repair_without_surrogates_is_rusts(bytes: Vec<u8>) {
            prop_assume!(!bytes.contains(&0xED));
            let mut text = String::new();
            push_repaired(&mut text, &bytes);
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
