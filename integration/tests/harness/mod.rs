//! A stream that is written all the time, and consuming processes that are killed one after the other.

pub(crate) mod audit;
mod producer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::memory::kinesis::StreamSettings;
use shardwell_core::{Checkpoint, Env, EnvExt, LeaseStore, ShardId, SystemEnv, Timestamp};
use shardwell_integration::{APPLICATION, stream_of};
use shardwell_local::LocalEngine;
use shardwell_sqlite::SqliteLeaseStore;

use crate::common::process::{SIGKILL, ServiceProcess};
use crate::common::resharding::reshard;
use crate::common::{PATIENCE, until, until_active};
use crate::moment::Moment;
use audit::{Ledger, Round};
use producer::Producer;

const STREAM: &str = "events";
const SHARDS: u32 = 4;

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
        engine.kinesis().lock().create_stream(STREAM, StreamSettings::new(SHARDS), engine.now()).expect("a new stream");
        let producer_stream = stream_of(&engine.endpoint(), STREAM);
        let directory = tempfile::tempdir().expect("a directory");
        let random = fastrand::Rng::with_seed(seed);
        until_active(&engine, STREAM, &*env).await;
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
            reshard(&self.engine, STREAM, SHARDS, &mut self.random);
            until_active(&self.engine, STREAM, &*self.env).await;
        }
        self.consume_and_kill(while_it_runs).await;
        until_active(&self.engine, STREAM, &*self.env).await;
    }

    async fn consume_and_kill(&mut self, with_resharding: bool) {
        let mut process = self.start_process();
        let time = match Moment::random(&mut self.random) {
            Moment::AfterStart(time) => time,
            Moment::AfterFirstRecord(time) => {
                self.until("the process handles a record", || process.has_handled_a_record()).await;
                time
            }
        };
        let moment = self.env.now().plus(time);
        if with_resharding {
            reshard(&self.engine, STREAM, SHARDS, &mut self.random);
        }
        self.env.sleep_until(moment).await;
        let killed_at = self.env.timestamp();
        let signal = process.kill();
        assert_eq!(signal, Some(SIGKILL), "it ended by itself: {}", process.trace());
        self.finish_round(process, Some(killed_at)).await;
    }

    /// Stops the producer, lets a last process catch up, stops that gracefully, and gives what happened.
    pub(crate) async fn finish(mut self) -> Ledger {
        let mut process = self.start_process();
        let puts = self.producer.stop().await;
        let mut missing: BTreeSet<u64> = puts.iter().map(|put| put.number).collect();
        for number in self.rounds.iter().flat_map(|round| audit::numbers(&round.events)) {
            missing.remove(&number);
        }
        // What an earlier one handled and did not store is given to the last one too.
        missing.extend(audit::left_to_store(&puts, &self.rounds).map(|(put, _)| put.number));
        // Where something is lost, the audit says what.
        let deadline = self.env.now().plus(PATIENCE);
        while !missing.is_empty() && self.env.now() < deadline {
            self.env.sleep(Duration::from_millis(5)).await;
            for number in audit::numbers(process.news()) {
                missing.remove(&number);
            }
        }
        process.terminate();
        self.until("the process stops", || process.ended().is_some()).await;
        process.assert_ended_well();
        self.finish_round(process, None).await;
        Ledger { puts, rounds: self.rounds }
    }

    fn start_process(&self) -> ServiceProcess {
        let round = self.rounds.len();
        let files = self.directory.path().join(format!("round-{round}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_consume"));
        command.args([&self.engine.endpoint(), STREAM]).args([self.leases(), files.with_extension("log")]);
        ServiceProcess::start(self.env.now(), command, &files)
    }

    fn leases(&self) -> PathBuf {
        self.directory.path().join("leases.sqlite")
    }

    /// Takes down what the process did and what it left behind.
    async fn finish_round(&mut self, mut process: ServiceProcess, killed_at: Option<Timestamp>) {
        let trace = process.trace();
        assert!(!trace.contains(" ERROR ") && !trace.contains("panicked"), "{trace}");
        process.news();
        let listing =
            SqliteLeaseStore::new(self.leases(), APPLICATION).leases().await.expect("a table that is not harmed");
        assert_eq!(listing.unreadable, [], "no row is harmed");
        if killed_at.is_none() {
            assert!(
                listing.leases.iter().all(|lease| lease.is_finished() || lease.owner.is_none()),
                "released: {:?}",
                listing.leases
            );
        }
        let checkpoints: BTreeMap<ShardId, Checkpoint> =
            listing.leases.into_iter().map(|lease| (lease.shard, lease.checkpoint)).collect();
        let took = self.env.now().since(process.started);
        self.rounds.push(Round { events: process.events().to_vec(), killed_at, checkpoints, took });
    }

    async fn until(&self, what: &str, condition: impl FnMut() -> bool) {
        until(&*self.env, what, condition).await;
    }
}
