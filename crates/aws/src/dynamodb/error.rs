//! The SDK's errors, by what to do about them.

use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use shardwell_core::{StoreError, StoreErrorKind};

use super::item::Unreadable;
use crate::failure::{ARGUMENT_ADVICE, CREDENTIALS_ADVICE, FAULT_ADVICE, Failure, Refusal, Unanswered};

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
    TransactWriteItems,
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
            Failure::Unanswered(kind, what) => (unanswered(kind), what),
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
        let (kind, advice) = reason(operation, code, status);
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

const fn unanswered(kind: Unanswered) -> StoreErrorKind {
    match kind {
        Unanswered::Timeout => StoreErrorKind::Timeout,
        Unanswered::Unavailable => StoreErrorKind::Unavailable,
        Unanswered::Invalid => StoreErrorKind::Invalid,
        Unanswered::Denied => StoreErrorKind::Denied,
    }
}

/// From the error code (DynamoDB developer guide, "Error handling"), or what it means everywhere: the kind, and what to do.
fn reason(operation: Operation, code: &str, status: u16) -> (StoreErrorKind, String) {
    use StoreErrorKind::{Denied, Invalid, Throttled, Unavailable, Unusable};
    let (kind, advice) = match code {
        "LimitExceededException" => (Throttled, "too many tables are being created, changed or deleted; try again"),
        "ResourceNotFoundException" | "TableNotFoundException" => (
            Unusable,
            "there is no such table or index; check the name, and the account, region and endpoint of the client",
        ),
        "ItemCollectionSizeLimitExceededException" => (Invalid, "too much under one key"),
        "ResourceInUseException" | "TableInUseException" | "TransactionConflictException" => {
            (Unavailable, "it is being created, changed or deleted; try again")
        }
        _ => match Refusal::of(code, status) {
            Refusal::Throttled => (Throttled, "over the limit; slow down, or give the table more capacity"),
            Refusal::ActionDenied => {
                return (Denied, format!("not allowed; grant the credentials `dynamodb:{operation}` on the table"));
            }
            Refusal::Credentials => (Denied, CREDENTIALS_ADVICE),
            Refusal::Fault => (Unavailable, FAULT_ADVICE),
            Refusal::Argument => (Invalid, ARGUMENT_ADVICE),
        },
    };
    (kind, advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_what_to_do_and_unknown_ones_go_by_their_status() {
        let kind = |code, status| reason(Operation::Scan, code, status).0;
        assert_eq!(kind("ProvisionedThroughputExceededException", 400), StoreErrorKind::Throttled);
        assert_eq!(kind("ResourceNotFoundException", 400), StoreErrorKind::Unusable);
        assert_eq!(kind("AccessDeniedException", 400), StoreErrorKind::Denied);
        assert_eq!(kind("ValidationException", 400), StoreErrorKind::Invalid);
        assert_eq!(kind("Surprise", 503), StoreErrorKind::Unavailable);
        assert_eq!(kind("Surprise", 429), StoreErrorKind::Throttled);
    }
}
