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
///
/// It is asked for with every record, so the weights lie side by side: to find the lightest of them is quicker than to keep them sorted.
#[derive(Debug, Default)]
pub(crate) struct HotKeys {
    /// Where each watched key is, by its hash key.
    places: BTreeMap<u128, usize>,
    /// Bytes since each is watched, and what it took over.
    weights: Vec<u64>,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    hash_key: u128,
    key: PartitionKey,
    inherited: u64,
    records: u64,
}

impl HotKeys {
    pub(crate) fn count(&mut self, hash_key: u128, key: &PartitionKey, bytes: usize) {
        // Records without bytes are work too.
        let bytes = bytes as u64 + 1;
        if let Some(place) = self.places.get(&hash_key).copied() {
            self.weights[place] += bytes;
            self.watched[place].records += 1;
            return;
        }
        let place = if self.watched.len() < WATCHED { self.watched.len() } else { self.lightest() };
        let inherited = self.weights.get(place).copied().unwrap_or_default();
        let watched = Watched { hash_key, key: key.clone(), inherited, records: 1 };
        match self.watched.get_mut(place) {
            Some(lightest) => {
                self.places.remove(&lightest.hash_key);
                (*lightest, self.weights[place]) = (watched, inherited + bytes);
            }
            None => {
                self.watched.push(watched);
                self.weights.push(bytes);
            }
        }
        self.places.insert(hash_key, place);
    }

    fn lightest(&self) -> usize {
        let least = self.weights.iter().copied().min().unwrap_or_default();
        self.weights.iter().position(|weight| *weight == least).unwrap_or_default()
    }

    /// The heaviest keys, the heaviest first.
    pub(crate) fn top(&self, count: usize) -> Vec<HotKey> {
        let mut keys: Vec<HotKey> = self.watched.iter().zip(&self.weights).map(Watched::told).collect();
        keys.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.partition_key.cmp(&b.partition_key)));
        keys.truncate(count);
        keys
    }
}

impl Watched {
    fn told((watched, weight): (&Self, &u64)) -> HotKey {
        let bytes = weight - watched.inherited - watched.records;
        HotKey { partition_key: watched.key.clone(), bytes, records: watched.records, bytes_missing: watched.inherited }
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
        assert!(top[1].records <= 20_000 && sketch.watched.len() == WATCHED && sketch.places.len() == WATCHED);
    }
}
