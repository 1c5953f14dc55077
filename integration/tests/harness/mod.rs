//! A stream that is written all the time, and consuming processes that are killed one after the other.

pub(crate) mod audit;
mod process;
mod producer;
mod resharding;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::memory::kinesis::StreamSettings;
use shardwell_core::{Checkpoint, Env, EnvExt, LeaseStore, ShardId, StreamStatus, SystemEnv, Timestamp};
use shardwell_integration::{APPLICATION, stream_of};
use shardwell_local::LocalEngine;
use shardwell_sqlite::SqliteLeaseStore;

use audit::{Ledger, Round};
use process::ConsumerProcess;
use producer::Producer;

const STREAM: &str = "events";

/// Nothing that a test waits for takes nearly as long, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// When a process is killed.
enum Moment {
    /// So long after its start: it may not have a single lease yet.
    AfterStart(Duration),
    /// So long after the first record that it handled.
    AfterFirstRecord(Duration),
}

impl Moment {
    /// A random moment. Most lie where there is something to lose.
    fn random(random: &mut fastrand::Rng) -> Self {
        match random.u32(0..4) {
            0 => Self::AfterStart(Duration::from_millis(random.u64(0..1800))),
            _ => Self::AfterFirstRecord(Duration::from_millis(random.u64(0..1000))),
        }
    }
}

/// An engine with a stream, its producer, and the consumers' lease table.
pub(crate) struct World {
    engine: LocalEngine,
    env: Arc<dyn Env>,
    producer: Producer,
    directory: tempfile::TempDir,
    random: fastrand::Rng,
    rounds: Vec<Round>,
}

impl World {
    /// Creates a stream of four shards, and starts to put records.
    pub(crate) async fn start(seed: u64) -> Self {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new().expect("threads"));
        let engine = LocalEngine::start().await.expect("a free port");
        engine.kinesis().lock().create_stream(STREAM, StreamSettings::new(4), engine.now()).expect("a new stream");
        let producer_stream = stream_of(&engine.endpoint(), STREAM);
        let directory = tempfile::tempdir().expect("a directory");
        let random = fastrand::Rng::with_seed(seed);
        until_active(&engine, &env).await;
        let producer = Producer::start(&env, producer_stream);
        Self { engine, env, producer, directory, random, rounds: Vec::new() }
    }

    /// Lets a process consume, and kills it at a random moment.
    pub(crate) async fn round(&mut self) {
        self.consume_and_kill(false).await;
    }

    /// As [`round`](Self::round), with a change of the shards before the process starts or while it runs.
    pub(crate) async fn round_with_resharding(&mut self) {
        let while_it_runs = self.random.bool();
        if !while_it_runs {
            resharding::reshard(&self.engine, &mut self.random);
            until_active(&self.engine, &self.env).await;
        }
        self.consume_and_kill(while_it_runs).await;
        until_active(&self.engine, &self.env).await;
    }

    async fn consume_and_kill(&mut self, reshard: bool) {
        let mut process = self.start_process();
        let time = match Moment::random(&mut self.random) {
            Moment::AfterStart(time) => time,
            Moment::AfterFirstRecord(time) => {
                self.until("the process handles a record", || process.has_handled_a_record()).await;
                time
            }
        };
        let moment = self.env.now().plus(time);
        if reshard {
            resharding::reshard(&self.engine, &mut self.random);
        }
        self.env.sleep_until(moment).await;
        let killed_at = self.env.timestamp();
        process.kill();
        self.finish_round(&process, Some(killed_at)).await;
    }

    /// Stops the producer, lets a last process catch up, stops that gracefully, and gives what happened.
    pub(crate) async fn finish(mut self) -> Ledger {
        let mut process = self.start_process();
        let puts = self.producer.stop().await;
        let mut missing: BTreeSet<u64> = puts.iter().map(|put| put.number).collect();
        for number in self.rounds.iter().flat_map(|round| audit::numbers(&round.events)) {
            missing.remove(&number);
        }
        // Where something is lost, the audit says what.
        let deadline = self.env.now().plus(PATIENCE);
        while !missing.is_subset(&audit::numbers(&process.events()).collect()) && self.env.now() < deadline {
            self.env.sleep(Duration::from_millis(5)).await;
        }
        process.terminate();
        self.until("the process stops", || process.has_ended()).await;
        process.assert_ended_well();
        self.finish_round(&process, None).await;
        Ledger { puts, rounds: self.rounds }
    }

    fn start_process(&self) -> ConsumerProcess {
        let round = self.rounds.len();
        let files = self.directory.path().join(format!("round-{round}"));
        ConsumerProcess::start(self.env.now(), &self.engine.endpoint(), STREAM, &self.leases(), &files)
    }

    fn leases(&self) -> PathBuf {
        self.directory.path().join("leases.sqlite")
    }

    /// Takes down what the process did and what it left behind.
    async fn finish_round(&mut self, process: &ConsumerProcess, killed_at: Option<Timestamp>) {
        process.assert_no_error();
        let listing =
            SqliteLeaseStore::new(self.leases(), APPLICATION).leases().await.expect("a table that is not harmed");
        assert_eq!(listing.unreadable, [], "no row is harmed");
        if killed_at.is_none() {
            assert!(listing.leases.iter().all(|lease| lease.owner.is_none()), "released: {:?}", listing.leases);
        }
        let checkpoints: BTreeMap<ShardId, Checkpoint> =
            listing.leases.into_iter().map(|lease| (lease.shard, lease.checkpoint)).collect();
        let took = self.env.now().since(process.started);
        self.rounds.push(Round { events: process.events(), killed_at, checkpoints, took });
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.env, what, condition).await;
    }
}

async fn until(env: &dyn Env, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = env.now().plus(PATIENCE);
    while !condition() {
        assert!(env.now() < deadline, "not within {PATIENCE:?}: {what}");
        env.sleep(Duration::from_millis(5)).await;
    }
}

async fn until_active(engine: &LocalEngine, env: &Arc<dyn Env>) {
    let status = || engine.kinesis().lock().describe(STREAM, engine.now()).expect("there").status;
    until(&**env, "the stream is active", || status() == StreamStatus::Active).await;
}
