//! Many messages, of which each takes a lane until it is done and leaves it to the next.

use fearless_simd::Level;

use super::compress::INITIAL;
use super::kernel::{BLOCK_BYTES, LANES, States, compress_lanes, compress_one};
use super::{Digest, md5};

/// The bytes that tell the length of a message, in its last block.
const LENGTH_BYTES: usize = 8;

/// The MD5 of each of many messages, told as `digest` with the number of the message, in any order.
///
/// Nothing is allocated. A message that is alone is done by itself, and so is the rest of one that the others leave
/// behind: lanes without a message cost as much as others.
pub(crate) fn md5_many<'a>(messages: impl IntoIterator<Item = &'a [u8]>, mut digest: impl FnMut(usize, Digest)) {
    let mut messages = messages.into_iter().enumerate();
    match (messages.next(), messages.next()) {
        (None, _) => {}
        (Some((number, only)), None) => digest(number, md5(only)),
        (Some(first), Some(second)) => {
            side_by_side(Level::new(), &mut [first, second].into_iter().chain(messages), &mut digest);
        }
    }
}

fn side_by_side<'a>(
    level: Level,
    messages: &mut dyn Iterator<Item = (usize, &'a [u8])>,
    digest: &mut dyn FnMut(usize, Digest),
) {
    let mut states = [[0; LANES]; 4];
    let mut lanes: [Lane<'a>; LANES] = [const { Lane::EMPTY }; LANES];
    // The lanes that have a message come first.
    let mut busy = 0;
    loop {
        while busy < LANES
            && let Some((number, message)) = messages.next()
        {
            lanes[busy].begin(number, message);
            set_state(&mut states, busy, INITIAL);
            busy += 1;
        }
        match busy {
            0 => return,
            1 => compress_rest(&mut states, &mut lanes[0]),
            _ => compress_some(level, &mut states, &mut lanes, busy),
        }
        // From behind, so that the last lane can take the place of one that is done.
        for lane in (0..busy).rev() {
            if lanes[lane].is_done() {
                digest(lanes[lane].number, to_digest(state(&states, lane)));
                busy -= 1;
                lanes.swap(lane, busy);
                let last = state(&states, busy);
                set_state(&mut states, lane, last);
            }
        }
    }
}

/// Goes on in all lanes until one needs to be looked at.
fn compress_some(level: Level, states: &mut States, lanes: &mut [Lane<'_>; LANES], busy: usize) {
    let (busy_lanes, _) = lanes.split_at(busy);
    let blocks = busy_lanes.iter().map(|lane| lane.source().len()).min().unwrap_or(0) / BLOCK_BYTES;
    // Lanes without a message repeat the work of the first.
    let sources = std::array::from_fn(|lane| lanes[if lane < busy { lane } else { 0 }].source());
    compress_lanes(level, states, &sources, busy, blocks);
    for lane in &mut lanes[..busy] {
        lane.advance(blocks * BLOCK_BYTES);
    }
}

/// Finishes the first lane.
fn compress_rest(states: &mut States, lane: &mut Lane<'_>) {
    while !lane.is_done() {
        compress_one(states, 0, lane.source());
        lane.advance(lane.source().len());
    }
}

fn state(states: &States, lane: usize) -> [u32; 4] {
    states.map(|word| word[lane])
}

fn set_state(states: &mut States, lane: usize, state: [u32; 4]) {
    for (word, new) in states.iter_mut().zip(state) {
        word[lane] = new;
    }
}

fn to_digest(state: [u32; 4]) -> Digest {
    let mut digest = [0; 16];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_le_bytes();
    }
    digest
}

/// What is left of a message.
struct Lane<'a> {
    number: usize,
    /// Its whole blocks.
    whole: &'a [u8],
    /// What comes after them: the end of the message, the bit that marks it, zeros, and the length.
    tail: [u8; 2 * BLOCK_BYTES],
    tail_start: usize,
    tail_end: usize,
}

impl<'a> Lane<'a> {
    const EMPTY: Self = Self { number: 0, whole: &[], tail: [0; 2 * BLOCK_BYTES], tail_start: 0, tail_end: 0 };

