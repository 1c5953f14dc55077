//! A consumer service as small as it gets, for tests that kill and stop it: `consume ENDPOINT STREAM LEASES LOG`.
//!
//! It writes down every record that it handles, and stops gracefully on SIGTERM.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use shardwell_consumer::{
    Batch, Checkpointer, DeliveryPolicy, InitialPosition, LaneContext, Outcome, ProcessError, ProcessResultExt,
    RecordProcessor, Start, Worker, WorkerBuilder, async_trait,
};
use shardwell_core::{Checkpoint, Env, EnvExt, LeaseStore, ReadLimits, ShardId};
use shardwell_integration::{APPLICATION, Event, EventKind, EventLog, Flight, LoggedLeaseStore, serve, stream_of};
use shardwell_sqlite::SqliteLeaseStore;

/// Small, so that a shard is rarely done with all that was read when the process is killed.
const BATCH_RECORDS: usize = 20;

/// How long a batch takes before its records are noted as handled: a kill finds shards in the middle of one.
const WORK: Duration = Duration::from_millis(25);

/// Consumes flights.
#[derive(Parser)]
struct Cli {
    /// The engine.
    endpoint: String,
    stream: String,
    /// The lease table.
    leases: PathBuf,
    /// Where to write down what happens.
    log: PathBuf,
    /// The id of this worker.
    #[arg(long)]
    worker: Option<String>,
    #[arg(long, default_value_t = 1000)]
    lease_millis: u64,
    #[arg(long)]
    planning_millis: Option<u64>,
    #[arg(long, default_value_t = 100)]
    discovery_millis: u64,
    /// Reads of each shard. By default more than the service allows and the engine minds: records flow all the time, so that
    /// a kill finds them on their way.
    #[arg(long, default_value_t = 20.0)]
    reads_per_second: f64,
    /// Write down, too, what the worker does to leases.
    #[arg(long)]
    log_leases: bool,
}

#[derive(Clone)]
struct Journal {
    env: Arc<dyn Env>,
    log: Arc<EventLog>,
}

impl Journal {
    fn note(&self, shard: &ShardId, kind: EventKind) -> std::io::Result<()> {
        self.log.write(&Event { at: self.env.timestamp(), shard: shard.clone(), kind })
    }
}

struct Recorder {
    shard: ShardId,
    journal: Journal,
}

#[async_trait]
impl RecordProcessor for Recorder {
    async fn initialize(&mut self, start: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        self.journal.note(&self.shard, EventKind::Initialized(start.checkpoint))?;
        Ok(None)
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        self.journal.env.sleep(WORK).await;
        for record in batch {
            let key = record.partition_key.as_ref().ok_or("a record without a partition key")?.to_string();
            let Flight { number, .. } = serde_json::from_slice(&record.data).at(record)?;
            let sequence_number = record.position.sequence_number;
            self.journal.note(&self.shard, EventKind::Record { sequence_number, number, key })?;
        }
        Ok(Outcome::Done)
    }

    async fn lease_lost(&mut self) {
        if let Err(error) = self.journal.note(&self.shard, EventKind::LeaseLost) {
            tracing::error!(%error, "cannot write the log");
        }
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        Ok(self.journal.note(&self.shard, EventKind::ShardEnded)?)
    }

    async fn shutdown_requested(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        Ok(self.journal.note(&self.shard, EventKind::ShutdownRequested)?)
    }
}

fn worker(cli: &Cli, env: &Arc<dyn Env>) -> Result<WorkerBuilder> {
    let journal = Journal { env: env.clone(), log: Arc::new(EventLog::open(&cli.log)?) };
    let lease_duration = Duration::from_millis(cli.lease_millis);
    let leases = SqliteLeaseStore::new(&cli.leases, APPLICATION).with_busy_timeout(lease_duration / 4);
    let leases: Arc<dyn LeaseStore> = match cli.log_leases {
        true => Arc::new(LoggedLeaseStore::new(leases, env.clone(), journal.log.clone())),
        false => Arc::new(leases),
    };
    let mut limits = ReadLimits::POLLING;
    limits.reads_per_second = Some(cli.reads_per_second);
    let stream = Arc::new(stream_of(&cli.endpoint, &cli.stream).with_read_limits(limits));
    let processors = move |lane: &LaneContext| Recorder { shard: lane.shard.clone(), journal: journal.clone() };
    let mut worker = Worker::builder_with(APPLICATION, stream, leases, processors)
        .env(env.clone())
        .initial_position(InitialPosition::TrimHorizon)
        .lease_duration(lease_duration)
        .discovery_interval(Duration::from_millis(cli.discovery_millis))
        // The processes of a test share a machine, which may be busy with something else.
        .max_cpu_percent(100.0)
        .delivery(DeliveryPolicy::default().with_batch_records(BATCH_RECORDS));
    if let Some(millis) = cli.planning_millis {
        worker = worker.planning_interval(Duration::from_millis(millis));
    }
    if let Some(id) = &cli.worker {
        worker = worker.worker_id(id.as_str());
    }
    Ok(worker)
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    serve(|env| Ok(worker(&cli, env)?.build()?)).await
}
