//! The key tables of one aggregated record, decoded once so that no user record has to.

use bytestring::ByteString;

use super::body::{Field, Fields, RecordFields};
use super::error::ParseError;
use super::kcl;
use crate::InvalidExplicitHashKey;
use crate::explicit_hash_key;

/// How table entries are read that are not what the format prescribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// They are noted; a user record that points at one makes the whole record malformed.
    Strict,
    /// They are read as the KCL reads them.
    Kcl,
}

/// Both tables. Entries that could not be read have an empty or zero place holder, and are listed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Tables {
    /// All partition keys in one text: user records share slices of it, checked for UTF-8 once, at one allocation.
    text: ByteString,
    /// Where in the text each key ends, which is where the next begins.
    ends: Vec<usize>,
    explicit_hash_keys: Vec<u128>,
    /// The partition keys that are not UTF-8, in ascending order.
    bad_partition_keys: Vec<usize>,
    /// The explicit hash keys that are none, in ascending order.
    bad_explicit_hash_keys: Vec<(usize, InvalidExplicitHashKey)>,
    /// How many bytes of the body hold nothing but entries of these tables: no user record begins before.
    lead: usize,
}

/// What one pass over a body finds.
pub(super) struct Scan {
    pub(super) tables: Tables,
    /// How many user records there are.
    pub(super) records: u64,
    /// The highest partition key index of any of them.
    pub(super) max_partition_key: u64,
    /// One more than the highest explicit hash key index of any of them, 0 where none has one.
    pub(super) explicit_hash_keys_used: u128,
}

impl Scan {
    /// Parses a whole body, whatever its indexes and keys are.
    pub(super) fn new(body: &[u8], rules: Rules) -> Result<Self, ParseError> {
        let mut scan = Self { tables: Tables::default(), records: 0, max_partition_key: 0, explicit_hash_keys_used: 0 };
        let mut keys = Vec::new();
        let mut fields = Fields::new(body);
        loop {
            if let Some(record) = fields.usual_record() {
                scan.add_record(&record);
                continue;
            }
            if let Some(key) = fields.usual_partition_key() {
                scan.tables.add_partition_key(&mut keys, key);
                scan.add_lead(body.len() - fields.remaining());
                continue;
            }
            match fields.next()? {
                Some(Field::Record(record)) => scan.add_record(&record),
                Some(Field::PartitionKey(key)) => scan.tables.add_partition_key(&mut keys, key),
                Some(Field::ExplicitHashKey(key)) => {
                    scan.tables.add_explicit_hash_key(key, rules);
                    scan.add_lead(body.len() - fields.remaining());
                }
                None => break,
            }
        }
        scan.tables.set_partition_keys(keys, rules);
        Ok(scan)
    }

    /// Notes a table entry that ends at an offset.
    fn add_lead(&mut self, end: usize) {
        if self.records == 0 {
            self.tables.lead = end;
        }
    }

    #[inline(always)]
    fn add_record(&mut self, record: &RecordFields<'_>) {
        self.records += 1;
        self.max_partition_key = self.max_partition_key.max(record.partition_key);
        if let Some(index) = record.explicit_hash_key {
            self.explicit_hash_keys_used = self.explicit_hash_keys_used.max(u128::from(index) + 1);
        }
    }

    /// Whether every index points into its table.
    pub(super) fn indexes_are_good(&self) -> bool {
        let tables = &self.tables;
        usize::try_from(self.max_partition_key).is_ok_and(|max| max < tables.ends.len())
            && self.explicit_hash_keys_used <= tables.explicit_hash_keys.len() as u128
    }
}

/// Makes room for a key and many more. Where keys are distinct they are a good part of a record, and moving them again
/// and again as they come costs more than looking at them.
#[cold]
fn grow(keys: &mut Vec<u8>, key_bytes: usize) {
    keys.reserve(key_bytes.max(3 * keys.len()).max(256));
}

