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
//!     idempotent::outcome(batch, &table.upsert_if_newer(writes.collect()).await)
//! }
//! ```

use crate::aws::sink::Report;
use crate::{Batch, Outcome, ProcessError, ProcessResultExt};

/// What a processor says of a batch whose writes ended so. All records before the first that failed are done.
///
/// # Errors
/// With that record: [permanent](ProcessError::permanent) if DynamoDB will never take what it writes, so that this record alone is
/// given up on; else [transient](ProcessError::transient), since the table is to blame and not the record.
pub fn outcome(batch: &Batch, report: &Report) -> Result<Outcome, ProcessError> {
    let Some((version, error)) = report.first_failure() else { return Ok(Outcome::Done) };
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
