//! How long things take: L4, L6, L7.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardwell_core::leasing::Unfinished;
use shardwell_core::{LeaderLock, Lease, LeaseKey, Monotonic, WorkerId};

use super::leases::{Write, show};
use crate::fleet::tally::Invariant;
use crate::fleet::weather::ProcessId;
use crate::fleet::world::{Life, Process, State};

/// The defaults of a worker.
const LEASE: Duration = Duration::from_secs(10);
const PLANNING: Duration = Duration::from_secs(2);
const DISCOVERY: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_millis(3334);

/// For calls to the table, timers and clocks that differ.
const SLACK: Duration = Duration::from_millis(1500);

/// What a fleet needs at most to be at rest after something went wrong: a lease expires, the leader's lock with it, and a
/// leader that has seen nothing before must see every lease stand still.
const RECOVERY: Duration = Duration::from_secs(10 + 10 + 10 + 2 * 3 + 3 * 2 + 1 + 4);

/// Who serves the leases, and since when nothing was wrong.
#[derive(Debug)]
pub(crate) struct Times {
    services: BTreeMap<LeaseKey, Service>,
    /// When something last went wrong, or changed.
    disturbed: Monotonic,
    /// When something changed, as it may.
    changed: Monotonic,
    /// When something last went wrong that keeps leases from being written.
    unwritable: Monotonic,
    /// When nobody led last.
    leaderless: Monotonic,
    /// Since when workers are named as standbys.
    standbys: BTreeMap<WorkerId, Monotonic>,
    /// Workers that have stopped in order, and when.
    stopped: BTreeMap<WorkerId, Monotonic>,
    /// When there was last nobody who would take a lease: all are drained, or do not consume its stream.
    unwanted: BTreeMap<LeaseKey, Monotonic>,
}

#[derive(Clone, Debug)]
enum Service {
    By(ProcessId),
    Nobody(Gap),
}

/// A time in which nobody works on a shard.
#[derive(Clone, Debug)]
struct Gap {
    since: Monotonic,
    why: Why,
}

/// What a gap began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Its owner gave it to another one.
    HandedOver,
    /// Its owner died while nothing else was wrong.
    Crashed {
        /// Whether it was the leader.
        led: bool,
    },
    /// Anything else.
    Other,
}

impl Default for Times {
    fn default() -> Self {
        let zero = Monotonic::ZERO;
        Self {
            services: BTreeMap::new(),
            disturbed: zero,
            changed: zero,
            unwritable: zero,
            leaderless: zero,
            standbys: BTreeMap::new(),
            stopped: BTreeMap::new(),
            unwanted: BTreeMap::new(),
        }
    }
}

impl Times {
    /// Since when there is somebody who would take a lease, at most as long as since a time.
    fn wanted_since(&self, key: &LeaseKey, since: Monotonic) -> Monotonic {
        self.unwanted.get(key).map_or(since, |unwanted| since.max(*unwanted))
    }

    /// Nothing is promised of the gaps that are open now.
    fn forgive(&mut self) {
        for service in self.services.values_mut() {
            if let Service::Nobody(gap) = service {
                gap.why = Why::Other;
            }
        }
    }
}

impl State {
    /// Something goes wrong.
    pub(crate) fn disturb(&mut self) {
        self.times.disturbed = self.now;
        self.change();
        self.times.forgive();
    }

    /// The fleet or the stream changes, as it may.
    pub(crate) fn change(&mut self) {
        self.times.changed = self.now;
    }

    /// Whether nothing has been wrong for long.
    pub(super) fn has_been_quiet(&self) -> bool {
        self.was_quiet(self.times.disturbed)
    }

    /// Whether nothing was wrong for long enough to be at rest before `since`.
    fn was_quiet(&self, disturbed: Monotonic) -> bool {
        self.now.since(disturbed) > RECOVERY
    }

    /// The leader lock was written. A new leader that has not watched for a lease duration has to see every lease stand still
    /// first, and then nothing is promised of gaps.
    pub(crate) fn lock_written(&mut self, process: ProcessId, before: Option<&LeaderLock>, lock: Option<&LeaderLock>) {
        let owner = |lock: &LeaderLock| (lock.owner.clone(), lock.released);
        let now = self.now;
        if before.map(owner) != lock.map(owner) {
            self.log(format_args!("p{process} changes the leader: {lock:?}"));
            self.change();
        }
        if lock.is_some_and(|lock| !lock.released && before.is_none_or(|before| before.owner != lock.owner)) {
            let is_warm = lock
                .and_then(|lock| self.times.standbys.get(&lock.owner))
                .is_some_and(|since| now.since(*since) > LEASE + RENEWAL);
            if !is_warm {
                self.times.forgive();
            }
        }
        let named = lock.map(|lock| lock.standbys.clone()).unwrap_or_default();
        self.times.standbys.retain(|id, _| named.contains(id));
        for id in named {
            self.times.standbys.entry(id).or_insert(now);
        }
    }

    /// A worker has stopped in order.
    pub(crate) fn has_stopped(&mut self, process: ProcessId) {
        let id = self.processes[process].id.clone();
        self.times.stopped.insert(id, self.now);
    }

