//! A simulated fleet: the whole worker, unchanged, over seams in memory, in virtual time, with faults drawn from a seed.
//!
//! ```text
//!  seed ──► scenario ──► acts, at their times ──► weather, processes, stream
//!                                                       │
//!            workers ──► seams (weather) ──► world ──► checks, at every step ──► violation
//! ```
//!
//! A run ends with a stretch without faults in which everything must be drained, and a graceful stop of all.

mod acts;
mod checks;
mod kind;
mod lies;
mod log;
mod named;
mod processes;
mod producer;
mod scenario;
mod seams;
mod tally;
mod truth;
mod weather;
mod world;

use std::sync::{Arc, Weak};
use std::time::Duration;

use shardwell_core::{EnvExt, Lease, Monotonic, Place, Task};

pub use checks::Violation;
pub use kind::Kind;
pub use lies::Lie;
pub use tally::{Invariant, Tally};

use acts::Then;
use processes::Fleet;
use scenario::Scenario;
use world::{START, World};

use crate::SimEnv;

/// What a run is like, beside its seed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether to keep a log.
    pub keep_log: bool,
    /// The rule that the workers break.
    pub lie: Option<Lie>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// What happened, line by line, if it was to be kept.
    pub log: String,
    /// What was exercised.
    pub tally: Tally,
}

/// How long the stretch without faults may take until everything is drained, beside the time that records take one by one.
const DRAIN: Duration = Duration::from_secs(300);

/// How long a fleet is watched at rest.
const REST: Duration = Duration::from_secs(90);

/// Runs a seed. The same seed gives the same run.
///
/// # Panics
/// Where the system refuses what a runtime needs.
pub fn run(seed: u64, options: Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| unreachable!("a runtime of one thread needs nothing: {error}"));
    let (outcome, world) = runtime.block_on(run_in_virtual_time(seed, options));
    drop(runtime);
    debug_assert!(
        world.upgrade().is_none(),
        "somebody holds the world after its end: a hundred thousand runs would fill the memory"
    );
    outcome
}

async fn run_in_virtual_time(seed: u64, options: Options) -> (Outcome, Weak<World>) {
    let scenario = Scenario::draw(seed);
    let env = SimEnv::new(seed, START);
    let world = World::new(scenario, env.clone(), options.keep_log, options.lie);
    let mut fleet = Fleet::new(world.clone());
    let workers = world.state().scenario.workers;
    for _ in 0..workers {
        fleet.join();
    }
    let producer = env.spawn(Place::Pipeline, producer::produce(world.clone()));
    troubles(&mut fleet).await;
    if world.state().violation().is_none() {
        last_records(&mut fleet, producer).await;
        heal(&mut fleet);
        drain(&mut fleet).await;
        rest(&mut fleet).await;
        stop(&mut fleet).await;
    }
    let mut state = world.state();
    state.tally.virtual_seconds = state.now.since_origin().as_secs_f64();
    let outcome = Outcome { violation: state.violation().cloned(), log: state.take_log(), tally: state.tally.clone() };
    // The world holds the workers' handles, and the workers hold the world.
    let handles = std::mem::take(&mut state.processes);
    drop(state);
    drop(handles);
    (outcome, Arc::downgrade(&world))
}

/// Lets a second pass, and looks. Tells whether to go on.
async fn step(fleet: &mut Fleet, until: Monotonic) -> bool {
    let now = fleet.world.state().now;
    let next = now.plus(Duration::from_secs(1)).min(until);
    fleet.world.env.sleep(next.since(now)).await;
    fleet.watch();
    let leases = fleet.world.leases();
    let mut state = fleet.world.state();
    state.tick(&leases);
    state.violation().is_none()
}

