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

/// How many cells the keys share that are not watched.
const CELLS: usize = 1024;

/// A sketch of what was put: the space-saving algorithm of Metwally, Agrawal and El Abbadi, behind the filter of Homem and Carvalho.
///
/// Keys that are not watched share cells, which hold the most that any of them can have. Once that is more than the lightest watched key
/// has, the key takes its place. Most keys never do, so most records cost a look and an addition.
#[derive(Debug)]
pub(crate) struct HotKeys {
    cells: Vec<u64>,
    /// Where each watched key is, by its hash key.
    places: BTreeMap<u128, usize>,
    watched: Vec<Watched>,
    /// The most that each watched key can have, in bytes and records. Side by side, since the least of them is looked for.
    weights: Vec<u64>,
    /// No watched key has less.
    least: u64,
}

#[derive(Debug)]
struct Watched {
    hash_key: u128,
    key: PartitionKey,
    /// The part of its weight that may be other keys'.
    inherited: u64,
    records: u64,
}

impl Default for HotKeys {
    fn default() -> Self {
        let (places, watched, weights) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { cells: vec![0; CELLS], places, watched, weights, least: 0 }
    }
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
        let cell = cell_of(hash_key);
        let (inherited, weight) = (self.cells[cell], self.cells[cell] + bytes);
        let watched = || Watched { hash_key, key: key.clone(), inherited, records: 1 };
        if self.watched.len() < WATCHED {
            self.places.insert(hash_key, self.watched.len());
            self.watched.push(watched());
            self.weights.push(weight);
        } else if weight <= self.least || weight <= self.look_for_least() {
            self.cells[cell] = weight;
        } else {
            self.take_lightest_place(weight, watched());
        }
    }

    /// The least weight of a watched key.
    fn look_for_least(&mut self) -> u64 {
        self.least = self.weights.iter().copied().min().unwrap_or_default();
        self.least
    }

    fn take_lightest_place(&mut self, weight: u64, watched: Watched) {
        let Some(place) = self.weights.iter().position(|weight| *weight == self.least) else { return };
        self.places.insert(watched.hash_key, place);
        let gone = std::mem::replace(&mut self.watched[place], watched);
        self.places.remove(&gone.hash_key);
        let cell = &mut self.cells[cell_of(gone.hash_key)];
        *cell = (*cell).max(std::mem::replace(&mut self.weights[place], weight));
    }

    /// The heaviest keys, the heaviest first.
    pub(crate) fn top(&self, count: usize) -> Vec<HotKey> {
        let mut keys: Vec<HotKey> = self.watched.iter().zip(&self.weights).map(Watched::told).collect();
        keys.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.partition_key.cmp(&b.partition_key)));
        keys.truncate(count);
        keys
    }
}

/// The cell of a key that is not watched. Explicit hash keys may be round numbers, so their bits are mixed.
fn cell_of(hash_key: u128) -> usize {
    let folded = (hash_key as u64) ^ ((hash_key >> 64) as u64);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % CELLS
}

impl Watched {
    fn told((watched, weight): (&Self, &u64)) -> HotKey {
        let bytes = weight - watched.inherited - watched.records;
        HotKey { partition_key: watched.key.clone(), bytes, records: watched.records, bytes_missing: watched.inherited }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Few keys that are put often, and many that are put rarely.
        #[test]
        fn no_count_is_too_high_and_none_is_missed(
            puts in prop::collection::vec((prop_oneof![0..5_u64, 0..3_000_u64], 0..2_000_usize), 1..4_000),
        ) {
            let mut sketch = HotKeys::default();
            let mut truth: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
            for (key, bytes) in puts {
                sketch.count(u128::from(key) << 100, &format!("{key}").into(), bytes);
                let (sum, records) = truth.entry(key).or_default();
                (*sum, *records) = (*sum + bytes as u64, *records + 1);
            }
            let all: u64 = truth.values().map(|(bytes, records)| bytes + records).sum();
            let told: BTreeMap<String, HotKey> =
                sketch.top(WATCHED).into_iter().map(|key| (key.partition_key.as_str().to_owned(), key)).collect();
            for (key, (bytes, records)) in truth {
                match told.get(&key.to_string()) {
                    Some(told) => {
                        prop_assert!(told.bytes <= bytes && told.records <= records);
                        prop_assert!(told.bytes + told.records + told.bytes_missing >= bytes + records);
                    }
                    None => prop_assert!((bytes + records) * WATCHED as u64 <= all, "{key} has {bytes} of {all}"),
                }
            }
        }
    }
}
