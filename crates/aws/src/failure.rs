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
    /// No answer in time.
    NoAnswer,
    /// The answer is not one, for this reason.
    Garbled(String),
    /// It was not sent, for this reason.
    NotSent(Obstacle, String),
}

/// What keeps a call from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    CredentialsLate,
    CredentialsFault,
    CredentialsMisconfigured,
    NoCredentials,
    Misconfigured,
    Unreachable,
}

impl Obstacle {
    /// What it is and what to do, before the reason.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Self::CredentialsLate => "credentials did not load in time",
            Self::CredentialsFault => "the provider of credentials has a fault",
            Self::CredentialsMisconfigured => "mend the configuration of the credentials",
            Self::NoCredentials => "there are no credentials; give the client some",
            Self::Misconfigured => "mend the client's configuration",
            Self::Unreachable => "the endpoint cannot be reached",
        }
    }
}

impl<'e, E: Error + Send + Sync + 'static> Failure<'e, E> {
    /// `has_region` is whether the client knows its region.
    pub(crate) fn of(error: &'e SdkError<E, HttpResponse>, has_region: bool) -> Self {
        match error {
            SdkError::ServiceError(answer) => Self::Refused(answer.err(), answer.raw().status().as_u16()),
            SdkError::TimeoutError(_) => Self::NoAnswer,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => Self::NoAnswer,
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
                Self::NotSent(obstacle(error, has_region), chain(error))
            }
            // The SDK may add kinds of failure; whether the request was sent is not known then.
            _ => Self::Garbled(chain(error)),
        }
    }
}

fn obstacle(error: &(dyn Error + 'static), has_region: bool) -> Obstacle {
    match causes(error).find_map(|cause| cause.downcast_ref()) {
        Some(CredentialsError::ProviderTimedOut(_)) => Obstacle::CredentialsLate,
        Some(CredentialsError::ProviderError(_)) => Obstacle::CredentialsFault,
        Some(CredentialsError::InvalidConfiguration(_)) => Obstacle::CredentialsMisconfigured,
        Some(_) => Obstacle::NoCredentials,
        None if is_misconfigured(error, has_region) => Obstacle::Misconfigured,
        None => Obstacle::Unreachable,
    }
}

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
