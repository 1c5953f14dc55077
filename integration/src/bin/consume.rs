//! A consumer service as small as it gets, for tests that kill it: `consume ENDPOINT STREAM LEASES LOG`.
//!
//! It writes down every record that it handles, and stops gracefully on SIGTERM.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use shardwell_consumer::{
    Batch, Checkpointer, DeliveryPolicy, InitialPosition, Outcome, ProcessError, RecordProcessor, Start, Worker,
    async_trait,
};
use shardwell_core::{Checkpoint, Env, EnvExt, ReadLimits, ShardId, SystemEnv};
use shardwell_integration::{APPLICATION, Event, EventKind, EventLog, end_with_parent, stream_of};
use shardwell_sqlite::SqliteLeaseStore;
use tokio::signal::unix::{SignalKind, signal};

const LEASE_DURATION: Duration = Duration::from_secs(1);

/// Small, so that a shard is rarely done with all that was read when the process is killed.
const BATCH_RECORDS: usize = 20;

/// How long a batch takes before its records are noted as handled: a kill finds shards in the middle of one.
const WORK: Duration = Duration::from_millis(25);

/// More than the service allows and the engine minds: records flow all the time, so that a kill finds them on their way.
const READS_PER_SECOND: Option<f64> = Some(20.0);

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
            let number = std::str::from_utf8(&record.data)?.parse()?;
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

async fn consume(endpoint: &str, stream: &str, leases: &Path, log: &Path) -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let env: Arc<dyn Env> = Arc::new(SystemEnv::new()?);
    let _parent = end_with_parent(&*env);
    let journal = Journal { env: env.clone(), log: Arc::new(EventLog::open(log)?) };
    let leases = SqliteLeaseStore::new(leases, APPLICATION).with_busy_timeout(LEASE_DURATION / 4);
    let mut limits = ReadLimits::POLLING;
    limits.reads_per_second = READS_PER_SECOND;
    let stream = stream_of(endpoint, stream).with_read_limits(limits);
    let worker = Worker::builder(APPLICATION, stream, leases, move |lane| Recorder {
        shard: lane.shard.clone(),
        journal: journal.clone(),
    })
    .env(env)
    .initial_position(InitialPosition::TrimHorizon)
    .lease_duration(LEASE_DURATION)
    .discovery_interval(Duration::from_millis(100))
    .delivery(DeliveryPolicy::default().with_batch_records(BATCH_RECORDS))
    .build()?;
    let stop = async {
        terminated.recv().await;
    };
    Ok(worker.run_until(stop).await?)
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, stream, leases, log] = &arguments[..] else {
        bail!("usage: consume ENDPOINT STREAM LEASES LOG");
    };
    consume(endpoint, stream, &PathBuf::from(leases), &PathBuf::from(log)).await
}
