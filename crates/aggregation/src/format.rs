//! Constants and sizes of the aggregated record format; the layout itself is in the documentation of the crate.

/// What every aggregated record starts with.
pub(crate) const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
/// The bytes of the MD5 that every aggregated record ends with.
pub(crate) const DIGEST_BYTES: usize = 16;
/// What an aggregated record holds beside its message.
pub(crate) const ENVELOPE_BYTES: usize = MAGIC.len() + DIGEST_BYTES;

/// Tag bytes of the message `AggregatedRecord`.
pub(crate) mod outer_tag {
    /// `repeated string partition_key_table = 1`
    pub(crate) const PARTITION_KEY: u8 = 0x0A;
    /// `repeated string explicit_hash_key_table = 2`
    pub(crate) const EXPLICIT_HASH_KEY: u8 = 0x12;
    /// `repeated Record records = 3`
    pub(crate) const RECORD: u8 = 0x1A;
}

/// Tag bytes of the message `Record`.
pub(crate) mod record_tag {
    /// `required uint64 partition_key_index = 1`
    pub(crate) const PARTITION_KEY_INDEX: u8 = 0x08;
    /// `optional uint64 explicit_hash_key_index = 2`
    pub(crate) const EXPLICIT_HASH_KEY_INDEX: u8 = 0x10;
    /// `required bytes data = 3`
    pub(crate) const DATA: u8 = 0x1A;
    /// `repeated Tag tags = 4`
    pub(crate) const TAGS: u8 = 0x22;
}

/// The tag byte of `required string key = 1` in the message `Tag`, which nobody writes.
pub(crate) const TAG_KEY: u8 = 0x0A;

/// How many bytes a number takes as a varint: one for every seven bits.
#[inline]
pub(crate) fn varint_len(value: usize) -> usize {
    // Nearly all numbers are small, and telling so is cheaper than counting their bits.
    if value < 1 << 14 {
        return 1 + usize::from(value >= 1 << 7);
    }
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// How many bytes a length-delimited field takes, with its tag and its length.
#[inline]
pub(crate) fn delimited_len(len: usize) -> usize {
    1 + varint_len(len) + len
}

/// Writes a tag and a number as a varint: a whole field, or what stands before a length-delimited one.
///
/// Nearly every number is below 2^14. Such a field is put together in a register and written as one word, of which the
/// end is cut off again: byte by byte, it would be asked for each whether there is room.
#[inline(always)]
pub(crate) fn push_field(out: &mut Vec<u8>, tag: u8, value: usize) {
    let low = value as u32;
    let (word, len) = match value {
        0..0x80 => (u32::from(tag) | low << 8, 2),
        0x80..0x4000 => (u32::from(tag) | (low & 0x7F | 0x80) << 8 | low >> 7 << 16, 3),
        _ => return push_long_field(out, tag, value),
    };
    let end = out.len() + len;
    out.extend_from_slice(&word.to_le_bytes());
    out.truncate(end);
}

#[cold]
#[inline(never)]
fn push_long_field(out: &mut Vec<u8>, tag: u8, value: usize) {
    out.push(tag);
    push_varint(out, value);
}

/// Writes a number as a varint.
pub(crate) fn push_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_varint_has_the_length_that_was_computed(value: usize, shift in 0..usize::BITS) {
            let value = value >> shift;
            let mut out = Vec::new();
            push_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
        }

        #[test]
        fn a_field_is_its_tag_and_its_varint(tag: u8, value: usize, shift in 0..usize::BITS, before: Vec<u8>) {
            let value = value >> shift;
            let mut expected = before.clone();
            expected.push(tag);
            push_varint(&mut expected, value);
            let mut out = before;
            push_field(&mut out, tag, value);
            prop_assert_eq!(out, expected);
        }
    }
}
