//! The second stage: from records to user records, without those that are done already.

use shardwell_core::{Checkpoint, Record, UserRecord};

/// Turns records into user records and leaves out what `done` covers.
///
/// A shard is opened *at* the record of its checkpoint, since part of an aggregated one may be left in there; so the
/// first record of a restart is usually one that is done.
pub(super) fn user_records(records: Vec<Record>, done: Checkpoint) -> Vec<UserRecord> {
    records
        .into_iter()
        .map(UserRecord::from)
        .filter(|record| done.position().is_none_or(|done| record.position > done))
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shardwell_core::{ExtendedSequenceNumber, Timestamp};

    use super::*;

    #[test]
    fn what_is_done_is_left_out() {
        let record = |number: u64| Record {
            sequence_number: number.into(),
            partition_key: None,
            arrival: Timestamp::default(),
            data: Bytes::new(),
        };
        let numbers = |done: Checkpoint| -> Vec<ExtendedSequenceNumber> {
            user_records(vec![record(5), record(6), record(9)], done).iter().map(|record| record.position).collect()
        };
        assert_eq!(numbers(Checkpoint::TrimHorizon).len(), 3);
        let done = Checkpoint::At(ExtendedSequenceNumber::new(6.into(), 0));
        assert_eq!(numbers(done), [ExtendedSequenceNumber::new(9.into(), 0)]);
    }
}
