//! Whatever a record changes, in one transaction with how far the shard is done.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use shardwell_core::{ExtendedSequenceNumber, StoreError, StoreErrorKind, UserRecord};

use super::super::capacity::{Purpose, charged};
use super::super::error::Operation;
use super::super::item::{Item, string};
use super::accumulate::marker;
use super::table::owned;
use super::transaction::{Change, Changes, Committed, Guard, MAX_CHANGES, commit};
use super::{Applied, IdempotentTable, Report, Version, WriteError};

/// What one record changes.
#[derive(Clone, Debug)]
pub struct Step {
    version: Version,
    changes: Vec<Change>,
}

impl Step {
    /// Nothing yet. A record that changes nothing is a step all the same: the position moves past it.
    pub fn new(record: &UserRecord) -> Self {
        Self { version: record.into(), changes: Vec::new() }
    }

    /// Puts an item, whole.
    #[must_use]
    pub fn put<K: Into<String>>(
        mut self,
        table: &IdempotentTable,
        item: impl IntoIterator<Item = (K, AttributeValue)>,
    ) -> Self {
        self.changes.push(Change::Put(table.clone(), owned(item)));
        self
    }

    /// Adds to a number of the item of this key; it counts as 0 where it is not there.
    #[must_use]
    pub fn add<K: Into<String>>(
        mut self,
        table: &IdempotentTable,
        key: impl IntoIterator<Item = (K, AttributeValue)>,
        attribute: impl Into<String>,
        delta: i64,
    ) -> Self {
        let sums = [(attribute.into(), i128::from(delta))].into();
        self.changes.push(Change::Add(table.clone(), table.key_of(&owned(key)), sums));
        self
    }

    /// Deletes the item of this key.
    #[must_use]
    pub fn delete<K: Into<String>>(
        mut self,
        table: &IdempotentTable,
        key: impl IntoIterator<Item = (K, AttributeValue)>,
    ) -> Self {
        self.changes.push(Change::Delete(table.clone(), table.key_of(&owned(key))));
        self
    }
}

/// Exactly once into DynamoDB: what records change is written in one transaction with the position of the last of them, and only if
/// the position is where it was. Repetitions, and workers that have lost their lease and do not know it yet, change nothing.
///
/// The position in the table wins: begin there, by giving [`position`](Self::position) to the worker when it initializes a
/// processor. All tables are of one account and region. Two write units for each item (and KiB) that a transaction changes, and
/// two for the position; it takes 99 items, so a batch of records that change the same few costs the same as one of them.
///
/// # One lane
/// There is one position for each shard, so its records must come in order: it is refused for any lane but the first. Configure one
/// lane (the default).
#[derive(Clone, Debug)]
pub struct ExactlyOnce {
    positions: IdempotentTable,
    name: String,
    position: Option<Version>,
}

impl ExactlyOnce {
    /// Reads how far a shard is done. The key of `positions` is one attribute of text; `name` names application, stream and shard, such as `delays/flights/shardId-000000000000`; `lane` is the lane that the processor is for.
    ///
    /// # Errors
    /// For another lane than the first; for a table with another key; where the position cannot be read.
    ///
    /// # Cancel safety
    /// Only reads.
    pub async fn open(positions: IdempotentTable, name: impl Into<String>, lane: u32) -> Result<Self, WriteError> {
        if lane > 0 {
            let message =
                "there is one position for each shard, and this is another lane than the first; configure one lane";
            return Err(WriteError::invalid(message));
        }
        positions.ensure_text_key()?;
        let mut this = Self { positions, name: name.into(), position: None };
        this.position = this.read().await?;
        Ok(this)
    }

    /// Everything up to and including this record has happened. `None` before the first one.
    pub fn position(&self) -> Option<ExtendedSequenceNumber> {
        self.position.map(Version::position)
    }

    /// Makes the changes of records happen, in order, as many at a time as a transaction takes. A record whose changes are refused for
    /// good fails alone: those before it happen, and those after it are not tried.
    ///
    /// # Cancel safety
    /// When it is dropped, some may have happened. The next call finds out which.
    pub async fn transactional_batch(&mut self, steps: Vec<Step>) -> Report {
        let steps = in_order(steps);
        let mut results = Vec::new();
        let (mut from, mut one_by_one_until) = (0, 0);
        while let Some(step) = steps.get(from) {
            if Some(step.version) <= self.position {
                results.push((step.version, Ok(Applied::AlreadyApplied)));
                from += 1;
                continue;
            }
            let longest = if from < one_by_one_until { 1 } else { usize::MAX };
            let chunk = match Chunk::of(&steps[from..], longest) {
                Ok(chunk) => chunk,
                Err(error) => return self.failed(results, &steps[from..], &error),
            };
            match self.commit(&chunk).await {
                Ok(Committed::All) => {
                    self.position = chunk.to;
                    let done = &steps[from..from + chunk.steps];
                    results.extend(done.iter().map(|step| (step.version, Ok(Applied::Applied))));
                    from += chunk.steps;
                }
                // Somebody was faster, or an earlier attempt of ours had no answer.
                Ok(Committed::Guarded) => {
                    if let Err(error) = self.catch_up().await {
                        return self.failed(results, &steps[from..], &error);
                    }
                }
                Err(error) if error.is_of_the_item() && chunk.steps > 1 => one_by_one_until = from + chunk.steps,
                Err(error) => return self.failed(results, &steps[from..], &error),
            }
        }
        self.report(results)
    }

