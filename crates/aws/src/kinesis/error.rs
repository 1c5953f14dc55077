//! The SDK's errors, by what to do about them.

use std::error::Error;
use std::fmt;

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use shardwell_core::{StreamError, StreamErrorKind};

use super::convert::Malformed;
use super::stream_ref::StreamRef;
use crate::failure::{ARGUMENT_ADVICE, CREDENTIALS_ADVICE, FAULT_ADVICE, Failure, Refusal, Unanswered};

/// The operations that this crate calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    DescribeStreamSummary,
    ListShards,
    GetShardIterator,
    GetRecords,
    PutRecords,
}

/// The IAM action for an operation has its name.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Operation {
    /// What an encrypted stream asks of its key for this operation.
    const fn key_action(self) -> &'static str {
        match self {
            Self::PutRecords => "kms:GenerateDataKey",
            Self::DescribeStreamSummary | Self::ListShards | Self::GetShardIterator | Self::GetRecords => "kms:Decrypt",
        }
    }
}

/// Whom a call is for: what an error message must name.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) stream: StreamRef,
    /// The client's region.
    pub(super) region: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream `{}` in region {}", self.stream, self.region.as_deref().unwrap_or("(none is set)"))
    }
}

impl Target {
    /// What a failed call means.
    pub(super) fn error<E>(&self, operation: Operation, error: SdkError<E, HttpResponse>) -> StreamError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let (kind, message) = match Failure::of(&error, self.region.is_some()) {
            Failure::Refused(answer, status) => self.refused(operation, answer, status),
            Failure::Unanswered(kind, what) => (unanswered(kind), format!("{operation} on {self}: {what}")),
        };
        StreamError::new(kind, message).with_source(error)
    }

    /// An answer that does not say what the API promises.
    pub(super) fn malformed(&self, operation: Operation, malformed: &Malformed) -> StreamError {
        let message = format!("{operation} on {self}: the answer is malformed: {}", malformed.0);
        StreamError::new(StreamErrorKind::Unavailable, message)
    }

    fn refused<E: ProvideErrorMetadata>(
        &self,
        operation: Operation,
        error: &E,
        status: u16,
    ) -> (StreamErrorKind, String) {
        let code = error.code().unwrap_or("no error code");
        let reason = Reason::of(code, status);
        let words = error.message().unwrap_or("no message");
        let advice = self.advice(reason, operation);
        (reason.kind(), format!("{operation} on {self}: {advice} ({code}: {words})"))
    }

    fn advice(&self, reason: Reason, operation: Operation) -> String {
        match reason {
            Reason::Throttled => "over the limit; slow down, or give the stream more shards".into(),
            Reason::KeyThrottled => "the stream's encryption key is over its request limit; slow down".into(),
            Reason::NotFound => self.not_found(),
            Reason::ActionDenied => format!("not allowed; grant the credentials `kinesis:{operation}` on the stream"),
            Reason::KeyDenied => {
                format!(
                    "not allowed; grant the credentials `{}` on the stream's encryption key",
                    operation.key_action()
                )
            }
            Reason::Credentials => CREDENTIALS_ADVICE.into(),
            Reason::Key => "the stream's encryption key cannot be used; enable or restore it".into(),
            Reason::Argument => ARGUMENT_ADVICE.into(),
            Reason::Busy => "the stream is being created, changed or deleted; try again".into(),
            Reason::Expired => "it took too long to come back; try again".into(),
            Reason::Fault => FAULT_ADVICE.into(),
        }
    }

    fn not_found(&self) -> String {
        let elsewhere = match (self.stream.region(), self.region.as_deref()) {
            (Some(arn), Some(client)) if arn != client => format!("; the ARN is of region {arn}, the client is not"),
            _ => String::new(),
        };
        format!(
            "there is no such stream or shard; check the name, and the account, region and endpoint of the client, or \
             whether it was deleted{elsewhere}"
        )
    }
}

const fn unanswered(kind: Unanswered) -> StreamErrorKind {
    match kind {
        Unanswered::Timeout => StreamErrorKind::Timeout,
        Unanswered::Unavailable => StreamErrorKind::Unavailable,
        Unanswered::Invalid => StreamErrorKind::Invalid,
        Unanswered::Denied => StreamErrorKind::Denied,
    }
}

/// Why the service refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Throttled,
    KeyThrottled,
    NotFound,
    ActionDenied,
    KeyDenied,
    Credentials,
    Key,
    Argument,
    Busy,
    Expired,
    Fault,
}

impl Reason {
    /// From the error code (Kinesis API, "Errors" of each operation), or what it means everywhere.
    fn of(code: &str, status: u16) -> Self {
        match code {
            "LimitExceededException" => Self::Throttled,
            "KMSThrottlingException" => Self::KeyThrottled,
            "ResourceNotFoundException" => Self::NotFound,
            "KMSAccessDeniedException" => Self::KeyDenied,
            "KMSDisabledException" | "KMSInvalidStateException" | "KMSNotFoundException" | "KMSOptInRequired" => {
                Self::Key
            }
            "ResourceInUseException" => Self::Busy,
            "ExpiredIteratorException" | "ExpiredNextTokenException" => Self::Expired,
            _ => match Refusal::of(code, status) {
                Refusal::Throttled => Self::Throttled,
                Refusal::ActionDenied => Self::ActionDenied,
                Refusal::Credentials => Self::Credentials,
                Refusal::Fault => Self::Fault,
                Refusal::Argument => Self::Argument,
            },
        }
    }

    const fn kind(self) -> StreamErrorKind {
        match self {
            Self::Throttled | Self::KeyThrottled => StreamErrorKind::Throttled,
            Self::NotFound => StreamErrorKind::NotFound,
            Self::ActionDenied | Self::KeyDenied | Self::Credentials => StreamErrorKind::Denied,
            Self::Key | Self::Argument => StreamErrorKind::Invalid,
            Self::Busy | Self::Expired | Self::Fault => StreamErrorKind::Unavailable,
        }
    }
}
