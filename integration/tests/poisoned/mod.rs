//! A stream of flights with poison among them, and processes that consume it, one after the other.

pub(crate) mod audit;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::dead_letter::{ArchivedLetter, DeadLetterArchive, LetterQuery, LetterState};
use shardwell_core::delivery::ResumeState;
use shardwell_core::memory::kinesis::StreamSettings;
use shardwell_core::{Checkpoint, Env, EnvExt, Lease, LeaseStore, Monotonic, ShardId, SystemEnv};
use shardwell_integration::APPLICATION;
use shardwell_local::LocalEngine;
use shardwell_sqlite::{SqliteDeadLetters, SqliteLeaseStore};

use crate::common::process::{SIGKILL, ServiceProcess};
use crate::common::{PATIENCE, say, until, until_active};
use crate::flights::producer::{Pace, Producer};
use crate::flights::{PlannedFlight, STREAM};
use crate::moment::Moment;
use audit::{End, Ledger, Round};

const SHARDS: u32 = 4;

const SIGABRT: i32 = 6;

/// How long nothing may happen while something is left to do.
const STANDSTILL: Duration = Duration::from_secs(30);

/// What a service that never comes to its end is stopped at.
const MAX_LIVES: usize = 100;

/// How a world is made.
pub(crate) struct Settings {
    pub(crate) lanes: u32,
    pub(crate) lease_duration: Duration,
    /// Flights that are put each second.
    pub(crate) per_second: f64,
}

/// An engine with a stream, its producer, and what the consumers keep.
pub(crate) struct World {
    engine: Arc<LocalEngine>,
    env: Arc<dyn Env>,
    producer: Producer,
    directory: tempfile::TempDir,
    random: fastrand::Rng,
    settings: Settings,
    flights: Arc<[PlannedFlight]>,
    poison: BTreeSet<u64>,
    /// What was not handled yet and is not poison.
    outstanding: BTreeSet<u64>,
    rounds: Vec<Round>,
    /// How many processes were started.
    starts: usize,
}

