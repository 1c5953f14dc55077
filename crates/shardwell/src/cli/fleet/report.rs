//! A fleet as it is, by one look or by many.

use std::collections::BTreeSet;
use std::time::Duration;

use shardwell::core::delivery::ResumeState;
use shardwell::core::leasing::Unfinished;
use shardwell::core::leasing::plan::{CPU, Patience};
use shardwell::core::{LeaderLock, Monotonic, StreamIdentifier, WorkerMetrics};
use shardwell::{Lease, ShardId, Timestamp, WorkerId};

use super::look::Look;
use super::watched::{Still, Watched};
use crate::cli::list::State;

/// What is known of a fleet.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) application: &'a str,
    pub(super) look: &'a Look,
    /// For how long it has been looked at; `None` after a single look.
    pub(super) watched_for: Option<Duration>,
    pub(super) leader: Option<Leader<'a>>,
    pub(super) workers: Vec<Worker>,
    pub(super) shards: Vec<Shard<'a>>,
}

/// Who leads, or led.
#[derive(Debug)]
pub(super) struct Leader<'a> {
    pub(super) lock: &'a LeaderLock,
    /// Since when the lock was not written.
    pub(super) silent_for: Option<Still>,
}

/// A worker that the table names.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    /// What the worker wrote last of itself; `None` for one that is not registered.
    pub(super) item: Option<Item>,
    /// Whether it was seen to be alive; `None` where nobody can tell.
    pub(super) is_alive: Option<bool>,
    /// Whether it was seen to take its item away: it hands over what it has, and ends. `None` after a single look.
    pub(super) is_stopping: Option<bool>,
    pub(super) is_draining: bool,
    /// How many leases it has that are not finished.
    pub(super) leases: usize,
    /// How many of them it is asked to hand over.
    pub(super) leaving: usize,
    /// How many others are asked to hand over to it.
    pub(super) coming: usize,
}

/// A worker's item.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) last_update: Timestamp,
    /// The newest CPU utilisation of its machine, in percent.
    pub(super) cpu: Option<f64>,
    /// From which on it gets no more leases.
    pub(super) max_cpu: Option<f64>,
    /// The names of the streams that it consumes, where there are several.
    pub(super) streams: Option<Vec<String>>,
}

/// A shard and its lease.
#[derive(Debug)]
pub(super) struct Shard<'a> {
    pub(super) lease: &'a Lease,
    pub(super) state: State,
    /// Whether its owner was seen not to renew it for the lease duration.
    pub(super) is_expired: bool,
    /// Since when nobody renewed it.
    pub(super) renewed: Option<Still>,
    pub(super) checkpoint_age: Option<Still>,
    pub(super) caught_up_at: Option<Timestamp>,
    pub(super) handoff: Option<Handoff>,
}

/// A handoff that is seen to be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handoff {
    pub(super) seen_for: Duration,
    /// After this time the leader gives the lease away all the same.
    pub(super) limit: Duration,
}

impl<'a> Report<'a> {
    /// What a look tells, and what is known from those before it.
    pub(super) fn new(
        application: &'a str,
        look: &'a Look,
        watched: Option<&Watched>,
        handoff_deadline: Duration,
    ) -> Self {
        let leases = &look.listing.leases;
        let unfinished = Unfinished::of(leases);
        let view = View { look, watched, patience: patience(look, handoff_deadline), now: look.asked };
        let leader = look.leader.as_ref();
        let workers: BTreeSet<WorkerId> = look.known_workers().union(&look.draining()).cloned().collect();
        Self {
            application,
            look,
            watched_for: watched.map(|watched| watched.time(look.asked)),
            leader: leader.map(|lock| Leader { lock, silent_for: watched.and_then(|seen| seen.lock(look.asked)) }),
            workers: workers.into_iter().map(|id| view.worker(id)).collect(),
            shards: leases.iter().map(|lease| view.shard(lease, &unfinished)).collect(),
        }
    }
}

/// How long things may take in a fleet.
pub(super) fn patience(look: &Look, handoff_deadline: Duration) -> Patience {
    Patience { lease_duration: look.lease_duration(), handoff_deadline }
}