impl Tables {
    #[inline(always)]
    fn add_partition_key(&mut self, keys: &mut Vec<u8>, key: &[u8]) {
        if keys.capacity() - keys.len() < key.len() {
            grow(keys, key.len());
        }
        keys.extend_from_slice(key);
        self.ends.push(keys.len());
    }

    /// Makes a text of all partition keys. They are checked together: one at a time takes several times as long, and
    /// is needed only where one of them is not UTF-8.
    fn set_partition_keys(&mut self, mut keys: Vec<u8>, rules: Rules) {
        // User records keep this alive, perhaps for long.
        keys.shrink_to_fit();
        #[cfg(test)]
        super::work::add(keys.len());
        self.text = match String::from_utf8(keys) {
            // Two keys that are not UTF-8 can be together what neither is.
            Ok(text) if text.is_ascii() || self.ends.iter().all(|end| text.is_char_boundary(*end)) => text.into(),
            Ok(text) => self.checked_one_by_one(text.as_bytes(), rules).into(),
            Err(error) => self.checked_one_by_one(error.as_bytes(), rules).into(),
        };
    }

    fn checked_one_by_one(&mut self, keys: &[u8], rules: Rules) -> String {
        #[cfg(test)]
        super::work::add(keys.len());
        let mut text = String::new();
        let mut start = 0;
        for (n, end) in self.ends.iter_mut().enumerate() {
            let key = keys.get(start..*end).unwrap_or_default();
            start = *end;
            match (str::from_utf8(key), rules) {
                (Ok(key), _) => text.push_str(key),
                (Err(_), Rules::Strict) => self.bad_partition_keys.push(n),
                (Err(_), Rules::Kcl) => kcl::push_repaired(&mut text, key),
            }
            *end = text.len();
        }
        text
    }

    fn add_explicit_hash_key(&mut self, key: &[u8], rules: Rules) {
        let parsed = match rules {
            Rules::Strict => explicit_hash_key::parse(key),
            Rules::Kcl => kcl::parse_big_integer(key),
        };
        if let Err(error) = parsed {
            self.bad_explicit_hash_keys.push((self.explicit_hash_keys.len(), error));
        }
        self.explicit_hash_keys.push(parsed.unwrap_or(0));
    }

    /// The part of a body that the user records are in.
    #[inline]
    pub(super) fn records_of<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        body.get(self.lead..).unwrap_or_default()
    }

    /// Whether every entry of both tables could be read.
    pub(super) fn are_good(&self) -> bool {
        self.bad_partition_keys.is_empty() && self.bad_explicit_hash_keys.is_empty()
    }

    /// How many partition keys there are.
    pub(super) fn partition_keys(&self) -> usize {
        self.ends.len()
    }

    /// How many explicit hash keys there are.
    pub(super) fn explicit_hash_keys(&self) -> usize {
        self.explicit_hash_keys.len()
    }

    /// A partition key by its index.
    #[inline(always)]
    pub(super) fn partition_key(&self, index: u64) -> Option<&str> {
        let index = usize::try_from(index).ok()?;
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end);
        self.text.get(start..end)
    }

    /// A partition key of these tables, shared without copying.
    #[inline]
    pub(super) fn share(&self, partition_key: &str) -> ByteString {
        self.text.slice_ref(partition_key)
    }

    /// Whether a partition key is UTF-8.
    pub(super) fn is_bad_partition_key(&self, index: u64) -> bool {
        usize::try_from(index).is_ok_and(|index| self.bad_partition_keys.binary_search(&index).is_ok())
    }

    /// An explicit hash key by its index.
    #[inline(always)]
    pub(super) fn explicit_hash_key(&self, index: u64) -> Option<u128> {
        self.explicit_hash_keys.get(usize::try_from(index).ok()?).copied()
    }

    /// What is wrong with an explicit hash key, if anything.
    pub(super) fn explicit_hash_key_error(&self, index: u64) -> Option<InvalidExplicitHashKey> {
        let index = usize::try_from(index).ok()?;
        let at = self.bad_explicit_hash_keys.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.bad_explicit_hash_keys.get(at).map(|(_, error)| *error)
    }
}
