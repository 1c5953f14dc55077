//! A stream of flights, and a fleet of worker processes that share its shards by a lease table in SQLite.

pub(crate) mod audit;
pub(crate) mod deliveries;
pub(crate) mod faults;
mod helper;
pub(crate) mod history;
pub(crate) mod lease_table;
pub(crate) mod member;
mod settling;

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::memory::kinesis::StreamSettings;
use shardwell_core::{Env, Shard, ShardFilter, SystemEnv};
use shardwell_integration::{Event, EventKind};
use shardwell_local::LocalEngine;

use crate::common::process::ServiceProcess;
use crate::common::{until, until_active};
use crate::flights::producer::{Pace, Producer, Put};
use crate::flights::{PlannedFlight, STREAM};
use deliveries::{Ledger, Life};
use lease_table::LeaseTable;
use member::{End, Member};

/// The service's limit, and as much as two cores can do for so many shards.
const READS_PER_SECOND: &str = "5";

/// How a fleet's world is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) shards: u32,
    pub(crate) lease_duration: Duration,
    pub(crate) planning_interval: Duration,
    pub(crate) discovery_interval: Duration,
    /// Flights that are put each second.
    pub(crate) per_second: f64,
}

/// An engine with a stream, its producer, and what the workers keep.
pub(crate) struct World {
    pub(crate) env: Arc<dyn Env>,
    pub(crate) settings: Settings,
    pub(crate) table: LeaseTable,
    engine: Arc<LocalEngine>,
    producer: Producer,
    directory: tempfile::TempDir,
    flights: Arc<[PlannedFlight]>,
    /// The flights that nobody has handled yet.
    outstanding: BTreeSet<u64>,
    /// The processes that have ended.
    lives: Vec<Life>,
    /// How many processes were started.
    starts: usize,
    /// How often shards were split or merged, once all is put.
    reshards: u32,
    /// From when all was done and stored until every member had its share.
    settled_within: Duration,
}

impl World {
    /// Creates a stream and a lease table, and starts to put flights.
    pub(crate) async fn start(flights: Vec<PlannedFlight>, settings: Settings, seed: u64) -> Self {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new().expect("threads"));
        let engine = Arc::new(LocalEngine::start().await.expect("a free port"));
        let stream = StreamSettings::new(settings.shards);
        engine.kinesis().lock().create_stream(STREAM, stream, engine.now()).expect("a new stream");
        until_active(&engine, STREAM, &*env).await;
        let directory = tempfile::tempdir().expect("a directory");
        let table = LeaseTable::create(directory.path().join("leases.sqlite")).await;
        let flights: Arc<[PlannedFlight]> = flights.into();
        let pace = Pace { shards: settings.shards, per_second: settings.per_second };
        let producer = Producer::start(&env, &engine, &flights, pace, seed);
        let outstanding = flights.iter().map(|planned| planned.flight.number).collect();
        let (lives, starts, reshards, settled_within) = (Vec::new(), 0, 0, Duration::ZERO);
        Self {
            env,
            settings,
            table,
            engine,
            producer,
            directory,
            flights,
            outstanding,
            lives,
            starts,
            reshards,
            settled_within,
        }
    }

    /// Whether there are flights that were not put yet.
    pub(crate) fn is_being_written(&self) -> bool {
        !self.producer.is_finished()
    }

    /// Whether there are flights that nobody is known to have handled.
    pub(crate) fn has_outstanding(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// Has shards split or merged soon.
    pub(crate) fn order_reshard(&self) {
        self.producer.order_reshard();
    }

    pub(crate) fn start_member(&mut self) -> Member {
        self.starts += 1;
        let worker = format!("worker-{}", self.starts);
        let files = self.directory.path().join(&worker);
        let millis = |duration: Duration| duration.as_millis().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_consume"));
        command
            .args([&self.engine.endpoint(), STREAM])
            .args([self.table.path(), &files.with_extension("log")])
            .args(["--log-leases", "--worker", &worker, "--reads-per-second", READS_PER_SECOND])
            .args(["--lease-millis", &millis(self.settings.lease_duration)])
            .args(["--planning-millis", &millis(self.settings.planning_interval)])
            .args(["--discovery-millis", &millis(self.settings.discovery_interval)]);
        Member::new(worker.into(), ServiceProcess::start(self.env.now(), command, &files))
    }

    /// Takes in what a member did since the last call; answers whether it handled anything.
    pub(crate) fn take_news(&mut self, member: &mut Member) -> bool {
        let mut any = false;
        for number in numbers(member.news()) {
            self.outstanding.remove(&number);
            any = true;
        }
        any
    }

    /// Takes down what a member did that has ended.
    pub(crate) fn bury(&mut self, member: Member, end: End) {
        let (worker, took) = (member.worker.clone(), member.age(self.env.now()));
        let events = member.into_events();
        for number in numbers(&events) {
            self.outstanding.remove(&number);
        }
        self.lives.push(Life { worker, events, end, took });
    }

    /// Stops members, all at once or one after the other, and gives all that happened.
    pub(crate) async fn finish(mut self, mut members: Vec<Member>, puts: Vec<Put>, at_once: bool) -> Ledger {
        let env = self.env.clone();
        if at_once {
            members.iter_mut().for_each(|member| member.terminate(env.now()));
        }
        for mut member in members {
            if !at_once {
                member.terminate(env.now());
            }
            until(&*env, "the worker stops", || member.ended().is_some()).await;
            self.bury(member, End::Stopped);
        }
        let leases = self.table.leases().await;
        assert_eq!(self.table.workers().await, [], "everybody has left the plan");
        Ledger {
            shards: self.shards(),
            history: self.table.history_after(0),
            flights: self.flights,
            lives: self.lives,
            puts,
            reshards: self.reshards,
            settled_within: self.settled_within,
            leases,
            lease_duration: self.settings.lease_duration,
        }
    }

    fn shards(&self) -> Vec<Shard> {
        let now = self.engine.now();
        self.engine.kinesis().lock().list_shards(STREAM, &ShardFilter::All, now).expect("listed")
    }
}

/// The numbers of the flights that were handled, in order, repeated ones too.
pub(crate) fn numbers(events: &[Event]) -> impl Iterator<Item = u64> {
    events.iter().filter_map(|event| match &event.kind {
        EventKind::Record { number, .. } => Some(*number),
        _ => None,
    })
}
