//! What can go wrong with a lease table, by what to do about it.

use crate::BoxError;

/// A call to a lease table that failed. A condition that did not hold is not an error; see
/// [`Conditional`](super::Conditional).
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    kind: StoreErrorKind,
    message: String,
    #[source]
    source: Option<BoxError>,
}

/// What to do about a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// The table is over its limit: slow down and try again. Nothing was written.
    Throttled,
    /// No answer in time: try again. A write may have been applied.
    Timeout,
    /// The table or the way to it has a fault, or is locked: try again. A write may have been applied.
    Unavailable,
    /// Not allowed (credentials, a read-only file): grant the permission that the message names.
    Denied,
    /// The table cannot be used as it is (corrupt, not ours, from a newer version): an operator must look at it.
    Unusable,
    /// The request itself is wrong: mend the argument that the message names.
    Invalid,
}

impl StoreError {
    /// An error with a message that says what was tried and what to do.
    pub fn new(kind: StoreErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do about it.
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_retryable(&self) -> bool {
        match self.kind {
            StoreErrorKind::Throttled | StoreErrorKind::Timeout | StoreErrorKind::Unavailable => true,
            StoreErrorKind::Denied | StoreErrorKind::Unusable | StoreErrorKind::Invalid => false,
        }
    }

    /// Whether a write that got this answer may have been applied all the same.
    pub const fn may_have_applied(&self) -> bool {
        match self.kind {
            StoreErrorKind::Timeout | StoreErrorKind::Unavailable => true,
            StoreErrorKind::Throttled | StoreErrorKind::Denied | StoreErrorKind::Unusable | StoreErrorKind::Invalid => {
                false
            }
        }
    }
}
