//! The second stage: from records to user records, without those that are done already.

use shardwell_core::aggregation::{
    Classification, Deaggregated, Malformed, Outer, RangeCounts, RangePolicy, deaggregate,
};
use shardwell_core::{Checkpoint, HashKeyRange, Record, SequenceNumber, UserRecord};

/// What to do with a record that claims to be aggregated, by magic and digest, and cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUndecodable {
    /// Deliver it as it is, as one user record. Its user records are in there, for who can read them.
    #[default]
    DeliverRaw,
    /// Stop the worker with [`WorkerError::Undecodable`](crate::WorkerError::Undecodable), with nothing checkpointed beyond
    /// the record.
    Fail,
}

/// How records are turned into user records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deaggregation {
    /// Everything up to here is done, and left out.
    ///
    /// A shard is opened *at* the record of its checkpoint, since part of an aggregated one may be left in there; so the
    /// first record of a restart is usually one that is done, or done in part.
    pub(super) done: Checkpoint,
    /// The hash keys of the shard; `None` where they are not known or say nothing.
    pub(super) range: Option<HashKeyRange>,
    pub(super) range_policy: RangePolicy,
    pub(super) on_undecodable: OnUndecodable,
}

/// The user records of one read, and what was seen on the way.
#[derive(Debug, Default)]
pub(super) struct UserRecords {
    pub(super) records: Vec<UserRecord>,
    /// How many records there were of each kind.
    pub(super) kinds: Vec<(Classification, u64)>,
    /// The first record that cannot be read.
    pub(super) malformed: Option<(SequenceNumber, Malformed)>,
    pub(super) ranges: RangeCounts,
}

/// A record that cannot be read, where that is not to be passed over.
#[derive(Debug)]
pub(super) struct Undecodable {
    pub(super) sequence_number: SequenceNumber,
    pub(super) error: Malformed,
}

impl Deaggregation {
    /// Turns records into user records.
    pub(super) fn user_records(&self, records: Vec<Record>) -> Result<UserRecords, Undecodable> {
        let mut out = UserRecords { records: Vec::with_capacity(records.len()), ..UserRecords::default() };
        for record in records {
            // The record keeps its keys; they say nothing about what is inside.
            let deaggregated = deaggregate(record.data.clone(), Outer::default());
            out.count(deaggregated.classification());
            match deaggregated {
                Deaggregated::Aggregated(aggregate) => {
                    let (kept, counts) =
                        aggregate.in_range(self.range.unwrap_or(HashKeyRange::FULL), self.range_policy);
                    out.ranges.outside += counts.outside;
                    out.ranges.dropped += counts.dropped;
                    let inner = kept.into_iter().map(|inner| UserRecord {
                        position: (record.sequence_number, inner.sub_sequence_number).into(),
                        partition_key: Some(inner.partition_key.into()),
                        explicit_hash_key: inner.explicit_hash_key,
                        arrival: record.arrival,
                        data: inner.data,
                    });
                    out.records.extend(inner.filter(|inner| self.is_new(inner)));
                }
                Deaggregated::Malformed { error, .. } if self.on_undecodable == OnUndecodable::Fail => {
                    return Err(Undecodable { sequence_number: record.sequence_number, error });
                }
                Deaggregated::Malformed { error, .. } => {
                    out.malformed.get_or_insert((record.sequence_number, error));
                    out.raw(record, self);
                }
                // It carries nothing; what comes after it takes the watermark past it.
                Deaggregated::Empty { .. } => {}
                // Not aggregated, and whatever a later version of the codec tells apart.
                _ => out.raw(record, self),
            }
        }
        Ok(out)
    }

    fn is_new(&self, record: &UserRecord) -> bool {
        self.done.position().is_none_or(|done| record.position > done)
    }
}

impl UserRecords {
    fn raw(&mut self, record: Record, how: &Deaggregation) {
        self.records.extend(Some(UserRecord::from(record)).filter(|record| how.is_new(record)));
    }

