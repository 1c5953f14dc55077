//! Neither way allocates per user record.

use allocation_counter::measure;
use bytes::Bytes;
use shardwell_aggregation::{
    Aggregator, Deaggregated, HashKeyRange, Limits, Outer, RangePolicy, deaggregate, deaggregate_batch,
};

const KEYS: [&str; 3] = ["N14228", "N24211", "a key that is longer than any inline representation of a short text"];

fn fill(aggregator: &mut Aggregator, user_records: usize) {
    for n in 0..user_records {
        let explicit = n.is_multiple_of(3).then_some(u128::MAX - (n % 5) as u128);
        aggregator.try_add(KEYS[n % 3], explicit, &[n as u8; 100]).expect("it fits");
    }
}

fn aggregate(user_records: usize) -> Bytes {
    let mut aggregator = Aggregator::new(Limits::default());
    fill(&mut aggregator, user_records);
    aggregator.finish().expect("it holds user records").data
}

#[test]
fn a_warm_aggregator_allocates_nothing_per_user_record() {
    let mut aggregator = Aggregator::new(Limits::default());
    let cold = measure(|| fill(&mut aggregator, 1_000));
    assert!(cold.count_total > 0, "the counter counts");
    aggregator.finish();
    for user_records in [2, 100, 1_000] {
        let warm = measure(|| fill(&mut aggregator, user_records));
        assert_eq!(warm.count_total, 0, "for {user_records} user records");
        let mut record = None;
        let finished = measure(|| record = aggregator.finish());
        assert_eq!(finished.count_total, 1, "the payload alone");
        assert_eq!(record.map(|record| record.count), Some(user_records as u64));
    }
}

#[test]
fn a_warm_aggregator_takes_new_keys_without_allocating() {
    let keys: Vec<_> = (0..500).map(|n| format!("key-{n}")).collect();
    let mut aggregator = Aggregator::new(Limits::default());
    let mut fill = |salt: u128| {
        for (n, key) in keys.iter().enumerate() {
            aggregator.try_add(key, Some(salt + n as u128), b"data").expect("it fits");
        }
        aggregator.clear();
    };
    fill(u128::MAX / 2);
    assert_eq!(measure(|| fill(u128::MAX / 3)).count_total, 0);
}

#[test]
fn reading_allocates_the_same_for_few_and_many_user_records() {
    let read = |user_records: usize| {
        let data = aggregate(user_records);
        measure(|| {
            let Deaggregated::Aggregated(aggregate) = deaggregate(data.clone(), Outer::default()) else {
                panic!("it is aggregated");
            };
            let (aggregate, counts) = aggregate.in_range(HashKeyRange::even_split(2)[1], RangePolicy::FilterRecords);
            assert!(counts.inside > 0);
            let views = aggregate.iter().map(|record| record.data.len()).sum::<usize>();
            let owned = aggregate.into_iter().map(|record| record.data.len()).sum::<usize>();
            assert_eq!(views, owned);
        })
        .count_total
    };
    // The tables of keys grow, and sharing a buffer for the first time costs one each.
    let few = read(20);
    assert!(few > 0 && few < 20, "{few}");
    assert_eq!(read(5_000), few);
}

#[test]
fn reading_a_batch_allocates_the_same_for_few_and_many_user_records() {
    let read = |user_records: usize| {
        let records: Vec<_> = (0..20).map(|_| aggregate(user_records)).collect();
        measure(|| {
            for deaggregated in deaggregate_batch(records.iter().map(|data| (data.clone(), Outer::default()))) {
                let Deaggregated::Aggregated(aggregate) = deaggregated else { panic!("it is aggregated") };
                assert_eq!(aggregate.into_iter().count(), user_records);
            }
        })
        .count_total
    };
    let few = read(20);
    assert!(few > 0 && few < 20 * 20, "{few}");
    assert_eq!(read(1_000), few);
}

#[test]
fn iterating_allocates_nothing() {
    let Deaggregated::Aggregated(aggregate) = deaggregate(aggregate(1_000), Outer::default()) else {
        panic!("it is aggregated");
    };
    let views = measure(|| assert_eq!(aggregate.iter().count(), 1_000));
    assert_eq!(views.count_total, 0);
    let owned = aggregate.clone();
    let owned = measure(|| assert_eq!(owned.into_iter().count(), 1_000));
    assert!(owned.count_total <= 1, "{}: the text of the keys becomes shared at its first use", owned.count_total);
}
