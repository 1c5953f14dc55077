//! What must hold for any input. The property tests and the fuzz targets call the same functions; each panics where
//! something does not hold.

#![allow(unreachable_pub, reason = "public to the fuzz targets")]

pub mod oracle;

use bytes::Bytes;
use shardwell_aggregation::{
    AddError, Aggregate, AggregatedRecord, Aggregator, Classification, Deaggregated, HashKeyRange, KclDeaggregated,
    Malformed, Outer, RangePolicy, Single, UserRecord, deaggregate, deaggregate_batch, deaggregate_like_kcl,
};

use self::oracle::Put;

/// Any bytes at all get a classification, and every way of reading them is consistent with the others.
pub fn survives(data: &Bytes) {
    let outer = Outer { partition_key: Some("outer".into()), explicit_hash_key: Some(7) };
    let deaggregated = deaggregate(data.clone(), outer.clone());
    let classification = deaggregated.classification();
    let like_kcl = deaggregate_like_kcl(data.clone(), outer.clone(), HashKeyRange::FULL);
    match deaggregated {
        Deaggregated::Aggregated(aggregate) => {
            is_consistent(data, &aggregate);
            let KclDeaggregated::UserRecords { records, lost } = like_kcl else { panic!("the KCL reads what is good") };
            assert_eq!(lost, None);
            assert_eq!(all(records), all(aggregate));
        }
        Deaggregated::NotAggregated { record, .. }
        | Deaggregated::Malformed { record, error: Malformed::Unparsable(_) } => {
            assert_eq!((&record.data, &record.outer), (data, &outer));
            assert_eq!(like_kcl, KclDeaggregated::Raw { record, classification });
        }
        Deaggregated::Empty { record } | Deaggregated::Malformed { record, .. } => {
            assert_eq!((&record.data, &record.outer), (data, &outer));
            let KclDeaggregated::UserRecords { records, .. } = like_kcl else { panic!("its body parses") };
            assert_eq!(records.iter().count() as u64, records.len());
        }
        other => panic!("{other:?}"),
    }
}

fn all(aggregate: Aggregate) -> Vec<UserRecord> {
    aggregate.into_iter().collect()
}

/// Both iterators agree, payloads are slices of the input, and every policy of range filtering adds up.
fn is_consistent(data: &Bytes, aggregate: &Aggregate) {
    let owned = all(aggregate.clone());
    assert!(!owned.is_empty());
    assert_eq!(owned.len() as u64, aggregate.len());
    assert_eq!(aggregate.outer_data(), data);
    for (n, (view, record)) in aggregate.iter().zip(&owned).enumerate() {
        assert_eq!(view.sub_sequence_number, n as u64);
        assert_eq!(view.sub_sequence_number, record.sub_sequence_number);
        assert_eq!(view.partition_key, &*record.partition_key);
        assert_eq!(view.explicit_hash_key, record.explicit_hash_key);
        assert_eq!(view.data, record.data);
        assert!(record.data.is_empty() || data.as_ptr_range().contains(&record.data.as_ptr()), "a copy");
    }
    let range = HashKeyRange::even_split(3)[1];
    let inside: Vec<_> = owned.iter().filter(|record| range.contains(record.hash_key())).cloned().collect();
    let none_outside = inside.len() == owned.len();
    for (policy, expected) in [
        (RangePolicy::DeliverAll, owned.clone()),
        (RangePolicy::FilterRecords, inside.clone()),
        (RangePolicy::AllOrNothing, if none_outside { owned.clone() } else { vec![] }),
    ] {
        let (kept, counts) = aggregate.clone().in_range(range, policy);
        assert_eq!(counts.inside, inside.len() as u64, "{policy:?}");
        assert_eq!(counts.inside + counts.outside, aggregate.len(), "{policy:?}");
        assert_eq!(kept.len() + counts.dropped, aggregate.len(), "{policy:?}");
        assert_eq!(kept.len(), expected.len() as u64, "{policy:?}");
        // Filtering twice is filtering once.
        let (again, counts) = kept.clone().in_range(range, policy);
        assert_eq!(counts.dropped, 0, "{policy:?}");
        assert_eq!(all(again), expected, "{policy:?}");
        assert_eq!(all(kept), expected, "{policy:?}");
    }
    let KclDeaggregated::UserRecords { records, lost } = deaggregate_like_kcl(data.clone(), Outer::default(), range)
    else {
        panic!("the KCL reads what is good");
    };
    assert_eq!(lost.map_or(0, |lost| lost.records), if none_outside { 0 } else { owned.len() as u64 });
    assert_eq!(all(records), if none_outside { owned } else { vec![] });
}

/// Records that are read together are read as each is by itself.
pub fn batches_agree(records: &[Bytes]) {
    let outer = |n: usize| Outer { partition_key: None, explicit_hash_key: Some(n as u128) };
    let one_by_one: Vec<_> = records.iter().enumerate().map(|(n, data)| deaggregate(data.clone(), outer(n))).collect();
    let batch = deaggregate_batch(records.iter().enumerate().map(|(n, data)| (data.clone(), outer(n))));
    assert_eq!(batch.len(), records.len());
    let batch: Vec<_> = batch.collect();
    assert_eq!(batch, one_by_one);
    for (one, other) in batch.into_iter().zip(one_by_one) {
        if let (Deaggregated::Aggregated(one), Deaggregated::Aggregated(other)) = (one, other) {
            assert_eq!(all(one), all(other));
        }
    }
}

