//! Numbers that records add to.

use std::collections::{BTreeMap, VecDeque};

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};
use shardwell_core::UserRecord;
use shardwell_core::delivery::DeliveryPolicy;

use super::super::capacity::{Purpose, charged};
use super::super::error::Operation;
use super::super::expression::Update;
use super::super::item::{Item, number, string};
use super::group::{Results, by_item};
use super::table::{ItemKey, owned};
use super::transaction::{Change, Committed, Guard, commit};
use super::{Applied, IdempotentTable, Report, Version, WriteError};

/// What a record adds to the numbers of an item.
#[derive(Clone, Debug)]
pub struct Delta {
    version: Version,
    key: Item,
    sums: Sums,
}

impl Delta {
    /// Nothing yet, to the item of this key.
    pub fn new<K: Into<String>>(record: &UserRecord, key: impl IntoIterator<Item = (K, AttributeValue)>) -> Self {
        Self { version: record.into(), key: owned(key), sums: BTreeMap::new() }
    }

    /// Adds to an attribute, which counts as 0 where it is not there.
    #[must_use]
    pub fn add(mut self, attribute: impl Into<String>, delta: i64) -> Self {
        *self.sums.entry(attribute.into()).or_default() += i128::from(delta);
        self
    }
}

/// A policy without key quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the delivery policy has no key quarantine: a record that is tried again after it was given up on would come after later ones \
     of its key, and would not be counted. Turn quarantine on, or make the accumulator with a table for markers"
)]
pub struct NoQuarantine;

/// How records are counted that come again after they were given up on.
#[derive(Clone, Debug)]
enum Redriven {
    /// Before all later ones of their key.
    InOrder,
    /// At any time, each with a marker of its own.
    Marked(IdempotentTable),
}

/// Adds to numbers, each record once: an item keeps the version of the last record that was counted, and what is not newer is not
/// counted again. One write unit per item and batch (and KiB), also where all was counted before.
///
/// # What an item may be
/// All records that are counted in an item must come in order: choose its key so that they are of one partition key, or put the
/// shard into the key and use one lane. A total over several shards is the sum of the items; a reshard adds new ones.
///
/// # Records that come again after they were given up on
/// A dead letter that is redriven is older than what was counted since. So either no later record of its key is processed meanwhile
/// (key quarantine), or redriven records are counted by markers, items of their own. Which of them is to be said when an accumulator is
/// made.
///
/// Count last: a record that is given up on since something else of it could not be written must not have been counted before, or
/// it is counted again when it is redriven.
#[derive(Clone, Debug)]
pub struct Accumulator {
    table: IdempotentTable,
    redriven: Redriven,
}

impl Accumulator {
    /// For workers with this policy, which holds back the keys of dead letters.
    ///
    /// # Errors
    /// Where it does not.
    pub fn quarantined(table: IdempotentTable, policy: &DeliveryPolicy) -> Result<Self, NoQuarantine> {
        if policy.quarantine() { Ok(Self { table, redriven: Redriven::InOrder }) } else { Err(NoQuarantine) }
    }

    /// For workers with any policy. A redriven record is counted together with a new item of `markers`, which may be `table` itself.
    /// That costs four write units for each of them.
    ///
    /// # Errors
    /// If the key of `markers` is not one attribute of text.
    pub fn marked(table: IdempotentTable, markers: IdempotentTable) -> Result<Self, WriteError> {
        markers.ensure_text_key()?;
        Ok(Self { table, redriven: Redriven::Marked(markers) })
    }

    /// Counts records. `redriven` is whether they were dead letters, as `LaneContext::redrive` says.
    ///
    /// Deltas of the same item are added up. If one of them is refused for good, the later ones of that item are not tried: once they
    /// were counted, it could not be any more.
    ///
    /// # Cancel safety
    /// When it is dropped, some deltas may be counted. Counting them again does nothing.
    pub async fn accumulate(&self, deltas: Vec<Delta>, redriven: bool) -> Report {
        let deltas = deltas.into_iter().map(|delta| (delta.version, self.table.key(&delta.key), delta)).collect();
        let count = |key, group| self.count_item(key, group, redriven);
        Report::new(self.table.name(), "accumulate", by_item(deltas, count).await)
    }

    async fn count_item(&self, key: ItemKey, group: Vec<(usize, Delta)>, redriven: bool) -> Results {
        let item = group.first().map(|(_, delta)| self.table.key_of(&delta.key)).unwrap_or_default();
        let mut by_version: BTreeMap<Version, Counted> = BTreeMap::new();
        for (index, delta) in group {
            by_version.entry(delta.version).or_default().add(index, &delta);
        }
        match &self.redriven {
            Redriven::Marked(markers) if redriven => self.count_marked(markers, &key, item, by_version).await,
            Redriven::Marked(_) | Redriven::InOrder => self.count(item, by_version).await,
        }
    }

