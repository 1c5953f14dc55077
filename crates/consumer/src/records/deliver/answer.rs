//! What a processor said, as the delivery understands it.

use std::sync::Arc;

use shardwell_core::UserRecord;
use shardwell_core::delivery::{ErrorClass, Failure, Verdict};

use crate::causes::causes;
use crate::processor::{Outcome, ProcessError};

/// The verdict on a batch.
pub(super) fn verdict(records: &[UserRecord], answer: Result<Outcome, ProcessError>) -> Verdict {
    let place = |position| records.binary_search_by_key(&position, |record| record.position).ok();
    match answer {
        Ok(Outcome::Done) => Verdict::Done,
        Ok(Outcome::Failed(failed)) => {
            let places = failed.into_iter().map(|record| Some((place(record.position)?, failure(&record.error))));
            match places.collect::<Option<Vec<_>>>() {
                Some(mut failed) => {
                    failed.sort_by_key(|(index, _)| *index);
                    failed.dedup_by_key(|(index, _)| *index);
                    Verdict::FailedExactly(failed)
                }
                None => stranger("the processor named a failed record that is not in the batch".to_owned()),
            }
        }
        Err(error) => match error.record().map(place) {
            None => Verdict::Failed(failure(&error)),
            Some(Some(index)) => Verdict::FailedFrom { index, failure: failure(&error) },
            Some(None) => stranger(format!("{error} (at a record that is not in the batch)")),
        },
    }
}

/// The processor does not know its batch, so nothing that it says of it counts.
fn stranger(error: String) -> Verdict {
    Verdict::Failed(broken(error))
}

/// The failure of a call that gave no answer.
pub(super) fn broken(error: String) -> Failure {
    Failure { class: ErrorClass::Retryable, error: Arc::from([error]) }
}

fn failure(error: &ProcessError) -> Failure {
    Failure { class: error.class(), error: causes(error.cause()).into() }
}

/// The first error in a verdict, in one line.
pub(super) fn error_line(verdict: &Verdict) -> Option<String> {
    let failure = match verdict {
        Verdict::Done | Verdict::NotInvoked => return None,
        Verdict::Failed(failure) | Verdict::FailedFrom { failure, .. } => failure,
        Verdict::FailedExactly(failed) => &failed.first()?.1,
    };
    Some(failure.error.join(": "))
}

#[cfg(test)]
mod tests {
    use shardwell_core::{Bytes, ExtendedSequenceNumber, Timestamp};

    use super::*;
    use crate::processor::{ProcessResultExt, RecordFailure};

    fn record(number: u64) -> UserRecord {
        UserRecord {
            position: ExtendedSequenceNumber::new(number.into(), 0),
            partition_key: None,
            explicit_hash_key: None,
            arrival: Timestamp::default(),
            data: Bytes::new(),
        }
    }

    fn error(text: &str) -> Result<Outcome, ProcessError> {
        Err(text.into())
    }

    #[test]
    fn a_record_that_is_named_is_found() {
        let records = [record(3), record(5), record(9)];
        let verdict = verdict(&records, error("no").permanent().at(&record(5)));
        let Verdict::FailedFrom { index: 1, failure } = verdict else { panic!("{verdict:?}") };
        assert_eq!((failure.class, &*failure.error), (ErrorClass::Permanent, &["no".to_owned()][..]));
    }

    #[test]
    fn failures_are_put_in_order_and_counted_once() {
        let records = [record(3), record(5), record(9)];
        let failed = [9, 3, 9].map(|n| RecordFailure::new(&record(n), "no"));
        let verdict = verdict(&records, Ok(Outcome::Failed(failed.into())));
        let Verdict::FailedExactly(failed) = verdict else { panic!("{verdict:?}") };
        assert_eq!(failed.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn a_record_that_is_not_there_makes_the_whole_batch_fail() {
        let records = [record(3), record(5)];
        let named = verdict(&records, error("no").at(&record(4)));
        assert!(matches!(named, Verdict::Failed(_)), "{named:?}");
        let failed = vec![RecordFailure::new(&record(3), "no"), RecordFailure::new(&record(4), "no")];
        assert!(matches!(verdict(&records, Ok(Outcome::Failed(failed))), Verdict::Failed(_)));
    }
}
