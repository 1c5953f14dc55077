//! What an answer of the service means for a record.

use shardwell_core::{Placed, PutErrorKind, PutResult, StreamError, StreamErrorKind};

use crate::failure::PutFailureKind;
use crate::ticket::{AttemptError, AttemptErrorKind};

/// What is to be done about a record that was sent.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// It is there.
    Landed(Placed),
    /// It is tried again.
    Retry(AttemptError),
    /// It is refused for good; or, if it was not alone in its request, one of those beside it was.
    Refused(PutFailureKind, AttemptError),
}

impl Verdict {
    /// Where the record is, or what went wrong.
    pub(crate) const fn result(&self) -> Result<&Placed, &AttemptError> {
        match self {
            Self::Landed(placed) => Ok(placed),
            Self::Retry(error) | Self::Refused(_, error) => Err(error),
        }
    }
}

/// What the answer to a request means for each of its records.
pub(crate) fn verdicts(records: usize, answer: Result<Vec<PutResult>, StreamError>) -> Vec<Verdict> {
    match answer {
        Ok(results) if results.len() == records => results.into_iter().map(of_result).collect(),
        Ok(results) => {
            let message = format!("the answer is of {} records, and {records} were sent", results.len());
            let error = error(AttemptErrorKind::Unanswered, "RecordCountMismatch", message);
            vec![Verdict::Retry(error); records]
        }
        Err(error) => vec![of_error(&error); records],
    }
}

fn of_result(result: PutResult) -> Verdict {
    match result {
        Ok(placed) => Verdict::Landed(placed),
        Err(refused) => {
            let kind = match refused.kind {
                PutErrorKind::Throttled => AttemptErrorKind::Throttled,
                PutErrorKind::Internal => AttemptErrorKind::Internal,
            };
            Verdict::Retry(error(kind, &refused.code, refused.message))
        }
    }
}

fn of_error(failed: &StreamError) -> Verdict {
    let error = |kind, code| error(kind, code, with_causes(failed));
    match failed.kind() {
        StreamErrorKind::Throttled => Verdict::Retry(error(AttemptErrorKind::Throttled, "Throttled")),
        StreamErrorKind::Timeout => Verdict::Retry(error(AttemptErrorKind::Unanswered, "Timeout")),
        StreamErrorKind::Unavailable => Verdict::Retry(error(AttemptErrorKind::Unanswered, "Unavailable")),
        StreamErrorKind::NotFound => {
            Verdict::Refused(PutFailureKind::NoSuchStream, error(AttemptErrorKind::Refused, "NotFound"))
        }
        StreamErrorKind::Denied => Verdict::Refused(PutFailureKind::Denied, error(AttemptErrorKind::Refused, "Denied")),
        StreamErrorKind::Invalid => {
            Verdict::Refused(PutFailureKind::Invalid, error(AttemptErrorKind::Refused, "Invalid"))
        }
    }
}

fn error(kind: AttemptErrorKind, code: &str, message: String) -> AttemptError {
    AttemptError { kind, code: code.to_owned(), message }
}

/// An error with all that caused it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}