    fn count(&mut self, kind: Classification) {
        match self.kinds.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => self.kinds.push((kind, 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shardwell_core::aggregation::{Aggregator, Limits};
    use shardwell_core::{ExtendedSequenceNumber, Timestamp};

    use super::*;

    fn record(number: u64, data: Bytes) -> Record {
        Record {
            sequence_number: number.into(),
            partition_key: Some("outer".into()),
            arrival: Timestamp::default(),
            data,
        }
    }

    /// An aggregated record of user records with these explicit hash keys.
    fn aggregate(hash_keys: &[u128]) -> Bytes {
        let mut aggregator = Aggregator::new(Limits::default());
        for hash_key in hash_keys {
            aggregator.try_add("key", Some(*hash_key), b"payload").expect("it fits");
        }
        aggregator.finish().expect("not empty").data
    }

    fn deaggregation(done: Checkpoint) -> Deaggregation {
        Deaggregation {
            done,
            range: None,
            range_policy: RangePolicy::DeliverAll,
            on_undecodable: OnUndecodable::DeliverRaw,
        }
    }

    fn positions(out: &UserRecords) -> Vec<(u64, u64)> {
        let low = |position: ExtendedSequenceNumber| position.sequence_number.to_limbs().expect("small")[2];
        out.records.iter().map(|record| (low(record.position), record.position.sub_sequence_number)).collect()
    }

    #[test]
    fn what_is_done_is_left_out_also_inside_an_aggregated_record() {
        let records =
            || vec![record(5, Bytes::from_static(b"plain")), record(6, aggregate(&[1, 2, 3])), record(9, Bytes::new())];
        let all = deaggregation(Checkpoint::TrimHorizon).user_records(records()).expect("decodable");
        assert_eq!(positions(&all), [(5, 0), (6, 0), (6, 1), (6, 2), (9, 0)]);
        let done = Checkpoint::At(ExtendedSequenceNumber::new(6.into(), 1));
        let rest = deaggregation(done).user_records(records()).expect("decodable");
        assert_eq!(positions(&rest), [(6, 2), (9, 0)]);
        assert_eq!(rest.records[0].explicit_hash_key, Some(3));
        assert_eq!(rest.records[0].partition_key.as_ref().map(shardwell_core::PartitionKey::as_str), Some("key"));
    }

    #[test]
    fn what_is_outside_of_the_shard_is_counted_and_delivered_unless_told_otherwise() {
        let mut how = deaggregation(Checkpoint::TrimHorizon);
        how.range = HashKeyRange::new(0, 9).ok();
        let read = || vec![record(1, aggregate(&[1, 50, 2]))];
        for (policy, kept, dropped) in
            [(RangePolicy::DeliverAll, 3, 0), (RangePolicy::FilterRecords, 2, 1), (RangePolicy::AllOrNothing, 0, 3)]
        {
            how.range_policy = policy;
            let out = how.user_records(read()).expect("decodable");
            assert_eq!((out.records.len(), out.ranges.outside, out.ranges.dropped), (kept, 1, dropped), "{policy:?}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_delivered_as_it_is_or_fails() {
        // Magic, a body that is no message, and its right digest.
        let broken = Bytes::from_static(
            b"\xf3\x89\x9a\xc2\xff\x00\xe0\xe8\xbf\xaf\xbb\x06\x89\x56\x3b\x2f\xba\x78\x9c\x97\xb3\xcc",
        );
        let records = || vec![record(1, aggregate(&[1, 2])), record(2, broken.clone())];
        let mut how = deaggregation(Checkpoint::TrimHorizon);
        let out = how.user_records(records()).expect("passed over");
        let kinds: Vec<_> = out.kinds.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
        assert_eq!(kinds, [("aggregated", 1), ("unparsable", 1)]);
        assert_eq!(out.records[2].data, broken);
        assert!(out.malformed.is_some());
        how.on_undecodable = OnUndecodable::Fail;
        assert_eq!(how.user_records(records()).expect_err("refused").sequence_number, 2.into());
    }
}
