//! What consuming costs: a whole consumer process against the local engine, beside a plain SDK loop in the same run.
//!
//! `bench throughput` loads records into an engine in a process of its own, then drains them, in turn, with a plain loop
//! over `GetRecords` that keeps no state, and with a worker that has durable leases in SQLite. `bench latency` puts records
//! at a steady rate and measures the time from put to processor, with the service's read limits kept.
//!
//! CPU seconds and peak memory are those of the consuming process alone, as Linux counts them.
#![expect(clippy::disallowed_methods, reason = "it measures real time in real processes")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Serialize};
use shardwell_aws::KinesisStream;
use shardwell_consumer::{
    Batch, InitialPosition, Outcome, ProcessError, RecordProcessor, Worker, WorkerHandle, async_trait,
};
use shardwell_integration::{EngineProcess, client_of, cpu_seconds, peak_rss_mb, serve_engine};
use shardwell_sqlite::SqliteLeaseStore;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Drains a loaded stream, again and again.
    Throughput(Throughput),
    /// Measures the time from put to processor.
    Latency(Latency),
    /// Serves an engine until its standard input closes.
    #[command(hide = true)]
    Engine,
    /// Consumes with a worker.
    #[command(hide = true)]
    Worker(Consume),
    /// Consumes with a plain loop.
    #[command(hide = true)]
    Plain(Consume),
}

#[derive(Args)]
struct Throughput {
    /// How many records.
    #[arg(long, default_value_t = 200_000)]
    records: u64,
    /// How many bytes each.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// Over how many shards.
    #[arg(long, default_value_t = 4)]
    shards: i32,
    /// How many runs of each consumer.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// The worker's byte budget.
    #[arg(long, default_value_t = 8 * 1024 * 1024)]
    budget: usize,
}

#[derive(Args)]
struct Latency {
    /// Records a second.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// For how long.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

#[derive(Args)]
struct Consume {
    #[arg(long)]
    endpoint: String,
    #[arg(long)]
    records: u64,
    #[arg(long)]
    leases: Option<PathBuf>,
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    budget: usize,
    /// Keep to the service's read limits.
    #[arg(long)]
    paced: bool,
}

/// What a consumer reports on its standard output when it has seen every record.
#[derive(Serialize, Deserialize)]
struct Report {
    first_ms: f64,
    all_ms: f64,
    cpu_s: f64,
    peak_rss_mb: f64,
    /// Times from put to processor, in microseconds, where payloads carry the time of the put.
    latencies_us: Vec<u64>,
}

const STREAM: &str = "bench";

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().what {
        What::Throughput(options) => throughput(&options).await,
        What::Latency(options) => latency(&options).await,
        What::Engine => serve_engine().await,
        What::Worker(options) => worker(options).await,
        What::Plain(options) => plain(options).await,
    }
}

// The parts.

struct Counter {
    started: Instant,
    wanted: u64,
    seen: AtomicU64,
    first_us: AtomicU64,
    all_us: AtomicU64,
    marked: Mutex<Vec<bool>>,
    latencies_us: Mutex<Vec<u64>>,
}

impl Counter {
    fn new(wanted: u64) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            wanted,
            seen: AtomicU64::new(0),
            first_us: AtomicU64::new(0),
            all_us: AtomicU64::new(0),
            marked: Mutex::new(vec![false; usize::try_from(wanted).unwrap_or(0)]),
            latencies_us: Mutex::default(),
        })
    }

    /// Marks records as seen; answers whether all are.
    fn see<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) -> Result<bool> {
        let now = micros_since_epoch();
        let mut marked = self.marked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        let mut new = 0;
        for payload in payloads {
            let text = std::str::from_utf8(payload)?;
            let mut fields = text.split(' ');
            let number: usize = fields.next().context("a number")?.parse()?;
            if let Some(put_at) = fields.next().and_then(|field| field.strip_prefix('@')) {
                let put_at: u64 = put_at.parse()?;
                self.latencies_us.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.push(now.saturating_sub(put_at));
            }
            new += u64::from(!std::mem::replace(&mut marked[number], true));
        }
        drop(marked);
        let elapsed = u64::try_from(self.started.elapsed().as_micros())?;
        let before = self.seen.fetch_add(new, Ordering::AcqRel);
        if before == 0 && new > 0 {
            self.first_us.store(elapsed, Ordering::Release);
        }
        let all = before + new == self.wanted;
        if all {
            self.all_us.store(elapsed, Ordering::Release);
        }
        Ok(all)
    }

    fn report(&self) -> Result<()> {
        let report = Report {
            first_ms: self.first_us.load(Ordering::Acquire) as f64 / 1000.0,
            all_ms: self.all_us.load(Ordering::Acquire) as f64 / 1000.0,
            cpu_s: cpu_seconds()?,
            peak_rss_mb: peak_rss_mb()?,
            latencies_us: std::mem::take(&mut *self.latencies_us.lock().map_err(|_| anyhow::anyhow!("poisoned"))?),
        };
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}

