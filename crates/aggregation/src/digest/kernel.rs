//! Blocks of many messages at once, as wide as the processor is.

use std::num::Wrapping;

use fearless_simd::{Level, Simd, SimdBase, SimdInt, dispatch, u32x8, u32x16};

use super::compress::{WORDS, With, compress};

/// The bytes that MD5 works on at once.
pub(super) const BLOCK_BYTES: usize = 64;
/// How many messages are worked on at once: as many as the widest registers have words.
pub(super) const LANES: usize = 16;

/// The states of the messages, lane by lane within each word.
pub(super) type States = [[u32; LANES]; 4];

/// Works the first `blocks` blocks of every source into the state of its lane. Lanes from `lanes` on are left out, or
/// get a state that means nothing.
pub(super) fn compress_lanes(level: Level, states: &mut States, sources: &[&[u8]; LANES], lanes: usize, blocks: usize) {
    dispatch!(level, simd => lanes_with(simd, states, sources, lanes, blocks));
}

/// Works all blocks of a source into the state of one lane.
pub(super) fn compress_one(states: &mut States, lane: usize, source: &[u8]) {
    let mut state = states.map(|word| Wrapping(word[lane]));
    let (blocks, _) = source.as_chunks::<BLOCK_BYTES>();
    for block in blocks {
        let with = With {
            words: words(block).map(Wrapping),
            splat: Wrapping,
            rotate: |word: Wrapping<u32>, by| Wrapping(word.0.rotate_left(by)),
        };
        state = compress(state, &with);
    }
    for (word, new) in states.iter_mut().zip(state) {
        word[lane] = new.0;
    }
}

/// The lanes in groups that fit the registers: a group's state and block take most of them. Where a register is
/// narrower than a group, its parts fill the time that each step waits for the one before.
#[inline(always)]
fn lanes_with<S: Simd>(simd: S, states: &mut States, sources: &[&[u8]; LANES], lanes: usize, blocks: usize) {
    if lanes <= 8 {
        group::<S, u32x8<S>>(simd, states, sources, 0, blocks);
    } else if S::u32s::LEN >= 8 {
        group::<S, u32x16<S>>(simd, states, sources, 0, blocks);
    } else {
        group::<S, u32x8<S>>(simd, states, sources, 0, blocks);
        group::<S, u32x8<S>>(simd, states, sources, 8, blocks);
    }
}

#[inline(always)]
fn group<S: Simd, V: SimdInt<S> + SimdBase<S, Element = u32>>(
    simd: S,
    states: &mut States,
    sources: &[&[u8]; LANES],
    first: usize,
    blocks: usize,
) {
    let lanes = first..first + V::LEN;
    let mut state = [0, 1, 2, 3].map(|word: usize| V::from_slice(simd, &states[word][lanes.clone()]));
    for n in 0..blocks {
        let words = transposed(simd, &sources[lanes.clone()], n);
        let with = With {
            words,
            splat: |word| V::splat(simd, word),
            rotate: |word: V, by: u32| word << by | word >> (32 - by),
        };
        state = compress(state, &with);
    }
    for (word, new) in states.iter_mut().zip(state) {
        new.store_slice(&mut word[lanes.clone()]);
    }
}

/// The words of the `n`-th block of each source: the first words of all of them, the second ones, and so on.
#[inline(always)]
fn transposed<S: Simd, V: SimdBase<S, Element = u32>>(simd: S, sources: &[&[u8]], n: usize) -> [V; WORDS] {
    let mut rows = [[0; LANES]; WORDS];
    for (lane, source) in sources.iter().enumerate() {
        let block = source[n * BLOCK_BYTES..].first_chunk().unwrap_or(&[0; BLOCK_BYTES]);
        for (row, word) in rows.iter_mut().zip(words(block)) {
            row[lane] = word;
        }
    }
    rows.map(|row| V::from_slice(simd, &row[..V::LEN]))
}

#[inline(always)]
fn words(block: &[u8; BLOCK_BYTES]) -> [u32; WORDS] {
    let (words, _) = block.as_chunks::<4>();
    std::array::from_fn(|n| u32::from_le_bytes(words[n]))
}
