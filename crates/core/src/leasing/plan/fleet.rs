//! The loads of a fleet while a plan is made.

use std::collections::{BTreeMap, BTreeSet};

use super::{Held, PlanSettings, PlanStrategy, PlannedLease, PlannedWorker};
use crate::WorkerId;
use crate::lease::consume;

/// A load, in bytes per second: whole numbers, so that sums are the same in any order.
type Load = u64;

/// Every worker's load, and what makes it up.
pub(super) struct Loads {
    /// What each lease weighs.
    weights: Vec<Load>,
    /// Of which stream each lease is.
    streams: Vec<Option<String>>,
    /// The leases that nobody has, or that whoever has them is to hand over.
    homeless: Vec<usize>,
    workers: Vec<Worker>,
    /// The workers by load, least first; of equal ones by their ids.
    by_load: BTreeSet<(Load, usize)>,
    max_leases: usize,
}

/// A lease that is to move from one worker to another.
pub(super) struct BestMove {
    from: usize,
    lease: usize,
    to: usize,
}

/// A worker while a plan is made.
struct Worker {
    id: WorkerId,
    is_busy: bool,
    /// What it consumes; `None` for all.
    streams: Option<BTreeSet<String>>,
    load: Load,
    /// How many leases it has, or is about to have.
    leases: usize,
    /// Those of them that may move, by weight.
    movable: BTreeSet<(Load, usize)>,
}

impl Loads {
    pub(super) fn new(leases: &[&PlannedLease], workers: &[PlannedWorker], settings: &PlanSettings) -> Self {
        let draining: BTreeSet<&WorkerId> = workers.iter().filter(|w| w.is_draining).map(|w| &w.id).collect();
        let mut workers: Vec<Worker> = workers.iter().filter(|w| !w.is_draining).map(Worker::new).collect();
        workers.sort_by(|a, b| a.id.cmp(&b.id));
        workers.dedup_by(|a, b| a.id == b.id);
        let index: BTreeMap<WorkerId, usize> = workers.iter().map(|w| w.id.clone()).zip(0..).collect();
        let mut loads = Self {
            weights: weights(leases, settings),
            streams: leases.iter().map(|lease| lease.stream.clone()).collect(),
            homeless: Vec::new(),
            workers,
            by_load: BTreeSet::new(),
            max_leases: settings.max_leases_for_worker,
        };
        for (lease, planned) in leases.iter().enumerate() {
            match &planned.held {
                Held::By(worker) if draining.contains(worker) => loads.homeless.push(lease),
                Held::By(worker) => loads.begin_with(index.get(worker), lease, true),
                Held::HandedTo(worker) => loads.begin_with(index.get(worker), lease, false),
                Held::ByLeaving => {}
                Held::Free | Held::Overdue(_) => loads.homeless.push(lease),
            }
        }
        loads.by_load = loads.workers.iter().enumerate().map(|(index, worker)| (worker.load, index)).collect();
        // The heaviest first, so that the light ones even out what they leave; of equal ones in their order.
        loads.homeless.sort_by_key(|lease| std::cmp::Reverse(loads.weights[*lease]));
        loads
    }

    /// A worker that is not known has its lease until it does not renew it any more.
    fn begin_with(&mut self, worker: Option<&usize>, lease: usize, may_move: bool) {
        if let Some(worker) = worker {
            self.workers[*worker].take(lease, self.weights[lease], may_move);
        }
    }

