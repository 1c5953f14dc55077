//! Reading and writing aggregated records, beside plain MD5 of the same bytes, which the format demands and nothing
//! can be faster than.
//!
//! The ratios that are printed at the end come from interleaved rounds, the best of each: on a busy machine they hold
//! where absolute numbers do not.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use md5::{Digest, Md5};
use shardwell_aggregation::{Aggregator, Deaggregated, Limits, Outer, deaggregate};

/// User records that fill one record.
struct Case {
    name: &'static str,
    keys: Vec<String>,
    payload: Vec<u8>,
    limit: usize,
    count: usize,
    blob: Bytes,
}

impl Case {
    fn new(name: &'static str, keys: usize, payload: usize, limit: usize) -> Self {
        let keys: Vec<_> = match keys {
            0 => (0..20_000).map(|n| format!("9ac1b0a1-1f6d-4b5f-9d2e-3a0d7f{n:06}")).collect(),
            keys => (0..keys).map(|n| format!("key-{n}")).collect(),
        };
        let payload: Vec<_> = (0..payload).map(|n| (n * 31) as u8).collect();
        let mut case = Self { name, keys, payload, limit, count: usize::MAX, blob: Bytes::new() };
        let mut aggregator = case.aggregator();
        case.count = case.fill(&mut aggregator);
        case.blob = aggregator.finish().expect("it holds user records").data;
        case
    }

    fn aggregator(&self) -> Aggregator {
        Aggregator::new(Limits::new(self.limit).expect("a limit of a stream"))
    }

    fn fill(&self, aggregator: &mut Aggregator) -> usize {
        let keys = self.keys.iter().cycle();
        keys.take(self.count).take_while(|key| aggregator.try_add(key, None, &self.payload).is_ok()).count()
    }

    fn md5(&self) {
        black_box(Md5::digest(&self.blob[4..self.blob.len() - 16]));
    }

    /// Borrowed user records: what looking at them costs.
    fn decode_views(&self) {
        let Deaggregated::Aggregated(aggregate) = deaggregate(self.blob.clone(), Outer::default()) else {
            unreachable!("it was aggregated");
        };
        for record in &aggregate {
            black_box(record);
        }
    }

    /// Owned user records: with two shared buffers each.
    fn decode_owned(&self) {
        let Deaggregated::Aggregated(aggregate) = deaggregate(self.blob.clone(), Outer::default()) else {
            unreachable!("it was aggregated");
        };
        for record in aggregate {
            black_box(record);
        }
    }

    fn encode(&self, aggregator: &mut Aggregator) {
        self.fill(aggregator);
        black_box(aggregator.finish());
    }
}

fn cases() -> Vec<Case> {
    const SMALL: usize = 51_200;
    const LARGE: usize = 1024 * 1024;
    vec![
        Case::new("100B_8keys_50KiB", 8, 100, SMALL),
        Case::new("100B_distinct_keys_50KiB", 0, 100, SMALL),
        Case::new("1KiB_8keys_50KiB", 8, 1024, SMALL),
        Case::new("100B_8keys_1MiB", 8, 100, LARGE),
        Case::new("100B_distinct_keys_1MiB", 0, 100, LARGE),
        Case::new("1KiB_8keys_1MiB", 8, 1024, LARGE),
    ]
}

fn bench(criterion: &mut Criterion, case: &Case) {
    let mut group = criterion.benchmark_group(case.name);
    group.throughput(Throughput::Bytes(case.blob.len() as u64));
    group.bench_function("md5", |bencher| bencher.iter(|| case.md5()));
    group.bench_function("decode_views", |bencher| bencher.iter(|| case.decode_views()));
    group.bench_function("decode_owned", |bencher| bencher.iter(|| case.decode_owned()));
    let mut aggregator = case.aggregator();
    group.bench_function("encode", |bencher| bencher.iter(|| case.encode(&mut aggregator)));
    group.finish();
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn time(repeat: usize, mut run: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..repeat {
        run();
    }
    start.elapsed() / u32::try_from(repeat).unwrap_or(u32::MAX)
}

/// How fast each is in comparison with MD5 alone.
fn print_ratios(case: &Case) {
    let repeat = (4 * 1024 * 1024 / case.blob.len()).max(1);
    let mut aggregator = case.aggregator();
    let mut best = [Duration::MAX; 4];
    for _ in 0..100 {
        let round = [
            time(repeat, || case.md5()),
            time(repeat, || case.decode_views()),
            time(repeat, || case.decode_owned()),
            time(repeat, || case.encode(&mut aggregator)),
        ];
        for (best, time) in best.iter_mut().zip(round) {
            *best = time.min(*best);
        }
    }
    let [md5, rest @ ..] = best.map(|time| time.as_secs_f64());
    let [views, owned, encode] = rest.map(|time| 100.0 * md5 / time);
    let speed = case.blob.len() as f64 / md5 / 1e6;
    println!("{:26} {:6} {speed:8.0} {views:12.1} {owned:12.1} {encode:12.1}", case.name, case.count);
}

fn main() {
    let cases = cases();
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    let mut criterion = criterion.configure_from_args();
    for case in &cases {
        bench(&mut criterion, case);
    }
    criterion.final_summary();
    if std::env::args().any(|argument| argument == "--test" || argument == "--profile-time") {
        return;
    }
    println!("\nSpeed in percent of plain MD5 of the same bytes (best of 100 interleaved rounds)");
    println!(
        "{:26} {:>6} {:>8} {:>12} {:>12} {:>12}",
        "", "count", "MB/s MD5", "decode views", "decode owned", "encode"
    );
    for case in &cases {
        print_ratios(case);
    }
}
