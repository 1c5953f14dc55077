//! What a caller holds of a user record that was put, and what it learns in the end.

use std::collections::VecDeque;
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
///
/// All attempts are counted, and the last 32 kept: a record that may take as long as it takes does not grow meanwhile.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attempts(Option<Arc<History>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct History {
    /// Before the last one, as far as they are kept.
    earlier: VecDeque<Attempt>,
    last: Attempt,
    count: usize,
    may_have_written: bool,
}

/// How many attempts are kept.
const KEPT: usize = 32;

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
    /// One more.
    pub(crate) fn push(&mut self, attempt: Attempt) {
        match &mut self.0 {
            None => self.0 = Some(Arc::new(History::of(attempt))),
            Some(history) => Arc::make_mut(history).push(attempt),
        }
    }

    /// These after others.
    pub(crate) fn after(&self, earlier: &Self) -> Self {
        match (&earlier.0, &self.0) {
            (None, _) => self.clone(),
            (_, None) => earlier.clone(),
            (Some(earlier), Some(ours)) => Self(Some(Arc::new(earlier.followed_by(ours)))),
        }
    }

    /// Whether both are one and the same, and not merely equal.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// The last 32 of them, the first one first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.0.iter().flat_map(|history| history.iter())
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |history| history.count)
    }

    /// Whether a failed attempt may have written the record: then it may be in the stream twice.
    pub fn may_have_written(&self) -> bool {
        self.0.as_ref().is_some_and(|history| history.may_have_written)
    }
}

impl Attempt {
    fn may_have_written(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.kind.may_have_written())
    }
}

impl History {
    fn of(attempt: Attempt) -> Self {
        let may_have_written = attempt.may_have_written();
        Self { earlier: VecDeque::new(), last: attempt, count: 1, may_have_written }
    }

    fn push(&mut self, attempt: Attempt) {
        self.count += 1;
        self.may_have_written |= attempt.may_have_written();
        self.earlier.push_back(std::mem::replace(&mut self.last, attempt));
        while self.earlier.len() >= KEPT {
            self.earlier.pop_front();
        }
    }

    fn followed_by(&self, later: &Self) -> Self {
        let mut all = self.clone();
        later.iter().for_each(|attempt| all.push(attempt.clone()));
        all.count = self.count + later.count;
        all.may_have_written |= later.may_have_written;
        all
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.earlier.iter().chain([&self.last])
    }
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u64, kind: AttemptErrorKind) -> Attempt {
        let error = AttemptError { kind, code: "code".to_owned(), message: String::new() };
        Attempt { waited: Duration::from_secs(number), took: Duration::ZERO, error: Some(error) }
    }

    fn attempts(numbers: std::ops::Range<u64>, kind: AttemptErrorKind) -> Attempts {
        let mut attempts = Attempts::default();
        numbers.for_each(|number| attempts.push(attempt(number, kind)));
        attempts
    }

    #[test]
    fn the_last_ones_are_kept_and_all_are_counted() {
        let first = attempts(0..100, AttemptErrorKind::Unanswered);
        let all = attempts(100..200, AttemptErrorKind::Throttled).after(&first);
        assert_eq!((all.count(), all.iter().count()), (200, KEPT));
        let waited: Vec<u64> = all.iter().map(|attempt| attempt.waited.as_secs()).collect();
        assert_eq!(waited, (200 - KEPT as u64..200).collect::<Vec<_>>());
        assert!(all.may_have_written(), "though none that is kept has");
        assert!(!attempts(0..3, AttemptErrorKind::Throttled).may_have_written());
    }

    #[test]
    fn nothing_before_or_after_changes_nothing() {
        let (none, some) = (Attempts::default(), attempts(0..2, AttemptErrorKind::Internal));
        assert_eq!((some.after(&none), none.after(&some), none.after(&none)), (some.clone(), some, none));
    }
}
