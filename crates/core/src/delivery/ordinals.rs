//! A set of ordinals in few bytes.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Ordinals from 0 on, as runs or as a bitmap, whichever is shorter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrdinalSet(Code);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Code {
    /// In turn how many are out and how many are in.
    Runs(Vec<u64>),
    /// A bit for each, the lowest first.
    Bitmap(Vec<u8>),
}

impl OrdinalSet {
    /// The ordinals of ascending runs that do not touch, as many of the lowest as fit into `max_bytes`; and how many runs
    /// that are, the last of which may be cut.
    pub fn encode(runs: &[Range<u64>], max_bytes: usize) -> (Self, usize) {
        let (mut lengths, mut used, mut at) = (Vec::new(), 0, 0);
        for run in runs {
            let (gap, length) = (run.start - at, run.end - run.start);
            used += varint_bytes(gap) + varint_bytes(length);
            if used > max_bytes {
                break;
            }
            lengths.extend([gap, length]);
            at = run.end;
        }
        let by_runs = lengths.len() / 2;
        let bits = 8 * max_bytes as u64;
        let by_bitmap = runs.iter().take_while(|run| run.end <= bits).count();
        let bitmap_bytes = runs[..by_bitmap].last().map_or(0, |run| run.end.div_ceil(8) as usize);
        if by_runs > by_bitmap || (by_runs == by_bitmap && used <= bitmap_bytes) {
            return (Self(Code::Runs(lengths)), by_runs);
        }
        let mut bitmap = vec![0u8; bitmap_bytes];
        for ordinal in runs[..by_bitmap].iter().cloned().flatten() {
            bitmap[ordinal as usize / 8] |= 1 << (ordinal % 8);
        }
        (Self(Code::Bitmap(bitmap)), by_bitmap)
    }

    /// The ordinals as ascending runs that do not touch. Whatever the bytes were: nothing panics, nothing overflows, and
    /// the work is linear in their number.
    pub fn runs(&self) -> Vec<Range<u64>> {
        match &self.0 {
            Code::Runs(lengths) => {
                let mut at = 0u64;
                let mut run = |pair: &[u64]| {
                    let &[gap, length] = pair else { return None };
                    let start = at.checked_add(gap)?;
                    at = start.checked_add(length)?;
                    Some(start..at)
                };
                lengths.chunks_exact(2).map_while(&mut run).filter(|run| !run.is_empty()).collect()
            }
            Code::Bitmap(bitmap) => {
                let mut runs: Vec<Range<u64>> = Vec::new();
                for ordinal in (0..8 * bitmap.len() as u64).filter(|n| bitmap[*n as usize / 8] >> (n % 8) & 1 == 1) {
                    match runs.last_mut() {
                        Some(run) if run.end == ordinal => run.end += 1,
                        _ => runs.push(ordinal..ordinal + 1),
                    }
                }
                runs
            }
        }
    }
}

/// What a number takes as a varint.
const fn varint_bytes(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs() -> impl Strategy<Value = Vec<Range<u64>>> {
        prop::collection::vec((1u64..300, 1u64..300), 0..80).prop_map(|pairs| {
            let mut at = 0;
            let run = |(gap, length)| {
                let start = at + gap;
                at = start + length;
                start..at
            };
            pairs.into_iter().map(run).collect()
        })
    }

    proptest! {
        #[test]
        fn what_fits_comes_back_and_the_bytes_are_kept(runs in runs(), max_bytes in 0usize..300) {
            let (set, count) = OrdinalSet::encode(&runs, max_bytes);
            prop_assert_eq!(set.runs(), &runs[..count]);
            // A tag and a length in front.
            prop_assert!(postcard::to_allocvec(&set).expect("it encodes").len() <= max_bytes + 4);
            let (all, count) = OrdinalSet::encode(&runs, 100_000);
            prop_assert_eq!((all.runs(), count), (runs.clone(), runs.len()));
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(set) = postcard::from_bytes::<OrdinalSet>(&bytes) {
                let runs = set.runs();
                prop_assert!(runs.iter().all(|run| run.start < run.end));
                prop_assert!(runs.windows(2).all(|pair| pair[0].end <= pair[1].start));
            }
        }
    }
}