    /// Takes a message. In place, as most of a lane is the room for a tail, which may be all that there is to do.
    #[inline]
    fn begin(&mut self, number: usize, message: &'a [u8]) {
        let (whole, end) = message.split_at(message.len() - message.len() % BLOCK_BYTES);
        self.number = number;
        self.whole = whole;
        self.tail = [0; 2 * BLOCK_BYTES];
        self.tail[..end.len()].copy_from_slice(end);
        self.tail[end.len()] = 0x80;
        let fits = end.len() + 1 + LENGTH_BYTES <= BLOCK_BYTES;
        self.tail_start = 0;
        self.tail_end = if fits { BLOCK_BYTES } else { 2 * BLOCK_BYTES };
        // In bits, of which the lowest 64 count.
        let length = (message.len() as u64).wrapping_mul(8);
        self.tail[self.tail_end - LENGTH_BYTES..self.tail_end].copy_from_slice(&length.to_le_bytes());
    }

    /// What comes next, in whole blocks; nothing at the end.
    fn source(&self) -> &[u8] {
        if self.whole.is_empty() { &self.tail[self.tail_start..self.tail_end] } else { self.whole }
    }

    fn advance(&mut self, bytes: usize) {
        if self.whole.is_empty() {
            self.tail_start += bytes;
        } else {
            self.whole = &self.whole[bytes..];
        }
    }

    fn is_done(&self) -> bool {
        self.whole.is_empty() && self.tail_start == self.tail_end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every level that can be had here.
    fn levels() -> Vec<Level> {
        let levels = vec![Level::new(), Level::baseline()];
        #[cfg(target_arch = "x86_64")]
        let levels = [levels, Level::new().as_avx2().map(Level::Avx2).into_iter().collect()].concat();
        levels
    }

    fn check(messages: &[&[u8]]) {
        let expected: Vec<_> = messages.iter().map(|message| Some(md5(message))).collect();
        let mut digests = vec![None; messages.len()];
        let mut tell = |number: usize, digest| assert_eq!(digests[number].replace(digest), None, "told twice");
        md5_many(messages.iter().copied(), &mut tell);
        assert_eq!(digests, expected);
        for level in levels() {
            let mut digests = vec![None; messages.len()];
            let mut tell = |number: usize, digest| assert_eq!(digests[number].replace(digest), None, "told twice");
            side_by_side(level, &mut messages.iter().copied().enumerate(), &mut tell);
            assert_eq!(digests, expected, "{level:?}");
        }
    }

    #[test]
    fn every_length_around_a_block_is_hashed_as_elsewhere() {
        let bytes: Vec<u8> = (0..300u32).map(|n| (n * 37) as u8).collect();
        let messages: Vec<_> = (0..=bytes.len()).map(|len| &bytes[..len]).collect();
        check(&messages);
        for message in &messages {
            check(&[message]);
            check(&[message, b"another"]);
        }
    }

    #[test]
    fn one_message_is_much_longer_than_the_others() {
        let long: Vec<u8> = (0..100_000u32).map(|n| (n * 37) as u8).collect();
        for others in [1, 7, 8, 15, 16, 17, 40] {
            for at in [0, others / 2, others] {
                let mut messages = vec![&long[..100]; others];
                messages.insert(at, &long);
                check(&messages);
            }
        }
    }

    proptest! {
        #[test]
        fn any_messages_are_hashed_as_elsewhere(
            bytes in prop::collection::vec(any::<u8>(), 2_000..2_001),
            slices in prop::collection::vec(
                (any::<prop::sample::Index>(), prop_oneof![
                    prop::sample::select(vec![0usize, 1, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128]),
                    0..150usize,
                    0..2_000usize,
                ]),
                0..60,
            ),
        ) {
            let slice = |(at, len): &(prop::sample::Index, usize)| {
                let start = at.index(bytes.len());
                &bytes[start..bytes.len().min(start + len)]
            };
            check(&slices.iter().map(slice).collect::<Vec<_>>());
        }
    }
}
