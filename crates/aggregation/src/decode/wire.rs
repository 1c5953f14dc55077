//! A bounded reader of the protobuf wire format. It borrows what it reads, never recurses, and looks at each byte at
//! most a constant number of times.

use super::error::ParseError;

/// How deep messages and groups may nest, the outermost message not counted: the default of protobuf implementations.
pub(super) const MAX_DEPTH: usize = 100;
/// The longest varint: 64 bits, seven to a byte.
const MAX_VARINT_BYTES: usize = 10;

/// What remains to be read of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

/// What stands before a field: its number and its wire type, as they are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WireType {
    Varint,
    Fixed64,
    Delimited,
    StartGroup,
    EndGroup,
    Fixed32,
}

impl Tag {
    fn new(encoded: u64) -> Result<Self, ParseError> {
        match u32::try_from(encoded) {
            Ok(tag) if tag >> 3 != 0 => Ok(Self(tag)),
            _ => Err(ParseError::FieldNumber),
        }
    }

    /// The encoded tag where it is one of the format's own, all of which are one byte; 0 for others.
    #[inline]
    pub(super) fn known(self) -> u8 {
        u8::try_from(self.0).unwrap_or(0)
    }

    fn field(self) -> u32 {
        self.0 >> 3
    }

    fn wire_type(self) -> Result<WireType, ParseError> {
        Ok(match self.0 & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Delimited,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            _ => return Err(ParseError::WireType),
        })
    }
}

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What is left.
    #[inline]
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The tag of the next field; none at the end of the message.
    #[inline]
    pub(super) fn tag(&mut self) -> Result<Option<Tag>, ParseError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        #[cfg(test)]
        super::work::add(1);
        Tag::new(self.varint()?).map(Some)
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64, ParseError> {
        match self.rest {
            [byte @ 0..=0x7F, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, ParseError> {
        let mut value = 0;
        for (n, &byte) in self.rest.iter().take(MAX_VARINT_BYTES).enumerate() {
            if n == MAX_VARINT_BYTES - 1 && byte > 1 {
                return Err(ParseError::Varint);
            }
            value |= u64::from(byte & 0x7F) << (7 * n);
            if byte < 0x80 {
                self.rest = &self.rest[n + 1..];
                return Ok(value);
            }
        }
        Err(ParseError::Truncated)
    }

    /// The bytes of a length-delimited field.
    #[inline]
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], ParseError> {
        let len = self.varint()?;
        self.take(usize::try_from(len).map_err(|_| ParseError::Truncated)?)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ParseError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Skips a field that the format does not know, in a message that is itself `depth` levels deep.
    pub(super) fn skip(&mut self, tag: Tag, depth: usize) -> Result<(), ParseError> {
        match tag.wire_type()? {
            WireType::StartGroup => self.skip_group(tag.field(), depth),
            WireType::EndGroup => Err(ParseError::Group),
            plain => self.skip_plain(plain),
        }
    }

    fn skip_plain(&mut self, wire_type: WireType) -> Result<(), ParseError> {
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.take(8).map(drop),
            WireType::Delimited => self.delimited().map(drop),
            WireType::Fixed32 => self.take(4).map(drop),
            WireType::StartGroup | WireType::EndGroup => Err(ParseError::Group),
        }
    }

    /// Skips to the end of a group that has begun. The open groups are kept in an array, so that depth costs no stack.
    fn skip_group(&mut self, field: u32, depth: usize) -> Result<(), ParseError> {
        let mut open = [0; MAX_DEPTH];
        let mut level = depth;
        let mut begun = field;
        loop {
            *open.get_mut(level).ok_or(ParseError::TooDeep)? = begun;
            level += 1;
            begun = loop {
                let tag = self.tag()?.ok_or(ParseError::Truncated)?;
                match tag.wire_type()? {
                    WireType::StartGroup => break tag.field(),
                    WireType::EndGroup => {
                        level -= 1;
                        if open[level] != tag.field() {
                            return Err(ParseError::Group);
                        }
                        if level == depth {
                            return Ok(());
                        }
                    }
                    plain => self.skip_plain(plain)?,
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip_all(message: &[u8], depth: usize) -> Result<(), ParseError> {
        let mut reader = Reader::new(message);
        while let Some(tag) = reader.tag()? {
            reader.skip(tag, depth)?;
        }
        Ok(())
    }

    fn nested(levels: usize) -> Vec<u8> {
        [[0x2B].repeat(levels), [0x2C].repeat(levels)].concat()
    }

    #[test]
    fn every_wire_type_is_skipped() {
        assert_eq!(skip_all(&[0x28, 0x96, 0x01], 0), Ok(()));
        assert_eq!(skip_all(&[0x29, 1, 2, 3, 4, 5, 6, 7, 8], 0), Ok(()));
        assert_eq!(skip_all(&[0x2A, 2, 0, 0], 0), Ok(()));
        assert_eq!(skip_all(&[0x2B, 0x08, 0x01, 0x33, 0x34, 0x2C], 0), Ok(()));
        assert_eq!(skip_all(&[0x2D, 1, 2, 3, 4], 0), Ok(()));
        assert_eq!(skip_all(&[0x2E], 0), Err(ParseError::WireType));
        assert_eq!(skip_all(&[0x2F], 0), Err(ParseError::WireType));
    }

    #[test]
    fn groups_end_as_they_begin() {
        assert_eq!(skip_all(&[0x2C], 0), Err(ParseError::Group));
        assert_eq!(skip_all(&[0x2B], 0), Err(ParseError::Truncated));
        assert_eq!(skip_all(&[0x2B, 0x34], 0), Err(ParseError::Group));
        assert_eq!(skip_all(&[0x2B, 0x33, 0x2C, 0x34], 0), Err(ParseError::Group));
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(skip_all(&nested(MAX_DEPTH), 0), Ok(()));
        assert_eq!(skip_all(&nested(MAX_DEPTH + 1), 0), Err(ParseError::TooDeep));
        assert_eq!(skip_all(&nested(MAX_DEPTH - 1), 1), Ok(()));
        assert_eq!(skip_all(&nested(MAX_DEPTH), 1), Err(ParseError::TooDeep));
        assert_eq!(skip_all(&nested(1_000_000), 0), Err(ParseError::TooDeep));
    }

    #[test]
    fn varints_are_bounded() {
        let read = |bytes: &[u8]| Reader::new(bytes).varint();
        assert_eq!(read(&[0x80, 0x00]), Ok(0), "redundant bytes are legal");
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]), Ok(u64::MAX));
        assert_eq!(read(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02]), Err(ParseError::Varint));
        assert_eq!(read(&[0x80; 11]), Err(ParseError::Varint));
        assert_eq!(read(&[0x80; 9]), Err(ParseError::Truncated));
        assert_eq!(read(&[]), Err(ParseError::Truncated));
    }

    #[test]
    fn field_numbers_are_bounded() {
        assert_eq!(skip_all(&[0x00, 0x00], 0), Err(ParseError::FieldNumber));
        assert_eq!(skip_all(&[0xF8, 0xFF, 0xFF, 0xFF, 0x0F, 0x00], 0), Ok(()), "2^29 - 1");
        assert_eq!(skip_all(&[0x80, 0x80, 0x80, 0x80, 0x10, 0x00], 0), Err(ParseError::FieldNumber));
        assert_eq!(
            skip_all(&[0x2A, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], 0),
            Err(ParseError::Truncated)
        );
    }
}