struct Count {
    counter: Arc<Counter>,
    handle: Arc<Mutex<Option<WorkerHandle>>>,
}

#[async_trait]
impl RecordProcessor for Count {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        if self.counter.see(batch.into_iter().map(|record| &record.data[..]))?
            && let Some(handle) = &*self.handle.lock().map_err(|_| "poisoned")?
        {
            handle.request_shutdown();
        }
        Ok(Outcome::Done)
    }
}

async fn worker(options: Consume) -> Result<()> {
    let counter = Counter::new(options.records);
    let handle = Arc::new(Mutex::new(None));
    let leases = SqliteLeaseStore::open(options.leases.context("--leases")?, "bench").await?;
    let stream = KinesisStream::new(&client_of(&options.endpoint), STREAM);
    let (for_processors, handle_there) = (counter.clone(), handle.clone());
    let worker = Worker::builder("bench", stream, leases, move |_| Count {
        counter: for_processors.clone(),
        handle: handle_there.clone(),
    })
    .initial_position(InitialPosition::TrimHorizon)
    .max_buffered_bytes(options.budget)
    .read_pacing(options.paced)
    .build()?;
    *handle.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(worker.handle());
    if options.paced {
        let ready = worker.handle();
        tokio::spawn(async move {
            if ready.ready().await {
                eprintln!("ready");
            }
        });
    }
    worker.run().await?;
    counter.report()
}

async fn plain(options: Consume) -> Result<()> {
    let counter = Counter::new(options.records);
    let client = client_of(&options.endpoint);
    let shards = client.list_shards().stream_name(STREAM).send().await?;
    let mut readers = tokio::task::JoinSet::new();
    for shard in shards.shards() {
        let (client, counter, shard) = (client.clone(), counter.clone(), shard.shard_id().to_owned());
        readers.spawn(async move {
            let mut iterator = client
                .get_shard_iterator()
                .stream_name(STREAM)
                .shard_id(shard)
                .shard_iterator_type(ShardIteratorType::TrimHorizon)
                .send()
                .await?
                .shard_iterator;
            loop {
                let answer = client.get_records().set_shard_iterator(iterator).limit(10_000).send().await?;
                counter.see(answer.records().iter().map(|record| record.data().as_ref()))?;
                if answer.millis_behind_latest() == Some(0) {
                    return anyhow::Ok(());
                }
                iterator = answer.next_shard_iterator;
            }
        });
    }
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    counter.report()
}

// The whole.

