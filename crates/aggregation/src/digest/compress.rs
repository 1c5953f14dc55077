//! The compression function of MD5 (RFC 1321, section 3.4), of one message or of many at once.

use std::ops::{Add, BitAnd, BitOr, BitXor, Not};

/// The words of a block.
pub(super) const WORDS: usize = 16;
/// What the state of every message begins with.
pub(super) const INITIAL: [u32; 4] = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];

/// What is added at each step: `floor(2^32 * abs(sin(n + 1)))`.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xD76A_A478, 0xE8C7_B756, 0x2420_70DB, 0xC1BD_CEEE, 0xF57C_0FAF, 0x4787_C62A, 0xA830_4613, 0xFD46_9501,
    0x6980_98D8, 0x8B44_F7AF, 0xFFFF_5BB1, 0x895C_D7BE, 0x6B90_1122, 0xFD98_7193, 0xA679_438E, 0x49B4_0821,
    0xF61E_2562, 0xC040_B340, 0x265E_5A51, 0xE9B6_C7AA, 0xD62F_105D, 0x0244_1453, 0xD8A1_E681, 0xE7D3_FBC8,
    0x21E1_CDE6, 0xC337_07D6, 0xF4D5_0D87, 0x455A_14ED, 0xA9E3_E905, 0xFCEF_A3F8, 0x676F_02D9, 0x8D2A_4C8A,
    0xFFFA_3942, 0x8771_F681, 0x6D9D_6122, 0xFDE5_380C, 0xA4BE_EA44, 0x4BDE_CFA9, 0xF6BB_4B60, 0xBEBF_BC70,
    0x289B_7EC6, 0xEAA1_27FA, 0xD4EF_3085, 0x0488_1D05, 0xD9D4_D039, 0xE6DB_99E5, 0x1FA2_7CF8, 0xC4AC_5665,
    0xF429_2244, 0x432A_FF97, 0xAB94_23A7, 0xFC93_A039, 0x655B_59C3, 0x8F0C_CC92, 0xFFEF_F47D, 0x8584_5DD1,
    0x6FA8_7E4F, 0xFE2C_E6E0, 0xA301_4314, 0x4E08_11A1, 0xF753_7E82, 0xBD3A_F235, 0x2AD7_D2BB, 0xEB86_D391,
];

/// A 32-bit word of one message, or of each of many.
pub(super) trait Word:
    Copy + Add<Output = Self> + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self>
{
}

impl<W> Word for W where
    W: Copy + Add<Output = W> + BitAnd<Output = W> + BitOr<Output = W> + BitXor<Output = W> + Not<Output = W>
{
}

/// Sixteen steps. All indexes are literals, so that no loop is left and none of them is checked.
macro_rules! round {
    ($round:literal, $mix:ident, word $factor:literal + $offset:literal, rotate $by:expr, $state:ident, $with:ident) => {
        round!(@ $round, $mix, $factor, $offset, $by, $state, $with; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $round:literal, $mix:ident, $factor:literal, $offset:literal, $by:expr, $state:ident, $with:ident;
     $($n:literal)*) => {
        $({
            let [a, b, c, d] = $state;
            let sum = a + $with.words[($factor * $n + $offset) % WORDS] + ($with.splat)(SINES[16 * $round + $n]);
            let by: [u32; 4] = $by;
            $state = [d, b + ($with.rotate)($mix(sum, b, c, d), by[$n % 4]), b, c];
        })*
    };
}

/// A block, and what words can do beyond arithmetic.
pub(super) struct With<W, S, R> {
    pub(super) words: [W; WORDS],
    /// Makes a word of a constant.
    pub(super) splat: S,
    /// Rotates a word to the left, by 1 to 31 bits.
    pub(super) rotate: R,
}

/// Works a block into a state.
#[inline(always)]
pub(super) fn compress<W: Word>(state: [W; 4], with: &With<W, impl Fn(u32) -> W, impl Fn(W, u32) -> W>) -> [W; 4] {
    let mut now = state;
    round!(0, mix_f, word 1 + 0, rotate [7, 12, 17, 22], now, with);
    round!(1, mix_g, word 5 + 1, rotate [5, 9, 14, 20], now, with);
    round!(2, mix_h, word 3 + 5, rotate [4, 11, 16, 23], now, with);
    round!(3, mix_i, word 7 + 0, rotate [6, 10, 15, 21], now, with);
    let ([a, b, c, d], [e, f, g, h]) = (state, now);
    [a + e, b + f, c + g, d + h]
}

// `b` is the result of the step before and the others are older: what does not need it is done first, while a
// processor still waits for it.

#[inline(always)]
fn mix_f<W: Word>(sum: W, b: W, c: W, d: W) -> W {
    sum + (d ^ (b & (c ^ d)))
}

/// The two halves have no bit in common, so that they can be added one by one where the RFC joins them first.
#[inline(always)]
fn mix_g<W: Word>(sum: W, b: W, c: W, d: W) -> W {
    (sum + (c & !d)) + (b & d)
}

#[inline(always)]
fn mix_h<W: Word>(sum: W, b: W, c: W, d: W) -> W {
    sum + (b ^ (c ^ d))
}

#[inline(always)]
fn mix_i<W: Word>(sum: W, b: W, c: W, d: W) -> W {
    sum + (c ^ (b | !d))
}
