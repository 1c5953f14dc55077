//! Which shard a hash key belongs to.

use crate::HashKeyRange;

/// Shards sorted by the hash keys they own, for look-up.
///
/// The ranges of a stream's open shards tile the whole key space. A listing that was cut short, or taken between the
/// two halves of a reshard, may not: [`ShardMap::gaps`] tells.
///
/// ```
/// use shardwell_aggregation::{HashKeyRange, ShardMap, hash_key};
///
/// let shards = HashKeyRange::even_split(4).into_iter().zip(["a", "b", "c", "d"]);
/// let map = ShardMap::new(shards)?;
/// assert!(map.is_complete());
/// assert_eq!(map.find(0), Some(&"a"));
/// assert_eq!(map.find(hash_key(b"abcd")), Some(&"d"));
/// # Ok::<(), shardwell_aggregation::OverlappingRanges>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap<S> {
    shards: Vec<(HashKeyRange, S)>,
}

/// Two shards that claim the same hash keys: they were not open at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two shards claim the same hash keys: {lower} and {upper}")]
pub struct OverlappingRanges {
    /// The range that starts first.
    pub lower: HashKeyRange,
    /// The range that starts within it.
    pub upper: HashKeyRange,
}

impl<S> ShardMap<S> {
    /// A map of shards, in any order.
    ///
    /// # Errors
    /// When two ranges overlap, as those of a parent and its child do.
    pub fn new(shards: impl IntoIterator<Item = (HashKeyRange, S)>) -> Result<Self, OverlappingRanges> {
        let mut shards: Vec<_> = shards.into_iter().collect();
        shards.sort_by_key(|(range, _)| *range);
        for pair in shards.windows(2) {
            let (lower, upper) = (pair[0].0, pair[1].0);
            if lower.overlaps(&upper) {
                return Err(OverlappingRanges { lower, upper });
            }
        }
        Ok(Self { shards })
    }

    /// The shard that owns a hash key; none where the map has a gap.
    pub fn find(&self, hash_key: u128) -> Option<&S> {
        let after = self.shards.partition_point(|(range, _)| range.start() <= hash_key);
        let (range, shard) = self.shards.get(after.checked_sub(1)?)?;
        range.contains(hash_key).then_some(shard)
    }

    /// The hash keys that no shard owns, in ascending order.
    pub fn gaps(&self) -> impl Iterator<Item = HashKeyRange> + '_ {
        // What comes next after each shard, and after nothing at all; the end of the last gap is the end of the space.
        let ends = std::iter::once(Some(0)).chain(self.shards.iter().map(|(range, _)| range.end().checked_add(1)));
        let starts = self.shards.iter().map(|(range, _)| range.start().checked_sub(1)).chain([Some(u128::MAX)]);
        ends.zip(starts).filter_map(|(first, last)| HashKeyRange::new(first?, last?).ok())
    }

    /// Whether every hash key has a shard.
    pub fn is_complete(&self) -> bool {
        self.gaps().next().is_none()
    }

    /// The shards with their ranges, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (HashKeyRange, &S)> + '_ {
        self.shards.iter().map(|(range, shard)| (*range, shard))
    }

    /// How many shards there are.
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// Whether there is no shard at all.
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: u128, end: u128) -> HashKeyRange {
        HashKeyRange::new(start, end).expect("ordered")
    }

    #[test]
    fn gaps_are_reported_at_both_ends_and_between() {
        let map = ShardMap::new([(range(20, 29), 'b'), (range(10, 14), 'a')]).expect("no overlap");
        assert_eq!(map.gaps().collect::<Vec<_>>(), [range(0, 9), range(15, 19), range(30, u128::MAX)]);
        assert_eq!(map.find(9), None);
        assert_eq!(map.find(10), Some(&'a'));
        assert_eq!(map.find(14), Some(&'a'));
        assert_eq!(map.find(15), None);
        assert_eq!(map.find(29), Some(&'b'));
        assert_eq!(map.find(u128::MAX), None);
        assert!(!map.is_complete());
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn an_empty_map_is_one_gap() {
        let map = ShardMap::<()>::new([]).expect("nothing overlaps");
        assert_eq!(map.gaps().collect::<Vec<_>>(), [HashKeyRange::FULL]);
        assert!(map.is_empty());
        assert_eq!(map.find(0), None);
    }

    #[test]
    fn a_parent_and_its_child_are_refused() {
        let error = ShardMap::new([(range(5, 9), 1), (HashKeyRange::FULL, 0)]).expect_err("they overlap");
        assert_eq!(error, OverlappingRanges { lower: HashKeyRange::FULL, upper: range(5, 9) });
    }

    proptest! {
        #[test]
        fn every_key_has_one_shard_or_lies_in_one_gap(
            count in 1u32..200, keep in proptest::collection::vec(any::<bool>(), 200), key: u128,
        ) {
            let ranges = HashKeyRange::even_split(count);
            let kept = ranges.iter().copied().enumerate().filter(|(n, _)| keep[*n]).map(|(n, range)| (range, n));
            let map = ShardMap::new(kept).expect("no overlap");
            let owner = ranges.iter().position(|range| range.contains(key)).expect("a tiling");
            prop_assert_eq!(map.find(key).copied(), keep[owner].then_some(owner));
            prop_assert_eq!(map.gaps().filter(|gap| gap.contains(key)).count(), usize::from(!keep[owner]));
            prop_assert_eq!(map.is_complete(), map.len() == ranges.len());
        }
    }
}
