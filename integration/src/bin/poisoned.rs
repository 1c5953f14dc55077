//! A consumer service for tests that plant records which cannot be processed, and that kill it.
//!
//! It writes down every record that it handles or fails on, and stops gracefully on SIGTERM.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use shardwell_consumer::{
    Batch, DeliveryPolicy, InitialPosition, LaneContext, Outcome, ProcessError, ProcessResultExt, RecordFailure,
    RecordProcessor, Start, Worker, async_trait,
};
use shardwell_core::{Checkpoint, Env, EnvExt, ReadLimits, RetryPolicy, UserRecord};
use shardwell_integration::{APPLICATION, Event, EventKind, EventLog, Flight, Trouble, serve, stream_of};
use shardwell_sqlite::{SqliteDeadLetters, SqliteLeaseStore};

/// How often a record is tried again by itself before it is dead.
const MAX_RETRIES: u32 = 2;

/// Small, so that a shard is rarely done with all that was read when the process is killed.
const BATCH_BYTES: usize = 64 * 1024;
const BATCH_RECORDS: usize = 128;

/// How long a batch takes before its records are noted as handled, and how long each of them takes on top: a kill finds
/// shards in the middle of one.
const WORK: Duration = Duration::from_millis(2);
const WORK_PER_RECORD: Duration = Duration::from_micros(100);

/// Many times what the largest batch takes, on a machine that does other things too.
const PROCESSOR_TIMEOUT: Duration = Duration::from_millis(300);

/// More than the service allows and the engine minds: records flow all the time, so that a kill finds them on their way.
const READS_PER_SECOND: Option<f64> = Some(20.0);

/// Consumes flights, some of which are poison.
#[derive(Parser)]
struct Cli {
    /// The engine.
    #[arg(long)]
    endpoint: String,
    #[arg(long)]
    stream: String,
    /// The lease table.
    #[arg(long)]
    leases: PathBuf,
    #[arg(long)]
    lease_millis: u64,
    #[arg(long)]
    dead_letters: PathBuf,
    /// Where to write down what happens.
    #[arg(long)]
    log: PathBuf,
    /// The id of this worker.
    #[arg(long)]
    worker: String,
    #[arg(long)]
    lanes: u32,
    /// Process everything: whatever was wrong with the service has been fixed.
    #[arg(long)]
    fixed: bool,
}

/// What the processors of the process share.
struct Service {
    env: Arc<dyn Env>,
    log: EventLog,
    fixed: bool,
    /// The outages that are over.
    over: Mutex<BTreeSet<u64>>,
}

struct Processor {
    service: Arc<Service>,
    lane: LaneContext,
}

impl Processor {
    fn note(&self, kind: EventKind) -> std::io::Result<()> {
        self.service.log.write(&Event { at: self.service.env.timestamp(), shard: self.lane.shard.clone(), kind })
    }

    fn handled(&self, record: &UserRecord, number: u64) -> Result<(), ProcessError> {
        let key = record.partition_key.as_ref().ok_or("a record without a partition key")?.to_string();
        let sequence_number = record.position.sequence_number;
        Ok(self.note(match self.lane.redrive {
            true => EventKind::Redriven { number, key },
            false => EventKind::Record { sequence_number, number, key },
        })?)
    }

    /// What is wrong with a flight this time.
    fn trouble(&self, flight: &Flight, attempt: u32) -> Option<Trouble> {
        let happens = match flight.trouble? {
            _ if self.service.fixed => false,
            Trouble::Flaky => attempt <= MAX_RETRIES,
            Trouble::Outage => self.service.over.lock().unwrap_or_else(PoisonError::into_inner).insert(flight.number),
            Trouble::Permanent | Trouble::Named | Trouble::Whole | Trouble::Panic | Trouble::Slow | Trouble::Abort => {
                true
            }
        };
        flight.trouble.filter(|_| happens)
    }
}

#[async_trait]
impl RecordProcessor for Processor {
    async fn initialize(&mut self, start: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        if !self.lane.redrive {
            self.note(EventKind::Initialized(start.checkpoint))?;
        }
        Ok(None)
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        let records = u32::try_from(batch.records().len())?;
        self.service.env.sleep(WORK + WORK_PER_RECORD * records).await;
        let mut failed = Vec::new();
        for record in batch {
            let flight: Flight = serde_json::from_slice(&record.data).at(record)?;
            let Some(trouble) = self.trouble(&flight, batch.attempt()) else {
                self.handled(record, flight.number)?;
                continue;
            };
            self.note(EventKind::Failed { number: flight.number })?;
            let error = format!("flight {} is {trouble:?}", flight.number);
            match trouble {
                // An error at a record says that all before it is done, which a record that failed is not.
                Trouble::Permanent if failed.is_empty() => return Err(error).permanent().at(record),
                Trouble::Outage if failed.is_empty() => return Err(error).transient().at(record),
                Trouble::Permanent => failed.push(RecordFailure::new(record, ProcessError::permanent(error))),
                Trouble::Outage => failed.push(RecordFailure::new(record, ProcessError::transient(error))),
                Trouble::Named => failed.push(RecordFailure::new(record, error)),
                Trouble::Whole | Trouble::Flaky => return Err(error.into()),
                Trouble::Panic => panic!("{error}"),
                Trouble::Slow => std::future::pending::<()>().await,
                Trouble::Abort => std::process::abort(),
            }
        }
        Ok(Outcome::Failed(failed))
    }

    async fn lease_lost(&mut self) {
        if let Err(error) = self.note(EventKind::LeaseLost) {
            tracing::error!(%error, "cannot write the log");
        }
    }

    async fn shard_ended(&mut self, _: &shardwell_consumer::Checkpointer) -> Result<(), ProcessError> {
        Ok(self.note(EventKind::ShardEnded)?)
    }
}

fn worker(cli: &Cli, env: Arc<dyn Env>) -> Result<Worker> {
    let lease_duration = Duration::from_millis(cli.lease_millis);
    let leases = SqliteLeaseStore::new(&cli.leases, APPLICATION).with_busy_timeout(lease_duration / 4);
    let mut limits = ReadLimits::POLLING;
    limits.reads_per_second = READS_PER_SECOND;
    let stream = stream_of(&cli.endpoint, &cli.stream).with_read_limits(limits);
    let policy = DeliveryPolicy::default()
        .with_lanes(cli.lanes)
        .with_batch_records(BATCH_RECORDS)
        .with_batch_bytes(BATCH_BYTES)
        .with_max_retries(Some(MAX_RETRIES))
        .with_processor_timeout(Some(PROCESSOR_TIMEOUT))
        .with_backoff(RetryPolicy::default().with_initial(Duration::from_millis(20)))
        .with_outage_backoff(RetryPolicy::default().with_initial(Duration::from_millis(50)));
    let log = EventLog::open(&cli.log)?;
    let service = Arc::new(Service { env: env.clone(), log, fixed: cli.fixed, over: Mutex::default() });
    let processor = move |lane: &LaneContext| Processor { service: service.clone(), lane: lane.clone() };
    Ok(Worker::builder(APPLICATION, stream, leases, processor)
        .worker_id(cli.worker.as_str())
        .env(env)
        .initial_position(InitialPosition::TrimHorizon)
        .lease_duration(lease_duration)
        .discovery_interval(Duration::from_millis(100))
        .delivery(policy)
        .dead_letters(SqliteDeadLetters::new(&cli.dead_letters))
        .redrive_interval(Duration::from_millis(200))
        .build()?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    serve(|env| worker(&cli, env.clone())).await
}
