//! Inclusive ranges of hash keys.

use std::fmt;

/// The hash keys that a shard owns: inclusive at both ends, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKeyRange {
    start: u128,
    end: u128,
}

/// A range whose start lies above its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidRange {
    /// The start that was given.
    pub start: u128,
    /// The end that was given.
    pub end: u128,
}

impl fmt::Display for InvalidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a hash key range cannot start at {} and end at {}", self.start, self.end)
    }
}

impl std::error::Error for InvalidRange {}

impl HashKeyRange {
    /// Every hash key there is.
    pub const FULL: Self = Self { start: 0, end: u128::MAX };

    /// A range from its first to its last hash key.
    ///
    /// # Errors
    /// When `start` is above `end`.
    pub const fn new(start: u128, end: u128) -> Result<Self, InvalidRange> {
        if start > end { Err(InvalidRange { start, end }) } else { Ok(Self { start, end }) }
    }

    /// The first hash key of the range.
    pub const fn start(&self) -> u128 {
        self.start
    }

    /// The last hash key of the range.
    pub const fn end(&self) -> u128 {
        self.end
    }

    /// Whether a hash key lies in the range.
    pub const fn contains(&self, hash_key: u128) -> bool {
        self.start <= hash_key && hash_key <= self.end
    }

    /// Whether two ranges share a hash key.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// The two ranges that a split at `new_start` makes; none unless it lies strictly above the first hash key of the
    /// range and within it (Kinesis API, `SplitShard`).
    pub const fn split_at(&self, new_start: u128) -> Option<(Self, Self)> {
        if new_start <= self.start || new_start > self.end {
            return None;
        }
        Some((Self { start: self.start, end: new_start - 1 }, Self { start: new_start, end: self.end }))
    }

    /// The one range that two neighbours make, in either order; none unless they touch without overlapping
    /// (Kinesis API, `MergeShards`).
    pub fn merge(&self, other: &Self) -> Option<Self> {
        let (low, high) = if self.start <= other.start { (self, other) } else { (other, self) };
        (low.end.checked_add(1) == Some(high.start)).then_some(Self { start: low.start, end: high.end })
    }

    /// The whole key space in `count` ranges of equal width, the last one taking what the division leaves over: what
    /// `CreateStream` and a uniform `UpdateShardCount` make. Empty for 0.
    pub fn even_split(count: u32) -> Vec<Self> {
        let n = u128::from(count);
        // 2^128 does not fit, so its quotient is taken from 2^128 - 1: only a count of a power of two differs.
        let width = match n {
            0 => return Vec::new(),
            1 => return vec![Self::FULL],
            n => u128::MAX / n + u128::from(u128::MAX % n == n - 1),
        };
        (0..n)
            .map(|i| Self { start: i * width, end: if i == n - 1 { u128::MAX } else { (i + 1) * width - 1 } })
            .collect()
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn even_splits_agree_with_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/data/routing.json")).expect("the vectors parse");
        let uniform = vectors["uniform_shards"].as_array().expect("a list of splits");
        assert!(!uniform.is_empty());
        for vector in uniform {
            let count = u32::try_from(vector["shards"].as_u64().expect("a count")).expect("a small count");
            let ranges = HashKeyRange::even_split(count);
            for (range, expected) in ranges.iter().zip(vector["ranges"].as_array().expect("ranges")) {
                assert_eq!(range.start().to_string(), expected["start"].as_str().expect("a start"), "{count}");
                assert_eq!(range.end().to_string(), expected["end"].as_str().expect("an end"), "{count}");
            }
            for (key, shard) in vector["key_to_shard"].as_object().expect("keys") {
                let shard = shard.as_u64().expect("an index");
                let hash = crate::hash_key(key.as_bytes());
                assert!(ranges[usize::try_from(shard).expect("small")].contains(hash), "{key:?} of {count}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_even_split_covers_every_key_once(count in 1u32..500, key: u128) {
            let ranges = HashKeyRange::even_split(count);
            prop_assert_eq!(ranges.len(), count as usize);
            prop_assert_eq!(ranges.iter().filter(|range| range.contains(key)).count(), 1);
            for pair in ranges.windows(2) {
                prop_assert!(pair[0].merge(&pair[1]).is_some());
            }
        }

        #[test]
        fn a_merge_undoes_a_split(a: u128, b: u128, at: u128) {
            let range = HashKeyRange::new(a.min(b), a.max(b)).expect("ordered");
            match range.split_at(at) {
                Some((low, high)) => {
                    prop_assert_eq!(low.merge(&high), Some(range));
                    prop_assert_eq!(high.merge(&low), Some(range));
                    prop_assert!(!low.overlaps(&high));
                }
                None => prop_assert!(at == range.start() || !range.contains(at)),
            }
        }
    }
}
