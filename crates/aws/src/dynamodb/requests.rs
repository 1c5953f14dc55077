//! Requests to one lease table: what each costs is counted, and what failed is told with what to do.

use std::error::Error;
use std::time::Duration;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::{DeleteItemError, DeleteItemOutput};
use aws_sdk_dynamodb::operation::put_item::{PutItemError, PutItemOutput};
use aws_sdk_dynamodb::operation::update_item::{UpdateItemError, UpdateItemOutput};
use aws_sdk_dynamodb::types::{
    ConsumedCapacity, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};
use aws_sdk_dynamodb::{Client, Config};
use shardwell_core::{Conditional, Lease, LeaseKey, LeaseListing, StoreError, WorkerMetrics};
use tracing::warn;

use super::capacity::{Purpose, charged};
use super::clients::{self, Clients, DynamoTimeouts};
use super::error::{Operation, Target};
use super::expression::{Condition, Placeholders, Rendered};
use super::item::{Item, Unreadable, entity_type, is_lease, key, key_of, lease, worker};
use super::table::TableSettings;

/// A lease table, and how to ask for it.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) base: Config,
    pub(super) dedicated: Option<Config>,
    pub(super) timeouts: DynamoTimeouts,
    pub(super) clients: Clients,
    pub(super) target: Target,
    pub(super) settings: TableSettings,
    pub(super) adopts_2x_tables: bool,
}

impl Requests {
    /// Waits as the SDK does.
    pub(super) async fn sleep(&self, time: Duration) -> Result<(), StoreError> {
        clients::sleep(&self.base, time).await
    }

    pub(super) async fn get(&self, purpose: Purpose, of: &str) -> Result<Option<Item>, StoreError> {
        let request = self.clients.items.get_item().table_name(&self.target.table).set_key(Some(key(of)));
        let request = request.consistent_read(true).return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = request.send().await.map_err(|error| self.target.error(Operation::GetItem, error))?;
        charged(&self.target.table, purpose, answer.consumed_capacity());
        Ok(answer.item)
    }

    /// Writes an item if the condition holds; tells whether it did.
    pub(super) async fn put(&self, purpose: Purpose, item: Item, condition: Condition<'_>) -> Result<bool, StoreError> {
        let mut placeholders = Placeholders::default();
        let condition = condition.render(&mut placeholders);
        let request = self.clients.items.put_item().table_name(&self.target.table).set_item(Some(item));
        let request = request
            .condition_expression(condition)
            .set_expression_attribute_names(placeholders.names())
            .set_expression_attribute_values(placeholders.values())
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let refused = |error: &PutItemError| error.is_conditional_check_failed_exception().then_some(());
        let answer = request.send().await;
        let written = self.written(Operation::PutItem, purpose, answer, PutItemOutput::consumed_capacity, refused)?;
        Ok(written.is_ok())
    }

    /// Changes an item. Gives it as it is after that, or as it is where the condition does not hold.
    pub(super) async fn update(
        &self,
        client: &Client,
        purpose: Purpose,
        of: &str,
        change: Rendered,
    ) -> Result<Result<Item, Option<Item>>, StoreError> {
        let request = client.update_item().table_name(&self.target.table).set_key(Some(key(of)));
        let request = request
            .update_expression(change.update)
            .condition_expression(change.condition)
            .set_expression_attribute_names(change.placeholders.names())
            .set_expression_attribute_values(change.placeholders.values())
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let refused = |error: &UpdateItemError| match error {
            UpdateItemError::ConditionalCheckFailedException(failed) => Some(failed.item.clone()),
            _ => None,
        };
        let answer = request.send().await;
        let written =
            self.written(Operation::UpdateItem, purpose, answer, UpdateItemOutput::consumed_capacity, refused)?;
        Ok(written.map(|answer| answer.attributes.unwrap_or_default()))
    }

