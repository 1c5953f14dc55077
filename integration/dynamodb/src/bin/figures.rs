//! `figures [--seconds N] [--shards N]`: what a worker at its default settings asks of DynamoDB, and how long it takes to its first
//! record, on an engine in process.
//!
//! The engine creates a table at once, which takes DynamoDB some seconds; and it charges as DynamoDB documents.
#![expect(clippy::disallowed_methods, reason = "what is measured here is real time")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use clap::Parser;
use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use shardwell_aws::{CONSUMED_HALF_UNITS, DynamoLeaseStore, KinesisStream};
use shardwell_consumer::{Batch, InitialPosition, Outcome, ProcessError, RecordProcessor, Worker};
use shardwell_core::{PutEntry, StreamWriter};
use shardwell_integration_dynamodb::Engine;
use shardwell_local::LocalEngine;
use tokio::time::sleep;

/// Measures what a worker asks of DynamoDB.
#[derive(Parser)]
struct Cli {
    /// For how long to measure each of both
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many shards the stream has, and so how many leases there are
    #[arg(long, default_value_t = 32)]
    shards: i32,
}

/// Counts records.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

#[async_trait]
impl RecordProcessor for Counter {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        self.0.fetch_add(batch.records().len() as u64, Ordering::Relaxed);
        Ok(Outcome::Done)
    }
}

impl Counter {
    async fn until(&self, records: u64) {
        while self.0.load(Ordering::Relaxed) < records {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().map_err(|error| anyhow::anyhow!("{error}"))?;
    let (dynamodb, kinesis) = (Engine::start().await?, LocalEngine::start().await?);
    let stream = stream(&kinesis, cli.shards).await?;
    let counter = Counter::default();

    for table in ["a table that does not exist", "a table that does"] {
        let before = counter.0.load(Ordering::Relaxed);
        stream.put(&[PutEntry::new("key", "data")]).await?;
        let started = Instant::now();
        let (worker, ended) = start(&dynamodb, &stream, &counter)?;
        counter.until(before + 1).await;
        println!("start to first record on {table}: {:?}", started.elapsed());
        worker.request_shutdown();
        ended.await??;
    }

    let (worker, ended) = start(&dynamodb, &stream, &counter)?;
    worker.ready().await;
    sleep(Duration::from_secs(10)).await;
    println!("{} leases, one worker, default settings; units per lease and hour:", cli.shards);
    for (load, is_busy) in [("idle", false), ("busy", true)] {
        taken(&snapshotter);
        let until = Instant::now() + Duration::from_secs(cli.seconds);
        while Instant::now() < until {
            if is_busy {
                put_everywhere(&stream).await?;
            }
            sleep(Duration::from_secs(1)).await;
        }
        let per_lease_hour = 3600.0 / cli.seconds as f64 / f64::from(cli.shards);
        for (purpose, units) in taken(&snapshotter) {
            println!("  {load}: {purpose:<12} {:8.1}", units * per_lease_hour);
        }
    }
    worker.request_shutdown();
    ended.await??;
    Ok(())
}

/// A few records for every shard.
async fn put_everywhere(stream: &KinesisStream) -> Result<()> {
    let entries: Vec<PutEntry> = (0..400).map(|key| PutEntry::new(key.to_string(), "data")).collect();
    stream.put(&entries).await.context("cannot put")?;
    Ok(())
}

type Running = tokio::task::JoinHandle<Result<(), shardwell_consumer::WorkerError>>;

fn start(
    dynamodb: &Engine,
    stream: &KinesisStream,
    counter: &Counter,
) -> Result<(shardwell_consumer::WorkerHandle, Running)> {
    let leases = DynamoLeaseStore::new(&dynamodb.client(), "figures");
    let counter = counter.clone();
    let worker = Worker::builder("figures", stream.clone(), leases, move |_| counter.clone());
    let worker = worker.initial_position(InitialPosition::TrimHorizon).build()?;
    Ok((worker.handle(), tokio::spawn(worker.run())))
}

async fn stream(engine: &LocalEngine, shards: i32) -> Result<KinesisStream> {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local engine"))
        .endpoint_url(engine.endpoint());
    let client = aws_sdk_kinesis::Client::from_conf(config.build());
    client.create_stream().stream_name("figures").shard_count(shards).send().await?;
    let stream = KinesisStream::new(&client, "figures");
    sleep(Duration::from_secs(1)).await;
    Ok(stream)
}

/// The capacity units since the last call, by purpose.
fn taken(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let mut units = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let (kind, key) = key.into_parts();
        if let (MetricKind::Counter, CONSUMED_HALF_UNITS, DebugValue::Counter(halves)) = (kind, key.name(), value) {
            let purpose = key.labels().find(|label| label.key() == "purpose").map(|label| label.value().to_owned());
            *units.entry(purpose.unwrap_or_default()).or_default() += halves as f64 / 2.0;
        }
    }
    units
}
