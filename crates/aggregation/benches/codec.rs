//! Reading and writing aggregated records, beside plain MD5 of the same bytes, which the format demands and nothing
//! that reads one record at a time can be faster than, and beside the Python library `aws_kinesis_agg`.
//!
//! ```text
//! integration/run aggregation                       # installs the library, once
//! SHARDWELL_PYTHON=$PWD/target/integration/venv/bin/python \
//!     cargo bench -p shardwell-aggregation --bench codec -- nothing
//! ```
//!
//! runs only what prints the ratios; without `nothing` come criterion's figures first. The ratios are taken from
//! interleaved rounds, the best of each: on a busy machine they hold where absolute numbers do not. Without
//! `SHARDWELL_PYTHON`, an interpreter that has the library, its columns are missing.

mod peer;

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use md5::{Digest, Md5};
use shardwell_aggregation::{Aggregator, Deaggregated, Limits, Outer, deaggregate, deaggregate_batch};

use crate::peer::Peer;

/// What a read from a stream returns at most.
const BATCH_BYTES: usize = 10 * 1024 * 1024;

/// User records that fill one record.
struct Case {
    name: &'static str,
    keys: Vec<String>,
    payload: Vec<u8>,
    limit: usize,
    count: usize,
    blob: Bytes,
    /// Copies of it, each in memory of its own: as many as one read returns.
    batch: Vec<Bytes>,
}

impl Case {
    fn new(name: &'static str, keys: usize, payload: usize, limit: usize) -> Self {
        let keys: Vec<_> = match keys {
            0 => (0..20_000).map(|n| format!("9ac1b0a1-1f6d-4b5f-9d2e-3a0d7f{n:06}")).collect(),
            keys => (0..keys).map(|n| format!("key-{n}")).collect(),
        };
        let payload: Vec<_> = (0..payload).map(|n| (n * 31) as u8).collect();
        let mut case = Self { name, keys, payload, limit, count: usize::MAX, blob: Bytes::new(), batch: Vec::new() };
        let mut aggregator = case.aggregator();
        case.count = case.fill(&mut aggregator);
        case.blob = aggregator.finish().expect("it holds user records").data;
        let copies = BATCH_BYTES / case.blob.len();
        case.batch = (0..copies).map(|_| Bytes::copy_from_slice(&case.blob)).collect();
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

    /// The same for a whole batch.
    fn batch_views(&self) {
        for deaggregated in deaggregate_batch(self.batch.iter().map(|data| (data.clone(), Outer::default()))) {
            let Deaggregated::Aggregated(aggregate) = deaggregated else { unreachable!("it was aggregated") };
            for record in &aggregate {
                black_box(record);
            }
        }
    }

    fn batch_owned(&self) {
        for deaggregated in deaggregate_batch(self.batch.iter().map(|data| (data.clone(), Outer::default()))) {
            let Deaggregated::Aggregated(aggregate) = deaggregated else { unreachable!("it was aggregated") };
            for record in aggregate {
                black_box(record);
            }
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
    group.throughput(Throughput::Bytes((case.blob.len() * case.batch.len()) as u64));
    group.bench_function("batch_views", |bencher| bencher.iter(|| case.batch_views()));
    group.bench_function("batch_owned", |bencher| bencher.iter(|| case.batch_owned()));
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

/// The best time of each in many rounds, in seconds.
fn best_of<const N: usize>(rounds: usize, mut round: impl FnMut() -> [Duration; N]) -> [f64; N] {
    let mut best = [Duration::MAX; N];
    for _ in 0..rounds {
        for (best, time) in best.iter_mut().zip(round()) {
            *best = time.min(*best);
        }
    }
    best.map(|time| time.as_secs_f64())
}

/// How fast each is in comparison with MD5 alone, and with the peer.
fn print_ratios(case: &Case, peer: Option<&mut Peer>) {
    let repeat = (4 * 1024 * 1024 / case.blob.len()).max(1);
    let mut aggregator = case.aggregator();
    let [md5, views, owned, encode] = best_of(100, || {
        [
            time(repeat, || case.md5()),
            time(repeat, || case.decode_views()),
            time(repeat, || case.decode_owned()),
            time(repeat, || case.encode(&mut aggregator)),
        ]
    });
    // By themselves: no cache holds anything else beside a batch.
    let [batch_views, batch_owned] = best_of(40, || [time(1, || case.batch_views()), time(1, || case.batch_owned())])
        .map(|time| time / case.batch.len() as f64);
    print!("{:24} {:6} {:9.0}", case.name, case.count, case.blob.len() as f64 / md5 / 1e6);
    for time in [views, owned, batch_views, batch_owned, encode] {
        print!(" {:12.1}", 100.0 * md5 / time);
    }
    if let Some(peer) = peer {
        let times = peer.time(&case.blob);
        assert_eq!(times.count, case.count, "the library counts other user records");
        for (ours, theirs) in [(owned, times.decode), (batch_owned, times.decode), (encode, times.encode)] {
            print!(" {:12.1}", theirs / ours);
        }
    }
    println!();
}

fn print_all_ratios(cases: &[Case]) {
    let mut peer = Peer::from_environment();
    println!("\nSpeed in percent of plain MD5 of the same bytes (best of interleaved rounds, one thread)");
    println!("A batch is {} MiB of such records, what one read from a stream returns.", BATCH_BYTES / 1024 / 1024);
    match peer {
        Some(_) => println!("The last three columns: how many times as fast as aws_kinesis_agg."),
        None => println!(
            "MISSING: the comparison with aws_kinesis_agg. `integration/run aggregation` installs it; then set\n\
             SHARDWELL_PYTHON=$PWD/target/integration/venv/bin/python"
        ),
    }
    print!("{:24} {:>6} {:>9}", "", "count", "MD5, MB/s");
    for column in ["decode views", "decode owned", "batch views", "batch owned", "encode"] {
        print!(" {column:>12}");
    }
    if peer.is_some() {
        print!(" {:>12} {:>12} {:>12}", "decode, agg", "batch, agg", "encode, agg");
    }
    println!();
    for case in cases {
        print_ratios(case, peer.as_mut());
    }
}

fn main() {
    let cases = cases();
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    let mut criterion = criterion.configure_from_args();
    for case in &cases {
        bench(&mut criterion, case);
    }
    criterion.final_summary();
    if !std::env::args().any(|argument| argument == "--test" || argument == "--profile-time") {
        print_all_ratios(&cases);
    }
}
