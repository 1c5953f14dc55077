//! Records by number, and processors that do as they are told.

use std::sync::Arc;

use shardwell_core::delivery::{ErrorClass, Failure, Verdict};
use shardwell_core::{ExtendedSequenceNumber, Timestamp, UserRecord};

/// The sequence number of record 0; neighbours lie apart, as in Kinesis.
const FIRST_NUMBER: u64 = 1000;
const GAP: u64 = 7;

/// Record number `index`, with a payload of one byte.
pub(crate) fn record(index: usize, key: Option<&str>) -> UserRecord {
    UserRecord {
        position: ExtendedSequenceNumber::new((FIRST_NUMBER + GAP * index as u64).into(), 0),
        partition_key: key.map(Into::into),
        explicit_hash_key: None,
        arrival: Timestamp::from_millis(0),
        data: vec![b'x'].into(),
    }
}

/// Which record this is.
pub(crate) fn index_of(record: &UserRecord) -> usize {
    let [_, _, low] = record.position.sequence_number.to_limbs().expect("small numbers");
    usize::try_from((low - FIRST_NUMBER) / GAP).expect("small numbers")
}

/// What happens to a record when it is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    /// Fails always.
    Poison,
    /// Fails so many times.
    Flaky(u32),
    /// Meets an outage so many times.
    Outage(u32),
    /// Fails, and says that it always will.
    Permanent,
}

/// What the processor says of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    Whole,
    Prefix,
    Exact,
}

/// A processor: deterministic, but for what it remembers of each record.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) report: Report,
    seen: Vec<u32>,
}

pub(crate) fn failure(class: ErrorClass) -> Failure {
    Failure { class, error: Arc::from([format!("{class:?}")]) }
}

impl Script {
    pub(crate) fn new(kinds: Vec<Kind>, report: Report) -> Self {
        Self { seen: vec![0; kinds.len()], kinds, report }
    }

    /// A processor that never gets over these records.
    pub(crate) fn poisoned(len: usize, report: Report, is_poison: impl Fn(usize) -> bool) -> Self {
        Self::new((0..len).map(|n| if is_poison(n) { Kind::Poison } else { Kind::Good }).collect(), report)
    }

    fn fails(&mut self, record: usize) -> Option<ErrorClass> {
        let seen = self.seen[record];
        self.seen[record] += 1;
        match self.kinds[record] {
            Kind::Poison => Some(ErrorClass::Retryable),
            Kind::Permanent => Some(ErrorClass::Permanent),
            Kind::Flaky(times) if seen < times => Some(ErrorClass::Retryable),
            Kind::Outage(times) if seen < times => Some(ErrorClass::Transient),
            Kind::Good | Kind::Flaky(_) | Kind::Outage(_) => None,
        }
    }

    /// Goes through a batch: to its first failure, or, reporting exactly, to its end.
    pub(crate) fn process(&mut self, records: &[usize]) -> Verdict {
        let mut failed = Vec::new();
        for (index, record) in records.iter().enumerate() {
            if let Some(class) = self.fails(*record) {
                failed.push((index, failure(class)));
                if self.report != Report::Exact {
                    break;
                }
            }
        }
        match (self.report, failed.first().cloned()) {
            (_, None) => Verdict::Done,
            (Report::Whole, Some((_, failure))) => Verdict::Failed(failure),
            (Report::Prefix, Some((index, failure))) => Verdict::FailedFrom { index, failure },
            (Report::Exact, Some(_)) => Verdict::FailedExactly(failed),
        }
    }
}
