//! A table that records are written to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::types::{AttributeValue, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription};
use shardwell_core::{StoreError, StoreErrorKind, UserRecord};

use super::super::clients;
use super::super::error::{Operation, Target};
use super::super::expression::Condition;
use super::super::item::Item;
use super::{Version, WriteError};

/// How long an attempt at a request may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the SDK tries a request, with pauses that grow: what is idempotent may be repeated.
const ATTEMPTS: u32 = 4;

/// The attribute that holds an item's [`Version`], if nothing else is said.
const VERSION: &str = "shardwellVersion";

/// The attribute that tells an item that is deleted, and stays so that older records do not bring it back.
pub(super) const DELETED: &str = "shardwellDeleted";

/// A table that records are written to, each so that it may be written again. Clones are cheap.
///
/// It takes over the configuration of an SDK client, and sets retries (4 attempts) and time-outs (5 s for an attempt) itself.
/// Permissions: `dynamodb:DescribeTable`, `PutItem` and `UpdateItem`; for [`ExactlyOnce`](super::ExactlyOnce) `GetItem` too, and to delete items
/// `DeleteItem`.
#[derive(Clone)]
pub struct IdempotentTable {
    pub(super) inner: Arc<Inner>,
}

#[derive(Clone)]
pub(super) struct Inner {
    pub(super) client: Client,
    pub(super) target: Target,
    /// The attributes of the key: that of the partition first.
    pub(super) keys: Vec<Key>,
    pub(super) version: String,
}

/// An attribute of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) kind: ScalarAttributeType,
}

/// The key of a table.
fn keys(table: &TableDescription) -> Vec<Key> {
    let kind = |name: &str| {
        let defined = table.attribute_definitions().iter().find(|attribute| attribute.attribute_name() == name);
        defined.map(|attribute| attribute.attribute_type().clone())
    };
    let mut schema: Vec<_> = table.key_schema().iter().collect();
    schema.sort_by_key(|element| *element.key_type() != KeyType::Hash);
    let key = |element: &&KeySchemaElement| {
        let name = element.attribute_name().to_owned();
        Some(Key { kind: kind(&name)?, name })
    };
    schema.iter().filter_map(key).collect()
}

impl IdempotentTable {
    /// The table of this name, whose key it reads there.
    ///
    /// # Errors
    /// Where there is no such table, or it cannot be described.
    ///
    /// # Cancel safety
    /// Only reads.
    pub async fn open(client: &Client, table: impl Into<String>) -> Result<Self, WriteError> {
        let config = client.config().to_builder();
        let config = config
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT_TIMEOUT).build())
            .build();
        let target = Target { table: table.into(), region: config.region().map(ToString::to_string) };
        let client = Client::from_conf(config);
        let described = client.describe_table().table_name(&target.table).send().await;
        let described = described.map_err(|error| target.error(Operation::DescribeTable, error))?.table;
        let keys = described.as_ref().map(keys).unwrap_or_default();
        if keys.is_empty() {
            let message = format!("{target} tells no key; what answers there is not DynamoDB");
            return Err(StoreError::new(StoreErrorKind::Unusable, message).into());
        }
        Ok(Self { inner: Arc::new(Inner { client, target, keys, version: VERSION.to_owned() }) })
    }

    /// Needs one attribute of text that is the whole key: what positions and markers are told apart by.
    pub(super) fn ensure_text_key(&self) -> Result<(), WriteError> {
        match &self.inner.keys[..] {
            [Key { kind: ScalarAttributeType::S, .. }] => Ok(()),
            _ => {
                let message = format!("{} needs a partition key that is text, and no sort key", self.inner.target);
                Err(StoreError::new(StoreErrorKind::Unusable, message).into())
            }
        }
    }

    /// Sets the attribute that holds an item's version. Default: `shardwellVersion`.
    #[must_use]
    pub fn with_version_attribute(mut self, name: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.inner).version = name.into();
        self
    }

    /// The name of the table.
    pub fn name(&self) -> &str {
        &self.inner.target.table
    }

    /// The key of an item, so that equal keys are equal text.
    pub(super) fn key(&self, item: &Item) -> Result<ItemKey, WriteError> {
        let part = |key: &Key| {
            let Key { name, kind } = key;
            let value = item.get(name);
            let value =
                value.ok_or_else(|| WriteError::invalid(format!("the item has no attribute `{name}`, its key")))?;
            Ok(match (kind, value) {
                (ScalarAttributeType::S, AttributeValue::S(text)) if !text.is_empty() => {
                    format!("S{}:{text}", text.len())
                }
                (ScalarAttributeType::N, AttributeValue::N(number)) if is_plain_integer(number) => {
                    format!("N{}:{number}", number.len())
                }
                (ScalarAttributeType::B, AttributeValue::B(bytes)) if !bytes.as_ref().is_empty() => {
                    format!("B{}:{:02x?}", bytes.as_ref().len(), bytes.as_ref())
                }
                (ScalarAttributeType::N, AttributeValue::N(number)) => {
                    return Err(WriteError::invalid(format!(
                        "`{number}` is no number for a key here: the same number must always be the same text, so write plain \
                         integers"
                    )));
                }
                _ => {
                    let message =
                        format!("`{name}` of the item is no key: {} that is not empty is wanted", kind.as_str());
                    return Err(WriteError::invalid(message));
                }
            })
        };
        let parts: Vec<String> = self.inner.keys.iter().map(part).collect::<Result<_, _>>()?;
        Ok(ItemKey { table: self.name().to_owned(), key: parts.concat() })
    }

    /// The attributes of an item that are its key.
    pub(super) fn key_of(&self, item: &Item) -> Item {
        let is_key = |name: &str| self.inner.keys.iter().any(|key| key.name == name);
        item.iter().filter(|(name, _)| is_key(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
    }

    /// Waits as the SDK does.
    pub(super) async fn sleep(&self, time: Duration) -> Result<(), WriteError> {
        Ok(clients::sleep(self.inner.client.config(), time).await?)
    }

    /// The attribute that all items have, and what is not there has not.
    pub(super) fn partition_key(&self) -> &str {
        &self.inner.keys[0].name
    }

    /// That an item tells no version, or one that is older than this.
    pub(super) fn is_older_than(&self, version: Version) -> Condition<'_> {
        let attribute = &self.inner.version;
        Condition::Any(vec![Condition::Absent(attribute), Condition::Below(attribute, version.to_attribute())])
    }

    /// The version of an item, if it tells one.
    pub(super) fn version_of(&self, item: &Item) -> Option<Version> {
        item.get(&self.inner.version).and_then(Version::from_attribute)
    }
}

