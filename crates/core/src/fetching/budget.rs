//! The byte budget of a worker, shared fairly by its shards.

use std::collections::BTreeMap;

/// One shard's place in a [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u64);

/// How many bytes each shard holds, from the moment a read is about to happen until the records in it are done.
///
/// - A shard may hold its fair share, or one read if that is more: a stalled shard starves nobody.
/// - All shards together hold the total at most, and one read more at the worst: an answer can be larger than what was
///   expected of it.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    held: BTreeMap<Slot, usize>,
    sum: usize,
    next: u64,
}

/// Whether a reservation can be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It can.
    Granted,
    /// The shard holds its share: only its own progress helps.
    OverShare,
    /// All shards together hold the total: progress of any shard helps.
    OverTotal,
}

impl Budget {
    /// A budget of `total` bytes.
    pub const fn new(total: usize) -> Self {
        Self { total, held: BTreeMap::new(), sum: 0, next: 0 }
    }

    /// A place for another shard.
    pub fn join(&mut self) -> Slot {
        let slot = Slot(self.next);
        self.next += 1;
        self.held.insert(slot, 0);
        slot
    }

    /// Gives back a place and all that it holds.
    pub fn leave(&mut self, slot: Slot) {
        self.sum -= self.held.remove(&slot).unwrap_or(0);
    }

    /// What each shard may hold.
    pub fn fair_share(&self) -> usize {
        self.total / self.held.len().max(1)
    }

    /// What a shard holds.
    pub fn held_by(&self, slot: Slot) -> usize {
        self.held.get(&slot).copied().unwrap_or(0)
    }

    /// What all shards hold.
    pub const fn held(&self) -> usize {
        self.sum
    }

    /// Reserves bytes for a read, if the rules admit it now.
    pub fn reserve(&mut self, slot: Slot, bytes: usize) -> Admission {
        let held = self.held_by(slot);
        if held > 0 && held + bytes > self.fair_share() {
            return Admission::OverShare;
        }
        if self.sum > 0 && self.sum + bytes > self.total {
            return Admission::OverTotal;
        }
        self.add(slot, bytes);
        Admission::Granted
    }

    /// Replaces what was reserved for a read by what the answer weighs.
    pub fn settle(&mut self, slot: Slot, reserved: usize, actual: usize) {
        self.release(slot, reserved);
        self.add(slot, actual);
    }

    /// Gives bytes back.
    pub fn release(&mut self, slot: Slot, bytes: usize) {
        if let Some(held) = self.held.get_mut(&slot) {
            debug_assert!(*held >= bytes, "only what is held can be released");
            let bytes = bytes.min(*held);
            *held -= bytes;
            self.sum -= bytes;
        }
    }

    fn add(&mut self, slot: Slot, bytes: usize) {
        if let Some(held) = self.held.get_mut(&slot) {
            *held += bytes;
            self.sum += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stalled_shard_keeps_to_its_share_and_the_others_go_on() {
        let mut budget = Budget::new(1600);
        let slots: Vec<Slot> = (0..16).map(|_| budget.join()).collect();
        assert_eq!(budget.reserve(slots[0], 100), Admission::Granted);
        assert_eq!(budget.reserve(slots[0], 1), Admission::OverShare);
        for slot in &slots[1..] {
            assert_eq!(budget.reserve(*slot, 100), Admission::Granted);
            budget.release(*slot, 100);
        }
    }

    #[test]
    fn a_read_larger_than_the_budget_is_admitted_alone() {
        let mut budget = Budget::new(10);
        let (a, b) = (budget.join(), budget.join());
        assert_eq!(budget.reserve(a, 50), Admission::Granted);
        assert_eq!(budget.reserve(b, 1), Admission::OverTotal);
        budget.leave(a);
        assert_eq!(budget.reserve(b, 1), Admission::Granted);
    }

    proptest! {
        /// Whatever happens, the sum is right, no shard passes max(share, one read), and the total holds but for one
        /// answer that was larger than expected.
        #[test]
        fn the_rules_hold(steps in prop::collection::vec((0usize..4, 0usize..3, 1usize..400, 1usize..400), 1..80)) {
            let mut budget = Budget::new(1000);
            let slots: Vec<Slot> = (0..4).map(|_| budget.join()).collect();
            let mut excess = 0;
            for (shard, what, bytes, actual) in steps {
                let slot = slots[shard];
                let before = budget.held();
                if what < 2 {
                    let share = budget.fair_share();
                    if budget.reserve(slot, bytes) == Admission::Granted {
                        prop_assert!(budget.held_by(slot) <= share.max(bytes));
                        prop_assert!(budget.held() <= 1000.max(bytes) + excess);
                        budget.settle(slot, bytes, actual);
                        excess = excess.max(actual.saturating_sub(bytes));
                    } else {
                        prop_assert_eq!(budget.held(), before);
                    }
                } else {
                    budget.release(slot, bytes.min(budget.held_by(slot)));
                }
                prop_assert_eq!(budget.held(), slots.iter().map(|slot| budget.held_by(*slot)).sum::<usize>());
            }
        }
    }
}