    /// A process dies or stands still.
    pub(crate) fn is_gone(&mut self, process: ProcessId, crashed: bool) {
        let quiet = self.was_quiet(self.times.disturbed);
        let led = self.processes[process].leads();
        self.disturb();
        let why = if quiet && crashed { Why::Crashed { led } } else { Why::Other };
        for service in self.times.services.values_mut() {
            if matches!(service, Service::By(by) if *by == process) {
                *service = Service::Nobody(Gap { since: self.now, why });
            }
        }
    }

    /// A process goes on. What nobody took meanwhile is its own still; if it has lost it to time, it begins anew.
    pub(crate) fn goes_on(&mut self, process: ProcessId) {
        self.disturb();
        for (key, service) in &mut self.times.services {
            if self.leases.holder(key) == Some(process) {
                *service = Service::By(process);
            }
        }
    }

    /// A process begins to work on a shard.
    pub(crate) fn serves(&mut self, process: ProcessId, key: &LeaseKey) {
        self.log_of(process, format_args!("serves {key}"));
        if let Some(Service::Nobody(gap)) = self.times.services.get(key) {
            let took = self.now.since(self.times.wanted_since(key, gap.since));
            let bound = match gap.why {
                Why::HandedOver if self.was_quiet(self.times.disturbed) => Some(DISCOVERY),
                Why::Crashed { led } => {
                    Some(LEASE + 2 * PLANNING + DISCOVERY + if led { LEASE + HEARTBEAT } else { Duration::ZERO })
                }
                Why::HandedOver | Why::Other => None,
            };
            if let Some(bound) = bound {
                self.tally.exercise(Invariant::L4);
                if took > bound.mul_f64(1.05) + SLACK {
                    let what = format!("nobody served {key} for {took:?}, which is more than {bound:?}: {:?}", gap.why);
                    self.violated(Invariant::L4, what);
                }
            }
        }
        self.times.services.insert(key.clone(), Service::By(process));
    }

    /// Nobody of ours works on a shard.
    pub(super) fn forget_service(&mut self, key: &LeaseKey) {
        let gap = Gap { since: self.now, why: Why::Other };
        self.times.services.insert(key.clone(), Service::Nobody(gap));
    }

    pub(super) fn time_of_write(&mut self, process: ProcessId, write: Write, before: &Lease, after: &Lease) {
        if after.is_finished() && !before.is_finished() {
            self.change();
        }
        let moves = matches!(write, Write::Assignment | Write::HandoffStart);
        if moves && !after.is_finished() {
            self.check_rest(process, write, before, after);
        }
        if matches!(write, Write::Assignment | Write::Eviction) {
            let in_order = self.is_handed_over(process, write, &before.key);
            let to_another = after.owner.as_ref().is_some_and(|owner| self.will_take(owner, after));
            let why = if in_order && to_another { Why::HandedOver } else { Why::Other };
            let since = match self.times.services.get(&before.key) {
                Some(Service::Nobody(gap)) => gap.clone(),
                _ => Gap { since: self.now, why },
            };
            self.times.services.insert(before.key.clone(), Service::Nobody(since));
        }
    }

    /// Whether a worker takes up what it is given. It may have ceased to consume a stream before anybody can know.
    fn will_take(&self, id: &WorkerId, lease: &Lease) -> bool {
        let has_left = |process: &Process| {
            let mut without = process.without.iter();
            without.any(|(stream, since)| stream.has(&lease.key) && self.now.since(*since) < SLACK)
        };
        self.processes.iter().any(|process| process.id == *id && process.is_live() && !has_left(process))
    }

    /// A worker ceases to consume a stream, maybe in the moment in which it is given leases of it.
    pub(crate) fn leaves_stream(&mut self) {
        self.change();
        self.times.forgive();
    }

    /// L6: what moves although nothing has changed for long.
    fn check_rest(&mut self, process: ProcessId, write: Write, before: &Lease, after: &Lease) {
        if self.is_at_rest() {
            let what = format!(
                "{} wrote {write:?} although nothing had changed for {:?}: {} -> {}",
                self.name(process),
                self.now.since(self.times.changed),
                show(before),
                show(after)
            );
            self.violated(Invariant::L6, what);
        }
    }

    /// Whether the last change is longer ago than what follows from it may take: three rounds of planning, after a new leader
    /// was found; a handoff, of which its owner hears with a renewal, and which waits for a running batch; a discovery.
    fn is_at_rest(&self) -> bool {
        let follows = 3 * PLANNING + HEARTBEAT + RENEWAL + 2 * self.scenario.batch_time + DISCOVERY + 2 * SLACK;
        self.now.since(self.times.changed) > follows.mul_f64(1.05) && self.was_quiet(self.times.disturbed)
    }

