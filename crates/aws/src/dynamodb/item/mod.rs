//! Items of the lease table and what they mean.

pub(super) mod coordinator;
pub(super) mod lease;
pub(super) mod worker;

use std::collections::BTreeSet;
use std::str::FromStr;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

/// An item as the SDK has it.
#[expect(clippy::disallowed_types, reason = "it is the SDK's, and nothing depends on the order")]
pub(super) type Item = std::collections::HashMap<String, AttributeValue>;

/// Names as the SDK takes them, by their placeholders.
#[expect(clippy::disallowed_types, reason = "it is the SDK's, and nothing depends on the order")]
pub(super) type Names = std::collections::HashMap<String, String>;

/// The key of every item, whatever it is.
pub(super) const KEY: &str = "leaseKey";

/// What an item is; absent on leases that an older KCL wrote.
pub(super) const ENTITY_TYPE: &str = "entityType";

/// An item that does not say what it must, with the attribute that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute `{0}` is missing or is not what it should be")]
pub(super) struct Unreadable(pub(super) &'static str);

/// The attributes of an item, by what they should be. Absent is `None`, and another type is an error.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a Item);

impl<'a> Attributes<'a> {
    fn get<T>(
        self,
        name: &'static str,
        read: impl FnOnce(&'a AttributeValue) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        self.0.get(name).map(|value| read(value).ok_or(Unreadable(name))).transpose()
    }

    pub(super) fn string(self, name: &'static str) -> Result<Option<&'a str>, Unreadable> {
        self.get(name, |value| value.as_s().ok().map(String::as_str))
    }

    pub(super) fn number<T: FromStr>(self, name: &'static str) -> Result<Option<T>, Unreadable> {
        self.get(name, |value| value.as_n().ok()?.parse().ok())
    }

    /// A number of 64 bits in hexadecimal digits, as [`hexadecimal`] writes it.
    pub(super) fn hexadecimal(self, name: &'static str) -> Result<Option<u64>, Unreadable> {
        self.get(name, |value| u64::from_str_radix(value.as_s().ok()?, 16).ok())
    }

    pub(super) fn bytes(self, name: &'static str) -> Result<Option<&'a Blob>, Unreadable> {
        self.get(name, |value| value.as_b().ok())
    }

    pub(super) fn map(self, name: &'static str) -> Result<Option<Self>, Unreadable> {
        self.get(name, |value| value.as_m().ok().map(Attributes))
    }

    /// A set of strings. There is no empty one, so absent is empty.
    pub(super) fn strings<T: From<&'a str> + Ord>(self, name: &'static str) -> Result<BTreeSet<T>, Unreadable> {
        let set = self.get(name, |value| value.as_ss().ok())?;
        Ok(set.into_iter().flatten().map(|text| T::from(text.as_str())).collect())
    }

    /// A list of strings.
    pub(super) fn list(self, name: &'static str) -> Result<Option<Vec<&'a str>>, Unreadable> {
        let texts = |values: &'a Vec<AttributeValue>| {
            values.iter().map(|value| value.as_s().ok().map(String::as_str)).collect::<Option<Vec<_>>>()
        };
        self.get(name, |value| texts(value.as_l().ok()?))
    }
}

/// What must be there.
pub(super) fn required<T>(name: &'static str, value: Option<T>) -> Result<T, Unreadable> {
    value.ok_or(Unreadable(name))
}

pub(super) fn string(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}

pub(super) fn number(number: impl ToString + Copy) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

pub(super) fn hexadecimal(number: u64) -> AttributeValue {
    string(format!("{number:016x}"))
}

pub(super) fn bytes(data: bytes::Bytes) -> AttributeValue {
    AttributeValue::B(Blob::from_maybe_shared(data))
}

/// A set of strings, sorted; `None` if it is empty, since there is no such attribute.
pub(super) fn strings<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Option<AttributeValue> {
    let texts: Vec<String> = texts.into_iter().map(|text| text.as_ref().to_owned()).collect();
    (!texts.is_empty()).then_some(AttributeValue::Ss(texts))
}

pub(super) fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> AttributeValue {
    AttributeValue::L(texts.into_iter().map(|text| string(text.as_ref())).collect())
}

/// The key of an item.
pub(super) fn key(key: impl Into<String>) -> Item {
    Item::from([(KEY.to_owned(), string(key))])
}

/// The key that an item has.
pub(super) fn key_of(item: &Item) -> Option<&str> {
    item.get(KEY)?.as_s().ok().map(String::as_str)
}

/// What an item is; nothing for a lease of an older KCL.
pub(super) fn entity_type(item: &Item) -> Option<&str> {
    item.get(ENTITY_TYPE)?.as_s().ok().map(String::as_str)
}

/// Leases of an older KCL do not say what they are.
pub(super) fn is_lease(item: &Item) -> bool {
    entity_type(item).is_none_or(|kind| kind == lease::TYPE)
}