async fn troubles(fleet: &mut Fleet) {
    let scenario = fleet.world.state().scenario.clone();
    let mut acts = scenario.acts.iter().copied().peekable();
    let mut later: Vec<(Monotonic, Then)> = Vec::new();
    loop {
        let now = fleet.world.state().now;
        while let Some((_, kind)) = acts.next_if(|(at, _)| Monotonic::from_origin(*at) <= now) {
            fleet.world.state().log(format_args!("--- {kind}"));
            later.extend(fleet.act(kind).into_iter().map(|(after, then)| (now.plus(after), then)));
        }
        let due: Vec<Then> = later.extract_if(.., |(at, _)| *at <= now).map(|(_, then)| then).collect();
        for then in due {
            fleet.world.state().log(format_args!("--- then {then:?}"));
            later.extend(fleet.then(then).into_iter().map(|(after, then)| (now.plus(after), then)));
        }
        let end = Monotonic::from_origin(scenario.troubled);
        let next = acts.peek().map(|(at, _)| Monotonic::from_origin(*at));
        let next =
            later.iter().map(|(at, _)| *at).chain(next).min().unwrap_or(end).max(now.plus(Duration::from_millis(1)));
        if now >= end || !step(fleet, next.min(end)).await {
            break;
        }
    }
    // What was to be over later is over now.
    for (_, then) in later {
        if matches!(
            then,
            Then::Thaw(_) | Then::Resume(_) | Then::Undrain(_) | Then::ConsumeAgain(_) | Then::ForeignCheckpoint(_)
        ) {
            fleet.then(then);
        }
    }
}

/// The producer may take a little longer.
async fn last_records(fleet: &mut Fleet, mut producer: Task<()>) {
    loop {
        let next = fleet.world.state().now.plus(Duration::from_secs(1));
        tokio::select! {
            biased;
            _ = &mut producer => return,
            goes_on = step(fleet, next) => if !goes_on { return },
        }
    }
}

fn heal(fleet: &mut Fleet) {
    let mut state = fleet.world.state();
    state.log(format_args!("--- all is well"));
    state.disturb();
    state.weather.clear();
    state.trap = None;
    drop(state);
    while fleet.live().len() < 2 {
        fleet.join();
    }
}

async fn drain(fleet: &mut Fleet) {
    let (begin, limit) = {
        let state = fleet.world.state();
        // All may lie in one shard, and be processed one at a time.
        (state.now, DRAIN + state.scenario.batch_time * state.truth.waiting() as u32)
    };
    let end = begin.plus(limit);
    while fleet.world.state().truth.waiting() > 0 {
        if !step(fleet, end).await {
            return;
        }
        let mut state = fleet.world.state();
        if state.now >= end {
            let waiting = (state.truth.waiting(), state.truth.first_waiting());
            state.violated(Invariant::L8, format!("after {limit:?} without faults these records wait: {waiting:?}"));
            return;
        }
    }
    let mut state = fleet.world.state();
    state.tally.exercise(Invariant::L8);
    state.tally.exercise(Invariant::P12);
}

async fn rest(fleet: &mut Fleet) {
    let end = fleet.world.state().now.plus(REST);
    while fleet.world.state().violation().is_none() && step(fleet, end).await {
        if fleet.world.state().now >= end {
            return;
        }
    }
}

async fn stop(fleet: &mut Fleet) {
    if fleet.world.state().violation().is_some() {
        return;
    }
    for process in fleet.live() {
        fleet.stop(process);
    }
    let end = fleet.world.state().now.plus(Duration::from_secs(60));
    while !fleet.is_over() {
        if !step(fleet, end).await {
            return;
        }
        let mut state = fleet.world.state();
        if state.now >= end {
            state.fail(None, "not every worker has stopped after a minute".to_owned());
            return;
        }
    }
    let is_left = |lease: &&Lease| lease.owner.is_some() && !lease.is_finished();
    let owned: Vec<String> = fleet.world.leases().iter().filter(is_left).map(checks::show).collect();
    if !owned.is_empty() {
        let what = format!("all workers have stopped in order, and leave these: {owned:?}");
        fleet.world.state().violated(Invariant::L4, what);
    }
}
