//! Distinct keys in the order in which they came, found again by content.
//!
//! An open-addressing table over one buffer: it neither allocates per key nor per use, and forgetting everything costs
//! nothing. Its hash is seeded at random for each table, so that nobody can choose keys that collide; the seed moves
//! keys around within the table and never shows in the output.

use std::hash::{BuildHasher, Hasher};

// The standard library's hash withstands attackers that see what it yields, at a cost that adding a user record would
// mostly consist of. Nothing that is seen from outside depends on this one, which is several times as fast.
use foldhash::fast::RandomState;

use crate::format::push_field;

/// The slots of the smallest table.
const MIN_SLOTS: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct KeyTable {
    /// What stands before each key, and its length after it: all keys together are then a part of the message already.
    tag: Option<u8>,
    /// The keys.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    slots: Vec<Slot>,
    /// From 1. Slots of earlier generations are free: this is how the table is emptied at next to no cost.
    generation: u32,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    /// Where in the bytes the key is. No record has more than 32 bits can count.
    start: u32,
    end: u32,
}

/// Small, since looking up one key among many is mostly the wait for the memory that its slot is in.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    generation: u32,
    /// No record has room for more keys than 32 bits can count.
    entry: u32,
}

/// Where a key is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the entry with this index.
    Present(usize),
    /// It is not there, and has this hash.
    Absent(u32),
}

impl Place {
    #[inline]
    pub(super) fn is_absent(self) -> bool {
        matches!(self, Self::Absent(_))
    }
}

impl KeyTable {
    /// A table of keys of which each is kept with a tag and its length in front, where a tag is given.
    pub(super) fn new(tag: Option<u8>) -> Self {
        Self {
            tag,
            bytes: Vec::new(),
            entries: Vec::new(),
            slots: vec![Slot::default(); MIN_SLOTS],
            generation: 1,
            hasher: RandomState::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Looks a key up.
    #[inline(always)]
    pub(super) fn find(&self, key: &[u8]) -> Place {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        let hash = hasher.finish() as u32;
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.generation != self.generation {
                return Place::Absent(hash);
            }
            let entry = slot.entry as usize;
            if self.entries[entry].hash == hash && self.key(entry) == key {
                return Place::Present(entry);
            }
            at = self.after(at);
        }
    }

    /// The index of a key that was looked up just before, adding it if it is not there.
    #[inline(always)]
    pub(super) fn insert(&mut self, place: Place, key: &[u8]) -> usize {
        match place {
            Place::Present(entry) => entry,
            Place::Absent(hash) => self.add(hash, key),
        }
    }

    fn add(&mut self, hash: u32, key: &[u8]) -> usize {
        let entry = self.entries.len();
        if let Some(tag) = self.tag {
            push_field(&mut self.bytes, tag, key.len());
        }
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(key);
        self.entries.push(Entry { hash, start, end: self.bytes.len() as u32 });
        // At most half of the slots are taken, so that look-ups stay short and always end.
        if 2 * self.entries.len() > self.slots.len() {
            self.grow();
        } else {
            self.occupy(hash, entry);
        }
        entry
    }

    /// All keys as they are kept, one after the other.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The keys in the order of their indexes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.entries.len()).map(|entry| self.key(entry))
    }

    /// Forgets every key and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        if self.generation == u32::MAX {
            // The slots of the first time around would come to life again.
            self.slots.fill(Slot::default());
            self.generation = 0;
        }
        self.generation += 1;
    }

    #[inline(always)]
    fn key(&self, entry: usize) -> &[u8] {
        let Entry { start, end, .. } = self.entries[entry];
        &self.bytes[start as usize..end as usize]
    }

    #[cold]
    fn grow(&mut self) {
        let slots = 2 * self.slots.len();
        self.slots.clear();
        self.slots.resize(slots, Slot::default());
        for entry in 0..self.entries.len() {
            self.occupy(self.entries[entry].hash, entry);
        }
    }

    fn occupy(&mut self, hash: u32, entry: usize) {
        let mut at = self.home(hash);
        while self.slots[at].generation == self.generation {
            at = self.after(at);
        }
        self.slots[at] = Slot { generation: self.generation, entry: entry as u32 };
    }

    /// The slot at which the search for a hash begins. The number of slots is a power of two.
    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    #[inline(always)]
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
            rounds in prop::collection::vec(prop::collection::vec("[a-c]{0,4}", 0..300), 1..4), tagged: bool,
        ) {
            let mut table = KeyTable::new(tagged.then_some(0x0A));
            // So that the generations begin again within the rounds.
            table.generation = u32::MAX - 1;
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
                if tagged {
                    let fields: Vec<_> = table.iter().map(|key| [&[0x0A, key.len() as u8], key].concat()).collect();
                    prop_assert_eq!(table.bytes(), fields.concat());
                }
                table.clear();
                prop_assert_eq!(table.len(), 0);
            }
        }
    }
}