async fn throughput(options: &Throughput) -> Result<()> {
    let engine = EngineProcess::start()?;
    create(&engine, options.shards).await?;
    load(&engine, options).await?;
    println!("{} records of {} B on {} shards", options.records, options.bytes, options.shards);
    println!("{:<8} {:>10} {:>12} {:>10} {:>8} {:>10}", "", "first ms", "all ms", "records/s", "CPU s", "peak MB");
    let mut all: BTreeMap<&str, Vec<Report>> = BTreeMap::new();
    for run in 0..options.runs {
        for kind in ["plain", "worker"] {
            let dir = tempfile_dir(run)?;
            let report = consume(kind, &engine, options.records, Some(&dir.join("leases.sqlite")), options.budget)?;
            std::fs::remove_dir_all(&dir)?;
            print_row(kind, options.records, &report);
            all.entry(kind).or_default().push(report);
        }
    }
    let median = |kind: &str, of: fn(&Report) -> f64| {
        let mut values: Vec<f64> = all[kind].iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (what, of) in [
        ("time in all", (|r| r.all_ms) as fn(&Report) -> f64),
        ("CPU", |r| r.cpu_s),
        ("peak memory", |r| r.peak_rss_mb),
    ] {
        let (plain, worker) = (median("plain", of), median("worker", of));
        println!("{what}: median {worker:.2} of the worker, {plain:.2} of the plain loop, ratio {:.2}", worker / plain);
    }
    Ok(())
}

async fn latency(options: &Latency) -> Result<()> {
    let engine = EngineProcess::start()?;
    create(&engine, 4).await?;
    let client = client_of(engine.endpoint());
    let total = options.rate * options.seconds;
    let dir = tempfile_dir(0)?;
    let mut consumer = spawn("worker", &engine, total, Some(&dir.join("leases.sqlite")), 64 << 20, true)?;
    wait_until_ready(&mut consumer)?;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let per_tick = options.rate / 100;
    let mut next = 0;
    while next < total {
        tick.tick().await;
        let mut entries = Vec::new();
        for number in next..(next + per_tick).min(total) {
            entries.push(entry(number, format!("{number} @{} ", micros_since_epoch()), 200)?);
        }
        next += per_tick;
        let client = client.clone();
        tokio::spawn(async move { client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await });
    }
    let mut latencies = finish(consumer)?.latencies_us;
    std::fs::remove_dir_all(&dir)?;
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    println!(
        "{} records at {}/s over 4 shards, read limits kept: put to process p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
        latencies.len(),
        options.rate,
        at(0.5),
        at(0.99),
        at(1.0)
    );
    Ok(())
}

fn print_row(kind: &str, records: u64, report: &Report) {
    let rate = records as f64 / (report.all_ms / 1000.0);
    let Report { first_ms, all_ms, cpu_s, peak_rss_mb, .. } = report;
    println!("{kind:<8} {first_ms:>10.1} {all_ms:>12.1} {rate:>10.0} {cpu_s:>8.2} {peak_rss_mb:>10.1}");
}

fn spawn(
    kind: &str,
    engine: &EngineProcess,
    records: u64,
    leases: Option<&Path>,
    budget: usize,
    paced: bool,
) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([kind, "--endpoint", engine.endpoint(), "--records", &records.to_string()]);
    command.args(["--budget", &budget.to_string()]);
    if let Some(leases) = leases {
        command.arg("--leases").arg(leases);
    }
    if paced {
        command.arg("--paced").stderr(Stdio::piped());
    }
    Ok(command.stdout(Stdio::piped()).spawn()?)
}

fn wait_until_ready(child: &mut Child) -> Result<()> {
    let stderr = child.stderr.take().context("its standard error")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stderr), &mut line)?;
    ensure!(line.trim() == "ready", "{line}");
    Ok(())
}

fn finish(child: Child) -> Result<Report> {
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the consumer failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn consume(kind: &str, engine: &EngineProcess, records: u64, leases: Option<&Path>, budget: usize) -> Result<Report> {
    finish(spawn(kind, engine, records, leases, budget, false)?)
}

async fn create(engine: &EngineProcess, shards: i32) -> Result<()> {
    client_of(engine.endpoint()).create_stream().stream_name(STREAM).shard_count(shards).send().await?;
    Ok(())
}

/// Spreads the records evenly over the shards by their explicit hash keys.
async fn load(engine: &EngineProcess, options: &Throughput) -> Result<()> {
    let client = client_of(engine.endpoint());
    let mut next = 0;
    while next < options.records {
        let end = (next + 500).min(options.records);
        let entries = (next..end).map(|number| {
            let shards = u128::try_from(options.shards)?;
            let hash_key = u128::MAX / shards * (u128::from(number) % shards) + 1;
            let mut entry = entry(number, format!("{number} "), options.bytes)?;
            entry.explicit_hash_key = Some(hash_key.to_string());
            anyhow::Ok(entry)
        });
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let answer = client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await?;
        ensure!(answer.failed_record_count() == Some(0), "the engine refused records");
        next = end;
    }
    Ok(())
}

fn entry(number: u64, mut text: String, bytes: usize) -> Result<PutRecordsRequestEntry> {
    while text.len() < bytes {
        text.push('x');
    }
    let key = format!("key-{}", number % 997);
    Ok(PutRecordsRequestEntry::builder().partition_key(key).data(Blob::new(text.into_bytes())).build()?)
}

fn tempfile_dir(run: u32) -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("shardwell-bench-{}-{run}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn micros_since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}
