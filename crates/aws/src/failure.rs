//! Calls that failed, told apart before it is known which service they were for.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};

/// Why a call has no answer that says what was asked for.
#[derive(Debug)]
pub(crate) enum Failure<'e, E> {
    /// The service refuses it, with this error and HTTP status.
    Refused(&'e E, u16),
    /// The service did not say anything of use: what to do about it, and what happened.
    Unanswered(Unanswered, String),
}

/// What to do where the service did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// Try again: it took too long.
    Timeout,
    /// Try again: something has a fault.
    Unavailable,
    /// Mend the configuration.
    Invalid,
    /// Give the client credentials.
    Denied,
}

impl<'e, E: Error + Send + Sync + 'static> Failure<'e, E> {
    /// `has_region` is whether the client knows its region.
    pub(crate) fn of(error: &'e SdkError<E, HttpResponse>, has_region: bool) -> Self {
        let no_answer = "no answer in time; check the way to the endpoint, or allow more time";
        let (kind, what) = match error {
            SdkError::ServiceError(answer) => return Self::Refused(answer.err(), answer.raw().status().as_u16()),
            SdkError::TimeoutError(_) => (Unanswered::Timeout, no_answer.to_owned()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => (Unanswered::Timeout, no_answer.to_owned()),
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
                let (kind, advice) = not_sent(error, has_region);
                (kind, format!("{advice}: {}", chain(error)))
            }
            // The SDK may add kinds of failure; whether the request was sent is not known then.
            _ => (Unanswered::Unavailable, format!("no usable answer: {}", chain(error))),
        };
        Self::Unanswered(kind, what)
    }
}

/// What kept a call from being sent.
fn not_sent(error: &(dyn Error + 'static), has_region: bool) -> (Unanswered, &'static str) {
    match causes(error).find_map(|cause| cause.downcast_ref()) {
        Some(CredentialsError::ProviderTimedOut(_)) => (Unanswered::Timeout, "credentials did not load in time"),
        Some(CredentialsError::ProviderError(_)) => {
            (Unanswered::Unavailable, "the provider of credentials has a fault")
        }
        Some(CredentialsError::InvalidConfiguration(_)) => {
            (Unanswered::Invalid, "mend the configuration of the credentials")
        }
        Some(_) => (Unanswered::Denied, "there are no credentials; give the client some"),
        None if is_misconfigured(error, has_region) => (Unanswered::Invalid, "mend the client's configuration"),
        None => (Unanswered::Unavailable, "the endpoint cannot be reached"),
    }
}

/// What a refusal means whatever the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Throttled,
    ActionDenied,
    Credentials,
    Fault,
    Argument,
}

impl Refusal {
    /// From the error code ("Common Errors" of the APIs), or, for a code that is not known, from the HTTP status.
    pub(crate) fn of(code: &str, status: u16) -> Self {
        match code {
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "Throttling"
            | "RequestLimitExceeded"
            | "TooManyRequestsException" => Self::Throttled,
            "AccessDeniedException" | "AccessDenied" | "NotAuthorized" => Self::ActionDenied,
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
            | "UnrecognizedClientException" => Self::Credentials,
            "InternalFailureException"
            | "InternalFailure"
            | "InternalServerError"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => Self::Fault,
            _ if status == 429 => Self::Throttled,
            _ if status >= 500 => Self::Fault,
            _ => Self::Argument,
        }
    }
}

pub(crate) const CREDENTIALS_ADVICE: &str =
    "the service does not accept the credentials; renew them, and check the clock of this machine";
pub(crate) const FAULT_ADVICE: &str = "the service has a fault; try again";
pub(crate) const ARGUMENT_ADVICE: &str = "the service refuses the request";

/// Whether the SDK refused to build or send what it was given: an impossible endpoint, say, or no region.
fn is_misconfigured(error: &(dyn Error + 'static), has_region: bool) -> bool {
    let connector = causes(error).find_map(|cause| cause.downcast_ref::<ConnectorError>());
    connector.is_none_or(|failure| failure.is_user() || (failure.is_other() && !has_region))
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What happened and why, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
