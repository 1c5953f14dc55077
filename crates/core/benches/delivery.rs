//! What the delivery's state machine costs per record while nothing fails: from a read's arrival to the last batch done.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use shardwell_core::delivery::{Command, Delivery, DeliveryPolicy, Event, Intake, Now, ResumeState, Verdict};
use shardwell_core::{ExtendedSequenceNumber, Timestamp, UserRecord};

/// As many records as a read of a busy shard brings.
const RECORDS: u64 = 1000;

/// The next records of a shard.
fn records(next: &Cell<u64>) -> Vec<Intake> {
    let data = Bytes::from_static(&[7; 200]);
    let record = |number: u64| UserRecord {
        position: ExtendedSequenceNumber::new(number.into(), 0),
        partition_key: Some(format!("N{:05}", number % 4000).as_str().into()),
        explicit_hash_key: None,
        arrival: Timestamp::default(),
        data: data.clone(),
    };
    let first = next.replace(next.get() + RECORDS);
    (first..first + RECORDS).map(|number| Intake::Record(record(number))).collect()
}

/// Delivers a read; every batch is done at once. Answers how many records that were.
fn deliver(delivery: &mut Delivery, read: Vec<Intake>) -> usize {
    let mut events = vec![Event::Arrived(read)];
    let mut done = 0;
    while let Some(event) = events.pop() {
        for command in delivery.step(event, Now::default(), 0, true) {
            match command {
                Command::Invoke { lane, batch, .. } => {
                    black_box(batch.records());
                    events.push(Event::Finished { lane, verdict: Verdict::Done });
                }
                Command::Settled(settled) => done += settled.done,
                Command::Bury { .. } => unreachable!("nothing fails"),
            }
        }
    }
    done
}

fn main() {
    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    let mut group = criterion.benchmark_group("delivery");
    group.throughput(Throughput::Elements(RECORDS));
    // What making the records costs by itself is not the machine's.
    group.bench_function("nothing", |bencher| {
        let next = Cell::new(0);
        bencher.iter_batched(|| records(&next), |read| black_box(read).len(), BatchSize::SmallInput);
    });
    for lanes in [1, 64] {
        let policy = DeliveryPolicy::default().with_lanes(lanes).resolve(false).expect("valid");
        group.bench_function(format!("{lanes}_lanes"), |bencher| {
            let (next, mut delivery) = (Cell::new(0), Delivery::new(policy.clone(), &ResumeState::default()));
            bencher.iter_batched(
                || records(&next),
                |read| assert_eq!(deliver(&mut delivery, read), RECORDS as usize),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
    criterion.final_summary();
}