    /// Looks at all leases, once a second.
    pub(crate) fn tick(&mut self, leases: &[Lease]) {
        let frozen = self.processes.iter().any(Process::is_frozen);
        if self.weather.is_bad(self.now) || frozen {
            self.disturb();
        }
        if !self.processes.iter().any(|process| process.state == Life::Running && process.leads()) {
            self.times.leaderless = self.now;
        }
        if self.weather.keeps_from_writing() || frozen {
            self.times.unwritable = self.now;
        }
        self.note_unwanted(leases);
        let unfinished = Unfinished::of(leases);
        let wanted: Vec<&Lease> =
            leases.iter().filter(|lease| !lease.is_finished() && !unfinished.block(lease)).collect();
        self.check_gaps(&wanted);
        self.check_handoffs(leases);
        self.check_stopped(leases);
        if self.is_at_rest() {
            self.tally.exercise(Invariant::L6);
            self.check_balance(&wanted);
        }
        let known: BTreeSet<&LeaseKey> = leases.iter().map(|lease| &lease.key).collect();
        self.times.services.retain(|key, _| known.contains(key));
        self.times.unwanted.retain(|key, _| known.contains(key));
    }

    fn note_unwanted(&mut self, leases: &[Lease]) {
        for lease in leases.iter().filter(|lease| !lease.is_finished()) {
            let would_take = |process: &Process| process.takes_leases() && process.consumes(&lease.key);
            if !self.processes.iter().any(would_take) {
                self.times.unwanted.insert(lease.key.clone(), self.now);
            }
        }
    }

    fn check_gaps(&mut self, wanted: &[&Lease]) {
        let mut late = Vec::new();
        let now = self.now;
        for lease in wanted {
            let gap = Gap { since: now, why: Why::Other };
            let service = self.times.services.entry(lease.key.clone()).or_insert(Service::Nobody(gap));
            let Service::Nobody(gap) = service else { continue };
            let began = gap.since;
            let since = self.times.wanted_since(&lease.key, began).max(self.times.disturbed);
            if now.since(since) > RECOVERY {
                late.push((lease.key.clone(), now.since(since)));
            }
        }
        self.tally.exercise(Invariant::L4);
        for (key, time) in late {
            self.violated(Invariant::L4, format!("nobody serves {key} for {time:?}"));
        }
    }

    /// L4: whoever is asked for a lease hands it over by the deadline, or it is taken away.
    fn check_handoffs(&mut self, leases: &[Lease]) {
        // The owner hears of it, and has until the deadline; then the leader gives it a lease duration, and plans.
        let bound = RENEWAL + self.scenario.handoff_deadline + LEASE + 3 * PLANNING + HEARTBEAT + 2 * SLACK;
        for lease in leases.iter().filter(|lease| lease.handoff_requested() && !lease.is_finished()) {
            let Some(since) = self.leases.drain_since(&lease.key) else { continue };
            self.tally.exercise(Invariant::L4);
            // It may be taken away only if somebody is there to get it.
            let since = self.times.wanted_since(&lease.key, since);
            let time = self.now.since(since.max(self.times.unwritable).max(self.times.leaderless));
            if time > bound {
                self.violated(Invariant::L4, format!("{} is not handed over after {time:?}", show(lease)));
            }
        }
    }

    /// L4: whoever has stopped in order leaves nothing behind. What it was given in the last moment is taken back.
    fn check_stopped(&mut self, leases: &[Lease]) {
        let (now, unwritable) = (self.now, self.times.unwritable);
        let mut stopped = std::mem::take(&mut self.times.stopped);
        // What another process of the same id has, or has left by dying, is nothing of the one that stopped.
        stopped.retain(|id, at| now.since(*at) < RECOVERY && !self.is_there(id));
        let long_ago = |at: Monotonic| now.since(at) > 2 * SLACK && at.since(unwritable) > RECOVERY;
        for lease in leases.iter().filter(|lease| !lease.is_finished()) {
            let owner = lease.actual_owner().and_then(|owner| stopped.get_key_value(owner));
            if let Some((id, _)) = owner.filter(|(_, at)| long_ago(**at)) {
                self.violated(Invariant::L4, format!("{id} has stopped, and leaves {}", show(lease)));
            }
        }
        self.times.stopped = stopped;
    }

    /// L7, while every worker consumes every stream.
    fn check_balance(&mut self, wanted: &[&Lease]) {
        if self.processes.iter().any(|process| process.takes_leases() && process.without.is_some()) {
            return;
        }
        let takers = self.processes.iter().filter(|process| process.takes_leases());
        let mut counts: BTreeMap<&WorkerId, usize> = takers.map(|process| (&process.id, 0)).collect();
        if counts.is_empty() {
            return;
        }
        for lease in wanted {
            if let Some(count) = lease.actual_owner().and_then(|owner| counts.get_mut(owner)) {
                *count += 1;
            }
        }
        let mean = wanted.len() as f64 / counts.len() as f64;
        let allowed = (mean * 0.1).max(1.0);
        let uneven = counts.values().any(|count| (*count as f64 - mean).abs() > allowed);
        let text = uneven
            .then(|| format!("{counts:?} although nothing had changed for {:?}", self.now.since(self.times.changed)));
        self.tally.exercise(Invariant::L7);
        if let Some(text) = text {
            self.violated(Invariant::L7, text);
        }
    }
}