/// What is looked at, and by what.
struct View<'a> {
    look: &'a Look,
    watched: Option<&'a Watched>,
    patience: Patience,
    now: Monotonic,
}

impl View<'_> {
    fn worker(&self, id: WorkerId) -> Worker {
        let leases = || self.look.listing.leases.iter().filter(|lease| !lease.is_finished());
        let has = |lease: &&Lease| lease.actual_owner() == Some(&id);
        let gets = |lease: &&Lease| lease.handoff_requested() && lease.owner.as_ref() == Some(&id);
        Worker {
            item: self.look.workers.iter().find(|metrics| metrics.worker == id).map(Item::of),
            is_alive: self.is_alive(&id),
            is_stopping: self.watched.map(|watched| watched.observations.is_leaving(&id)),
            is_draining: self.look.settings.as_ref().is_some_and(|settings| settings.draining.contains(&id)),
            leases: leases().filter(has).count(),
            leaving: leases().filter(has).filter(|lease| lease.handoff_requested()).count(),
            coming: leases().filter(gets).count(),
            id,
        }
    }

    fn is_alive(&self, id: &WorkerId) -> Option<bool> {
        let observations = &self.watched?.observations;
        let duration = self.patience.lease_duration;
        match (observations.is_alive(id, duration, self.now), observations.is_dead(id, duration, self.now)) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    fn shard<'a>(&self, lease: &'a Lease, unfinished: &Unfinished<'_>) -> Shard<'a> {
        let is_expired = |watched: &Watched| {
            let duration = self.patience.lease_duration;
            watched.observations.is_expired(lease, duration, self.now)
        };
        // Nobody renews what nobody has, and what is finished stands still.
        let owned = self.watched.filter(|_| !lease.is_finished() && lease.actual_owner().is_some());
        Shard {
            lease,
            state: State::of(lease, unfinished),
            is_expired: owned.is_some_and(is_expired),
            renewed: owned.and_then(|watched| watched.counter(lease, self.now)),
            checkpoint_age: owned.and_then(|watched| watched.checkpoint(lease, self.now)),
            caught_up_at: lease.state().and_then(ResumeState::decode).and_then(|state| state.caught_up_at()),
            handoff: owned.and_then(|watched| self.handoff(watched, lease)),
        }
    }

    fn handoff(&self, watched: &Watched, lease: &Lease) -> Option<Handoff> {
        let since = watched.observations.handoff_since(lease)?;
        let limit = self.patience.handoff_deadline + self.patience.lease_duration;
        Some(Handoff { seen_for: self.now.since(since), limit })
    }
}

impl Item {
    fn of(metrics: &WorkerMetrics) -> Self {
        // What could not be measured is below zero.
        let measured = |value: &f64| *value >= 0.0;
        let name = |stream: &String| StreamIdentifier::name_in(stream).to_owned();
        Self {
            last_update: metrics.last_update,
            cpu: metrics.samples.get(CPU).and_then(|samples| samples.last()).copied().filter(measured),
            streams: metrics.streams.as_ref().map(|streams| streams.iter().map(name).collect()),
            max_cpu: metrics.operating_range.get(CPU).and_then(|range| range.first()).copied(),
        }
    }
}

impl Leader<'_> {
    pub(super) fn state(&self) -> &'static str {
        match self.silent_for {
            _ if self.lock.released => "gave up",
            Some(still) if still.time > self.lock.duration => "silent",
            Some(_) | None => "leads",
        }
    }
}

impl Worker {
    /// Whether its machine is so busy that it gets no more leases while others have room.
    pub(super) fn is_busy(&self) -> bool {
        self.item.as_ref().is_some_and(|item| item.cpu.zip(item.max_cpu).is_some_and(|(cpu, max)| cpu > max))
    }
}

impl Shard<'_> {
    pub(super) fn state(&self) -> &'static str {
        if self.is_expired { "expired" } else { self.state.name() }
    }

    /// The parents that are to be finished first.
    pub(super) fn waits_for(&self) -> &[ShardId] {
        match &self.state {
            State::WaitingForParents(parents) => parents,
            State::Finished | State::HandingOver | State::Owned | State::Free => &[],
        }
    }
}
