//! The workers' processes: started, watched, stopped.

use std::sync::Arc;
use std::time::Duration;

use shardwell_consumer::{DeliveryPolicy, InitialPosition, LaneContext, Streams, Worker, WorkerError};
use shardwell_core::{EnvExt, Place, Stream, Task, UserRecord, WorkerId};

use super::kind::Kind;
use super::lies::Lie;
use super::seams::{SimProcessor, SimSink, SimStore, SimStream};
use super::weather::ProcessId;
use super::world::{Life, Process, START, SimulatedStream, World};
use crate::SimEnv;

/// All processes of a run.
pub(crate) struct Fleet {
    pub(crate) world: Arc<World>,
    runs: Vec<Option<Task<Result<(), WorkerError>>>>,
    names: u32,
}

/// The first byte of the payload of a record that the filter leaves out.
pub(crate) const UNWANTED: u8 = b'x';

impl Fleet {
    pub(crate) const fn new(world: Arc<World>) -> Self {
        Self { world, runs: Vec::new(), names: 0 }
    }

    /// Starts a worker of a new name.
    pub(crate) fn join(&mut self) -> ProcessId {
        self.names += 1;
        self.start(format!("w{}", self.names).as_str().into(), false)
    }

    /// Starts a second process of a name.
    pub(crate) fn start(&mut self, id: WorkerId, duplicate: bool) -> ProcessId {
        let process = self.runs.len();
        let env = self.environment();
        let streams = self.streams(process);
        let worker = self.worker(process, &id, &env, streams.clone());
        let handle = worker.handle();
        let mut state = self.world.state();
        state.log(format_args!("p{process} starts as {id}"));
        state.change();
        let (life, drained, stopping) = (Life::Running, false, false);
        let without = None;
        let life = Process { id, env, handle, streams, without, state: life, drained, stopping, duplicate };
        state.processes.push(life);
        drop(state);
        self.runs.push(Some(self.world.env.spawn(Place::Pipeline, worker.run())));
        process
    }

    fn environment(&self) -> SimEnv {
        let mut state = self.world.state();
        let drift = state.scenario.drift;
        let rate = 1.0 - drift + 2.0 * drift * state.random.f64();
        let seed = state.random.u64(..);
        // Its wall clock is off by up to a second, and may be behind.
        let wall = START.plus(state.now.since_origin()).minus(Duration::from_millis(state.random.u64(..1000)));
        SimEnv::with_clock_rate(seed, wall, rate)
    }

    fn stream(&self, process: ProcessId, stream: &SimulatedStream) -> SimStream {
        SimStream { world: self.world.clone(), process, stream: stream.memory.clone() }
    }

    /// A set for a worker, where there are several.
    fn streams(&self, process: ProcessId) -> Option<Streams> {
        let shared = |stream| Arc::new(self.stream(process, stream)) as Arc<dyn Stream>;
        (self.world.streams.len() > 1).then(|| Streams::new(self.world.streams.iter().map(shared)))
    }

    fn worker(&self, process: ProcessId, id: &WorkerId, env: &SimEnv, streams: Option<Streams>) -> Worker {
        let (world, scenario) = (self.world.clone(), self.world.state().scenario.clone());
        let store = SimStore { world: world.clone(), process };
        let make = {
            let (world, env) = (world.clone(), env.clone());
            move |lane: &LaneContext| SimProcessor {
                world: world.clone(),
                process,
                env: env.clone(),
                lane: lane.clone(),
            }
        };
        let mut policy = DeliveryPolicy::default()
            .with_lanes(scenario.lanes)
            .with_batch_records(scenario.batch_records)
            .with_max_record_age(scenario.max_record_age);
        if let Some(retries) = scenario.max_retries {
            policy = policy.with_max_retries(Some(retries));
        }
        let deadline = match world.lie {
            Some(Lie::ForgottenDeadline) => Duration::from_secs(24 * 60 * 60),
            _ => scenario.handoff_deadline,
        };
        let builder = match streams {
            Some(streams) => Worker::builder_for_streams("sim", streams, store, make),
            None => Worker::builder("sim", self.stream(process, &world.streams[0]), store, make),
        };
        let mut builder = builder
            .worker_id(id.clone())
            .env(Arc::new(env.clone()))
            .initial_position(InitialPosition::TrimHorizon)
            .handoff_deadline(deadline)
            .shutdown_deadline(deadline)
            .delivery(policy);
        if scenario.filter {
            builder = builder.filter(|record: &UserRecord| record.data.first() != Some(&UNWANTED));
        }
        if scenario.max_retries.is_some() {
            builder = builder.dead_letters(SimSink { world, process });
        }
        builder.build().unwrap_or_else(|error| unreachable!("the settings are valid: {error}"))
    }

