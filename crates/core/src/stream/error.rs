//! What can go wrong with a stream, by what to do about it.

use crate::BoxError;

/// A call to a stream that failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StreamError {
    kind: StreamErrorKind,
    message: String,
    #[source]
    source: Option<BoxError>,
}

/// What to do about a [`StreamError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamErrorKind {
    /// The shard or the account is over its limit: slow down and try again.
    Throttled,
    /// No answer in time: try again. A write may have been applied.
    Timeout,
    /// The service or the way to it has a fault: try again.
    Unavailable,
    /// There is no such stream or shard: it was deleted, or the name is wrong.
    NotFound,
    /// The credentials do not allow it: grant the permission that the message names.
    Denied,
    /// The request itself is wrong: mend the configuration or the argument that the message names.
    Invalid,
}

impl StreamError {
    /// An error with a message that says what was tried and what to do.
    pub fn new(kind: StreamErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Adds what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do about it.
    pub const fn kind(&self) -> StreamErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_retryable(&self) -> bool {
        match self.kind {
            StreamErrorKind::Throttled | StreamErrorKind::Timeout | StreamErrorKind::Unavailable => true,
            StreamErrorKind::NotFound | StreamErrorKind::Denied | StreamErrorKind::Invalid => false,
        }
    }

    /// Whether a write that got this answer may have been applied all the same.
    pub const fn may_have_applied(&self) -> bool {
        match self.kind {
            StreamErrorKind::Timeout | StreamErrorKind::Unavailable => true,
            StreamErrorKind::Throttled
            | StreamErrorKind::NotFound
            | StreamErrorKind::Denied
            | StreamErrorKind::Invalid => false,
        }
    }
}
