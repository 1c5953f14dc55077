//! What all share: the streams, the table, what is known of them, and what is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use futures_util::FutureExt;
use shardwell_consumer::{Streams, WorkerHandle};
use shardwell_core::memory::kinesis::{Kinesis, SharedKinesis, StreamSettings};
use shardwell_core::memory::{MemoryDeadLetters, MemoryLeaseStore, MemoryStream};
use shardwell_core::{
    Env, Lease, LeaseKey, LeaseListing, LeaseStore, Monotonic, ShardId, Stream, Timestamp, WorkerId, WorkerMetrics,
};

use super::checks::{BatchId, LeaseChecks, TermId, Times, Violation, Write};
use super::lies::Lie;
use super::log::Log;
use super::scenario::Scenario;
use super::tally::{Invariant, Tally};
use super::truth::Truth;
use super::weather::{ProcessId, Weather};
use crate::SimEnv;

/// When every run begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// One run's world. Its own clock is the one that counts; workers have theirs.
pub(crate) struct World {
    pub(crate) env: SimEnv,
    pub(crate) streams: Vec<SimulatedStream>,
    pub(crate) table: MemoryLeaseStore,
    pub(crate) letters: MemoryDeadLetters,
    pub(crate) lie: Option<Lie>,
    state: Mutex<State>,
}

/// What changes.
pub(crate) struct State {
    pub(crate) now: Monotonic,
    pub(crate) scenario: Arc<Scenario>,
    streams: Vec<SimulatedStream>,
    pub(crate) truth: Truth,
    pub(crate) leases: LeaseChecks,
    pub(crate) times: Times,
    pub(crate) weather: Weather,
    pub(crate) processes: Vec<Process>,
    /// The lanes in which a call to a processor runs.
    pub(crate) running: BTreeSet<BatchId>,
    /// The newest attempt at each batch of each term.
    pub(crate) attempts: BTreeMap<(TermId, u64), u32>,
    pub(crate) tally: Tally,
    pub(crate) random: fastrand::Rng,
    pub(crate) trap: Option<Trap>,
    /// A lease that an operator has deleted.
    pub(crate) lost_lease: Option<LeaseKey>,
    /// What the lies remember.
    pub(crate) lies: super::lies::Memory,
    /// What a listing says that lags behind, and since when it says that.
    pub(crate) stale: Option<(Monotonic, Arc<Stale>)>,
    log: Log,
    violation: Option<Violation>,
}

/// What the table held a while ago.
#[derive(Debug)]
pub(crate) struct Stale {
    pub(crate) listing: LeaseListing,
    pub(crate) workers: Vec<WorkerMetrics>,
}

/// Somebody who is to die in the next handoff.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    pub(crate) victim: Victim,
    /// After how many writes from its start on.
    pub(crate) writes: u32,
}

/// Who dies in a handoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    OldOwner,
    NewOwner,
    Leader,
}

/// A stream of a run.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedStream {
    pub(crate) memory: MemoryStream,
    /// What its leases name it by; `None` where it is the only one.
    identifier: Option<String>,
}

impl SimulatedStream {
    /// The streams of a scenario, which share its shards.
    fn create(env: &SimEnv, scenario: &Scenario) -> Vec<Self> {
        let kinesis = SharedKinesis::new(Kinesis::new("local"));
        let env: Arc<dyn Env> = Arc::new(env.clone());
        let names = ["flights", "trains"].into_iter().take(scenario.streams);
        let streams = names.map(|name| {
            let memory = MemoryStream::new(kinesis.clone(), env.clone(), name);
            if let Err(error) = memory.create_with(StreamSettings::new(scenario.shards / scenario.streams as u32)) {
                unreachable!("the stream is allowed: {error}");
            }
            let described = memory.describe().now_or_never().and_then(Result::ok).filter(|_| scenario.streams > 1);
            let identifier = described.and_then(|described| described.identity.identifier()).map(|id| id.to_string());
            Self { memory, identifier }
        });
        streams.collect()
    }

