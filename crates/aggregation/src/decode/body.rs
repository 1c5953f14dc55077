//! The message between magic and digest, field by field.

use super::error::ParseError;
use super::wire::Reader;
use crate::format::{TAG_KEY, outer_tag, record_tag};

/// The fields of a body that the format knows, in the order in which they are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    reader: Reader<'a>,
}

/// A field of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    PartitionKey(&'a [u8]),
    ExplicitHashKey(&'a [u8]),
    Record(RecordFields<'a>),
}

/// A user record as it is written. Indexes stay what they are until they are compared with the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordFields<'a> {
    pub(super) partition_key: u64,
    pub(super) explicit_hash_key: Option<u64>,
    pub(super) data: &'a [u8],
}

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { reader: Reader::new(body) }
    }

    /// How many bytes of the body are left.
    #[inline]
    pub(super) fn remaining(&self) -> usize {
        self.reader.rest().len()
    }

    /// The next field if it is a user record as every known encoder writes it; nothing has been read of others.
    #[inline(always)]
    pub(super) fn usual_record(&mut self) -> Option<RecordFields<'a>> {
        let (record, rest) = usual_record(self.reader.rest())?;
        self.reader = Reader::new(rest);
        Some(record)
    }

    /// The same for a partition key.
    #[inline(always)]
    pub(super) fn usual_partition_key(&mut self) -> Option<&'a [u8]> {
        let [outer_tag::PARTITION_KEY, field @ ..] = self.reader.rest() else { return None };
        let (key, rest) = short_delimited(field)?;
        self.reader = Reader::new(rest);
        #[cfg(test)]
        super::work::add(1);
        Some(key)
    }

    /// The next field; none at the end. A known field with another wire type than its own is an unknown field, as it
    /// is to every protobuf implementation that follows the specification.
    #[inline(never)]
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, ParseError> {
        while let Some(tag) = self.reader.tag()? {
            return Ok(Some(match tag.known() {
                outer_tag::RECORD => Field::Record(any_record(self.reader.delimited()?)?),
                outer_tag::PARTITION_KEY => Field::PartitionKey(self.reader.delimited()?),
                outer_tag::EXPLICIT_HASH_KEY => Field::ExplicitHashKey(self.reader.delimited()?),
                _ => {
                    self.reader.skip(tag, 0)?;
                    continue;
                }
            }));
        }
        Ok(None)
    }

    /// The next user record of a body that is known to parse.
    #[inline(always)]
    pub(super) fn next_record(&mut self) -> Option<RecordFields<'a>> {
        loop {
            if let Some(record) = self.usual_record() {
                return Some(record);
            }
            if let Field::Record(record) = self.next().ok()?? {
                return Some(record);
            }
        }
    }
}

/// Parses a field that is a user record with each of its fields once, in ascending order, with lengths and indexes
/// below 2^14. Returns what follows as well.
///
/// This is what nearly every field is, and what reading spends its time on beside MD5. Slices are passed by value so
/// that everything stays in registers.
#[inline(always)]
fn usual_record(field: &[u8]) -> Option<(RecordFields<'_>, &[u8])> {
    #[cfg(test)]
    super::work::add(1);
    let [outer_tag::RECORD, field @ ..] = field else { return None };
    let (message, rest) = short_delimited(field)?;
    let [record_tag::PARTITION_KEY_INDEX, message @ ..] = message else { return None };
    let (partition_key, message) = short_varint(message)?;
    let (explicit_hash_key, message) = match message {
        [record_tag::EXPLICIT_HASH_KEY_INDEX, message @ ..] => {
            let (index, message) = short_varint(message)?;
            (Some(index), message)
        }
        message => (None, message),
    };
    let [record_tag::DATA, message @ ..] = message else { return None };
    let (data, message) = short_delimited(message)?;
    message.is_empty().then_some((RecordFields { partition_key, explicit_hash_key, data }, rest))
}

/// A varint of one or two bytes, and what follows.
#[inline(always)]
fn short_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    match bytes {
        [byte @ 0..=0x7F, rest @ ..] => Some((u64::from(*byte), rest)),
        [low, high @ 0..=0x7F, rest @ ..] => Some((u64::from(low & 0x7F) | u64::from(*high) << 7, rest)),
        _ => None,
    }
}

/// The content of a length-delimited field whose length is such a varint, and what follows.
#[inline(always)]
fn short_delimited(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = short_varint(bytes)?;
    rest.split_at_checked(len as usize)
}

/// Parses a user record with any fields in any order. Of a field that occurs more than once the last one counts.
fn any_record(message: &[u8]) -> Result<RecordFields<'_>, ParseError> {
    let mut reader = Reader::new(message);
    let (mut partition_key, mut explicit_hash_key, mut data) = (None, None, None);
    while let Some(tag) = reader.tag()? {
        match tag.known() {
            record_tag::PARTITION_KEY_INDEX => partition_key = Some(reader.varint()?),
            record_tag::EXPLICIT_HASH_KEY_INDEX => explicit_hash_key = Some(reader.varint()?),
            record_tag::DATA => data = Some(reader.delimited()?),
            record_tag::TAGS => check_tag(reader.delimited()?)?,
            _ => reader.skip(tag, 1)?,
        }
    }
    match (partition_key, data) {
        (Some(partition_key), Some(data)) => Ok(RecordFields { partition_key, explicit_hash_key, data }),
        _ => Err(ParseError::MissingField),
    }
}

/// Tags are read by nobody, but a message with a broken one is a broken message to every other decoder.
fn check_tag(message: &[u8]) -> Result<(), ParseError> {
    let mut reader = Reader::new(message);
    let mut has_key = false;
    while let Some(tag) = reader.tag()? {
        has_key |= tag.known() == TAG_KEY;
        reader.skip(tag, 2)?;
    }
    if has_key { Ok(()) } else { Err(ParseError::MissingField) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<Vec<Field<'_>>, ParseError> {
        let mut fields = Fields::new(body);
        std::iter::from_fn(|| fields.next().transpose()).collect()
    }

    #[test]
    fn the_last_of_a_repeated_scalar_counts() {
        let body = [0x1A, 13, 0x08, 1, 0x08, 2, 0x10, 3, 0x10, 4, 0x1A, 0, 0x1A, 1, b'x'];
        let record = RecordFields { partition_key: 2, explicit_hash_key: Some(4), data: b"x" };
        assert_eq!(parse(&body), Ok(vec![Field::Record(record)]));
    }

    #[test]
    fn required_fields_are_required() {
        assert_eq!(parse(&[0x1A, 2, 0x08, 0]), Err(ParseError::MissingField));
        assert_eq!(parse(&[0x1A, 2, 0x1A, 0]), Err(ParseError::MissingField));
        assert_eq!(parse(&[0x1A, 0]), Err(ParseError::MissingField));
        assert_eq!(parse(&[0x1A, 6, 0x08, 0, 0x1A, 0, 0x22, 0]), Err(ParseError::MissingField), "a tag without key");
        assert!(parse(&[0x1A, 8, 0x08, 0, 0x1A, 0, 0x22, 2, 0x0A, 0]).is_ok());
    }

    #[test]
    fn another_wire_type_makes_an_unknown_field() {
        assert_eq!(parse(&[0x08, 0, 0x1D, 0, 0, 0, 0]), Ok(vec![]), "fields 1 and 3, neither length-delimited");
        assert_eq!(parse(&[0x1A, 5, 0x0A, 1, 0, 0x1A, 0]), Err(ParseError::MissingField));
    }
}
