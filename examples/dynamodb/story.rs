//! The story that they tell: a consumer writes into DynamoDB, is killed and started again in the middle, and in the end the
//! tables are as if every flight had come exactly once.
//!
//! The consumer is a process of its own, since that is what is killed: this very program, started with `--consume`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use shardwell::aws::aws_sdk_dynamodb::Client;
use shardwell::aws::aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use shardwell::aws::aws_sdk_dynamodb::{Config, types::AttributeValue};
use shardwell::aws::{DynamoLeaseStore, KinesisStream};
use shardwell::local::LocalEngine;
use shardwell::producer::Landed;
use shardwell::{ExtendedSequenceNumber, InitialPosition, LeaseStore, ShardId, WorkerBuilder};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::tables::{self, Tables};
use crate::flights::{self, Flight};
use crate::{A_WEEK, local_client, pause, stream};

const STREAM: &str = "flights";

/// A flight's record is delivered again from the last checkpoint, which is a few seconds old. Stored more often, less comes again.
const LEASE_DURATION: Duration = Duration::from_secs(2);

/// How often to look.
const PAUSE: Duration = Duration::from_millis(100);

/// How long everything may take that usually takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command line of both examples.
#[derive(Clone, Debug, Parser)]
pub struct Arguments {
    /// Where DynamoDB answers: an engine on this machine, such as `integration/run example NAME` starts
    #[arg(long, value_name = "URL")]
    dynamodb: String,
    /// A file with a flight in each line, as JSON; .gz is read as it is. Default: a week of flights.
    #[arg(long, value_name = "FILE", default_value = A_WEEK, hide_default_value = true)]
    flights: PathBuf,
    /// How many shards the stream has
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=100))]
    shards: i32,
    /// How many processes the consumer has
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    processes: u8,
    /// How often a process is killed
    #[arg(long, default_value_t = 2)]
    kills: usize,
    /// Which processes are killed, where there are several; the same number kills the same ones
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Be the consumer, of the stream at this endpoint, writing to tables with this in their names
    #[arg(long, num_args = 2, value_names = ["URL", "NAME"], hide = true)]
    consume: Option<Vec<String>>,
}

impl Arguments {
    /// What this process is to consume, if it is the consumer.
    ///
    /// # Errors
    /// Where a table is not there.
    pub async fn consumer(&self) -> Result<Option<Consumer>> {
        let Some([endpoint, name]) = self.consume.as_deref() else { return Ok(None) };
        let client = dynamodb(&self.dynamodb);
        Ok(Some(Consumer {
            stream: KinesisStream::new(&local_client(endpoint), STREAM),
            leases: DynamoLeaseStore::new(&client, format!("{name}-leases")),
            tables: Tables::open(&client, name).await?,
            application: format!("{name}-leases"),
        }))
    }
}

/// What a consumer works with.
#[derive(Debug)]
pub struct Consumer {
    /// The name of the application, which is that of its lease table.
    pub application: String,
    /// The flights.
    pub stream: KinesisStream,
    /// The lease table.
    pub leases: DynamoLeaseStore,
    /// The tables to write to.
    pub tables: Tables,
}

impl Consumer {
    /// Runs a worker until this process is killed.
    ///
    /// # Errors
    /// When the worker stops by itself.
    pub async fn run(builder: WorkerBuilder) -> Result<()> {
        let builder = builder.initial_position(InitialPosition::TrimHorizon).lease_duration(LEASE_DURATION);
        builder.read_pacing(false).build()?.run().await.context("the worker stopped")
    }
}

/// What a consumer says on its standard output: how many records a batch had.
const BATCH: &str = "batch ";

/// Says that a batch is delivered.
pub fn tell_batch(records: usize) {
    println!("{BATCH}{records}");
}

