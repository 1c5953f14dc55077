//! Processors that write into DynamoDB so that a repetition does no harm.
//!
//! The ways to write are those of [`sink`](crate::aws::sink); what they tell becomes an [`Outcome`] here:
//!
//! ```no_run
//! use shardwell::aws::aws_sdk_dynamodb::types::AttributeValue;
//! use shardwell::aws::sink::{IdempotentTable, Write};
//! use shardwell::{Batch, Outcome, ProcessError, idempotent};
//!
//! async fn process(table: &IdempotentTable, batch: &Batch) -> Result<Outcome, ProcessError> {
//!     let writes = batch.into_iter().filter_map(|record| {
//!         let key = record.partition_key.as_ref()?.as_str();
//!         Some(Write::new(record, [("id", AttributeValue::S(key.to_owned()))]))
//!     });
//!     let report = table.upsert_if_newer(writes.collect()).await;
//!     idempotent::outcome(batch, [&report])
//! }
//! ```

use crate::aws::sink::Report;
use crate::{Batch, Outcome, ProcessError, ProcessResultExt};

/// What a processor says of a batch whose writes ended so: all reports together, since a record is done when all that it writes is.
/// Everything before the first record of which a write failed is done.
///
/// # Errors
/// With that record: [permanent](ProcessError::permanent) if DynamoDB will never take what it writes, so that this record alone is
/// given up on; else [transient](ProcessError::transient), since the table is to blame and not the record.
pub fn outcome<'a>(batch: &Batch, reports: impl IntoIterator<Item = &'a Report>) -> Result<Outcome, ProcessError> {
    let failures = reports.into_iter().filter_map(Report::first_failure);
    let first = failures.min_by_key(|(version, error)| (*version, !error.is_of_the_item()));
    let Some((version, error)) = first else { return Ok(Outcome::Done) };
    let error = if error.is_of_the_item() {
        ProcessError::permanent(error.clone())
    } else {
        ProcessError::transient(error.clone())
    };
    match batch.into_iter().find(|record| record.position == version.position()) {
        Some(record) => Err(error).at(record),
        None => Err(error),
    }
}
