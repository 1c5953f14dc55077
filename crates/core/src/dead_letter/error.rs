//! Why a sink did not do what it was asked to.

use crate::BoxError;

/// An error of a dead-letter sink: what kind, what was attempted, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SinkError {
    kind: SinkErrorKind,
    message: String,
    #[source]
    cause: Option<BoxError>,
}

/// What kind of error it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SinkErrorKind {
    /// It may pass by itself: a disk that is full, a lock, a connection, throttling.
    Unavailable,
    /// The sink cannot be used as it is: not ours, newer, damaged, or access is denied.
    Unusable,
    /// This letter cannot be kept here, whatever the time: too large, say. Another sink may take it.
    Refused,
}

impl SinkError {
    /// An error. The message says what was attempted and where.
    pub fn new(kind: SinkErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), cause: None }
    }

    /// The same with a cause.
    #[must_use]
    pub fn because(self, cause: impl Into<BoxError>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    /// What kind of error it is.
    pub const fn kind(&self) -> SinkErrorKind {
        self.kind
    }
}
