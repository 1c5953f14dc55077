//! Explicit hash keys as text.
//!
//! The API and the aggregated format both write a hash key as decimal text of the pattern `0|[1-9]\d{0,38}`
//! (Kinesis API, `PutRecord`). The pattern admits numbers above 2^128 - 1, which no shard owns; they are refused here.

/// The most digits that a hash key has.
pub(crate) const MAX_DIGITS: usize = 39;

/// Text that is no explicit hash key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidExplicitHashKey {
    /// Something else than decimal digits without a sign and without leading zeros.
    #[error("an explicit hash key is decimal digits without sign or leading zeros")]
    NotCanonical,
    /// A number above 2^128 - 1.
    #[error("an explicit hash key is at most 2^128 - 1")]
    OutOfRange,
}

/// Parses an explicit hash key. `to_string` of the number is the way back.
///
/// ```
/// use shardwell_aggregation::{InvalidExplicitHashKey, parse_explicit_hash_key};
///
/// assert_eq!(parse_explicit_hash_key("340282366920938463463374607431768211455"), Ok(u128::MAX));
/// assert_eq!(parse_explicit_hash_key("007"), Err(InvalidExplicitHashKey::NotCanonical));
/// ```
///
/// # Errors
/// When the text is not a canonical decimal number, or the number is above 2^128 - 1.
pub fn parse_explicit_hash_key(text: &str) -> Result<u128, InvalidExplicitHashKey> {
    parse(text.as_bytes())
}

/// [`parse_explicit_hash_key`] for text that is not known to be UTF-8.
pub(crate) fn parse(text: &[u8]) -> Result<u128, InvalidExplicitHashKey> {
    let leading_zero = text.len() > 1 && text.first() == Some(&b'0');
    if text.is_empty() || leading_zero || !text.iter().all(u8::is_ascii_digit) {
        return Err(InvalidExplicitHashKey::NotCanonical);
    }
    sum(text).ok_or(InvalidExplicitHashKey::OutOfRange)
}

/// The value of decimal digits; none above 2^128 - 1.
pub(crate) fn sum(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |sum, digit| sum.checked_mul(10)?.checked_add(u128::from(digit & 0x0f)))
}

/// How many digits a hash key has.
pub(crate) fn decimal_len(hash_key: u128) -> usize {
    hash_key.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Writes a hash key as decimal text to the end of a buffer. Unlike `to_string` it never allocates by itself.
pub(crate) fn push_decimal(out: &mut Vec<u8>, hash_key: u128) {
    // Divisions of 128-bit numbers are slow, so most digits are taken from 64 bits, 19 at a time.
    const CHUNK: u128 = 10u128.pow(19);
    let mut digits = [b'0'; MAX_DIGITS];
    let mut at = MAX_DIGITS;
    let mut rest = hash_key;
    while rest > u128::from(u64::MAX) {
        write_digits(&mut digits[at - 19..at], (rest % CHUNK) as u64);
        at -= 19;
        rest /= CHUNK;
    }
    let first = decimal_len(rest);
    write_digits(&mut digits[at - first..at], rest as u64);
    out.extend_from_slice(&digits[at - first..]);
}

/// Fills a slice with the last digits of a number, with leading zeros.
fn write_digits(digits: &mut [u8], mut value: u64) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_canonical_decimals_in_range_are_hash_keys() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("9", Ok(9)),
            ("10", Ok(10)),
            ("340282366920938463463374607431768211455", Ok(u128::MAX)),
            ("340282366920938463463374607431768211456", Err(InvalidExplicitHashKey::OutOfRange)),
            ("999999999999999999999999999999999999999", Err(InvalidExplicitHashKey::OutOfRange)),
            ("1000000000000000000000000000000000000000", Err(InvalidExplicitHashKey::OutOfRange)),
            ("", Err(InvalidExplicitHashKey::NotCanonical)),
            ("00", Err(InvalidExplicitHashKey::NotCanonical)),
            ("01", Err(InvalidExplicitHashKey::NotCanonical)),
            ("+1", Err(InvalidExplicitHashKey::NotCanonical)),
            ("-1", Err(InvalidExplicitHashKey::NotCanonical)),
            ("1 ", Err(InvalidExplicitHashKey::NotCanonical)),
            ("abc", Err(InvalidExplicitHashKey::NotCanonical)),
            ("\u{663}", Err(InvalidExplicitHashKey::NotCanonical)),
        ] {
            assert_eq!(parse_explicit_hash_key(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_number_are_the_same(key: u128, shift in 0u32..128) {
            let key = key >> shift;
            let mut text = b"before".to_vec();
            push_decimal(&mut text, key);
            prop_assert_eq!(&text[6..], key.to_string().into_bytes());
            prop_assert_eq!(text.len() - 6, decimal_len(key));
            prop_assert_eq!(parse(&text[6..]), Ok(key));
        }

        #[test]
        fn powers_of_ten_have_their_digits(power in 0u32..39) {
            for key in [10u128.pow(power) - 1, 10u128.pow(power)] {
                let mut text = Vec::new();
                push_decimal(&mut text, key);
                prop_assert_eq!(&text, &key.to_string().into_bytes());
                prop_assert_eq!(text.len(), decimal_len(key));
            }
        }
    }
}
