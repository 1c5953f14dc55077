//! The SDK's errors, by what to do about them.

use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use shardwell_core::{StoreError, StoreErrorKind};

use super::item::Unreadable;
use crate::failure::{Failure, Obstacle};

/// The operations that this crate calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    DescribeTable,
    CreateTable,
    UpdateTable,
    UpdateContinuousBackups,
    GetItem,
    PutItem,
    UpdateItem,
    DeleteItem,
    Query,
    Scan,
}

/// The IAM action for an operation has its name.
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which table a call is for: what an error message must name.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) table: String,
    /// The client's region.
    pub(super) region: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table `{}` in region {}", self.table, self.region.as_deref().unwrap_or("(none is set)"))
    }
}

impl Target {
    /// What a failed call means.
    pub(super) fn error<E>(&self, operation: Operation, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let (kind, what) = match Failure::of(&error, self.region.is_some()) {
            Failure::Refused(answer, status) => self.refused(operation, answer, status),
            Failure::NoAnswer => (
                StoreErrorKind::Timeout,
                "no answer in time; check the way to the endpoint, or allow more time".to_owned(),
            ),
            Failure::Garbled(why) => (StoreErrorKind::Unavailable, format!("no usable answer: {why}")),
            Failure::NotSent(obstacle, why) => (not_sent(obstacle), format!("{}: {why}", obstacle.advice())),
        };
        StoreError::new(kind, format!("{operation} on {self}: {what}")).with_source(error)
    }

    fn refused<E: ProvideErrorMetadata>(
        &self,
        operation: Operation,
        error: &E,
        status: u16,
    ) -> (StoreErrorKind, String) {
        let code = error.code().unwrap_or("no error code");
        let words = error.message().unwrap_or("no message");
        let (kind, advice) = reason(code, status);
        let advice = match kind {
            StoreErrorKind::Denied if advice.is_empty() => {
                format!("not allowed; grant the credentials `dynamodb:{operation}` on the table")
            }
            _ => advice.to_owned(),
        };
        (kind, format!("{advice} ({code}: {words})"))
    }

    /// An item that cannot be read where it has to be.
    pub(super) fn unreadable(&self, key: &str, why: &Unreadable) -> StoreError {
        let message = format!(
            "the item `{key}` in {self} cannot be read: {why}. Something else wrote it, or it is damaged; look at it, and delete \
             it if it is of no use"
        );
        StoreError::new(StoreErrorKind::Unusable, message)
    }
}

const fn not_sent(obstacle: Obstacle) -> StoreErrorKind {
    match obstacle {
        Obstacle::CredentialsLate => StoreErrorKind::Timeout,
        Obstacle::CredentialsFault | Obstacle::Unreachable => StoreErrorKind::Unavailable,
        Obstacle::CredentialsMisconfigured | Obstacle::Misconfigured => StoreErrorKind::Invalid,
        Obstacle::NoCredentials => StoreErrorKind::Denied,
    }
}

/// From the error code (DynamoDB developer guide, "Error handling", and "Common errors"), or, for a code that is not known, from
/// the HTTP status: the kind, and what to do.
fn reason(code: &str, status: u16) -> (StoreErrorKind, &'static str) {
    use StoreErrorKind::{Denied, Invalid, Throttled, Unavailable, Unusable};
    match code {
        "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "ThrottlingException"
        | "Throttling"
        | "TooManyRequestsException" => (Throttled, "over the limit; slow down, or give the table more capacity"),
        "LimitExceededException" => (Throttled, "too many tables are being created, changed or deleted; try again"),
        "ResourceNotFoundException" | "TableNotFoundException" => (
            Unusable,
            "there is no such table or index; check the name, and the account, region and endpoint of the client",
        ),
        "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => (Denied, ""),
        "ExpiredTokenException"
        | "ExpiredToken"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "RequestExpired"
        | "UnrecognizedClientException" => {
            (Denied, "the service does not accept the credentials; renew them, and check the clock of this machine")
        }
        "ItemCollectionSizeLimitExceededException" => (Invalid, "too much under one key"),
        "ResourceInUseException" | "TableInUseException" | "TransactionConflictException" => {
            (Unavailable, "it is being created, changed or deleted; try again")
        }
        "InternalServerError" | "InternalFailure" | "ServiceUnavailable" | "ServiceUnavailableException" => {
            (Unavailable, "the service has a fault; try again")
        }
        _ if status == 429 => (Throttled, "over the limit; slow down"),
        _ if status >= 500 => (Unavailable, "the service has a fault; try again"),
        _ => (Invalid, "the service refuses the request"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do_and_unknown_ones_go_by_their_status() {
        let kind = |code, status| reason(code, status).0;
        assert_eq!(kind("ProvisionedThroughputExceededException", 400), StoreErrorKind::Throttled);
        assert_eq!(kind("ResourceNotFoundException", 400), StoreErrorKind::Unusable);
        assert_eq!(kind("AccessDeniedException", 400), StoreErrorKind::Denied);
        assert_eq!(kind("ValidationException", 400), StoreErrorKind::Invalid);
        assert_eq!(kind("Surprise", 503), StoreErrorKind::Unavailable);
        assert_eq!(kind("Surprise", 429), StoreErrorKind::Throttled);
    }
}
