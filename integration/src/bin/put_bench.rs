//! What producing costs: a producer against the local engine, beside a plain loop over the SDK's `PutRecords` in the same run.
//!
//! Each is a process of its own, and so is the engine; CPU seconds and peak memory are those of the producing process alone, as Linux counts
//! them. The engine has no limits, and the producer does not pace itself: what is measured is what each record costs.
#![expect(clippy::disallowed_methods, reason = "it measures real time in real processes")]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use clap::{Parser, Subcommand, ValueEnum};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use shardwell_aws::KinesisStream;
use shardwell_core::{Bytes, PutEntry};
use shardwell_integration::{EngineProcess, client_of, cpu_seconds, peak_rss_mb, serve_engine};
use shardwell_producer::{Producer, Ticket, TryPutError};

#[derive(Parser)]
struct Cli {
    /// How many user records each puts
    #[arg(long, default_value_t = 400_000)]
    records: u64,
    /// How many runs of each
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// What the producer may hold, in bytes
    #[arg(long, default_value_t = 64 << 20)]
    budget: usize,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Subcommand)]
enum Part {
    /// Serves an engine until its standard input closes
    #[command(hide = true)]
    Engine,
    /// Puts records and reports
    #[command(hide = true)]
    Put {
        kind: Kind,
        #[arg(long)]
        endpoint: String,
        #[arg(long)]
        bytes: usize,
    },
    /// Puts as much as the producer holds while the engine stands still, and reports what memory that takes
    #[command(hide = true)]
    Fill {
        kind: Kind,
        #[arg(long)]
        endpoint: String,
        #[arg(long)]
        bytes: usize,
    },
    /// Puts few records, and reports how long they waited
    #[command(hide = true)]
    Trickle {
        #[arg(long)]
        endpoint: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Kind {
    /// A loop over `PutRecords` of the SDK, with 500 entries each.
    Sdk,
    /// The producer without aggregation.
    Plain,
    /// The producer as it comes.
    Aggregated,
}

#[derive(Serialize, Deserialize)]
struct Report {
    seconds: f64,
    cpu_s: f64,
    peak_rss_mb: f64,
    /// Bytes of the aggregated records over the most that they may have.
    fill: f64,
}

const STREAM: &str = "bench";
const SHARDS: i32 = 8;
const KEYS: u64 = 10_000;
const ENTRIES: u64 = 500;
const IN_FLIGHT: usize = 24;
const AGGREGATE_BYTES: usize = 51_200;
/// How many user records are under way at most, as far as the caller goes: twice what the requests can hold that are not aggregated.
const WINDOW: usize = 24_000;

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    match cli.part {
        None => compare(&cli).await,
        Some(Part::Engine) => serve_engine().await,
        Some(Part::Put { kind, endpoint, bytes }) => {
            let report = put(kind, &endpoint, cli.records, bytes, cli.budget).await?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
        Some(Part::Fill { kind, endpoint, bytes }) => fill_up(kind, &endpoint, bytes, cli.budget).await,
        Some(Part::Trickle { endpoint }) => trickle(&endpoint).await,
    }
}

async fn put(kind: Kind, endpoint: &str, records: u64, bytes: usize, budget: usize) -> Result<Report> {
    let client = client_of(endpoint);
    let payload = Bytes::from(vec![b'x'; bytes]);
    let (began, cpu) = (Instant::now(), cpu_seconds()?);
    match kind {
        Kind::Sdk => by_sdk(&client, records, &payload).await?,
        Kind::Plain | Kind::Aggregated => {
            by_producer(&producer(&client, kind, budget)?, records, &payload).await?;
        }
    }
    let (seconds, cpu_s) = (began.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    Ok(Report { seconds, cpu_s, peak_rss_mb: peak_rss_mb()?, fill: fill(&client, kind).await? })
}

fn producer(client: &Client, kind: Kind, budget: usize) -> Result<Producer> {
    let producer = Producer::builder(KinesisStream::new(client, STREAM))
        .aggregation(kind == Kind::Aggregated)
        .max_aggregate_bytes(AGGREGATE_BYTES)
        .max_buffered_bytes(budget)
        .max_requests_in_flight(IN_FLIGHT)
        .without_pacing();
    Ok(producer.build()?)
}

async fn by_sdk(client: &Client, records: u64, payload: &Bytes) -> Result<()> {
    let requests = (0..records.div_ceil(ENTRIES)).map(|request| async move {
        let entries = (request * ENTRIES..((request + 1) * ENTRIES).min(records)).map(|number| {
            let entry = PutRecordsRequestEntry::builder().partition_key(key(number)).data(Blob::new(payload.to_vec()));
            entry.build().context("an entry")
        });
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let answer = client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await?;
        ensure!(answer.failed_record_count() == Some(0), "records failed");
        Ok(())
    });
    let mut requests = stream::iter(requests).buffer_unordered(IN_FLIGHT);
    while let Some(result) = requests.next().await {
        result?;
    }
    Ok(())
}

/// Keeps a window of tickets, as a careful caller does.
async fn by_producer(producer: &Producer, records: u64, payload: &Bytes) -> Result<()> {
    let mut tickets = VecDeque::new();
    for number in 0..records {
        if tickets.len() == WINDOW
            && let Some(oldest) = tickets.pop_front()
        {
            let oldest: Ticket = oldest;
            oldest.await?;
        }
        tickets.push_back(producer.put(PutEntry::new(key(number), payload.clone())).await?);
    }
    producer.flush().await;
    for ticket in tickets {
        ticket.await?;
    }
    Ok(())
}

/// How full the aggregated records are, of what a few reads of each shard show.
async fn fill(client: &Client, kind: Kind) -> Result<f64> {
    if kind != Kind::Aggregated {
        return Ok(0.0);
    }
    let (mut bytes, mut count) = (0, 0);
    for shard in client.list_shards().stream_name(STREAM).send().await?.shards() {
        let iterator = client.get_shard_iterator().stream_name(STREAM).shard_id(shard.shard_id());
        let kind = aws_sdk_kinesis::types::ShardIteratorType::TrimHorizon;
        let iterator = iterator.shard_iterator_type(kind).send().await?.shard_iterator;
        let answer = client.get_records().set_shard_iterator(iterator).limit(100).send().await?;
        for record in answer.records() {
            (bytes, count) = (bytes + record.data().as_ref().len(), count + 1);
        }
    }
    Ok(bytes as f64 / (count.max(1) * AGGREGATE_BYTES) as f64)
}

/// Payloads are memory of their own here. Requests under way count too: the engine takes them, and does not answer.
async fn fill_up(kind: Kind, endpoint: &str, bytes: usize, budget: usize) -> Result<()> {
    let producer = producer(&client_of(endpoint), kind, budget)?;
    producer.put(PutEntry::new("first", "x")).await?.await?;
    // Whoever started this has the engine stand still now.
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let before = peak_rss_mb()?;
    for number in 0.. {
        match producer.try_put(PutEntry::new(key(number), vec![b'x'; bytes])) {
            // What becomes of it is not asked: that is the caller's memory.
            Ok(ticket) => drop(ticket),
            Err(TryPutError::Full(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (status, grown) = (producer.status(), peak_rss_mb()? - before);
    let counted = status.pending_bytes as f64 / 1024.0 / 1024.0;
    let (records, ratio) = (status.pending_records, grown / counted);
    println!(
        "{bytes:>6} {kind:<11?} {records:>9} records held, {counted:.0} MiB by the budget, {grown:.0} MiB of memory: {ratio:.2}"
    );
    std::process::exit(0);
}

/// Fifty records a second for ten seconds.
async fn trickle(endpoint: &str) -> Result<()> {
    let producer = Producer::builder(KinesisStream::new(&client_of(endpoint), STREAM)).build()?;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut waited = Vec::new();
    let mut tickets = Vec::new();
    for number in 0..500 {
        tick.tick().await;
        tickets.push(producer.put(PutEntry::new(key(number), "x")).await?);
    }
    for ticket in tickets {
        let landed = ticket.await?;
        waited.extend(landed.attempts.iter().next().map(|attempt| attempt.waited));
    }
    waited.sort_unstable();
    let at = |share: f64| waited[((waited.len() - 1) as f64 * share) as usize];
    println!("50 records/s, linger 100 ms: time before the request, p50 {:?}, p99 {:?}", at(0.5), at(0.99));
    Ok(())
}

async fn compare(cli: &Cli) -> Result<()> {
    println!(
        "{} user records on {SHARDS} shards, {IN_FLIGHT} requests at a time; medians of {} runs",
        cli.records, cli.runs
    );
    println!("{:>6} {:<11} {:>12} {:>14} {:>9} {:>6}", "bytes", "", "records/s", "CPU s/million", "peak MB", "fill");
    for bytes in [100, 1024] {
        let mut cpu = BTreeMap::new();
        for kind in [Kind::Sdk, Kind::Plain, Kind::Aggregated] {
            let mut reports = Vec::new();
            for _ in 0..cli.runs {
                reports.push(run(cli, kind, bytes).await?);
            }
            let median = |of: fn(&Report) -> f64| {
                let mut values: Vec<f64> = reports.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let per_second = cli.records as f64 / median(|report| report.seconds);
            let per_million = median(|report| report.cpu_s) / cli.records as f64 * 1e6;
            let (peak, fill) = (median(|report| report.peak_rss_mb), median(|report| report.fill));
            println!("{bytes:>6} {kind:<11?} {per_second:>12.0} {per_million:>14.2} {peak:>9.1} {fill:>6.2}");
            cpu.insert(kind, per_million);
        }
        let ratio = |kind| cpu[&kind] / cpu[&Kind::Sdk];
        println!(
            "{bytes:>6} CPU against the SDK's: {:.2} plain, {:.2} aggregated",
            ratio(Kind::Plain),
            ratio(Kind::Aggregated)
        );
    }
    for (bytes, kind) in [100, 1024].into_iter().flat_map(|bytes| [(bytes, Kind::Plain), (bytes, Kind::Aggregated)]) {
        fill_one(cli, kind, bytes).await?;
    }
    let engine = engine_with_stream().await?;
    ensure!(part(cli).args(["trickle", "--endpoint", engine.endpoint()]).status()?.success(), "the trickle failed");
    Ok(())
}

async fn fill_one(cli: &Cli, kind: Kind, bytes: usize) -> Result<()> {
    let engine = engine_with_stream().await?;
    let kind = kind.to_possible_value().context("a name")?;
    let mut child = part(cli)
        .args(["fill", kind.get_name(), "--endpoint", engine.endpoint(), "--bytes", &bytes.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(child.stdout.take().context("its standard output")?).lines();
    said.next().context("it ended early")??;
    let paused = engine.pause()?;
    drop(child.stdin.take());
    let told = said.next().context("it ended early")??;
    ensure!(child.wait()?.success(), "the part failed");
    drop(paused);
    println!("{told}");
    Ok(())
}

/// A run against an engine of its own.
async fn run(cli: &Cli, kind: Kind, bytes: usize) -> Result<Report> {
    let engine = engine_with_stream().await?;
    let kind = kind.to_possible_value().context("a name")?;
    let output = part(cli)
        .args(["put", kind.get_name(), "--endpoint", engine.endpoint(), "--bytes", &bytes.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the part failed");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn part(cli: &Cli) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args(["--records", &cli.records.to_string(), "--budget", &cli.budget.to_string()]);
    command
}

/// An engine with the stream.
async fn engine_with_stream() -> Result<EngineProcess> {
    let engine = EngineProcess::start()?;
    let client = client_of(engine.endpoint());
    client.create_stream().stream_name(STREAM).shard_count(SHARDS).send().await?;
    let summary = || client.describe_stream_summary().stream_name(STREAM).send();
    while summary().await?.stream_description_summary().is_none_or(|summary| summary.open_shard_count() != SHARDS) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(engine)
}

fn key(number: u64) -> String {
    format!("key-{}", number.wrapping_mul(2_654_435_761) % KEYS)
}
