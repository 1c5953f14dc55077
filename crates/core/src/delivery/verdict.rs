//! How an invocation ended, and what follows for its records: T3 to T8 of the delivery as one pure function.

use std::ops::Range;
use std::sync::Arc;

use super::DeliveryPolicy;
use crate::dead_letter::DeadReason;

/// What kind of error a processor had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may pass, or lie in one of the records: the batch is split and tried again, which costs retries.
    #[default]
    Retryable,
    /// Something that the processor needs is out of order, and the records have nothing to do with it: the batch is tried
    /// again later, as it is, and no retry is spent.
    Transient,
    /// Trying again is useless: the record is dead at once.
    Permanent,
}

/// Why an invocation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of error it was.
    pub class: ErrorClass,
    /// The error and its causes, outermost first.
    pub error: Arc<[String]>,
}

/// How an invocation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All records of the batch are done.
    Done,
    /// The batch failed as a whole.
    Failed(Failure),
    /// The records before the one with this index are done, that one failed, nothing is known of those behind it.
    FailedFrom {
        /// Its place in the batch, from 0.
        index: usize,
        /// Why.
        failure: Failure,
    },
    /// Exactly these failed, by their places in the batch, in any order; the others are done. A place that is not in the
    /// batch makes it a failure of the whole.
    FailedExactly(Vec<(usize, Failure)>),
    /// The processor was not called; nothing is counted.
    NotInvoked,
}

/// What follows for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It stays as it is, and is tried again.
    Keep(Wait),
    /// It falls into pieces, in order and without gaps.
    Pieces(Vec<Piece>),
}

/// How long to wait before the same batch is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Not at all: it was not tried.
    None,
    /// As after a failure; a retry is spent.
    Backoff,
    /// As in an outage; no retry is spent.
    Outage,
}

/// A part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range<usize>,
    pub(super) then: Then,
}

/// What follows for a part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Done,
    /// A batch of its own, with all of its retries.
    Deliver(Wait),
    Bury(DeadReason, Failure),
}

/// What follows for a batch of `len` records that has failed `failures` times before.
pub(super) fn decide(policy: &DeliveryPolicy, len: usize, failures: u32, verdict: Verdict) -> Decision {
    match verdict {
        Verdict::NotInvoked => Decision::Keep(Wait::None),
        Verdict::Done => Decision::Pieces(vec![piece(0..len, Then::Done)]),
        Verdict::Failed(failure) => whole(policy, len, failures, failure),
        Verdict::FailedFrom { index, failure } => from(policy, len, failures, index, failure),
        Verdict::FailedExactly(failed) => named(policy, len, failures, failed),
    }
}

/// The processor named records, in any order. A name that is not in the batch says that the report is about something
/// else: nothing of it is believed, since that could pass records over.
fn named(policy: &DeliveryPolicy, len: usize, failures: u32, mut failed: Vec<(usize, Failure)>) -> Decision {
    failed.sort_by_key(|(index, _)| *index);
    failed.dedup_by_key(|(index, _)| *index);
    let is_foreign = failed.last().is_some_and(|(index, _)| *index >= len);
    match failed.first().cloned() {
        None => Decision::Pieces(vec![piece(0..len, Then::Done)]),
        Some((_, failure)) if is_foreign => whole(policy, len, failures, failure),
        Some((index, failure)) if len == 1 || !policy.exact_reports => from(policy, len, failures, index, failure),
        Some(_) => exactly(policy, failed, len),
    }
}

const fn piece(range: Range<usize>, then: Then) -> Piece {
    Piece { range, then }
}

/// The class as far as the policy lets it count.
const fn class(policy: &DeliveryPolicy, failure: &Failure) -> ErrorClass {
    match failure.class {
        ErrorClass::Transient if policy.transient_errors => ErrorClass::Transient,
        ErrorClass::Permanent if policy.can_bury => ErrorClass::Permanent,
        ErrorClass::Retryable | ErrorClass::Transient | ErrorClass::Permanent => ErrorClass::Retryable,
    }
}

/// The batch failed, and nobody knows where: split it (T5), or try it again (T6, T8), or give it up (T6, T7).
fn whole(policy: &DeliveryPolicy, len: usize, failures: u32, failure: Failure) -> Decision {
    let class = class(policy, &failure);
    if class == ErrorClass::Transient {
        return Decision::Keep(Wait::Outage);
    }
    if len > 1 && policy.bisect {
        let half = len / 2;
        let deliver = |range| piece(range, Then::Deliver(Wait::None));
        return Decision::Pieces(vec![deliver(0..half), deliver(half..len)]);
    }
    let exhausted = policy.can_bury && policy.max_retries().is_some_and(|retries| failures >= retries);
    let bury = |reason, failure| Decision::Pieces(vec![piece(0..len, Then::Bury(reason, failure))]);
    match class {
        ErrorClass::Permanent => bury(DeadReason::Permanent, failure),
        ErrorClass::Retryable | ErrorClass::Transient if exhausted => bury(DeadReason::RetryAttemptsExhausted, failure),
        ErrorClass::Retryable | ErrorClass::Transient => Decision::Keep(Wait::Backoff),
    }
}

/// The batch failed at a record: those before it are done (T4), it is delivered by itself (T4') or dead (T7).
fn from(policy: &DeliveryPolicy, len: usize, failures: u32, index: usize, failure: Failure) -> Decision {
    if index >= len || (index == 0 && len == 1) {
        return whole(policy, len, failures, failure);
    }
    let mut pieces = Vec::with_capacity(3);
    if index > 0 {
        pieces.push(piece(0..index, Then::Done));
    }
    let (culprit, behind) = (index..index + 1, index + 1..len);
    let deliver = |range| piece(range, Then::Deliver(Wait::None));
    match class(policy, &failure) {
        ErrorClass::Transient if index == 0 => return Decision::Keep(Wait::Outage),
        ErrorClass::Transient => pieces.push(piece(index..len, Then::Deliver(Wait::Outage))),
        ErrorClass::Permanent => {
            pieces.push(piece(culprit, Then::Bury(DeadReason::Permanent, failure)));
            pieces.push(deliver(behind));
        }
        ErrorClass::Retryable if policy.isolate && !behind.is_empty() => {
            pieces.push(deliver(culprit));
            pieces.push(deliver(behind));
        }
        ErrorClass::Retryable if index == 0 => return whole(policy, len, failures, failure),
        ErrorClass::Retryable => pieces.push(deliver(index..len)),
    }
    pieces.retain(|piece| !piece.range.is_empty());
    Decision::Pieces(pieces)
}

/// Exactly these failed, in ascending order: each is delivered by itself (T4''), the others are done.
fn exactly(policy: &DeliveryPolicy, failed: Vec<(usize, Failure)>, len: usize) -> Decision {
    let mut pieces = Vec::with_capacity(2 * failed.len() + 1);
    let mut next = 0;
    for (index, failure) in failed {
        pieces.push(piece(next..index, Then::Done));
        let then = match class(policy, &failure) {
            ErrorClass::Retryable => Then::Deliver(Wait::Backoff),
            ErrorClass::Transient => Then::Deliver(Wait::Outage),
            ErrorClass::Permanent => Then::Bury(DeadReason::Permanent, failure),
        };
        pieces.push(piece(index..index + 1, then));
        next = index + 1;
    }
    pieces.push(piece(next..len, Then::Done));
    pieces.retain(|piece| !piece.range.is_empty());
    Decision::Pieces(pieces)
}
