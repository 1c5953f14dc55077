//! Making the table ready.

use std::time::Duration;

use aws_sdk_dynamodb::error::{BuildError, SdkError};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::operation::update_table::UpdateTableError;
use aws_sdk_dynamodb::types::{
    AttributeValue, BillingMode, CreateGlobalSecondaryIndexAction, GlobalSecondaryIndexUpdate, IndexStatus,
    KeySchemaElement, KeyType, PointInTimeRecoverySpecification, TableDescription, TableStatus,
};
use shardwell_core::{StoreError, StoreErrorKind};
use tracing::info;

use super::capacity::Purpose;
use super::error::Operation;
use super::expression::Condition;
use super::item::{Item, KEY, is_lease};
use super::migration::{self, Fleet};
use super::requests::Requests;
use super::table::{self, INDEX};

/// How often it is looked whether the table, or its index, can be used.
const POLL: Duration = Duration::from_millis(500);

/// How long a table, or an index on one that is full, may take until it can be used (the KCL waits as long for the index).
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Creates what is missing, waits until it can be used, and sees whether the fleet may be joined.
pub(super) async fn prepare(inner: &Requests) -> Result<(), StoreError> {
    let found = match describe(inner, &inner.target.table).await? {
        Some(found) => found,
        None => {
            create(inner).await?;
            until_usable(inner).await?
        }
    };
    check_keys(inner, &found)?;
    let has_index = index_status(&found).is_some();
    loop {
        let fleet = fleet(inner, has_index).await?;
        fleet.may_be_joined(inner.adopts_2x_tables).map_err(|obstacle| obstacle.error(&inner.target))?;
        if fleet.version.is_some() || say_3x(inner).await? {
            break;
        }
    }
    if !has_index {
        add_index(inner, &found).await?;
    }
    until_usable(inner).await.map(drop)
}

async fn describe(inner: &Requests, table: &str) -> Result<Option<TableDescription>, StoreError> {
    match inner.clients.control.describe_table().table_name(table).send().await {
        Ok(answer) => Ok(answer.table),
        Err(error) if error.as_service_error().is_some_and(DescribeTableError::is_resource_not_found_exception) => {
            Ok(None)
        }
        Err(error) => Err(inner.target.error(Operation::DescribeTable, error)),
    }
}

async fn create(inner: &Requests) -> Result<(), StoreError> {
    let (settings, target) = (&inner.settings, &inner.target);
    let invalid = |error: BuildError| StoreError::new(StoreErrorKind::Invalid, format!("{target}: {error}"));
    let request = inner
        .clients
        .control
        .create_table()
        .table_name(&target.table)
        .set_attribute_definitions(Some(table::attributes().map_err(invalid)?))
        .set_key_schema(Some(table::key_schema().map_err(invalid)?))
        .global_secondary_indexes(table::index(settings.billing).map_err(invalid)?)
        .billing_mode(settings.billing.mode())
        .set_provisioned_throughput(settings.billing.throughput().map_err(invalid)?)
        .deletion_protection_enabled(settings.deletion_protection)
        .set_tags(settings.tags().map_err(invalid)?);
    match request.send().await {
        Ok(_) => info!(table = target.table, "the lease table is created"),
        // Another worker was faster.
        Err(SdkError::ServiceError(error)) if matches!(error.err(), CreateTableError::ResourceInUseException(_)) => {
            return Ok(());
        }
        Err(error) => return Err(target.error(Operation::CreateTable, error)),
    }
    if settings.point_in_time_recovery {
        until_usable(inner).await?;
        let specification = PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(true);
        let request = inner.clients.control.update_continuous_backups().table_name(&target.table);
        let request = request.point_in_time_recovery_specification(specification.build().map_err(invalid)?);
        request.send().await.map_err(|error| target.error(Operation::UpdateContinuousBackups, error))?;
    }
    Ok(())
}

/// A table of another shape is somebody else's.
fn check_keys(inner: &Requests, found: &TableDescription) -> Result<(), StoreError> {
    let keys: Vec<&KeySchemaElement> = found.key_schema().iter().collect();
    let is_ours = matches!(&*keys, [only] if only.attribute_name() == KEY && *only.key_type() == KeyType::Hash);
    if is_ours {
        return Ok(());
    }
    let names: Vec<&str> = keys.iter().map(|key| key.attribute_name()).collect();
    let message = format!(
        "{} is no lease table: its key is {names:?} and not `{KEY}`. The table has the name of the application; give that \
         another one",
        inner.target
    );
    Err(StoreError::new(StoreErrorKind::Unusable, message))
}