impl World {
    /// Creates a stream of four shards, and starts to put flights.
    pub(crate) async fn start(mut random: fastrand::Rng, flights: Vec<PlannedFlight>, settings: Settings) -> Self {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new().expect("threads"));
        let engine = Arc::new(LocalEngine::start().await.expect("a free port"));
        engine.kinesis().lock().create_stream(STREAM, StreamSettings::new(SHARDS), engine.now()).expect("a new stream");
        until_active(&engine, STREAM, &*env).await;
        let flights: Arc<[PlannedFlight]> = flights.into();
        let pace = Pace { shards: SHARDS, per_second: settings.per_second };
        let producer = Producer::start(&env, &engine, &flights, pace, random.u64(..));
        let poison = audit::poison(&flights);
        let numbers = flights.iter().map(|planned| planned.flight.number);
        let outstanding = numbers.filter(|number| !poison.contains(number)).collect();
        let directory = tempfile::tempdir().expect("a directory");
        let (rounds, starts) = (Vec::new(), 0);
        Self { engine, env, producer, directory, random, settings, flights, poison, outstanding, rounds, starts }
    }

    /// Whether there are flights that were not put yet.
    pub(crate) fn is_being_written(&self) -> bool {
        !self.producer.is_finished()
    }

    /// Lets a process consume, and kills it at a random moment; with a change of the shards around its start.
    pub(crate) async fn consume_and_kill(&mut self, with_resharding: bool) {
        if with_resharding {
            self.producer.order_reshard();
        }
        let mut process = self.start_process(false);
        let time = match Moment::random(&mut self.random) {
            Moment::AfterStart(time) => time,
            Moment::AfterFirstRecord(time) if self.outstanding.is_empty() => time,
            Moment::AfterFirstRecord(time) => {
                until(&*self.env, "the process handles a record", || process.has_handled_a_record()).await;
                time
            }
        };
        self.env.sleep(time).await;
        let deadline = self.env.now().plus(PATIENCE);
        while self.has_died_over_a_record().await {
            assert!(self.env.now() < deadline, "the same record for {PATIENCE:?}: {}", process.trace());
            self.env.sleep(Duration::from_millis(5)).await;
        }
        let signal = process.kill();
        assert_eq!(signal, Some(SIGKILL), "it ended by itself: {}", process.trace());
        self.finish_round(process, End::Killed).await;
    }

    /// Starts processes one after the other, for as long as they abort; with `kills`, half of them are killed at a random
    /// moment. The last one is stopped when nothing is left to do.
    pub(crate) async fn supervise(&mut self, kills: bool) {
        while self.rounds.len() < MAX_LIVES {
            let mut process = self.start_process(false);
            let kill = (kills && self.random.bool()).then(|| Duration::from_millis(self.random.u64(0..2500)));
            let kill_at = kill.map(|after| process.started.plus(after));
            let end = self.until_end(&mut process, kill_at).await;
            self.finish_round(process, end).await;
            if end == End::Stopped {
                return;
            }
        }
        panic!("{MAX_LIVES} processes were not enough; {} flights are left", self.outstanding.len());
    }

    /// Lets a last process do what is left, and stops it.
    pub(crate) async fn consume_the_rest(&mut self) {
        let mut process = self.start_process(false);
        let end = self.until_end(&mut process, None).await;
        assert_eq!(end, End::Stopped, "it ended by itself: {}", process.trace());
        self.finish_round(process, end).await;
    }

    /// Gives all that happened so far.
    pub(crate) async fn ledger(mut self) -> (Ledger, Self) {
        let letters = self.letters().await;
        let rounds = std::mem::take(&mut self.rounds);
        let (puts, reshards) = self.producer.finish().await;
        let puts = puts.to_vec();
        (Ledger { flights: self.flights.clone(), puts, reshards, rounds, letters }, self)
    }

    /// Starts the service with all of its faults fixed, asks for another try of all dead letters, and stops it when all are
    /// redriven. Gives what it did, and the letters.
    pub(crate) async fn redrive(&mut self) -> (Round, Vec<ArchivedLetter>) {
        let mut process = self.start_process(true);
        let letters = self.letters().await;
        self.request_redrive(letters.len()).await;
        let deadline = self.env.now().plus(PATIENCE);
        while self.letters().await.iter().any(|letter| letter.state != LetterState::Redriven) {
            assert!(self.env.now() < deadline, "not redriven: {:?}; {}", self.letters().await, process.trace());
            assert!(process.ended().is_none(), "it ended by itself: {}", process.trace());
            self.env.sleep(Duration::from_millis(20)).await;
        }
        self.stop(&mut process).await;
        self.finish_round(process, End::Stopped).await;
        (self.rounds.pop().expect("just finished"), self.letters().await)
    }

    /// By the command where `SHARDWELL_COMMAND` says where that is, else as a program does it.
    async fn request_redrive(&self, letters: usize) {
        match std::env::var_os("SHARDWELL_COMMAND") {
            Some(shardwell) => self.command_redrive(&shardwell, letters).await,
            None => {
                let archive = SqliteDeadLetters::open(self.dead_letters()).await.expect("opened");
                let now = self.env.timestamp();
                let requested = archive.request_redrive(&LetterQuery::default(), now).await.expect("written");
                assert_eq!(usize::try_from(requested), Ok(letters));
            }
        }
    }

    async fn command_redrive(&self, shardwell: &OsStr, letters: usize) {
        let output = tokio::process::Command::new(shardwell)
            .args(["dead-letters", "redrive", "--yes", "--wait", "--timeout", "30s", "--sqlite"])
            .arg(self.dead_letters())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("a process");
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = format!("{letters} redriven");
        assert!(output.status.success() && said.contains(&expected), "{said}{output:?}");
        say(&said);
    }

    /// Until the process dies, or is killed, or nothing is left to do and it has stopped.
    async fn until_end(&mut self, process: &mut ServiceProcess, kill_at: Option<Monotonic>) -> End {
        let mut deadline = self.env.now().plus(STANDSTILL);
        loop {
            if self.take_news(process) {
                deadline = self.env.now().plus(STANDSTILL);
            }
            if let Some(status) = process.ended() {
                assert_eq!(status.signal(), Some(SIGABRT), "it ended by itself: {status}; {}", process.trace());
                return End::Aborted;
            }
            if kill_at.is_some_and(|at| self.env.now() >= at) && !self.has_died_over_a_record().await {
                return if process.kill() == Some(SIGABRT) { End::Aborted } else { End::Killed };
            }
            let is_settled = self.is_all_settled(process).await;
            if !is_settled && self.env.now() >= deadline {
                say(&format!("nothing has happened for {STANDSTILL:?}: {}", process.trace()));
            }
            // Where something never comes, the audit says what.
            if is_settled || self.env.now() >= deadline {
                self.stop(process).await;
                return End::Stopped;
            }
            self.env.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether a process died while it processed one record, and nothing else, that is still to be settled. Nobody can tell
    /// a kill from a record that kills: at the second death the record is condemned, so no second kill comes before.
    async fn has_died_over_a_record(&self) -> bool {
        let leases = self.table().await;
        let mut states = leases.iter().filter_map(|lease| ResumeState::decode(lease.checkpoint_state.as_ref()?));
        states.any(|state| !state.crashes.deaths.is_empty())
    }

    /// Answers whether there is any.
    fn take_news(&mut self, process: &mut ServiceProcess) -> bool {
        let news = process.news();
        for number in audit::handled(news) {
            self.outstanding.remove(&number);
        }
        !news.is_empty()
    }

    /// Whether everything is handled or dead, and nothing is left that the process would handle again: what an earlier one
    /// handled and did not store is given to it too, in its own time.
    async fn is_all_settled(&mut self, process: &ServiceProcess) -> bool {
        if !self.outstanding.is_empty() || self.letters().await.len() < self.poison.len() {
            return false;
        }
        let checkpoints = self.checkpoints().await;
        let (puts, _) = self.producer.finish().await;
        let earlier = self.rounds.iter().flat_map(|round| &round.events);
        audit::left_to_store(puts, &checkpoints, || earlier.clone().chain(process.events())).is_empty()
    }

    async fn stop(&self, process: &mut ServiceProcess) {
        process.terminate();
        until(&*self.env, "the process stops", || process.ended().is_some()).await;
        process.assert_ended_well();
    }

    fn start_process(&mut self, fixed: bool) -> ServiceProcess {
        self.starts += 1;
        let worker = self.worker();
        let files = self.directory.path().join(&worker);
        let mut command = Command::new(env!("CARGO_BIN_EXE_poisoned"));
        command
            .args(["--endpoint", &self.engine.endpoint(), "--stream", STREAM, "--worker", &worker])
            .args(["--lanes", &self.settings.lanes.to_string()])
            .args(["--lease-millis", &self.settings.lease_duration.as_millis().to_string()])
            .arg("--leases")
            .arg(self.leases())
            .arg("--dead-letters")
            .arg(self.dead_letters())
            .arg("--log")
            .arg(files.with_extension("log"))
            // The panics are planted, and to find out where they come from takes long.
            .env("RUST_BACKTRACE", "0")
            // Where the system keeps what is left of an aborted process, it goes away with everything else.
            .current_dir(self.directory.path());
        if fixed {
            command.arg("--fixed");
        }
        ServiceProcess::start(self.env.now(), command, &files)
    }

    /// The id of the worker in the process that was started last.
    fn worker(&self) -> String {
        format!("worker-{}", self.starts)
    }

    fn leases(&self) -> PathBuf {
        self.directory.path().join("leases.sqlite")
    }

    async fn table(&self) -> Vec<Lease> {
        let store = SqliteLeaseStore::new(self.leases(), APPLICATION);
        let listing = store.leases().await.expect("a table that is not harmed");
        assert_eq!(listing.unreadable, [], "no row is harmed");
        listing.leases
    }

    async fn checkpoints(&self) -> BTreeMap<ShardId, Checkpoint> {
        self.table().await.into_iter().map(|lease| (lease.shard, lease.checkpoint)).collect()
    }

    fn dead_letters(&self) -> PathBuf {
        self.directory.path().join("dead-letters.sqlite")
    }

    async fn letters(&self) -> Vec<ArchivedLetter> {
        let archive = SqliteDeadLetters::open(self.dead_letters()).await.expect("opened");
        let page = archive.letters(&LetterQuery::default(), None, 10_000).await.expect("listed");
        assert_eq!((page.next, page.unreadable), (None, 0), "all letters at once, and no row is harmed");
        page.letters
    }

    /// Takes down what the process did and what it left behind.
    async fn finish_round(&mut self, mut process: ServiceProcess, end: End) {
        process.news();
        for number in audit::handled(process.events()) {
            self.outstanding.remove(&number);
        }
        let trace = process.trace();
        assert_only_expected_errors(&trace);
        if end == End::Stopped {
            let is_held = |lease: &&Lease| !lease.is_finished() && lease.owner.is_some();
            let leases = self.table().await;
            let held: Vec<_> = leases.iter().filter(is_held).collect();
            assert!(held.is_empty(), "not released: {held:?}\n{trace}");
        }
        let checkpoints = self.checkpoints().await;
        self.rounds.push(Round {
            worker: self.worker(),
            events: process.events().to_vec(),
            end,
            checkpoints,
            took: self.env.now().since(process.started),
            suspicions: trace.matches("processes died over this shard").count(),
        });
    }
}

/// Records that die are reported as errors, and poison panics. Nothing else goes wrong.
fn assert_only_expected_errors(trace: &str) {
    for line in trace.lines() {
        let is_expected = line.contains("records are dead") || line.contains("integration/src/bin/poisoned.rs");
        assert!(is_expected || !(line.contains(" ERROR ") || line.contains("panicked at")), "{line}\nin:\n{trace}");
    }
}
