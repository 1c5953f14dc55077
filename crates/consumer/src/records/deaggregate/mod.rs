//! The second stage: from records to user records, without those that are done already.

use std::fmt;
use std::sync::Arc;

use shardwell_core::aggregation::{
    Aggregate, Classification, Deaggregated, Malformed, Outer, RangeCounts, RangePolicy, deaggregate_batch,
};
use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{Doom, Intake, OnUndecodable};
use shardwell_core::{Checkpoint, ExtendedSequenceNumber, HashKeyRange, Record, SequenceNumber, UserRecord};

/// Which user records are delivered at all.
#[derive(Clone)]
pub(crate) struct Filter(pub(crate) Arc<dyn Fn(&UserRecord) -> bool + Send + Sync>);

/// How records are turned into user records.
#[derive(Clone, Debug)]
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
    pub(super) filter: Option<Filter>,
}

/// The user records of one read, and what was seen on the way.
#[derive(Debug, Default)]
pub(super) struct UserRecords {
    /// All of them, in order: those that are not delivered have their place too.
    pub(super) records: Vec<Intake>,
    /// How many the filter left out.
    pub(super) filtered: u64,
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
        // Their keys say nothing about what is inside. All at once, since digests are verified side by side.
        let batch = deaggregate_batch(records.iter().map(|record| (record.data.clone(), Outer::default())));
        for (record, deaggregated) in records.into_iter().zip(batch) {
            out.count(deaggregated.classification());
            match deaggregated {
                Deaggregated::Aggregated(aggregate) => self.aggregated(&record, aggregate, &mut out),
                Deaggregated::Malformed { error, .. } => self.malformed(record, error, &mut out)?,
                // It carries nothing, but it is a step forward.
                Deaggregated::Empty { .. } => self.pass(record.sequence_number.into(), &mut out),
                // Not aggregated, and whatever a later version of the codec tells apart.
                _ => self.take(record.into(), &mut out),
            }
        }
        Ok(out)
    }

    fn aggregated(&self, record: &Record, aggregate: Aggregate, out: &mut UserRecords) {
        let count = aggregate.len();
        let (kept, counts) = aggregate.in_range(self.range.unwrap_or(HashKeyRange::FULL), self.range_policy);
        out.ranges.outside += counts.outside;
        out.ranges.dropped += counts.dropped;
        let position = |sub: u64| ExtendedSequenceNumber::from((record.sequence_number, sub));
        let mut next = 0;
        for inner in kept {
            (next..inner.sub_sequence_number).for_each(|dropped| self.pass(position(dropped), out));
            next = inner.sub_sequence_number + 1;
            let user_record = UserRecord {
                position: position(inner.sub_sequence_number),
                partition_key: Some(inner.partition_key.into()),
                explicit_hash_key: inner.explicit_hash_key,
                arrival: record.arrival,
                data: inner.data,
            };
            self.take(user_record, out);
        }
        (next..count).for_each(|dropped| self.pass(position(dropped), out));
    }

    fn malformed(&self, record: Record, error: Malformed, out: &mut UserRecords) -> Result<(), Undecodable> {
        let sequence_number = record.sequence_number;
        match self.on_undecodable {
            OnUndecodable::Fail => return Err(Undecodable { sequence_number, error }),
            OnUndecodable::DeliverRaw => self.take(record.into(), out),
            OnUndecodable::DeadLetter if self.is_new(sequence_number.into()) => {
                let doom = Doom { reason: DeadReason::Undecodable, error: Arc::from([error.to_string()]) };
                out.records.push(Intake::Doomed(record.into(), doom));
            }
            OnUndecodable::DeadLetter => {}
        }
        out.malformed.get_or_insert((sequence_number, error));
        Ok(())
    }

    /// A user record that may be delivered.
    fn take(&self, record: UserRecord, out: &mut UserRecords) {
        if !self.is_new(record.position) {
            return;
        }
        let wanted = self.filter.as_ref().is_none_or(|Filter(wanted)| wanted(&record));
        out.records.push(if wanted {
            Intake::Record(record)
        } else {
            out.filtered += 1;
            Intake::Passed(record.position)
        });
    }

    /// A user record that is not delivered.
    fn pass(&self, position: ExtendedSequenceNumber, out: &mut UserRecords) {
        if self.is_new(position) {
            out.records.push(Intake::Passed(position));
        }
    }

    fn is_new(&self, position: ExtendedSequenceNumber) -> bool {
        self.done.position().is_none_or(|done| position > done)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

impl UserRecords {
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
            filter: None,
        }
    }

    fn delivered(out: &UserRecords) -> Vec<&UserRecord> {
        fn record(intake: &Intake) -> Option<&UserRecord> {
            if let Intake::Record(record) = intake { Some(record) } else { None }
        }
        out.records.iter().filter_map(record).collect()
    }

    fn positions<'a>(records: impl IntoIterator<Item = &'a UserRecord>) -> Vec<(u64, u64)> {
        let low = |position: ExtendedSequenceNumber| position.sequence_number.to_limbs().expect("small")[2];
        let position = |record: &UserRecord| (low(record.position), record.position.sub_sequence_number);
        records.into_iter().map(position).collect()
    }

    #[test]
    fn what_is_done_is_left_out_also_inside_an_aggregated_record() {
        let records =
            || vec![record(5, Bytes::from_static(b"plain")), record(6, aggregate(&[1, 2, 3])), record(9, Bytes::new())];
        let all = deaggregation(Checkpoint::TrimHorizon).user_records(records()).expect("decodable");
        assert_eq!(positions(delivered(&all)), [(5, 0), (6, 0), (6, 1), (6, 2), (9, 0)]);
        let done = Checkpoint::At(ExtendedSequenceNumber::new(6.into(), 1));
        let rest = deaggregation(done).user_records(records()).expect("decodable");
        assert_eq!(positions(delivered(&rest)), [(6, 2), (9, 0)]);
        assert_eq!(delivered(&rest)[0].explicit_hash_key, Some(3));
        assert_eq!(delivered(&rest)[0].partition_key.as_ref().map(shardwell_core::PartitionKey::as_str), Some("key"));
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
            let counts = (delivered(&out).len(), out.ranges.outside, out.ranges.dropped);
            assert_eq!(counts, (kept, 1, dropped), "{policy:?}");
            assert_eq!(out.records.len(), 3, "what is dropped keeps its place");
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
        assert_eq!(delivered(&out)[2].data, broken);
        assert!(out.malformed.is_some());
        how.on_undecodable = OnUndecodable::DeadLetter;
        let out = how.user_records(records()).expect("given up");
        assert!(matches!(&out.records[2], Intake::Doomed(record, doom)
            if record.data == broken && doom.reason == DeadReason::Undecodable));
        how.on_undecodable = OnUndecodable::Fail;
        assert_eq!(how.user_records(records()).expect_err("refused").sequence_number, 2.into());
    }

    #[test]
    fn what_is_filtered_keeps_its_place() {
        let mut how = deaggregation(Checkpoint::TrimHorizon);
        how.filter = Some(Filter(Arc::new(|record| record.explicit_hash_key != Some(2))));
        let out = how.user_records(vec![record(1, aggregate(&[1, 2, 3]))]).expect("decodable");
        assert_eq!(positions(delivered(&out)), [(1, 0), (1, 2)]);
        assert_eq!((out.filtered, out.records.len()), (1, 3));
    }
}
