//! Refusals leave no trace.

use super::*;

fn aggregator(record_bytes: usize) -> Aggregator {
    Aggregator::new(Limits::new(record_bytes).expect("a limit of a stream"))
}

#[test]
fn a_record_fills_to_the_last_byte_and_not_beyond() {
    let (first, second) = ([1; 100], [2; 100]);
    let mut roomy = aggregator(1024);
    roomy.try_add("key", Some(5), &first).expect("it fits");
    let exact = roomy.record_bytes_with("other", None, &second);
    for (limit, expected) in [(exact, Ok(())), (exact - 1, Err(AddError::NoRoom))] {
        let mut tight = aggregator(limit);
        tight.try_add("key", Some(5), &first).expect("it fits");
        assert_eq!(tight.try_add("other", None, &second), expected);
        let record = tight.finish().expect("it holds something");
        assert_eq!(record.count, if expected.is_ok() { 2 } else { 1 });
        if expected.is_ok() {
            assert_eq!(record.data.len() + record.partition_key.len(), limit);
        }
    }
}

#[test]
fn a_refused_user_record_changes_nothing() {
    let mut with = aggregator(300);
    let mut without = aggregator(300);
    for aggregator in [&mut with, &mut without] {
        aggregator.try_add("a", None, &[0; 100]).expect("it fits");
    }
    assert_eq!(with.try_add("b", Some(9), &[0; 200]), Err(AddError::NoRoom));
    assert_eq!(with.try_add("b", Some(9), &[0; 300]), Err(AddError::TooLarge { bytes: 301, limit: 300 }));
    assert_eq!(with.try_add("", None, b""), Err(AddError::EmptyPartitionKey));
    for aggregator in [&mut with, &mut without] {
        aggregator.try_add("c", Some(7), b"later").expect("it fits");
    }
    assert_eq!(with.finish(), without.finish());
}

#[test]
fn one_user_record_alone_goes_out_as_it_is() {
    let mut aggregator = aggregator(1000);
    aggregator.try_add("key", None, b"payload").expect("it fits");
    assert_eq!(aggregator.record_bytes(), 10);
    let record = aggregator.finish().expect("it holds one");
    assert_eq!(&record.data[..], b"payload");
    assert_eq!(record.partition_key, "key");
    assert_eq!(record.explicit_hash_key, crate::hash_key(b"key"));
    assert_eq!(aggregator.finish(), None);
    assert_eq!(aggregator.record_bytes(), 0);
}

#[test]
fn a_user_record_as_large_as_a_record_goes_out_alone() {
    let mut aggregator = aggregator(103);
    aggregator.try_add("key", None, &[0; 100]).expect("it fits alone, though not wrapped");
    assert_eq!(aggregator.try_add("key", None, b""), Err(AddError::NoRoom));
    assert_eq!(aggregator.finish().map(|record| record.data.len()), Some(100));
}

#[test]
fn partition_keys_are_counted_in_characters() {
    let mut aggregator = aggregator(10_000);
    let crab = "\u{1F980}";
    aggregator.try_add(&crab.repeat(256), None, b"").expect("256 characters in 1024 bytes");
    let refused = aggregator.try_add(&crab.repeat(257), None, b"");
    assert_eq!(refused, Err(AddError::PartitionKeyTooLong { characters: 257 }));
}

#[test]
fn the_number_of_user_records_is_limited() {
    let limits = Limits::default().with_user_records(2).expect("above 0");
    let mut aggregator = Aggregator::new(limits);
    aggregator.try_add("a", None, b"1").expect("the first");
    aggregator.try_add("a", None, b"2").expect("the second");
    assert_eq!(aggregator.try_add("a", None, b"3"), Err(AddError::NoRoom));
    assert_eq!(aggregator.finish().map(|record| record.count), Some(2));
    aggregator.try_add("a", None, b"3").expect("the first of the next");
}

#[test]
fn wrapping_counts_the_key_twice() {
    let mut wrapping = aggregator(1000).with_single(Single::Wrapped);
    wrapping.try_add("key", Some(10), b"payload").expect("it fits");
    let bytes = wrapping.record_bytes();
    assert_eq!(bytes, wrapped_bytes("key", Some(10), 7));
    let record = wrapping.finish().expect("it holds one");
    assert_eq!(record.data.len() + record.partition_key.len(), bytes);
    let mut tight = aggregator(bytes - 1).with_single(Single::Wrapped);
    let refused = tight.try_add("key", Some(10), b"payload");
    assert_eq!(refused, Err(AddError::TooLarge { bytes, limit: bytes - 1 }));
}