    /// Adds up, and leaves out what was counted before.
    async fn count(&self, key: Item, group: BTreeMap<Version, Counted>) -> Results {
        let mut waiting = VecDeque::from_iter(group);
        let mut results = Vec::new();
        // All together first; if that is refused for good, one record after the other, to find the one.
        let mut together = true;
        while !waiting.is_empty() {
            let take = if together { waiting.len() } else { 1 };
            match self.add(&key, waiting.iter().take(take)).await {
                Ok(Added::All) => results.extend(settled(waiting.drain(..take), &Ok(Applied::Applied))),
                Ok(Added::CountedUpTo(version)) => {
                    let counted = waiting.iter().take_while(|(of, _)| *of <= version).count();
                    results.extend(settled(waiting.drain(..counted), &Ok(Applied::AlreadyApplied)));
                }
                Err(error) if error.is_of_the_item() && take > 1 => together = false,
                Err(error) => {
                    let blocked = if error.is_of_the_item() { WriteError::after(&error) } else { error.clone() };
                    results.extend(settled(waiting.drain(..take), &Err(error)));
                    results.extend(settled(waiting.drain(..), &Err(blocked)));
                }
            }
        }
        results
    }

    /// Adds the sum of what records of an item add, in order of version, unless the first of them was counted.
    async fn add(&self, key: &Item, counted: impl Iterator<Item = &(Version, Counted)>) -> Result<Added, WriteError> {
        let (mut range, mut sums): (Option<(Version, Version)>, Sums) = (None, Sums::new());
        for (version, counted) in counted {
            range = Some((range.map_or(*version, |(first, _)| first), *version));
            add_to(&mut sums, &counted.sums);
        }
        match range {
            Some((first, last)) => self.add_sum(key, first, last, &sums).await,
            None => Ok(Added::All),
        }
    }

    async fn add_sum(&self, key: &Item, first: Version, last: Version, sums: &Sums) -> Result<Added, WriteError> {
        let inner = &self.table.inner;
        let mut update = Update::default();
        update.set(&inner.version, last.to_attribute());
        for (name, sum) in sums {
            update.add(name, number(sum));
        }
        let change = update.when(self.table.is_older_than(first));
        let request = inner.client.update_item().table_name(&inner.target.table).set_key(Some(key.clone()));
        let request = request
            .update_expression(change.update)
            .condition_expression(change.condition)
            .set_expression_attribute_names(change.placeholders.names())
            .set_expression_attribute_values(change.placeholders.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match request.send().await {
            Ok(answer) => {
                charged(self.table.name(), Purpose::Sink, answer.consumed_capacity());
                Ok(Added::All)
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                    let stored = refused.item.as_ref().and_then(|item| self.table.version_of(item));
                    let stored = stored.filter(|stored| *stored >= first);
                    stored.map(Added::CountedUpTo).ok_or_else(|| {
                        WriteError::invalid(format!(
                            "an item of {} has an attribute `{}` that is no version; something else writes it",
                            inner.target, inner.version
                        ))
                    })
                }
                _ => Err(inner.target.error(Operation::UpdateItem, error).into()),
            },
        }
    }

    /// Counts each record together with a marker of its own.
    async fn count_marked(
        &self,
        markers: &IdempotentTable,
        key: &ItemKey,
        item: Item,
        group: BTreeMap<Version, Counted>,
    ) -> Results {
        let mut results = Vec::new();
        for (version, counted) in group {
            let marker = marker(markers, &format!("redriven#{key}#{version}"));
            let change = Change::Add(self.table.clone(), item.clone(), counted.sums.clone());
            let committed = commit(markers, Guard::New { table: markers, item: marker }, [&change].into_iter()).await;
            let result = committed.map(|committed| match committed {
                Committed::All => Applied::Applied,
                Committed::Guarded => Applied::AlreadyApplied,
            });
            results.extend(settled([(version, counted)].into_iter(), &result));
        }
        results
    }
}

/// Numbers, by attribute.
type Sums = BTreeMap<String, i128>;

/// What a record adds to an item, and where it was given.
#[derive(Debug, Default)]
struct Counted {
    indexes: Vec<usize>,
    sums: Sums,
}

impl Counted {
    fn add(&mut self, index: usize, delta: &Delta) {
        self.indexes.push(index);
        add_to(&mut self.sums, &delta.sums);
    }
}

fn add_to(sums: &mut Sums, more: &Sums) {
    for (name, delta) in more {
        let sum = sums.entry(name.clone()).or_default();
        // Each is of 64 bits, and no batch has 2^64 of them.
        *sum = sum.saturating_add(*delta);
    }
}

/// The same result for each delta of some records.
fn settled(counted: impl Iterator<Item = (Version, Counted)>, result: &Result<Applied, WriteError>) -> Results {
    counted.flat_map(|(_, counted)| counted.indexes).map(|index| (index, result.clone())).collect()
}

/// An item that says that something has happened.
pub(super) fn marker(markers: &IdempotentTable, what: &str) -> Item {
    [(markers.partition_key().to_owned(), string(what))].into()
}

/// What came of adding.
enum Added {
    All,
    /// Nothing was added: records up to this one were counted before.
    CountedUpTo(Version),
}