/// A client of a DynamoDB engine that asks for no credentials.
fn dynamodb(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local engine"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// Sets everything up, kills the consumer in the middle, and compares.
///
/// # Errors
/// When a table is not as the file says, and when something cannot be reached or started.
pub async fn tell_it(arguments: &Arguments) -> Result<()> {
    let entries = flights::entries(&arguments.flights)?;
    println!(
        "1. Starting a Kinesis inside this program, and creating tables in the DynamoDB at {}.",
        arguments.dynamodb
    );
    let engine = LocalEngine::start().await?;
    let client = dynamodb(&arguments.dynamodb);
    // Whatever an earlier run left behind is not in the way.
    let name = format!("shardwell-{}", std::process::id());
    let tables = tables::create(&client, &name).await?;
    let stream = stream::create(&local_client(&engine.endpoint()), STREAM, arguments.shards).await?;

    println!("2. Putting {} flights, and starting {} to consume them.", entries.len(), processes(arguments.processes));
    let landed = stream::put(&stream::producer(&stream, false)?, &entries).await?;
    let last = last(&landed);
    let leases = DynamoLeaseStore::new(&client, format!("{name}-leases"));
    let mut consumers = Consumers::start(arguments, &engine.endpoint(), &name)?;
    for killed in 0..arguments.kills {
        let enough = entries.len() * (killed + 1) / (arguments.kills + 1);
        consumers.until(async |delivered| Ok(delivered >= enough)).await?;
        println!(
            "3. {} flights were delivered: killing a process with SIGKILL, and starting another one.",
            consumers.delivered()
        );
        consumers.replace_one().await?;
    }
    consumers.until(async |_| is_done(&leases, &last).await).await?;
    let delivered = consumers.delivered();
    drop(consumers);

    println!("4. Comparing the tables with the file.");
    let truth = Truth::of(&arguments.flights)?;
    let (planes, carriers) = (tables.planes(&client).await?, tables.carriers(&client).await?);
    ensure!(carriers == truth.carriers, "wrong counts: {carriers:?}, and the file says {:?}", truth.carriers);
    let wrong = truth.planes.iter().find(|(tail, airport)| planes.get(*tail) != Some(airport));
    ensure!(wrong.is_none() && planes.len() == truth.planes.len(), "an aircraft is not where the file says: {wrong:?}");
    println!(
        "   Right: {} aircraft are where their last flight went, and {} flights of {} carriers are counted once each.",
        planes.len(),
        carriers.values().sum::<u64>(),
        carriers.len(),
    );
    println!("   {delivered} were delivered, {} of them again.", delivered.saturating_sub(entries.len()));
    tables.delete(&client, &name).await?;
    engine.stop().await;
    Ok(())
}

/// The last record of each shard.
fn last(landed: &[Landed]) -> BTreeMap<ShardId, ExtendedSequenceNumber> {
    let mut last = BTreeMap::new();
    for Landed { shard, position, .. } in landed {
        let newest = last.entry(shard.clone()).or_insert(*position);
        *newest = (*newest).max(*position);
    }
    last
}

/// Whether every shard's checkpoint is past its last record.
async fn is_done(leases: &DynamoLeaseStore, last: &BTreeMap<ShardId, ExtendedSequenceNumber>) -> Result<bool> {
    let leases = leases.leases().await?.leases;
    let position = |shard: &ShardId| leases.iter().find(|lease| lease.shard == *shard)?.checkpoint.position();
    Ok(last.iter().all(|(shard, last)| position(shard).is_some_and(|position| position >= *last)))
}

/// What the tables must say in the end.
struct Truth {
    /// Where each aircraft is.
    planes: BTreeMap<String, String>,
    /// How many flights each carrier had.
    carriers: BTreeMap<String, u64>,
}

impl Truth {
    /// Flights of an aircraft are put in the order of the file, and have one partition key.
    fn of(file: &std::path::Path) -> Result<Self> {
        let mut truth = Self { planes: BTreeMap::new(), carriers: BTreeMap::new() };
        for entry in flights::entries(file)? {
            let flight = Flight::parse(&entry.data)?;
            *truth.carriers.entry(flight.carrier.to_string()).or_default() += 1;
            if let Some(tail) = flight.tail() {
                truth.planes.insert(tail.to_owned(), flight.dest.to_string());
            }
        }
        Ok(truth)
    }
}

fn processes(count: u8) -> String {
    if count == 1 { "a process".to_owned() } else { format!("{count} processes") }
}

/// The consumer's processes, and what they say.
struct Consumers {
    /// What starts another one.
    arguments: [String; 5],
    children: Vec<Child>,
    /// How many records they were given.
    delivered: Arc<AtomicUsize>,
    random: u64,
}

impl Consumers {
    fn start(arguments: &Arguments, endpoint: &str, name: &str) -> Result<Self> {
        let words = ["--dynamodb", &arguments.dynamodb, "--consume", endpoint, name].map(str::to_owned);
        let delivered = Arc::new(AtomicUsize::new(0));
        let mut this = Self { arguments: words, children: Vec::new(), delivered, random: arguments.seed };
        for _ in 0..arguments.processes {
            this.add()?;
        }
        Ok(this)
    }

    #[expect(clippy::disallowed_methods, reason = "an example has no `Env` to go through")]
    fn add(&mut self) -> Result<()> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        let mut command = Command::new(program);
        command.args(&self.arguments).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start a consumer")?;
        let out = child.stdout.take().context("the consumer has no standard output")?;
        let delivered = self.delivered.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(out).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                delivered.fetch_add(batch(&line), Ordering::Relaxed);
            }
        });
        self.children.push(child);
        Ok(())
    }

    fn delivered(&self) -> usize {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Waits until it is done, which is asked again and again.
    async fn until(&mut self, is_done: impl AsyncFn(usize) -> Result<bool>) -> Result<()> {
        let (mut before, mut quiet) = (self.delivered(), Duration::ZERO);
        while !is_done(self.delivered()).await? {
            pause(PAUSE).await;
            quiet = if self.delivered() > before { Duration::ZERO } else { quiet + PAUSE };
            before = self.delivered();
            ensure!(quiet < PATIENCE, "nothing has been delivered for {PATIENCE:?}");
            for child in &mut self.children {
                ensure!(child.try_wait()?.is_none(), "a consumer has ended by itself; what it said is above");
            }
        }
        Ok(())
    }

    /// Kills one of them, and starts another one.
    async fn replace_one(&mut self) -> Result<()> {
        // Knuth's generator: the upper bits are random enough to choose a victim.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let victim = (self.random >> 33) as usize % self.children.len();
        self.children.swap_remove(victim).kill().await.context("cannot kill a consumer")?;
        self.add()
    }
}

fn batch(line: &str) -> usize {
    line.strip_prefix(BATCH).and_then(|records| records.parse().ok()).unwrap_or_default()
}

/// Text, as DynamoDB has it.
pub fn text(text: impl Into<String>) -> AttributeValue {
    AttributeValue::S(text.into())
}
