//! What has arrived of a shard, and what of it is settled: done, dead, or passed over.
//!
//! Every user record gets an ordinal, in the order of the shard, from 0 for the first one after the checkpoint. Filtered
//! records count too, so the same record has the same ordinal whatever the filter says. What is not settled waits in a
//! lane; so what is settled is everything that has arrived and does not wait, and nothing is kept of it.

use std::ops::Range;

use crate::ExtendedSequenceNumber;

/// The place of a record in its shard.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) ordinal: u64,
    /// The position of the record before it, which is where the watermark is while this is the oldest that waits. `None` for
    /// the first record after the checkpoint, and as long as the record before it waits in the same lane: as it nearly
    /// always does where there is one lane.
    pub(super) before: Option<Box<ExtendedSequenceNumber>>,
}

/// How much of a shard has arrived.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    arrived: u64,
    newest: Option<ExtendedSequenceNumber>,
    /// How many wait in lanes.
    pub(super) waiting: u64,
}

impl Ledger {
    /// How many records have arrived: the ordinal of the next one.
    pub(super) const fn arrived(&self) -> u64 {
        self.arrived
    }

    /// The position of the newest record that has arrived: the one before the next.
    pub(super) const fn newest(&self) -> Option<ExtendedSequenceNumber> {
        self.newest
    }

    /// The next record has arrived.
    pub(super) const fn arrive(&mut self, position: ExtendedSequenceNumber) {
        self.arrived += 1;
        self.newest = Some(position);
    }
}

/// The ordinals below `arrived` that do not wait, as ascending runs, of which the first `most` are told; and the highest of
/// all of them.
///
/// `first` is the lowest ordinal that waits; ordinals are told as seen from there.
pub(super) fn settled(
    first: u64,
    arrived: u64,
    waiting: impl Iterator<Item = u64>,
    most: usize,
) -> (Vec<Range<u64>>, Option<u64>) {
    let count = arrived - first;
    let mut waits = vec![0u64; count.div_ceil(64) as usize];
    for ordinal in waiting.map(|ordinal| ordinal - first) {
        waits[ordinal as usize / 64] |= 1 << (ordinal % 64);
    }
    // What has not arrived is not settled.
    if let Some(last) = waits.last_mut().filter(|_| !count.is_multiple_of(64)) {
        *last |= u64::MAX << (count % 64);
    }
    let highest = waits.iter().rposition(|word| *word != u64::MAX);
    let highest = highest.map(|word| 64 * word as u64 + 63 - u64::from((!waits[word]).leading_zeros()));
    (runs_of_zeros(&waits, most), highest)
}

/// The first `most` runs of bits that are not set.
fn runs_of_zeros(words: &[u64], most: usize) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let start = 64 * index as u64;
        let mut left = !word;
        while left != 0 {
            let from = left.trailing_zeros();
            let length = (!(left >> from)).trailing_zeros();
            let run = start + u64::from(from)..start + u64::from(from + length);
            if let Some(last) = runs.last_mut().filter(|last| last.end == run.start) {
                last.end = run.end;
            } else if runs.len() == most {
                return runs;
            } else {
                runs.push(run);
            }
            left &= u64::MAX.checked_shl(from + length).unwrap_or(0);
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_does_not_wait_is_settled(
            first in 0u64..1000,
            density in 0.0f64..1.0,
            picks in prop::collection::vec(0.0f64..1.0, 1..400),
            most in 1usize..500,
        ) {
            let arrived = first + picks.len() as u64;
            let mut waiting: BTreeSet<u64> =
                (first..).zip(&picks).filter(|(_, pick)| **pick < density).map(|(ordinal, _)| ordinal).collect();
            waiting.insert(first);
            let (runs, highest) = settled(first, arrived, waiting.iter().copied(), most);
            let expected: Vec<u64> = (first..arrived).filter(|n| !waiting.contains(n)).map(|n| n - first).collect();
            prop_assert_eq!(highest, expected.last().copied());
            prop_assert!(runs.len() <= most);
            prop_assert!(runs.windows(2).all(|pair| pair[0].end < pair[1].start), "runs do not touch");
            let told: Vec<u64> = runs.iter().cloned().flatten().collect();
            prop_assert_eq!(&told[..], &expected[..told.len()]);
            prop_assert!(told.len() == expected.len() || runs.len() == most);
        }
    }
}
