//! The partition keys that most of what is put belongs to: a shard takes so much and no more, and all records of a key go to one.

use std::collections::BTreeMap;

use shardwell_core::PartitionKey;

/// How many keys are watched. Whatever has more than this part of all is among them.
const WATCHED: usize = 128;

/// A partition key that much of what was put belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HotKey {
    /// The partition key. One of the records' where they have an explicit hash key: then that is what is counted.
    pub partition_key: PartitionKey,
    /// Payload bytes, at least: too few by the bytes of what was put before the key was watched.
    pub bytes: u64,
    /// Records, at least.
    pub records: u64,
    /// By how much `bytes` may be too few.
    pub bytes_missing: u64,
}

/// A sketch of what was put (the space-saving algorithm of Metwally, Agrawal and El Abbadi): of so many keys as it watches, the lightest
/// makes room for a key that is not watched.
#[derive(Debug, Default)]
pub(crate) struct HotKeys {
    watched: BTreeMap<u128, Watched>,
    /// The watched keys by weight, the lightest first.
    by_weight: std::collections::BTreeSet<(u64, u128)>,
}

#[derive(Debug)]
struct Watched {
    key: PartitionKey,
    /// Bytes since it is watched, and what it took over.
    weight: u64,
    inherited: u64,
    records: u64,
}

impl HotKeys {
    pub(crate) fn count(&mut self, hash_key: u128, key: &PartitionKey, bytes: usize) {
        // Records without bytes are work too.
        let bytes = bytes as u64 + 1;
        let (old, new) = match self.watched.get_mut(&hash_key) {
            Some(watched) => {
                let old = watched.weight;
                (watched.weight, watched.records) = (old + bytes, watched.records + 1);
                (Some((old, hash_key)), old + bytes)
            }
            None => {
                let lightest = (self.watched.len() >= WATCHED).then(|| self.by_weight.first().copied()).flatten();
                let inherited = lightest.map_or(0, |(weight, lightest)| {
                    self.watched.remove(&lightest);
                    weight
                });
                let weight = inherited + bytes;
                self.watched.insert(hash_key, Watched { key: key.clone(), weight, inherited, records: 1 });
                (lightest, weight)
            }
        };
        if let Some(old) = old {
            self.by_weight.remove(&old);
        }
        self.by_weight.insert((new, hash_key));
    }

    /// The heaviest keys, the heaviest first.
    pub(crate) fn top(&self, count: usize) -> Vec<HotKey> {
        let mut keys: Vec<HotKey> = self.watched.values().map(Watched::told).collect();
        keys.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.partition_key.cmp(&b.partition_key)));
        keys.truncate(count);
        keys
    }
}

impl Watched {
    fn told(&self) -> HotKey {
        let bytes = self.weight - self.inherited - self.records;
        HotKey { partition_key: self.key.clone(), bytes, records: self.records, bytes_missing: self.inherited }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_has_more_than_its_part_is_found() {
        let mut sketch = HotKeys::default();
        let mut put = |key: u64, bytes| sketch.count(u128::from(key), &format!("{key}").into(), bytes);
        for n in 0..20_000_u64 {
            put(n % 5_000, 10);
            put(100_000, 5);
            if n % 10 == 0 {
                put(100_001, 2_000);
            }
        }
        let top = sketch.top(2);
        let names: Vec<&str> = top.iter().map(|key| key.partition_key.as_str()).collect();
        assert_eq!(names, ["100001", "100000"]);
        assert!(top[0].bytes <= 2_000 * 2_000 && top[0].bytes + top[0].bytes_missing >= 2_000 * 2_000);
        assert!(top[1].records <= 20_000 && sketch.watched.len() == WATCHED);
    }
}
