//! What came of writes.

use std::sync::Arc;

use metrics::counter;
use shardwell_core::{StoreError, StoreErrorKind};

use super::Version;

/// Counter: writes of the idempotent helpers, by `table`, by `helper` (`insert_once`, `upsert_if_newer`, `accumulate`,
/// `transactional_batch`) and by `result`: `applied`, `already_applied`, `stale`, `failed`.
pub const SINK_WRITES: &str = "shardwell_sink_writes_total";

/// What a write did to its item. Each of these is success: the record is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The item is changed.
    Applied,
    /// An earlier attempt at the same record had changed it.
    AlreadyApplied,
    /// The item stays as it is, since it comes from another record that goes first: a newer one, or, where the first one wins, an
    /// earlier one.
    Stale,
}

/// Why a write failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct WriteError(#[source] Arc<StoreError>);

impl WriteError {
    /// Whether this very write can never succeed: DynamoDB refuses the item, and takes others. Otherwise the table is to blame (over
    /// its limit, out of reach, not allowed), and the same write may succeed later.
    pub fn is_of_the_item(&self) -> bool {
        self.0.kind() == StoreErrorKind::Invalid
    }

    /// What is to be done about it.
    pub fn kind(&self) -> StoreErrorKind {
        self.0.kind()
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        StoreError::new(StoreErrorKind::Invalid, message).into()
    }

    /// The error of what was not tried since something before it failed.
    pub(super) fn after(earlier: &Self) -> Self {
        let message = format!("not tried, since a record before it failed: {earlier}");
        StoreError::new(StoreErrorKind::Unavailable, message).into()
    }
}

impl From<StoreError> for WriteError {
    fn from(error: StoreError) -> Self {
        Self(Arc::new(error))
    }
}

/// What came of the writes of a batch, in the order in which they were given.
#[derive(Clone, Debug)]
#[must_use = "a write that failed is only told here"]
pub struct Report(Vec<(Version, Result<Applied, WriteError>)>);

impl Report {
    pub(super) fn new(table: &str, helper: &'static str, results: Vec<(Version, Result<Applied, WriteError>)>) -> Self {
        for (_, result) in &results {
            let result = match result {
                Ok(Applied::Applied) => "applied",
                Ok(Applied::AlreadyApplied) => "already_applied",
                Ok(Applied::Stale) => "stale",
                Err(_) => "failed",
            };
            counter!(SINK_WRITES, "table" => table.to_owned(), "helper" => helper, "result" => result).increment(1);
        }
        Self(results)
    }

    /// For each write the version of its record, and what came of it.
    pub fn results(&self) -> impl Iterator<Item = (Version, &Result<Applied, WriteError>)> {
        self.0.iter().map(|(version, result)| (*version, result))
    }

    /// How many writes ended so.
    pub fn count(&self, applied: Applied) -> usize {
        self.0.iter().filter(|(_, result)| matches!(result, Ok(was) if *was == applied)).count()
    }

    /// The earliest record of which a write failed, and why. All records before it are done.
    pub fn first_failure(&self) -> Option<(Version, &WriteError)> {
        let failures = self.0.iter().filter_map(|(version, result)| Some((*version, result.as_ref().err()?)));
        // Of one record, what the item itself is to blame for says more.
        failures.min_by_key(|(version, error)| (*version, !error.is_of_the_item()))
    }
}