    /// The key of the lease of a shard.
    pub(crate) fn key(&self, shard: &ShardId) -> LeaseKey {
        LeaseKey::in_stream(self.identifier.as_deref(), shard)
    }

    /// Whether a lease is of this stream.
    pub(crate) fn has(&self, lease: &LeaseKey) -> bool {
        let prefix =
            |identifier: &String| lease.as_str().strip_prefix(identifier).is_some_and(|shard| shard.starts_with(':'));
        self.identifier.as_ref().is_none_or(prefix)
    }
}

/// A worker's process, as the world sees it.
pub(crate) struct Process {
    pub(crate) id: WorkerId,
    pub(crate) env: SimEnv,
    pub(crate) handle: WorkerHandle,
    /// Its streams, where there are several.
    pub(crate) streams: Option<Streams>,
    /// The one that it does not consume just now, and since when.
    pub(crate) without: Option<(SimulatedStream, Monotonic)>,
    pub(crate) state: Life,
    /// Whether an operator drains it.
    pub(crate) drained: bool,
    /// Whether it was told to stop.
    pub(crate) stopping: bool,
    /// Whether it is a second process with an id that is taken.
    pub(crate) duplicate: bool,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Frozen,
    Crashed,
    Ended,
}

impl Process {
    pub(crate) fn is_frozen(&self) -> bool {
        self.state == Life::Frozen
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state == Life::Running && !self.stopping && !self.duplicate
    }

    /// Whether a leader would give it leases.
    pub(crate) fn takes_leases(&self) -> bool {
        self.is_live() && !self.drained
    }

    /// Whether it consumes the stream of a lease.
    pub(crate) fn consumes(&self, lease: &LeaseKey) -> bool {
        self.without.as_ref().is_none_or(|(stream, _)| !stream.has(lease))
    }

    pub(crate) fn leads(&self) -> bool {
        self.handle.leads()
    }
}

impl World {
    pub(crate) fn new(scenario: Scenario, env: SimEnv, keep_log: bool, lie: Option<Lie>) -> Arc<Self> {
        let streams = SimulatedStream::create(&env, &scenario);
        let state = State {
            streams: streams.clone(),
            now: env.now(),
            random: fastrand::Rng::with_seed(scenario.seed ^ 0x9e37_79b9_7f4a_7c15),
            scenario: Arc::new(scenario),
            truth: Truth::default(),
            leases: LeaseChecks::default(),
            times: Times::default(),
            weather: Weather::default(),
            processes: Vec::new(),
            running: BTreeSet::new(),
            attempts: BTreeMap::new(),
            tally: Tally::default(),
            trap: None,
            lost_lease: None,
            lies: super::lies::Memory::default(),
            stale: None,
            log: Log::new(keep_log),
            violation: None,
        };
        Arc::new(Self {
            streams,
            env,
            table: MemoryLeaseStore::new(),
            letters: MemoryDeadLetters::new(),
            lie,
            state: Mutex::new(state),
        })
    }

    /// What changes, as of now. Nobody holds it over an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // All of a run is on one thread, so waiting would be for ever.
            Err(TryLockError::WouldBlock) => unreachable!("the world is looked at by somebody who already does"),
        };
        state.now = self.env.now();
        state
    }

    /// Every lease, as it is.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        // A table in memory answers at once.
        self.table.leases().now_or_never().and_then(Result::ok).map(|listing| listing.leases).unwrap_or_default()
    }

    pub(crate) fn lease(&self, key: &LeaseKey) -> Option<Lease> {
        self.table.lease(key).now_or_never().and_then(Result::ok).flatten()
    }

    /// The table as it was up to `lag` ago.
    pub(crate) fn stale(&self, lag: std::time::Duration) -> Arc<Stale> {
        let mut state = self.state();
        if let Some((since, stale)) = &state.stale
            && state.now.since(*since) < lag
        {
            return stale.clone();
        }
        let workers = self.table.worker_metrics().now_or_never().and_then(Result::ok).unwrap_or_default();
        let listing = self.table.leases().now_or_never().and_then(Result::ok).unwrap_or_default();
        let stale = Arc::new(Stale { listing, workers });
        state.stale = Some((state.now, stale.clone()));
        stale
    }
}

