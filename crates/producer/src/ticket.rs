//! What a caller holds of a user record that was put, and what it learns in the end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use shardwell_core::{ExtendedSequenceNumber, ShardId};
use tokio::sync::oneshot;

use crate::failure::PutFailure;

/// What becomes of a user record. Awaiting it tells; dropping it changes nothing for the record.
///
/// Every ticket is resolved: when the record is in the stream, when it cannot get there any more, or when its time is over.
///
/// # Cancel safety
/// May be awaited in parts, by reference.
#[derive(Debug)]
#[must_use = "a ticket tells what became of the record; to ignore it, drop it"]
pub struct Ticket(oneshot::Receiver<Result<Landed, PutFailure>>);

impl Ticket {
    pub(crate) fn new() -> (oneshot::Sender<Result<Landed, PutFailure>>, Self) {
        let (answer, ticket) = oneshot::channel();
        (answer, Self(ticket))
    }
}

impl Future for Ticket {
    type Output = Result<Landed, PutFailure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or_else(|_| Err(PutFailure::abandoned())))
    }
}

/// Where a user record is.
#[derive(Clone, PartialEq, Eq)]
pub struct Landed {
    /// The shard.
    pub shard: ShardId,
    /// The position: the sequence number of the record, and the user record's place in it. The place is 0 where the record is not
    /// aggregated.
    pub position: ExtendedSequenceNumber,
    /// Whether it is one of several in an aggregated record.
    pub is_aggregated: bool,
    /// What was tried, the last one with success.
    pub attempts: Attempts,
}

impl fmt::Debug for Landed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Landed");
        debug.field("shard", &self.shard).field("position", &self.position);
        debug.field("is_aggregated", &self.is_aggregated).field("attempts", &self.attempts).finish()
    }
}

/// What was tried with a user record, in order. Cheap to clone: the members of an aggregated record share it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attempts(Option<Arc<History>>);

/// The attempts with one aggregated record, and with those that its members were in before.
#[derive(Debug, PartialEq, Eq)]
struct History {
    earlier: Attempts,
    attempts: Vec<Attempt>,
}

/// A request that the record was in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How long it waited before: since it was put, or since the attempt before.
    pub waited: Duration,
    /// How long the request took.
    pub took: Duration,
    /// What went wrong.
    pub error: Option<AttemptError>,
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct AttemptError {
    /// What it means.
    pub kind: AttemptErrorKind,
    /// The service's error code where it gave one, or the kind of failure.
    pub code: String,
    /// What was said of it.
    pub message: String,
}

/// What a failed attempt means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptErrorKind {
    /// The shard, or the account, was over its limit. Not written.
    Throttled,
    /// A fault inside the service. Not written, as far as it says.
    Internal,
    /// No answer, or none that can be understood. It may have been written.
    Unanswered,
    /// It was written to a shard that does not own all of its hash keys, after a split: a consumer like the KCL drops such a record
    /// whole, and others deliver it. So it is written again, to the shards that do.
    WrongShard,
    /// It is refused, and would be again. Not written.
    Refused,
}

impl AttemptErrorKind {
    /// Whether the record may be in the stream after it.
    pub const fn may_have_written(self) -> bool {
        match self {
            Self::Unanswered | Self::WrongShard => true,
            Self::Throttled | Self::Internal | Self::Refused => false,
        }
    }
}

impl Attempts {
    pub(crate) fn after(earlier: Self, attempts: Vec<Attempt>) -> Self {
        if attempts.is_empty() { earlier } else { Self(Some(Arc::new(History { earlier, attempts }))) }
    }

    /// Whether both are one and the same, and not merely equal.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// All of them, the first one first.
    pub fn iter(&self) -> impl Iterator<Item = &Attempt> {
        let mut histories = Vec::new();
        let mut next = self.0.as_deref();
        while let Some(history) = next {
            histories.push(history);
            next = history.earlier.0.as_deref();
        }
        histories.into_iter().rev().flat_map(|history| &history.attempts)
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.iter().count()
    }

    /// Whether a failed attempt may have written the record: then it may be in the stream twice.
    pub fn may_have_written(&self) -> bool {
        self.iter().any(|attempt| attempt.error.as_ref().is_some_and(|error| error.kind.may_have_written()))
    }
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
