//! Whole items: the first one wins, or the newest.

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure};

use super::super::capacity::{Purpose, charged};
use super::super::error::Operation;
use super::super::expression::{Condition, Placeholders};
use super::group::{Results, by_item};
use super::{Applied, IdempotentTable, Report, Write, WriteError};

/// Which of several records makes an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wins {
    First,
    Newest,
}

impl IdempotentTable {
    /// Puts items that are not there yet; what is there stays. For facts that never change: a repetition, and a later record with
    /// the same key, are done without an effect. One write unit per KiB, also for what is refused.
    ///
    /// Items of the same key are written once; see [`Applied`] for what came of each. DynamoDB decides item by item, so a failure
    /// of one leaves the others done.
    ///
    /// # Cancel safety
    /// When it is dropped, some items may be written. Writing them again is what it is for.
    pub async fn insert_once(&self, writes: Vec<Write>) -> Report {
        self.put_all(Wins::First, "insert_once", writes).await
    }

    /// Puts items whose version is newer than what is there, whole. Safe against repetitions, reordering, and workers that have lost
    /// their lease and do not know it yet. An item without a version counts as older. One write unit per KiB, also for what is
    /// refused.
    ///
    /// The records of an item must be comparable: those of one partition key.
    ///
    /// Of items of the same key only the newest is written. See [`insert_once`](Self::insert_once) for the rest.
    ///
    /// # Cancel safety
    /// When it is dropped, some items may be written. Writing them again is what it is for.
    pub async fn upsert_if_newer(&self, writes: Vec<Write>) -> Report {
        self.put_all(Wins::Newest, "upsert_if_newer", writes).await
    }

    async fn put_all(&self, wins: Wins, helper: &'static str, writes: Vec<Write>) -> Report {
        let writes = writes.into_iter().map(|write| (write.version, self.key(&write.item), write)).collect();
        Report::new(self.name(), helper, by_item(writes, |_, group| self.put_group(wins, group)).await)
    }

    /// Writes the one that wins. If its item is refused for good, the next best.
    async fn put_group(&self, wins: Wins, mut group: Vec<(usize, Write)>) -> Results {
        group.sort_by_key(|(index, write)| (write.version, *index));
        if wins == Wins::Newest {
            group.reverse();
        }
        let mut results = Results::new();
        let mut rest = None;
        for (index, write) in group {
            let result = match &rest {
                Some(result) => Result::clone(result),
                None => {
                    let result = self.put(wins, write).await;
                    match &result {
                        Ok(_) => rest = Some(Ok(Applied::Stale)),
                        Err(error) if error.is_of_the_item() => {}
                        Err(error) => rest = Some(Err(error.clone())),
                    }
                    result
                }
            };
            results.push((index, result));
        }
        results
    }

    async fn put(&self, wins: Wins, write: Write) -> Result<Applied, WriteError> {
        let Write { version, mut item } = write;
        let inner = &self.inner;
        item.insert(inner.version.clone(), version.to_attribute());
        let mut placeholders = Placeholders::default();
        let condition = match wins {
            Wins::First => Condition::Absent(self.partition_key()),
            Wins::Newest => self.is_older_than(version),
        };
        let condition = condition.render(&mut placeholders);
        let request = inner.client.put_item().table_name(&inner.target.table).set_item(Some(item));
        let request = request
            .condition_expression(condition)
            .set_expression_attribute_names(placeholders.names())
            .set_expression_attribute_values(placeholders.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match request.send().await {
            Ok(answer) => {
                charged(self.name(), Purpose::Sink, answer.consumed_capacity());
                Ok(Applied::Applied)
            }
            Err(error) => match error.as_service_error() {
                Some(PutItemError::ConditionalCheckFailedException(refused)) => {
                    let stored = refused.item.as_ref().and_then(|item| self.version_of(item));
                    Ok(if stored == Some(version) { Applied::AlreadyApplied } else { Applied::Stale })
                }
                _ => Err(inner.target.error(Operation::PutItem, error).into()),
            },
        }
    }
}
