//! Sequence numbers, alone and extended.

use std::fmt;
use std::str::FromStr;

/// The decimal digits that a sequence number may have at most (Kinesis API: `0|([1-9]\d{0,128})`).
pub const MAX_SEQUENCE_NUMBER_DIGITS: usize = 129;

/// The position of a record in its shard: a decimal number of up to 129 digits (56 in practice), ordered numerically.
///
/// Comparable for one partition key over time, also across a reshard; meaningless between unrelated shards. Stored as
/// a number, so copying and comparing cost a few machine words and the decimal text round-trips exactly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber([u64; LIMBS]);

/// 448 bits, most significant limb first: 10^129 - 1 needs 429.
const LIMBS: usize = 7;

/// The most decimal digits that fit one limb.
const DIGITS_PER_LIMB: usize = 19;

/// Text that is not a sequence number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a sequence number: 1 to 129 decimal digits without a leading zero")]
pub struct InvalidSequenceNumber {
    /// The text that was given, cut after 160 bytes.
    pub text: String,
}

impl SequenceNumber {
    /// The smallest sequence number.
    pub const ZERO: Self = Self([0; LIMBS]);

    /// A number from three 64-bit limbs, most significant first: for engines that make sequence numbers.
    pub const fn from_limbs([high, middle, low]: [u64; 3]) -> Self {
        Self([0, 0, 0, 0, high, middle, low])
    }

    /// The number as three 64-bit limbs, most significant first; `None` if it needs more.
    pub const fn to_limbs(self) -> Option<[u64; 3]> {
        match self.0 {
            [0, 0, 0, 0, high, middle, low] => Some([high, middle, low]),
            _ => None,
        }
    }

    /// `self = self * factor + addend`, where only the `used` lowest limbs are not zero, and one more after this; the
    /// caller knows that it fits.
    fn multiply_add(&mut self, factor: u64, addend: u64, used: usize) {
        let mut carry = u128::from(addend);
        for limb in self.0.iter_mut().rev().take(used + 1) {
            let product = u128::from(*limb) * u128::from(factor) + carry;
            *limb = product as u64;
            carry = product >> 64;
        }
        debug_assert_eq!(carry, 0, "the digits were counted before");
    }

    /// Divides by `divisor` and returns the remainder.
    fn divide(&mut self, divisor: u64) -> u64 {
        let mut remainder = 0u128;
        for limb in &mut self.0 {
            let dividend = (remainder << 64) | u128::from(*limb);
            *limb = (dividend / u128::from(divisor)) as u64;
            remainder = dividend % u128::from(divisor);
        }
        remainder as u64
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        let well_formed = (1..=MAX_SEQUENCE_NUMBER_DIGITS).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_digit)
            && (digits.len() == 1 || digits[0] != b'0');
        if !well_formed {
            let text = text.char_indices().take_while(|(at, _)| *at < 160).map(|(_, c)| c).collect();
            return Err(InvalidSequenceNumber { text });
        }
        let mut number = Self::ZERO;
        for (used, chunk) in digits.chunks(DIGITS_PER_LIMB).enumerate() {
            let value = chunk.iter().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
            // Every limb is still zero for the first chunk, so the factor does not matter there.
            number.multiply_add(10u64.pow(chunk.len() as u32), value, used);
        }
        Ok(number)
    }
}

impl From<u64> for SequenceNumber {
    fn from(number: u64) -> Self {
        Self::from_limbs([0, 0, number])
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHUNK: u64 = 10u64.pow(DIGITS_PER_LIMB as u32);
        let mut rest = *self;
        let mut chunks = [0u64; LIMBS + 1];
        let mut used = 0;
        while rest != Self::ZERO {
            chunks[used] = rest.divide(CHUNK);
            used += 1;
        }
        let mut text = String::with_capacity(MAX_SEQUENCE_NUMBER_DIGITS);
        let mut highest_first = chunks[..used].iter().rev();
        text.push_str(&highest_first.next().copied().unwrap_or(0).to_string());
        for chunk in highest_first {
            text.push_str(&format!("{chunk:019}"));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The position of a user record: the sequence number of the record it came in, and its place in there.
///
/// A record that is not aggregated holds one user record with sub-sequence number 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedSequenceNumber {
    /// The sequence number of the record as Kinesis returned it.
    pub sequence_number: SequenceNumber,
    /// The place of the user record in an aggregated record, from 0.
    pub sub_sequence_number: u64,
}

impl ExtendedSequenceNumber {
    /// The position of a user record.
    pub const fn new(sequence_number: SequenceNumber, sub_sequence_number: u64) -> Self {
        Self { sequence_number, sub_sequence_number }
    }
}

impl From<SequenceNumber> for ExtendedSequenceNumber {
    fn from(sequence_number: SequenceNumber) -> Self {
        Self::new(sequence_number, 0)
    }
}

impl From<(SequenceNumber, u64)> for ExtendedSequenceNumber {
    fn from((sequence_number, sub_sequence_number): (SequenceNumber, u64)) -> Self {
        Self::new(sequence_number, sub_sequence_number)
    }
}

/// `<sequence number>/<sub-sequence number>`.
impl fmt::Display for ExtendedSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.sequence_number, self.sub_sequence_number))
    }
}

impl fmt::Debug for ExtendedSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    /// Numeric order by the text alone: longer is larger, then digit by digit.
    fn by_text(a: &str, b: &str) -> Ordering {
        a.len().cmp(&b.len()).then_with(|| a.cmp(b))
    }

    #[test]
    fn the_ends_of_the_range_round_trip() {
        for text in ["0", "9", "10", "18446744073709551616", &"9".repeat(129)] {
            assert_eq!(text.parse::<SequenceNumber>().expect("valid").to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        let too_long = "1".repeat(130);
        for text in ["", "00", "01", "-1", "+1", " 1", "1 ", "1e5", "LATEST", "١", &too_long] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn limbs_round_trip() {
        let number = SequenceNumber::from_limbs([1 << 57, 2, 3]);
        assert_eq!(number.to_limbs(), Some([1 << 57, 2, 3]));
        assert_eq!(number.to_string().len(), 56, "as long as the service's");
        assert_eq!("9".repeat(129).parse::<SequenceNumber>().expect("valid").to_limbs(), None);
    }

    proptest! {
        #[test]
        fn text_round_trips_and_order_is_numeric(a in "0|[1-9][0-9]{0,128}", b in "0|[1-9][0-9]{0,128}") {
            let (x, y): (SequenceNumber, SequenceNumber) = (a.parse().expect("valid"), b.parse().expect("valid"));
            prop_assert_eq!(x.to_string(), a.clone());
            prop_assert_eq!(x.cmp(&y), by_text(&a, &b));
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = text.parse::<SequenceNumber>();
        }
    }
}