    /// The leases that need another owner, in the order in which they are to be placed.
    pub(super) fn homeless(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.homeless)
    }

    /// Gives a lease to the least loaded worker with room that consumes its stream: one that is not too busy, if there is one.
    pub(super) fn place(&mut self, lease: usize) -> Option<WorkerId> {
        let takers = || self.with_room().filter(|to| self.consumes(*to, lease));
        let to = takers().find(|to| !self.workers[*to].is_busy).or_else(|| takers().next())?;
        self.give(to, lease);
        Some(self.workers[to].id.clone())
    }

    /// The workers that may have one more lease, the least loaded first.
    fn with_room(&self) -> impl Iterator<Item = usize> {
        self.by_load.iter().map(|(_, index)| *index).filter(|index| self.workers[*index].leases < self.max_leases)
    }

    fn consumes(&self, worker: usize, lease: usize) -> bool {
        consume(self.workers[worker].streams.as_ref(), self.streams[lease].as_deref())
    }

    /// Whether a load is further from the mean than a share of it.
    fn are_apart(&self, share: f64) -> bool {
        let (Some((least, _)), Some((most, _))) = (self.by_load.first(), self.by_load.last()) else { return false };
        let mean = self.workers.iter().map(|worker| worker.load).sum::<Load>() as f64 / self.workers.len() as f64;
        *most as f64 > mean * (1.0 + share) || (*least as f64) < mean * (1.0 - share)
    }

    /// The next lease to move, and where to, if that makes a difference; it counts as moved.
    pub(super) fn next_move(&mut self, share: f64) -> Option<(usize, WorkerId)> {
        let BestMove { from, lease, to } = self.best_move(share)?;
        self.take_away(from, lease);
        self.give(to, lease);
        Some((lease, self.workers[to].id.clone()))
    }

    /// The best move, if loads are further apart than a share of them.
    ///
    /// To the least loaded worker that can be helped, for its streams may leave it with little to do.
    pub(super) fn best_move(&self, share: f64) -> Option<BestMove> {
        if !self.are_apart(share) {
            return None;
        }
        // Who consumes the same as a less loaded worker that nothing can be moved to cannot be helped either.
        let mut hopeless: Vec<&Option<BTreeSet<String>>> = Vec::new();
        for to in self.with_room().filter(|to| !self.workers[*to].is_busy) {
            let streams = &self.workers[to].streams;
            if hopeless.contains(&streams) {
                continue;
            }
            if let Some(found) = self.best_move_to(to, share) {
                return Some(found);
            }
            hopeless.push(streams);
        }
        None
    }

    /// From the most loaded worker that has a lease light enough to make the two more alike. A worker whose leases are all too
    /// heavy for that is passed over: it has one of them too many, and nobody could take it.
    fn best_move_to(&self, to: usize, share: f64) -> Option<BestMove> {
        let least = self.workers[to].load;
        let is_worth_it = |gap: Load| gap as f64 > least as f64 * share;
        let gaps = self.by_load.iter().rev().map(|(load, from)| (load.saturating_sub(least), *from));
        gaps.take_while(|(gap, _)| is_worth_it(*gap)).find_map(|(gap, from)| {
            let lease = self.workers[from].best(gap, |lease| self.consumes(to, lease))?;
            (from != to).then_some(BestMove { from, lease, to })
        })
    }

    fn give(&mut self, to: usize, lease: usize) {
        let weight = self.weights[lease];
        self.change(to, |worker| worker.take(lease, weight, true));
    }

    fn take_away(&mut self, from: usize, lease: usize) {
        let weight = self.weights[lease];
        self.change(from, |worker| {
            worker.load -= weight;
            worker.leases -= 1;
            worker.movable.remove(&(weight, lease));
        });
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut Worker)) {
        let worker = &mut self.workers[index];
        self.by_load.remove(&(worker.load, index));
        change(worker);
        self.by_load.insert((worker.load, index));
    }
}

impl Worker {
    fn new(planned: &PlannedWorker) -> Self {
        Self {
            id: planned.id.clone(),
            is_busy: planned.is_busy,
            streams: planned.streams.clone(),
            load: 0,
            leases: 0,
            movable: BTreeSet::new(),
        }
    }

    fn take(&mut self, lease: usize, weight: Load, may_move: bool) {
        self.load += weight;
        self.leases += 1;
        if may_move {
            self.movable.insert((weight, lease));
        }
    }

    /// The lease, of those that may go there, that brings this worker and one that has `gap` less closest together: the one
    /// nearest to half of the gap. One that is as heavy as the gap only changes their places.
    fn best(&self, gap: Load, may_go: impl Fn(usize) -> bool) -> Option<usize> {
        if gap < 2 {
            return None;
        }
        let half = gap / 2;
        let lighter = self.movable.range(..=(half, usize::MAX)).rev().find(|(_, lease)| may_go(*lease));
        let heavier = self.movable.range((half + 1, 0)..(gap, 0)).find(|(_, lease)| may_go(*lease));
        match (lighter, heavier) {
            (Some((light, lease)), Some((heavy, _))) if half - light <= heavy - half => Some(*lease),
            (_, Some((_, lease))) | (Some((_, lease)), None) => Some(*lease),
            (None, None) => None,
        }
    }
}

/// What leases weigh. At least 1, so that every move makes a difference.
fn weights(leases: &[&PlannedLease], settings: &PlanSettings) -> Vec<Load> {
    if settings.strategy == PlanStrategy::Count {
        return vec![1; leases.len()];
    }
    let known = || leases.iter().filter_map(|lease| lease.throughput_kbps).filter(|kbps| kbps.is_finite());
    let mean = known().sum::<f64>() / known().count().max(1) as f64;
    let weight = |lease: &&PlannedLease| {
        let kbps = lease.throughput_kbps.filter(|kbps| kbps.is_finite()).unwrap_or(mean);
        ((kbps.clamp(settings.floor_kbps, MAX_KBPS) * 1024.0) as Load).max(1)
    };
    leases.iter().map(weight).collect()
}

/// A thousand times what the service lets through a shard.
const MAX_KBPS: f64 = 2048.0 * 1000.0;