    /// Tells a worker to stop gracefully.
    pub(crate) fn stop(&self, process: ProcessId) {
        let mut state = self.world.state();
        if state.processes[process].state == Life::Running && !state.processes[process].stopping {
            state.log_of(process, format_args!("is told to stop"));
            state.change();
            let now = state.now;
            state.leases.drains(process, now);
            state.processes[process].stopping = true;
            state.processes[process].handle.request_shutdown();
        }
    }

    pub(crate) fn freeze(&self, process: ProcessId) {
        let mut state = self.world.state();
        if state.processes[process].state == Life::Running {
            state.log_of(process, format_args!("stands still"));
            state.is_gone(process, false);
            state.processes[process].state = Life::Frozen;
            state.processes[process].env.freeze();
        }
    }

    pub(crate) fn thaw(&self, process: ProcessId) {
        let mut state = self.world.state();
        if state.processes[process].is_frozen() {
            state.log_of(process, format_args!("goes on"));
            state.goes_on(process);
            state.processes[process].state = Life::Running;
            state.processes[process].env.thaw();
        }
    }

    /// The processes that run and take leases.
    pub(crate) fn live(&self) -> Vec<ProcessId> {
        let state = self.world.state();
        (0..state.processes.len()).filter(|process| state.processes[*process].is_live()).collect()
    }

    /// One of the live processes.
    pub(crate) fn any_live(&self) -> Option<ProcessId> {
        let live = self.live();
        let mut state = self.world.state();
        (!live.is_empty()).then(|| live[state.random.usize(..live.len())])
    }

    /// Sees which workers have ended, and whether they might.
    pub(crate) fn watch(&mut self) {
        for (process, run) in self.runs.iter_mut().enumerate() {
            let Some(task) = run else { continue };
            let Some(result) = futures_util::FutureExt::now_or_never(&mut *task) else { continue };
            *run = None;
            let mut state = self.world.state();
            if state.processes[process].state == Life::Crashed {
                continue;
            }
            state.change();
            let stopping = state.processes[process].stopping;
            if matches!(result, Ok(Ok(()))) {
                state.has_stopped(process);
            }
            let (allowed, text) = match result {
                Ok(Ok(())) => (stopping, "in order, without being asked".to_owned()),
                Ok(Err(error @ (WorkerError::DuplicateWorkerId { .. } | WorkerError::NotStarted { .. }))) => {
                    (true, error.to_string())
                }
                Ok(Err(error)) => (false, error.to_string()),
                Err(error) => (false, error.to_string()),
            };
            state.log_of(process, format_args!("has ended: {text}"));
            if !stopping {
                state.disturb();
            }
            if !allowed {
                let what = format!("{} ended: {text}", state.name(process));
                state.fail(None, what);
            }
            state.processes[process].state = Life::Ended;
        }
        self.world.state().promote_duplicates();
    }

    /// Whether every process that runs has ended.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.world.state();
        state.processes.iter().all(|process| matches!(process.state, Life::Ended | Life::Crashed))
    }

    /// Counts a kind of thing that happened.
    pub(crate) fn happened(&self, kind: Kind) {
        self.world.state().tally.happened(kind);
    }
}