/// A body with a good digest is read as the oracle reads it.
pub fn agrees_with_the_oracle(body: &[u8]) {
    let data = oracle::seal(body);
    survives(&data);
    if body.is_empty() {
        return;
    }
    let deaggregated = deaggregate(data, Outer::default());
    let classification = deaggregated.classification();
    match (oracle::decode(body), deaggregated) {
        (None, _) => {}
        (Some(Ok(puts)), Deaggregated::Aggregated(aggregate)) => {
            assert_eq!(all(aggregate).iter().map(put).collect::<Vec<_>>(), puts);
        }
        (Some(Ok(_)), _) => panic!("the oracle reads what is {classification} to us"),
        (Some(Err(expected)), _) => {
            // A record that points behind both tables, or in two ways at bad keys, is judged by its first fault.
            assert_eq!(classification, expected);
        }
    }
}

fn put(record: &UserRecord) -> Put {
    Put {
        partition_key: record.partition_key.to_string(),
        explicit_hash_key: record.explicit_hash_key,
        data: record.data.to_vec(),
    }
}

/// What was added comes back, in order, from records that are exactly as large as was computed, within the limits, and
/// byte for byte what the oracle writes.
pub fn round_trips(puts: &[Put], mut aggregator: Aggregator, single: Single) {
    let mut waiting = Vec::new();
    let mut returned = Vec::new();
    for put in puts {
        match add(&mut aggregator, put) {
            Ok(()) => {}
            Err(AddError::NoRoom) => {
                returned.extend(unpack(&mut aggregator, &waiting, single));
                waiting.clear();
                add(&mut aggregator, put).expect("what has no room fits into the next record");
            }
            Err(AddError::TooLarge { bytes, limit }) => {
                assert!(bytes > limit);
                assert_eq!(limit, aggregator.limits().record_bytes());
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        waiting.push(put.clone());
    }
    returned.extend(unpack(&mut aggregator, &waiting, single));
    assert_eq!(aggregator.finish(), None);
    let too_large = |put: &&Put| match single {
        Single::Raw => put.data.len() + put.partition_key.len() <= aggregator.limits().record_bytes(),
        _ => returned.contains(put),
    };
    assert_eq!(returned, puts.iter().filter(too_large).cloned().collect::<Vec<_>>());
}

/// Adds a user record; sizes are what they were said to become, and a refusal changes nothing.
fn add(aggregator: &mut Aggregator, put: &Put) -> Result<(), AddError> {
    let before = (aggregator.count(), aggregator.record_bytes());
    let expected = aggregator.record_bytes_with(&put.partition_key, put.explicit_hash_key, &put.data);
    let added = aggregator.try_add(&put.partition_key, put.explicit_hash_key, &put.data);
    let fits = expected <= aggregator.limits().record_bytes() && before.0 < aggregator.limits().user_records();
    assert_eq!(added.is_ok(), fits);
    let after = (aggregator.count(), aggregator.record_bytes());
    assert_eq!(after, if added.is_ok() { (before.0 + 1, expected) } else { before });
    added
}

/// Finishes a record and takes it apart.
fn unpack(aggregator: &mut Aggregator, puts: &[Put], single: Single) -> Vec<Put> {
    let bytes = aggregator.record_bytes();
    let Some(record) = aggregator.finish() else {
        assert!(puts.is_empty());
        return Vec::new();
    };
    assert_eq!(record.data.len() + record.partition_key.len(), bytes);
    assert!(bytes <= aggregator.limits().record_bytes());
    assert_eq!(record.count, puts.len() as u64);
    let first = &puts[0];
    let hash_key = shardwell_aggregation::effective_hash_key(&first.partition_key, first.explicit_hash_key);
    assert_eq!(record.explicit_hash_key, hash_key);
    match (puts, single) {
        ([put], Single::Raw) => unpack_single(&record, put),
        ([put], _) => assert_eq!(record.partition_key, put.partition_key),
        _ => assert_eq!(record.partition_key, "a"),
    }
    if puts.len() == 1 && single == Single::Raw {
        return puts.to_vec();
    }
    assert_eq!(record.data, oracle::seal(&oracle::encode(puts)));
    survives(&record.data);
    match deaggregate(record.data, Outer::default()) {
        Deaggregated::Aggregated(aggregate) => all(aggregate).iter().map(put).collect(),
        other => panic!("{}", other.classification()),
    }
}

fn unpack_single(record: &AggregatedRecord, put: &Put) {
    assert_eq!(record.data, put.data);
    assert_eq!(record.partition_key, put.partition_key);
}

/// A good record that was damaged on its way is never read as aggregated, but for a digest that collides.
pub fn damage_is_noticed(sealed: &Bytes, at: usize, flip: u8, cut: usize) {
    let mut damaged = sealed.to_vec();
    let at = at % damaged.len();
    damaged[at] ^= flip;
    damaged.truncate(damaged.len() - cut % damaged.len());
    let damaged = Bytes::from(damaged);
    survives(&damaged);
    let classification = deaggregate(damaged.clone(), Outer::default()).classification();
    let plain = [Classification::TooShort, Classification::OtherMagic, Classification::DigestMismatch];
    assert_eq!(plain.contains(&classification), damaged != *sealed, "{classification}");
}