    /// Makes the changes of records happen that were dead letters, each at any time and with a marker of its own in the table of the
    /// positions: the position is past them.
    ///
    /// # Cancel safety
    /// When it is dropped, some may have happened. Doing it again does nothing.
    pub async fn redriven_batch(&self, steps: Vec<Step>) -> Report {
        let mut results = Vec::new();
        for step in in_order(steps) {
            results.push((step.version, self.redriven(&step).await));
        }
        self.report(results)
    }

    async fn redriven(&self, step: &Step) -> Result<Applied, WriteError> {
        let chunk = Chunk::of(std::slice::from_ref(step), 1)?;
        let item = marker(&self.positions, &format!("{}#redriven#{}", self.name, step.version));
        let guard = Guard::New { table: &self.positions, item };
        Ok(match commit(&self.positions, guard, chunk.changes.values()).await? {
            Committed::All => Applied::Applied,
            Committed::Guarded => Applied::AlreadyApplied,
        })
    }

    async fn commit(&self, chunk: &Chunk) -> Result<Committed, WriteError> {
        let Some(to) = chunk.to else { return Ok(Committed::All) };
        let guard = Guard::Position { table: &self.positions, key: self.key(), from: self.position, to };
        commit(&self.positions, guard, chunk.changes.values()).await
    }

    /// Reads where the position is now, which must be further on.
    async fn catch_up(&mut self) -> Result<(), WriteError> {
        let position = self.read().await?;
        if position <= self.position {
            let message = format!(
                "the position of `{}` in {} is not where it was seen, nor further on: something else writes it, or the table was \
                 restored from an older state. Start the worker again to begin there",
                self.name, self.positions.inner.target
            );
            return Err(StoreError::new(StoreErrorKind::Unusable, message).into());
        }
        self.position = position;
        Ok(())
    }

    async fn read(&self) -> Result<Option<Version>, WriteError> {
        let inner = &self.positions.inner;
        let request = inner.client.get_item().table_name(&inner.target.table).set_key(Some(self.key()));
        let request = request.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = request.send().await.map_err(|error| inner.target.error(Operation::GetItem, error))?;
        charged(&inner.target.table, Purpose::Sink, answer.consumed_capacity());
        let Some(item) = answer.item else { return Ok(None) };
        let version = self.positions.version_of(&item);
        version.map(Some).ok_or_else(|| {
            let (name, target) = (&self.name, &inner.target);
            WriteError::invalid(format!("the item `{name}` in {target} tells no position; something else wrote it"))
        })
    }

    fn key(&self) -> Item {
        [(self.positions.partition_key().to_owned(), string(&self.name))].into()
    }

    /// The first of these steps has failed, and the rest was not tried.
    fn failed(&self, mut results: Results, steps: &[Step], error: &WriteError) -> Report {
        let blocked = if error.is_of_the_item() { WriteError::after(error) } else { error.clone() };
        let errors = std::iter::once(error).chain(std::iter::repeat(&blocked));
        results.extend(steps.iter().zip(errors).map(|(step, error)| (step.version, Err(error.clone()))));
        self.report(results)
    }

    fn report(&self, results: Results) -> Report {
        Report::new(self.positions.name(), "transactional_batch", results)
    }
}

type Results = Vec<(Version, Result<Applied, WriteError>)>;

/// Steps in order of version, one for each record.
fn in_order(steps: Vec<Step>) -> Vec<Step> {
    let mut by_version: BTreeMap<Version, Step> = BTreeMap::new();
    for step in steps {
        match by_version.entry(step.version) {
            Entry::Vacant(vacant) => drop(vacant.insert(step)),
            Entry::Occupied(mut there) => there.get_mut().changes.extend(step.changes),
        }
    }
    by_version.into_values().collect()
}