impl State {
    pub(crate) fn log(&mut self, line: fmt::Arguments<'_>) {
        self.log.line(self.now, line);
    }

    /// A line about a process.
    pub(crate) fn log_of(&mut self, process: ProcessId, line: fmt::Arguments<'_>) {
        if self.log.is_kept() {
            let name = self.name(process);
            self.log.line(self.now, format_args!("{name} {line}"));
        }
    }

    pub(crate) fn is_logged(&self) -> bool {
        self.log.is_kept()
    }

    pub(crate) fn take_log(&mut self) -> String {
        self.log.take()
    }

    /// The first violation counts: what follows may follow from it.
    pub(crate) fn violated(&mut self, invariant: Invariant, what: String) {
        self.fail(Some(invariant), what);
    }

    pub(crate) fn fail(&mut self, invariant: Option<Invariant>, what: String) {
        if self.violation.is_none() {
            let violation = Violation { invariant, at: self.now.since_origin(), what };
            self.log(format_args!("VIOLATION of {violation}"));
            self.violation = Some(violation);
        }
    }

    pub(crate) fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// A process by its number and id: two processes may have the same id.
    pub(crate) fn name(&self, process: ProcessId) -> String {
        self.processes.get(process).map_or_else(|| format!("p{process}"), |p| format!("p{process}({})", p.id))
    }

    /// The key of the lease of a shard.
    pub(crate) fn key(&self, stream: &str, shard: &ShardId) -> LeaseKey {
        let found = self.streams.iter().find(|known| known.memory.name() == stream);
        found.unwrap_or_else(|| unreachable!("there is no stream {stream}")).key(shard)
    }

    /// Whether a process of this id has not come to its end.
    pub(crate) fn is_there(&self, id: &WorkerId) -> bool {
        self.processes.iter().any(|process| process.id == *id && matches!(process.state, Life::Running | Life::Frozen))
    }

    /// A second process of a name is the only one once the first is gone.
    pub(crate) fn promote_duplicates(&mut self) {
        for process in 0..self.processes.len() {
            let id = self.processes[process].id.clone();
            let runs = |other: &Process| other.id == id && other.state == Life::Running;
            let has_first = self.processes.iter().any(|other| runs(other) && !other.duplicate);
            self.processes[process].duplicate &= has_first || self.processes[process].state != Life::Running;
        }
    }

    /// Kills a process.
    pub(crate) fn kill(&mut self, process: ProcessId) {
        if matches!(self.processes[process].state, Life::Running | Life::Frozen) {
            self.log_of(process, format_args!("is killed"));
            self.is_gone(process, true);
            self.processes[process].state = Life::Crashed;
            self.processes[process].env.crash();
        }
    }

    /// Lets whoever is to die in a handoff die, when it is time.
    pub(crate) fn trap(&mut self, process: ProcessId, write: Write, before: &Lease, after: &Lease) {
        let Some(trap) = &mut self.trap else { return };
        if !(after.handoff_requested() || before.handoff_requested()) {
            return;
        }
        if trap.writes > 0 {
            trap.writes -= 1;
            return;
        }
        let victim = trap.victim;
        let owner = match victim {
            Victim::OldOwner => after.checkpoint_owner.as_ref().or(before.checkpoint_owner.as_ref()),
            Victim::NewOwner => after.owner.as_ref(),
            Victim::Leader => None,
        };
        let by_id = |id: &WorkerId| self.processes.iter().position(|p| p.id == *id && p.state == Life::Running);
        let found = match victim {
            Victim::Leader => self.processes.iter().position(Process::leads),
            Victim::OldOwner | Victim::NewOwner => owner.and_then(by_id),
        };
        if let Some(found) = found {
            self.trap = None;
            self.log_of(process, format_args!("wrote {write:?} in a handoff: {victim:?} dies"));
            self.kill(found);
        }
    }
}
