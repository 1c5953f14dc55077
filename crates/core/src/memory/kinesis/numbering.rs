//! How sequence numbers are made and taken apart.
//!
//! A number has 186 bits, as the service's have, and so 56 decimal digits:
//!
//! ```text
//!  185      148       84       52       4       0
//!   1 seconds | counter | shard  | stream | 2
//!      36 bits   64 bits  32 bits  48 bits  4 bits
//! ```
//!
//! Seconds and counter belong to the whole stream and never go back, so numbers rise strictly from record to record,
//! from a parent to its children, and over the stream. Shard and stream tell a number that was issued elsewhere.

use crate::{SequenceNumber, Timestamp};

const MARKER: u64 = 1 << 57;
const VERSION: u128 = 2;
const SECONDS_BITS: u32 = 36;
const STREAM_BITS: u32 = 48;

/// Makes the numbers of one stream.
#[derive(Debug)]
pub(super) struct Numbering {
    stream: u64,
    seconds: u64,
    counter: u64,
}

impl Numbering {
    /// `ordinal` tells streams apart that were created in the same millisecond.
    pub(super) fn new(created_at: Timestamp, ordinal: u64) -> Self {
        let created = u64::try_from(created_at.as_millis()).unwrap_or(0);
        let stream = ((created << 10) | (ordinal & 0x3ff)) & ((1 << STREAM_BITS) - 1);
        Self { stream, seconds: 0, counter: 0 }
    }

    /// The next number of the stream, for a shard.
    pub(super) fn next(&mut self, shard: u32, now: Timestamp) -> SequenceNumber {
        let seconds = u64::try_from(now.as_millis() / 1000).unwrap_or(0).min((1 << SECONDS_BITS) - 1);
        self.seconds = self.seconds.max(seconds);
        self.counter += 1;
        let high = MARKER | (self.seconds << 20) | (self.counter >> 44);
        let low =
            (u128::from(self.counter) << 84) | (u128::from(shard) << 52) | (u128::from(self.stream) << 4) | VERSION;
        SequenceNumber::from_limbs([high, (low >> 64) as u64, low as u64])
    }

    /// Whether a number is shaped like one that this made for that shard.
    pub(super) fn made(&self, number: SequenceNumber, shard: u32) -> bool {
        let Some([high, middle, low]) = number.to_limbs() else { return false };
        let low = (u128::from(middle) << 64) | u128::from(low);
        let stream = (low >> 4) as u64 & ((1 << STREAM_BITS) - 1);
        let counter = ((high & 0xf_ffff) << 44) | (low >> 84) as u64;
        let seconds = (high >> 20) & ((1 << SECONDS_BITS) - 1);
        high >> 56 == 2
            && low & 0xf == VERSION
            && stream == self.stream
            && (low >> 52) as u32 == shard
            && (1..=self.counter).contains(&counter)
            && seconds <= self.seconds
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_look_like_the_services() {
        let now = Timestamp::from_millis(1_700_000_000_123);
        let text = Numbering::new(now, 0).next(3, now).to_string();
        assert_eq!(text.len(), 56);
        assert!(text.starts_with("49"), "{text}");
    }

    #[test]
    fn numbers_of_another_stream_or_shard_are_told_apart() {
        let now = Timestamp::from_millis(1_700_000_000_123);
        let (mut a, mut b) = (Numbering::new(now, 0), Numbering::new(now, 1));
        let (of_a, of_b) = (a.next(3, now), b.next(3, now));
        assert!(a.made(of_a, 3));
        assert!(!a.made(of_a, 4) && !a.made(of_b, 3));
        for text in ["0", "1", "49590338271490256608559692538361571095921575989136588898", &"9".repeat(129)] {
            assert!(!a.made(text.parse().expect("a number"), 3), "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_rise_whatever_the_clock_and_the_shard(
            calls in proptest::collection::vec((0u32..=u32::MAX, i64::MIN..i64::MAX), 1..50),
            counter in 0u64..(u64::MAX - 100),
        ) {
            let mut numbering = Numbering::new(Timestamp::from_millis(5), 0);
            numbering.counter = counter;
            let mut last = SequenceNumber::ZERO;
            for (shard, millis) in calls {
                let number = numbering.next(shard, Timestamp::from_millis(millis));
                prop_assert!(number > last);
                prop_assert!(numbering.made(number, shard));
                prop_assert!(!numbering.made(number, shard ^ 1));
                prop_assert_eq!(number.to_string().len(), 56);
                last = number;
            }
        }
    }
}