/// How many bytes of changes a transaction takes: DynamoDB allows 4 MiB, and counts more than we do.
const MAX_BYTES: usize = 3 << 20;

/// Steps that fit one transaction.
#[derive(Default)]
struct Chunk {
    /// How many steps.
    steps: usize,
    /// The last of them.
    to: Option<Version>,
    changes: Changes,
}

impl Chunk {
    /// The first steps, as many as fit, and at most `longest`.
    ///
    /// # Errors
    /// If the first one alone does not fit.
    fn of(steps: &[Step], longest: usize) -> Result<Self, WriteError> {
        let mut chunk = Self::default();
        for step in steps.iter().take(longest) {
            match chunk.add(step) {
                Ok(()) => {}
                Err(error) if chunk.steps == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(chunk)
    }

    /// Adds a step, or leaves everything as it is if it does not fit.
    fn add(&mut self, step: &Step) -> Result<(), WriteError> {
        let mut changed = Changes::new();
        for change in &step.changes {
            let key = change.key()?;
            let before = changed.remove(&key).or_else(|| self.changes.get(&key).cloned());
            let change = match before {
                None => Some(change.clone()),
                Some(before) => before.then(change.clone()),
            };
            let two_ways =
                || WriteError::invalid("a record puts or deletes an item and adds to it: let it do one of both");
            changed.insert(key, change.ok_or_else(two_ways)?);
        }
        let unchanged = self.changes.iter().filter(|(key, _)| !changed.contains_key(key));
        let bytes: usize = unchanged.clone().map(|(_, change)| change).chain(changed.values()).map(Change::bytes).sum();
        let count = unchanged.count() + changed.len();
        if count > MAX_CHANGES || bytes > MAX_BYTES {
            return Err(WriteError::invalid(format!(
                "a record changes {count} items with {bytes} bytes; a transaction takes {MAX_CHANGES} items and {MAX_BYTES} bytes"
            )));
        }
        self.changes.extend(changed);
        self.to = Some(step.version);
        self.steps += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    static TABLE: LazyLock<IdempotentTable> = LazyLock::new(IdempotentTable::unasked);

    fn step(version: u64, changes: &[(&str, Option<i64>)]) -> Step {
        let position = ExtendedSequenceNumber::new(version.into(), 0);
        let mut step = Step { version: position.into(), changes: Vec::new() };
        for (id, delta) in changes {
            let item = [("id", string(*id))];
            step = match delta {
                Some(delta) => step.add(&TABLE, item, "n", *delta),
                None => step.put(&TABLE, item),
            };
        }
        step
    }

    #[test]
    fn changes_of_an_item_become_one_where_they_can() {
        let steps = [step(1, &[("a", Some(2))]), step(2, &[("a", Some(3)), ("b", None)]), step(3, &[("b", None)])];
        let chunk = Chunk::of(&steps, 9).expect("it fits");
        assert_eq!((chunk.steps, chunk.to, chunk.changes.len()), (3, Some(steps[2].version), 2));
        let Some(Change::Add(_, _, sums)) = chunk.changes.values().next() else { panic!("a sum") };
        assert_eq!(sums["n"], 5);
        let apart = [step(1, &[("a", None)]), step(2, &[("a", Some(1))])];
        assert_eq!(Chunk::of(&apart, 9).expect("the first").steps, 1, "no single change puts and then adds");
        assert!(Chunk::of(&[step(1, &[("a", None), ("a", Some(1))])], 9).is_err());
        assert_eq!(Chunk::of(&steps, 1).expect("the first").steps, 1);
    }

    proptest! {
        #[test]
        fn a_transaction_takes_no_more_than_it_may(counts in proptest::collection::vec(0usize..60, 1..12)) {
            let ids: Vec<Vec<String>> = counts.iter().enumerate()
                .map(|(n, count)| (0..*count).map(|id| format!("{n}-{id}")).collect())
                .collect();
            let steps: Vec<Step> = ids.iter().zip(1..)
                .map(|(ids, n)| step(n, &ids.iter().map(|id| (id.as_str(), None)).collect::<Vec<_>>()))
                .collect();
            let mut from = 0;
            while from < steps.len() {
                let chunk = Chunk::of(&steps[from..], usize::MAX).expect("each fits alone");
                prop_assert!(chunk.steps > 0 && chunk.changes.len() <= MAX_CHANGES);
                prop_assert_eq!(chunk.changes.len(), counts[from..from + chunk.steps].iter().sum::<usize>());
                from += chunk.steps;
                let next = counts.get(from).copied().unwrap_or(MAX_CHANGES);
                prop_assert!(chunk.changes.len() + next > MAX_CHANGES || from == steps.len(), "it could take more");
            }
        }
    }
}
