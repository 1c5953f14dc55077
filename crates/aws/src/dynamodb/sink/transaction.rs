//! Changes of several items that are made together or not at all.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, CancellationReason, Delete, Put, ReturnConsumedCapacity, TransactWriteItem, Update,
};
use shardwell_core::StoreErrorKind;

use super::super::capacity::{Purpose, charged};
use super::super::error::Operation;
use super::super::expression::{self, Condition, Placeholders, Rendered};
use super::super::item::{Item, number};
use super::table::ItemKey;
use super::{IdempotentTable, Version, WriteError};

/// How many changes a transaction takes beside the item that guards it (DynamoDB: 100 in all).
pub(super) const MAX_CHANGES: usize = 99;

/// How often a transaction that met another one is tried.
const ATTEMPTS: u32 = 6;

/// How long to wait before the second attempt; twice as long before each further one.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

/// A change of an item.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(IdempotentTable, Item),
    /// Numbers to add, by attribute.
    Add(IdempotentTable, Item, BTreeMap<String, i128>),
    Delete(IdempotentTable, Item),
}

impl Change {
    /// The change that does what this one and then the other one do; `None` where no single one does.
    pub(super) fn then(self, later: Self) -> Option<Self> {
        match (self, later) {
            (Self::Add(table, key, mut sums), Self::Add(_, _, more)) => {
                for (name, delta) in more {
                    let sum = sums.entry(name).or_default();
                    *sum = sum.checked_add(delta)?;
                }
                Some(Self::Add(table, key, sums))
            }
            // They replace the item, whatever it was.
            (_, later @ (Self::Put(..) | Self::Delete(..))) => Some(later),
            (Self::Put(..) | Self::Delete(..), Self::Add(..)) => None,
        }
    }

    /// Which item it changes.
    pub(super) fn key(&self) -> Result<ItemKey, WriteError> {
        let (Self::Put(table, item) | Self::Add(table, item, _) | Self::Delete(table, item)) = self;
        table.key(item)
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let (Self::Put(_, item) | Self::Add(_, item, _) | Self::Delete(_, item)) = self;
        let of_item: usize = item.iter().map(|(name, value)| name.len() + bytes_of(value)).sum();
        match self {
            Self::Add(_, _, sums) => of_item + sums.keys().map(|name| name.len() + NUMBER_BYTES).sum::<usize>(),
            Self::Put(..) | Self::Delete(..) => of_item,
        }
    }

    fn render(&self) -> Result<TransactWriteItem, WriteError> {
        let built = match self.clone() {
            Self::Put(table, item) => {
                let put = Put::builder().table_name(table.name()).set_item(Some(item)).build();
                put.map(|put| TransactWriteItem::builder().put(put).build())
            }
            Self::Delete(table, key) => {
                let delete = Delete::builder().table_name(table.name()).set_key(Some(key)).build();
                delete.map(|delete| TransactWriteItem::builder().delete(delete).build())
            }
            Self::Add(table, key, sums) => {
                let mut change = expression::Update::default();
                for (name, sum) in &sums {
                    change.add(name, number(sum));
                }
                let change = change.always();
                let update = Update::builder().table_name(table.name()).set_key(Some(key));
                let update = update
                    .update_expression(change.update)
                    .set_expression_attribute_names(change.placeholders.names())
                    .set_expression_attribute_values(change.placeholders.values());
                update.build().map(|update| TransactWriteItem::builder().update(update).build())
            }
        };
        built.map_err(|error| WriteError::invalid(error.to_string()))
    }
}

/// The most that a number takes.
const NUMBER_BYTES: usize = 21;

/// About how many bytes a value takes (DynamoDB developer guide, "Item sizes and formats").
fn bytes_of(value: &AttributeValue) -> usize {
    const OVERHEAD: usize = 3;
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Bs(all) => all.iter().map(|bytes| bytes.as_ref().len()).sum(),
        AttributeValue::Ns(numbers) => numbers.len() * NUMBER_BYTES,
        AttributeValue::L(values) => OVERHEAD + values.iter().map(|value| 1 + bytes_of(value)).sum::<usize>(),
        AttributeValue::M(values) => {
            OVERHEAD + values.iter().map(|(name, value)| 1 + name.len() + bytes_of(value)).sum::<usize>()
        }
        _ => NUMBER_BYTES,
    }
}

