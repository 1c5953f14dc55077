//! What only the inside can tell: that work is linear in the input, whatever the input is.

use super::*;
use crate::HashKeyRange;

/// A body between magic and digest.
fn seal(body: &[u8]) -> Bytes {
    [&MAGIC, body, &md5(body)].concat().into()
}

fn delimited(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![tag];
    crate::format::push_varint(&mut field, content.len());
    field.extend_from_slice(content);
    field
}

/// Everything that can be done to a record, in steps.
fn work(data: &Bytes) -> u64 {
    let half = HashKeyRange::even_split(2)[1];
    let ((), steps) = work::of(|| {
        if let Deaggregated::Aggregated(aggregate) = deaggregate(data.clone(), Outer::default()) {
            let (aggregate, _) = aggregate.in_range(half, RangePolicy::FilterRecords);
            assert_eq!(aggregate.iter().count() as u64, aggregate.len());
            assert_eq!(aggregate.clone().into_iter().count() as u64, aggregate.len());
        }
        if let KclDeaggregated::UserRecords { records, .. } = deaggregate_like_kcl(data.clone(), Outer::default(), half)
        {
            assert_eq!(records.iter().count() as u64, records.len());
        }
    });
    steps
}

#[test]
fn work_is_linear_whatever_the_input_is() {
    let record = delimited(0x1A, &[0x08, 0, 0x1A, 0]);
    let long_key = [delimited(0x0A, &[b'k'; 30_000]), record.repeat(5_000)].concat();
    let bad_keys = [delimited(0x0A, &[0xFF; 30_000]), record.repeat(5_000)].concat();
    let bad_last = [delimited(0x0A, b"k"), record.repeat(5_000), delimited(0x1A, &[0x08, 9, 0x1A, 0])].concat();
    let tables_last = [record.repeat(5_000), delimited(0x0A, b"k")].concat();
    let tables_only = [0x0A, 0].repeat(20_000);
    let groups = [0x2B].repeat(20_000);
    let shallow_groups = [0x2B, 0x2C].repeat(20_000);
    let bad_hash_keys = [delimited(0x0A, b"k"), delimited(0x12, b"x").repeat(5_000)].concat();
    let repeated = delimited(0x1A, &[0x08, 0].repeat(20_000));
    let cases =
        [long_key, bad_keys, bad_last, tables_last, tables_only, groups, shallow_groups, bad_hash_keys, repeated];
    for (n, body) in cases.iter().enumerate() {
        let data = seal(body);
        let steps = work(&data);
        assert!(steps > 0, "case {n} counted nothing");
        // Each way of reading looks at a field at most twice and at a key's bytes twice; then each is iterated.
        assert!(steps <= 6 * data.len() as u64, "case {n}: {steps} steps for {} bytes", data.len());
    }
}

#[test]
fn a_key_is_hashed_once_however_many_user_records_share_it() {
    let record = delimited(0x1A, &[0x08, 0, 0x1A, 0]);
    let data = seal(&[delimited(0x0A, b"key"), record.repeat(100)].concat());
    let Deaggregated::Aggregated(aggregate) = deaggregate(data, Outer::default()) else { panic!("it is aggregated") };
    let expected = 100 * usize::from(crate::hash_key(b"key") <= u128::MAX / 2);
    let new = || filter::Membership::new(HashKeyRange::even_split(2)[0], aggregate.tables());
    let mut one_by_one = new();
    let decide = || (0..100).filter(|_| one_by_one.decide(aggregate.tables(), 0, None)).count();
    assert_eq!(work::of(decide), (expected, b"key".len() as u64));
    let mut together = new();
    let decide = || together.decide_all(aggregate.tables(), [(0, None)].repeat(100).into_iter());
    assert_eq!(work::of(decide), ((), b"key".len() as u64));
    assert_eq!((0..100).filter(|_| together.contains(0, None)).count(), expected);
}