    pub(super) async fn delete(
        &self,
        purpose: Purpose,
        of: &str,
        condition: Option<Condition<'_>>,
    ) -> Result<bool, StoreError> {
        let mut placeholders = Placeholders::default();
        let condition = condition.map(|condition| condition.render(&mut placeholders));
        let request = self.clients.items.delete_item().table_name(&self.target.table).set_key(Some(key(of)));
        let request = request
            .set_condition_expression(condition)
            .set_expression_attribute_names(placeholders.names())
            .set_expression_attribute_values(placeholders.values())
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let refused = |error: &DeleteItemError| error.is_conditional_check_failed_exception().then_some(());
        let answer = request.send().await;
        let written =
            self.written(Operation::DeleteItem, purpose, answer, DeleteItemOutput::consumed_capacity, refused)?;
        Ok(written.is_ok())
    }

    /// Every item of the table.
    pub(super) async fn scan(&self) -> Result<Vec<Item>, StoreError> {
        let request = self.clients.items.scan().table_name(&self.target.table);
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let mut pages = request.into_paginator().send();
        let mut items = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.target.error(Operation::Scan, error))?;
            charged(&self.target.table, Purpose::Listings, page.consumed_capacity());
            items.extend(page.items.unwrap_or_default());
        }
        Ok(items)
    }

    pub(super) fn leases_in(&self, items: &[Item]) -> LeaseListing {
        let mut listing = LeaseListing::default();
        for item in items.iter().filter(|item| is_lease(item)) {
            match lease::read(item) {
                Ok(lease) => listing.leases.push(lease),
                Err(why) => {
                    let key = key_of(item).unwrap_or_default();
                    warn!(table = self.target.table, key, %why, "a lease cannot be read");
                    listing.unreadable.push(LeaseKey::from(key));
                }
            }
        }
        listing.leases.sort_by(|a, b| a.key.cmp(&b.key));
        listing.unreadable.sort();
        listing
    }

    pub(super) fn workers_in(&self, items: &[Item]) -> Vec<WorkerMetrics> {
        let mut workers = Vec::new();
        for item in items.iter().filter(|item| entity_type(item) == Some(worker::TYPE)) {
            match worker::read(item) {
                Ok(metrics) => workers.push(metrics),
                // As a worker that writes none: it is given nothing.
                Err(why) => {
                    warn!(table = self.target.table, key = key_of(item), %why, "the metrics of a worker cannot be read");
                }
            }
        }
        workers.sort_by(|a, b| a.worker.cmp(&b.worker));
        workers
    }

    /// What an item says, where it must be readable.
    pub(super) fn read<T>(&self, item: &Item, read: fn(&Item) -> Result<T, Unreadable>) -> Result<T, StoreError> {
        read(item).map_err(|why| self.target.unreadable(key_of(item).unwrap_or_default(), &why))
    }

    /// What the item of this key says, if there is one.
    pub(super) async fn find<T>(
        &self,
        of: &str,
        read: fn(&Item) -> Result<T, Unreadable>,
    ) -> Result<Option<T>, StoreError> {
        let item = self.get(Purpose::Coordination, of).await?;
        item.map(|item| self.read(&item, read)).transpose()
    }

    /// A lease in an answer.
    pub(super) fn lease(&self, item: &Item) -> Result<Lease, StoreError> {
        self.read(item, lease::read)
    }

    /// The answer to a write, and what it cost; the inner error is what `refused` makes of a condition that did not hold.
    fn written<T, E, R>(
        &self,
        operation: Operation,
        purpose: Purpose,
        answer: Result<T, SdkError<E, HttpResponse>>,
        capacity: fn(&T) -> Option<&ConsumedCapacity>,
        refused: fn(&E) -> Option<R>,
    ) -> Result<Result<T, R>, StoreError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        match answer {
            Ok(answer) => {
                charged(&self.target.table, purpose, capacity(&answer));
                Ok(Ok(answer))
            }
            Err(error) => match error.as_service_error().and_then(refused) {
                Some(refused) => Ok(Err(refused)),
                None => Err(self.target.error(operation, error)),
            },
        }
    }

    /// A conditional write of a lease.
    pub(super) async fn write(&self, key: &LeaseKey, change: Rendered) -> Result<Conditional, StoreError> {
        match self.update(&self.clients.items, Purpose::Assignments, key.as_str(), change).await? {
            Ok(item) => Ok(Conditional::Applied(self.lease(&item)?)),
            Err(Some(item)) if is_lease(&item) => Ok(Conditional::Refused(Some(self.lease(&item)?))),
            Err(_) => Ok(Conditional::Refused(None)),
        }
    }
}