/// What guards a transaction: it happens only if this does.
pub(super) enum Guard<'a> {
    /// The position moves on from where it was seen.
    Position { table: &'a IdempotentTable, key: Item, from: Option<Version>, to: Version },
    /// The item is new.
    New { table: &'a IdempotentTable, item: Item },
}

impl Guard<'_> {
    fn render(self) -> Result<TransactWriteItem, WriteError> {
        let built = match self {
            Self::Position { table, key, from, to } => {
                let version = &table.inner.version;
                let mut change = expression::Update::default();
                change.set(version, to.to_attribute());
                let Rendered { update, condition, placeholders } =
                    change.when(Condition::as_seen(version, from.map(Version::to_attribute)));
                let built = Update::builder().table_name(table.name()).set_key(Some(key)).update_expression(update);
                let built = built
                    .condition_expression(condition)
                    .set_expression_attribute_names(placeholders.names())
                    .set_expression_attribute_values(placeholders.values());
                built.build().map(|update| TransactWriteItem::builder().update(update).build())
            }
            Self::New { table, item } => {
                let mut placeholders = Placeholders::default();
                let condition = Condition::Absent(table.partition_key()).render(&mut placeholders);
                let put = Put::builder().table_name(table.name()).set_item(Some(item)).condition_expression(condition);
                let put = put.set_expression_attribute_names(placeholders.names()).build();
                put.map(|put| TransactWriteItem::builder().put(put).build())
            }
        };
        built.map_err(|error| WriteError::invalid(error.to_string()))
    }
}

/// What came of a transaction.
#[derive(Debug)]
pub(super) enum Committed {
    /// All of it happened.
    All,
    /// Nothing happened, since the guard's condition does not hold.
    Guarded,
}

/// Makes changes together with their guard. One that meets another transaction on the same item is tried again.
pub(super) async fn commit<'a>(
    guarded: &IdempotentTable,
    guard: Guard<'_>,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<Committed, WriteError> {
    let mut items = vec![guard.render()?];
    for change in changes {
        items.push(change.render()?);
    }
    let mut pause = PAUSE;
    for attempt in 1.. {
        match send(guarded, items.clone()).await {
            Err(Failed::Met(error)) if attempt >= ATTEMPTS => return Err(error),
            Err(Failed::Met(_)) => {
                guarded.sleep(pause).await?;
                pause *= 2;
            }
            Err(Failed::Guarded) => return Ok(Committed::Guarded),
            Err(Failed::Else(error)) => return Err(error),
            Ok(()) => return Ok(Committed::All),
        }
    }
    unreachable!("the loop ends with the last attempt")
}

enum Failed {
    Guarded,
    /// Another transaction was at one of the items.
    Met(WriteError),
    Else(WriteError),
}

async fn send(guarded: &IdempotentTable, items: Vec<TransactWriteItem>) -> Result<(), Failed> {
    let inner = &guarded.inner;
    let request = inner.client.transact_write_items().set_transact_items(Some(items));
    let error = match request.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
        Ok(answer) => {
            for capacity in answer.consumed_capacity() {
                charged(capacity.table_name().unwrap_or_default(), Purpose::Sink, Some(capacity));
            }
            return Ok(());
        }
        Err(error) => error,
    };
    if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.as_service_error() {
        return Err(why(guarded, cancelled.cancellation_reasons()));
    }
    let is_met = matches!(error.as_service_error(), Some(TransactWriteItemsError::TransactionInProgressException(_)));
    let error = WriteError::from(inner.target.error(Operation::TransactWriteItems, error));
    Err(if is_met { Failed::Met(error) } else { Failed::Else(error) })
}

/// What cancelled a transaction: its guard first, for then the rest does not matter; then an item that can never be written.
fn why(guarded: &IdempotentTable, reasons: &[CancellationReason]) -> Failed {
    let code = |reason: &CancellationReason| reason.code().unwrap_or("None").to_owned();
    let has = |wanted: &str| reasons.iter().any(|reason| code(reason) == wanted);
    if reasons.first().is_some_and(|reason| code(reason) == "ConditionalCheckFailed") {
        return Failed::Guarded;
    }
    let words = reasons.iter().filter(|reason| code(reason) != "None");
    let words = words.map(|reason| format!("{}: {}", code(reason), reason.message().unwrap_or("no message")));
    let words =
        format!("a transaction with {} was cancelled: {}", guarded.inner.target, words.collect::<Vec<_>>().join("; "));
    let error = |kind| WriteError::from(shardwell_core::StoreError::new(kind, words.clone()));
    if has("ValidationError") || has("ItemCollectionSizeLimitExceeded") {
        Failed::Else(error(StoreErrorKind::Invalid))
    } else if has("TransactionConflict") {
        Failed::Met(error(StoreErrorKind::Unavailable))
    } else {
        // Over a limit: of throughput, provisioned or on demand.
        Failed::Met(error(StoreErrorKind::Throttled))
    }
}

/// Changes by item, in an order that is the same in every run.
pub(super) type Changes = BTreeMap<ItemKey, Change>;
