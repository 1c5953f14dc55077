//! Errors on the wire: `{"__type": <exception>, "message": <text>}`.

use std::borrow::Cow;

use axum::http::StatusCode;
use shardwell_core::memory::kinesis::{KinesisError, KinesisErrorKind};
use shardwell_core::{PutError, PutErrorKind};

/// A refusal, by the name of the service's exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
}

impl ApiError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code: code.into(), message: message.into() }
    }

    /// The body is not what the protocol asks for.
    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", message)
    }

    /// A field is missing, or outside what the API allows.
    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(KinesisErrorKind::Validation.exception(), message)
    }

    /// A field cannot be used with this stream, or not with the others.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(KinesisErrorKind::InvalidArgument.exception(), message)
    }

    /// A field that the API knows and this engine does not model: better refused than dropped.
    pub(crate) fn not_modelled(field: &str) -> Self {
        Self::invalid(format!("the local engine does not model {field}: leave it out"))
    }

    pub(crate) fn unknown_operation(name: &str) -> Self {
        Self::new("UnknownOperationException", format!("the local engine has no operation `{name}`"))
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the body of the request has more than {limit} bytes");
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, ..Self::new("RequestEntityTooLargeException", message) }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        serde_json::json!({ "__type": self.code, "message": self.message }).to_string().into_bytes()
    }
}

impl From<KinesisError> for ApiError {
    fn from(error: KinesisError) -> Self {
        Self::new(error.kind.exception(), error.message)
    }
}

impl From<PutError> for ApiError {
    fn from(error: PutError) -> Self {
        let status = match error.kind {
            PutErrorKind::Throttled => StatusCode::BAD_REQUEST,
            PutErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, code: error.code.into(), message: error.message }
    }
}
