//! How much faster lanes make a processor that waits: 10 ms for each batch of up to 10 records, on one shard.
//!
//! ```sh
//! cargo bench -p shardwell-consumer --bench lanes
//! ```
//!
//! Prints batches per second with one lane and with more, and the ratio in percent of perfect.
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shardwell_consumer::{
    Batch, DeliveryPolicy, InitialPosition, LaneContext, Outcome, ProcessError, RecordProcessor, Worker, async_trait,
};
use shardwell_core::SystemEnv;
use shardwell_core::memory::{MemoryLeaseStore, MemoryStream};

const RECORDS: u64 = 300_000;
const BATCH_RECORDS: usize = 10;
const WORK: Duration = Duration::from_millis(10);
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(3);

/// Waits, as a call to another service does, and counts.
struct Waits {
    batches: Arc<AtomicU64>,
}

#[async_trait]
impl RecordProcessor for Waits {
    async fn process(&mut self, _: &Batch) -> Result<Outcome, ProcessError> {
        tokio::time::sleep(WORK).await;
        self.batches.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::Done)
    }
}

fn stream() -> MemoryStream {
    let env = Arc::new(SystemEnv::new().expect("inside a runtime"));
    let stream = MemoryStream::create(env, "bench", 1).expect("a new stream");
    for number in 0..RECORDS {
        stream.append(format!("key-{}", fastrand::u64(..100_000)), number.to_string()).expect("it takes it");
    }
    stream
}

/// Batches per second.
async fn measure(stream: &MemoryStream, lanes: u32) -> f64 {
    let batches = Arc::new(AtomicU64::new(0));
    let counted = batches.clone();
    let make = move |_: &LaneContext| Waits { batches: counted.clone() };
    let worker = Worker::builder("bench", stream.clone(), MemoryLeaseStore::new(), make)
        .initial_position(InitialPosition::TrimHorizon)
        .delivery(DeliveryPolicy::default().with_lanes(lanes).with_batch_records(BATCH_RECORDS))
        .max_concurrent_batches(lanes as usize)
        .read_pacing(false)
        .build()
        .expect("valid settings");
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    tokio::time::sleep(WARM_UP).await;
    let (before, begun) = (batches.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let rate = (batches.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    handle.shutdown().await;
    running.await.expect("no panic").expect("a clean stop");
    rate
}

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = stream();
        let one = measure(&stream, 1).await;
        println!("{:>5}  {:>10}  {:>8}  {:>10}", "lanes", "batches/s", "speed-up", "of perfect");
        println!("{:>5}  {one:>10.0}", 1);
        for lanes in [8, 64, 256] {
            let rate = measure(&stream, lanes).await;
            let speed_up = rate / one;
            println!("{lanes:>5}  {rate:>10.0}  {speed_up:>8.1}  {:>9.0}%", 100.0 * speed_up / f64::from(lanes));
        }
    });
}
