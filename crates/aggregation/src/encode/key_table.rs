//! Distinct keys in the order in which they came, found again by content.
//!
//! An open-addressing table over one buffer: it neither allocates per key nor per use, and forgetting everything costs
//! nothing. Its hash is seeded at random, so that nobody can choose keys that collide; the seed moves keys around
//! within the table and never shows in the output.

use std::hash::{BuildHasher, RandomState};

/// The slots of the smallest table.
const MIN_SLOTS: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct KeyTable {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    slots: Vec<Slot>,
    /// Slots of earlier generations are free. This is how the table is emptied at no cost.
    generation: u64,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    end: usize,
    hash: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    generation: u64,
    entry: usize,
}

/// Where a key is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the entry with this index.
    Present(usize),
    /// It is not there, and has this hash.
    Absent(u64),
}

impl KeyTable {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            entries: Vec::new(),
            slots: vec![Slot::default(); MIN_SLOTS],
            generation: 1,
            hasher: RandomState::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Looks a key up.
    pub(super) fn find(&self, key: &[u8]) -> Place {
        let hash = self.hasher.hash_one(key);
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.generation != self.generation {
                return Place::Absent(hash);
            }
            if self.entries[slot.entry].hash == hash && self.key(slot.entry) == key {
                return Place::Present(slot.entry);
            }
            at = self.after(at);
        }
    }

    /// The index of a key that was looked up just before, adding it if it is not there.
    pub(super) fn insert(&mut self, place: Place, key: &[u8]) -> usize {
        let hash = match place {
            Place::Present(entry) => return entry,
            Place::Absent(hash) => hash,
        };
        let entry = self.entries.len();
        self.bytes.extend_from_slice(key);
        self.entries.push(Entry { end: self.bytes.len(), hash });
        // At most half of the slots are taken, so that look-ups stay short and always end.
        if 2 * self.entries.len() > self.slots.len() {
            self.grow();
        } else {
            self.occupy(hash, entry);
        }
        entry
    }

    /// The keys in the order of their indexes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.entries.len()).map(|entry| self.key(entry))
    }

    /// Forgets every key and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.generation += 1;
    }

    fn key(&self, entry: usize) -> &[u8] {
        let start = if entry == 0 { 0 } else { self.entries[entry - 1].end };
        &self.bytes[start..self.entries[entry].end]
    }

    fn grow(&mut self) {
        let slots = 2 * self.slots.len();
        self.slots.clear();
        self.slots.resize(slots, Slot::default());
        for entry in 0..self.entries.len() {
            self.occupy(self.entries[entry].hash, entry);
        }
    }

    fn occupy(&mut self, hash: u64, entry: usize) {
        let mut at = self.home(hash);
        while self.slots[at].generation == self.generation {
            at = self.after(at);
        }
        self.slots[at] = Slot { generation: self.generation, entry };
    }

    /// The slot at which the search for a hash begins. The number of slots is a power of two.
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    fn after(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_get_the_index_of_their_first_use(
            rounds in prop::collection::vec(prop::collection::vec("[a-c]{0,4}", 0..300), 1..4),
        ) {
            let mut table = KeyTable::new();
            for keys in rounds {
                let mut model = BTreeMap::new();
                for key in &keys {
                    let next = model.len();
                    let expected = *model.entry(key.as_bytes()).or_insert(next);
                    let place = table.find(key.as_bytes());
                    prop_assert_eq!(matches!(place, Place::Present(_)), expected != next);
                    prop_assert_eq!(table.insert(place, key.as_bytes()), expected);
                }
                prop_assert_eq!(table.len(), model.len());
                for (index, key) in table.iter().enumerate() {
                    prop_assert_eq!(model.get(key), Some(&index));
                }
                table.clear();
                prop_assert_eq!(table.len(), 0);
            }
        }
    }
}