impl fmt::Debug for IdempotentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentTable").field("table", &self.inner.target.table).finish_non_exhaustive()
    }
}

/// Which item of which table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ItemKey {
    table: String,
    key: String,
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.table, self.key)
    }
}

fn is_plain_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" && number.len() == 1 || !digits.is_empty() && !digits.starts_with('0'))
}

/// Attributes as the SDK takes them.
pub(super) fn owned<K: Into<String>>(item: impl IntoIterator<Item = (K, AttributeValue)>) -> Item {
    item.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// An item that a record makes.
#[derive(Clone, Debug)]
pub struct Write {
    pub(super) version: Version,
    pub(super) item: Item,
}

impl Write {
    /// The whole item as it is to be, with its key.
    pub fn new<K: Into<String>>(record: &UserRecord, item: impl IntoIterator<Item = (K, AttributeValue)>) -> Self {
        Self { version: record.into(), item: owned(item) }
    }

    /// The item of this key is deleted. What stays is its key, its version and `shardwellDeleted`: without those, an older record
    /// that comes again would bring it back. Readers pass over it; a time to live of the table may remove it, once no older
    /// record can come any more.
    pub fn tombstone<K: Into<String>>(record: &UserRecord, key: impl IntoIterator<Item = (K, AttributeValue)>) -> Self {
        let mut write = Self::new(record, key);
        write.item.insert(DELETED.to_owned(), AttributeValue::Bool(true));
        write
    }
}

#[cfg(test)]
impl IdempotentTable {
    /// A table that nobody asks anything.
    pub(super) fn unasked() -> Self {
        let config = aws_sdk_dynamodb::Config::builder();
        let config = config.behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::v2026_01_12());
        let keys = vec![Key { name: "id".to_owned(), kind: ScalarAttributeType::S }];
        let target = Target { table: "t".to_owned(), region: None };
        let client = Client::from_conf(config.build());
        Self { inner: Arc::new(Inner { client, target, keys, version: VERSION.to_owned() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_text_is_an_integer() {
        for plain in ["0", "1", "-1", "10", "4711"] {
            assert!(is_plain_integer(plain), "{plain}");
        }
        for other in ["", "-", "-0", "00", "01", "1.0", "1e3", "+1", " 1"] {
            assert!(!is_plain_integer(other), "{other}");
        }
    }
}
