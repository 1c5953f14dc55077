//! Refusals, by the names that the service gives them.

/// A call that the model refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({})", .kind.exception())]
pub struct KinesisError {
    /// Which exception the service answers with.
    pub kind: KinesisErrorKind,
    /// What was wrong.
    pub message: String,
}

/// The exceptions of the Kinesis API that the model can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KinesisErrorKind {
    /// No such stream or shard.
    ResourceNotFound,
    /// The stream is not in the state that the call needs.
    ResourceInUse,
    /// An argument cannot be used with this stream.
    InvalidArgument,
    /// The iterator is older than five minutes.
    ExpiredIterator,
    /// The token of a listing is older than five minutes.
    ExpiredNextToken,
    /// More than the service allows.
    LimitExceeded,
    /// An argument is outside what the API allows for any stream.
    Validation,
}

impl KinesisErrorKind {
    /// The name of the exception.
    pub const fn exception(self) -> &'static str {
        match self {
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::ResourceInUse => "ResourceInUseException",
            Self::InvalidArgument => "InvalidArgumentException",
            Self::ExpiredIterator => "ExpiredIteratorException",
            Self::ExpiredNextToken => "ExpiredNextTokenException",
            Self::LimitExceeded => "LimitExceededException",
            Self::Validation => "ValidationException",
        }
    }
}

impl KinesisError {
    /// An error with a message that says what was wrong.
    pub fn new(kind: KinesisErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// [`KinesisErrorKind::ResourceNotFound`] for a stream.
    pub fn no_such_stream(name: &str) -> Self {
        Self::new(KinesisErrorKind::ResourceNotFound, format!("there is no stream `{name}`"))
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(KinesisErrorKind::ResourceNotFound, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(KinesisErrorKind::InvalidArgument, message)
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new(KinesisErrorKind::Validation, message)
    }
}