/// What is seen of the fleet that the table is of.
async fn fleet(inner: &Requests, has_index: bool) -> Result<Fleet, StoreError> {
    let ours = async |key| inner.get(Purpose::Coordination, key).await;
    let version = migration::version_of(ours(migration::CLIENT_VERSION).await?.as_ref());
    let tables = migration::tables_of(ours(migration::TABLE_MIGRATION).await?.as_ref());
    let legacy = migration::legacy_table(&inner.target.table);
    let has_legacy_table = describe(inner, &legacy).await?.is_some();
    let version = match version {
        None if has_legacy_table => migration::version_of(legacy_item(inner, &legacy).await?.as_ref()),
        version => version,
    };
    // Only where that matters: it may be read whole.
    let has_leases = !has_index && inner.scan().await?.iter().any(is_lease);
    Ok(Fleet { version, tables, has_legacy_table, has_index, has_leases })
}

/// Says in which manner the fleet runs, so that a Java worker that comes later does not choose another one. Gives whether nobody
/// else has said it meanwhile.
async fn say_3x(inner: &Requests) -> Result<bool, StoreError> {
    let now = inner.base.time_source().map(|time| time.now().into()).unwrap_or_default();
    inner.put(Purpose::Coordination, migration::version_3x(now), Condition::Absent(KEY)).await
}

async fn legacy_item(inner: &Requests, table: &str) -> Result<Option<Item>, StoreError> {
    let key = AttributeValue::S(migration::CLIENT_VERSION.to_owned());
    let request = inner.clients.items.get_item().table_name(table).consistent_read(true);
    let answer = request.set_key(Some(Item::from([(migration::LEGACY_KEY.to_owned(), key)]))).send().await;
    Ok(answer.map_err(|error| inner.target.error(Operation::GetItem, error))?.item)
}

/// Adds the index to a table that was made without it. What it costs goes by how the table is paid for.
async fn add_index(inner: &Requests, found: &TableDescription) -> Result<(), StoreError> {
    let target = &inner.target;
    let invalid = |error: BuildError| StoreError::new(StoreErrorKind::Invalid, format!("{target}: {error}"));
    let is_on_demand = found.billing_mode_summary().and_then(|summary| summary.billing_mode());
    let throughput = found.provisioned_throughput().filter(|_| is_on_demand != Some(&BillingMode::PayPerRequest));
    let billing = throughput.and_then(|throughput| {
        let units = |units: Option<i64>| u32::try_from(units?).ok().filter(|units| *units > 0);
        let (read_units, write_units) =
            (units(throughput.read_capacity_units())?, units(throughput.write_capacity_units())?);
        Some(table::Billing::Provisioned { read_units, write_units })
    });
    let index = CreateGlobalSecondaryIndexAction::builder()
        .index_name(INDEX)
        .set_key_schema(Some(table::index_key_schema().map_err(invalid)?))
        .projection(table::projection())
        .set_provisioned_throughput(billing.unwrap_or_default().throughput().map_err(invalid)?)
        .build()
        .map_err(invalid)?;
    info!(table = target.table, "adding the index {INDEX}, which may take minutes");
    let request = inner.clients.control.update_table().table_name(&target.table);
    let request = request
        .set_attribute_definitions(Some(table::attributes().map_err(invalid)?))
        .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(index).build());
    match request.send().await {
        Ok(_) => Ok(()),
        // Another worker was faster: there is an update already, or what it made.
        Err(SdkError::ServiceError(error)) if matches!(error.err(), UpdateTableError::ResourceInUseException(_)) => {
            Ok(())
        }
        Err(error) => Err(target.error(Operation::UpdateTable, error)),
    }
}

/// Waits until table and index can be used.
async fn until_usable(inner: &Requests) -> Result<TableDescription, StoreError> {
    let polls = LONGEST.as_millis() / POLL.as_millis();
    for _ in 0..polls {
        if let Some(found) = describe(inner, &inner.target.table).await? {
            let table = matches!(found.table_status(), Some(TableStatus::Active | TableStatus::Updating));
            if table && matches!(index_status(&found), None | Some(IndexStatus::Active)) {
                return Ok(found);
            }
            if matches!(
                found.table_status(),
                Some(TableStatus::Deleting | TableStatus::Archived | TableStatus::Archiving)
            ) {
                let message = format!(
                    "{} is being deleted or archived; start again when it is gone, or restore it",
                    inner.target
                );
                return Err(StoreError::new(StoreErrorKind::Unusable, message));
            }
        }
        inner.sleep(POLL).await?;
    }
    let message = format!("{} and its index `{INDEX}` are not usable after {LONGEST:?}", inner.target);
    Err(StoreError::new(StoreErrorKind::Unavailable, message))
}

/// The state of the index; `None` where there is none.
fn index_status(found: &TableDescription) -> Option<&IndexStatus> {
    let index = found.global_secondary_indexes().iter().find(|index| index.index_name() == Some(INDEX))?;
    index.index_status()
}
