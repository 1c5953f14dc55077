//! From what an observer sees to what a plan is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Held, MoveKind, PlanSettings, PlannedLease, PlannedWorker, plan};
use crate::leasing::observe::JAVA_PATIENCE;
use crate::leasing::{Observations, Unfinished};
use crate::{Lease, LeaseKey, Monotonic, Timestamp, WorkerId, WorkerMetrics};

/// A fleet as an observer sees it.
#[derive(Clone, Copy, Debug)]
pub struct Fleet<'a> {
    /// Every lease.
    pub leases: &'a [Lease],
    /// Every worker's item.
    pub workers: &'a [WorkerMetrics],
    /// The workers that are to hand over what they have.
    pub draining: &'a BTreeSet<WorkerId>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long a lease holds without being renewed.
    pub lease_duration: Duration,
    /// How long an owner may take to hand a lease over.
    pub handoff_deadline: Duration,
}

impl Fleet<'_> {
    /// What to plan, at `now`.
    ///
    /// - Leases that are finished, or that wait for a parent, are nobody's business.
    /// - A lease is free if nobody has it, or if it has expired; for a lease that was given to a dead worker, half of that time is
    ///   enough.
    /// - Those workers get leases that have an item, are alive, and renew all that they have.
    pub fn snapshot(
        &self,
        observations: &Observations,
        patience: &Patience,
        now: Monotonic,
    ) -> (Vec<PlannedLease>, Vec<PlannedWorker>) {
        let unfinished = Unfinished::of(self.leases);
        let wanted = self.leases.iter().filter(|lease| !lease.is_finished() && !unfinished.block(lease));
        let leases = wanted.map(|lease| PlannedLease {
            key: lease.key.clone(),
            stream: lease.stream.clone(),
            throughput_kbps: observations.throughput_kbps(lease),
            held: held(lease, observations, patience, now),
        });
        let duration = patience.lease_duration;
        let is_neglected = |lease: &&Lease| !lease.is_finished() && observations.is_expired(lease, duration, now);
        let takers = |neglected: &dyn Fn(&Lease) -> bool| -> Vec<PlannedWorker> {
            let neglected = self.leases.iter().filter(is_neglected).filter(|lease| neglected(lease));
            let negligent: BTreeSet<&WorkerId> = neglected.filter_map(Lease::actual_owner).collect();
            let alive = self.workers.iter().filter(|metrics| observations.is_alive(&metrics.worker, duration, now));
            alive.filter(|metrics| !negligent.contains(&metrics.worker)).map(|metrics| self.planned(metrics)).collect()
        };
        // One that is drained takes nothing.
        let workers = Some(takers(&|_| true)).filter(|takers| takers.iter().any(|worker| !worker.is_draining));
        // Whoever was asked for a lease and has lost it to time has no way to find it again, since it names another owner. Rather
        // one of these than nobody, since they would all wait for each other.
        (leases.collect(), workers.unwrap_or_else(|| takers(&|lease| !lease.handoff_requested())))
    }

    fn planned(&self, metrics: &WorkerMetrics) -> PlannedWorker {
        PlannedWorker {
            id: metrics.worker.clone(),
            is_busy: is_busy(metrics),
            is_draining: self.draining.contains(&metrics.worker),
            streams: metrics.streams.clone(),
        }
    }

    /// Who is to get each of the leases of a worker that leaves, and of those that are gone; none for those that nobody has room
    /// for.
    ///
    /// The worker itself asks, and it has observed nobody: whoever has an item counts as alive, since a leader removes the items
    /// of the dead. Those of Java workers stay for a day, so of these the time in them decides, by the clock on the wall (as the KCL
    /// does).
    pub fn successors(
        &self,
        leaving: &WorkerId,
        settings: &PlanSettings,
        wall: Timestamp,
    ) -> BTreeMap<LeaseKey, WorkerId> {
        let there: Vec<&WorkerMetrics> = self.workers.iter().filter(|metrics| is_there(metrics, wall)).collect();
        let registered: BTreeSet<&WorkerId> = there.iter().map(|metrics| &metrics.worker).collect();
        let wanted = self.leases.iter().filter(|lease| !lease.is_finished());
        let leases = wanted.filter_map(|lease| {
            let held = match (lease.actual_owner(), &lease.owner) {
                (Some(actual), _) if actual == leaving || !registered.contains(actual) => Held::Free,
                (Some(_), Some(to)) if lease.handoff_requested() => Held::HandedTo(to.clone()),
                (Some(owner), _) => Held::By(owner.clone()),
                (None, _) => return None,
            };
            let (key, stream) = (lease.key.clone(), lease.stream.clone());
            Some(PlannedLease { key, stream, throughput_kbps: lease.throughput_kbps, held })
        });
        let leases: Vec<PlannedLease> = leases.collect();
        let others = there.into_iter().filter(|metrics| metrics.worker != *leaving);
        let others: Vec<PlannedWorker> = others.map(|metrics| self.planned(metrics)).collect();
        let moves = plan(&leases, &others, settings).moves.into_iter();
        moves.filter(|change| change.kind == MoveKind::Free).map(|change| (change.key, change.to)).collect()
    }
}

fn is_there(metrics: &WorkerMetrics, wall: Timestamp) -> bool {
    metrics.heartbeat.is_some() || wall.since(metrics.last_update) <= JAVA_PATIENCE
}

fn held(lease: &Lease, observations: &Observations, patience: &Patience, now: Monotonic) -> Held {
    let Some(owner) = lease.actual_owner() else { return Held::Free };
    let duration = patience.lease_duration;
    // Two renewals and more are missing, and nothing else was heard of its owner. A shorter time says nothing: a worker that
    // has just begun to renew was silent before.
    let is_orphaned =
        || observations.is_dead(owner, duration, now) && observations.is_expired(lease, duration / 2, now);
    if observations.is_expired(lease, duration, now) || is_orphaned() {
        return Held::Free;
    }
    match (lease.handoff_requested(), &lease.owner) {
        (true, Some(to)) => {
            // The owner learns of it up to a renewal later than it is seen here.
            let limit = patience.handoff_deadline + duration;
            let since = observations.handoff_since(lease).unwrap_or(now);
            if now.since(since) > limit { Held::Overdue(to.clone()) } else { Held::HandedTo(to.clone()) }
        }
        _ if observations.is_leaving(owner) => Held::ByLeaving,
        (true, None) | (false, _) if observations.is_taken_up(lease) => Held::By(owner.clone()),
        (true, None) | (false, _) => Held::HandedTo(owner.clone()),
    }
}

/// The KCL's short name of CPU utilisation, in percent.
pub const CPU: &str = "C";

/// Whether a worker's newest CPU utilisation is above its operating range.
fn is_busy(metrics: &WorkerMetrics) -> bool {
    let newest = metrics.samples.get(CPU).and_then(|samples| samples.last());
    let range = metrics.operating_range.get(CPU).and_then(|range| range.first());
    newest.zip(range).is_some_and(|(newest, range)| newest > range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    const PATIENCE: Patience =
        Patience { lease_duration: Duration::from_secs(10), handoff_deadline: Duration::from_secs(30) };

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    fn lease(shard: &str, owner: Option<&str>) -> Lease {
        let mut lease = Lease::new(shard.into(), Checkpoint::TrimHorizon);
        lease.owner = owner.map(Into::into);
        lease
    }

    fn handed(shard: &str, from: &str, to: &str) -> Lease {
        Lease { checkpoint_owner: Some(from.into()), ..lease(shard, Some(to)) }
    }

    fn items(workers: &[&str]) -> Vec<WorkerMetrics> {
        workers.iter().map(|id| WorkerMetrics::new((*id).into(), Timestamp::default())).collect()
    }

    /// What is held by whom, `seconds` after everything was first seen; `renewed` leases were renewed since.
    fn seen(mut leases: Vec<Lease>, renewed: &[&str], seconds: u64) -> Vec<(String, Held)> {
        let mut observations = Observations::default();
        observations.observe(&leases, at(0));
        for _ in 0..2 {
            for lease in leases.iter_mut().filter(|lease| renewed.contains(&lease.shard.as_str())) {
                lease.counter += 1;
            }
            observations.observe(&leases, at(seconds));
        }
        let fleet = Fleet { leases: &leases, workers: &[], draining: &BTreeSet::new() };
        let (leases, _) = fleet.snapshot(&observations, &PATIENCE, at(seconds));
        leases.into_iter().map(|lease| (lease.key.to_string(), lease.held)).collect()
    }

    #[test]
    fn what_nobody_has_or_renews_is_free() {
        let leases = vec![lease("a", None), lease("b", Some("w")), handed("c", "w", "x"), handed("d", "v", "x")];
        let by = |held: Vec<(String, Held)>| held.into_iter().map(|(_, held)| held).collect::<Vec<_>>();
        let [free, w, x] = [Held::Free, Held::By("w".into()), Held::HandedTo("x".into())];
        let given = Held::HandedTo("w".into());
        assert_eq!(by(seen(leases.clone(), &[], 10)), [free.clone(), given, x.clone(), x.clone()]);
        assert_eq!(by(seen(leases, &["b", "c"], 11)), [free.clone(), w, x, free]);
    }

    #[test]
    fn a_handoff_that_takes_too_long_is_overdue() {
        let of = |seconds| seen(vec![handed("a", "w", "x")], &["a"], seconds).remove(0).1;
        assert_eq!(of(40), Held::HandedTo("x".into()));
        assert_eq!(of(41), Held::Overdue("x".into()));
    }

    #[test]
    fn the_finished_and_the_blocked_are_left_out() {
        let mut leases = vec![lease("p", Some("w")), lease("c", None), lease("f", None)];
        leases[1].parents = ["p".into()].into();
        leases[2].checkpoint = Checkpoint::ShardEnd;
        let keys = |leases: Vec<Lease>| seen(leases, &[], 0).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(leases.clone()), ["p"]);
        leases[0].checkpoint = Checkpoint::ShardEnd;
        assert_eq!(keys(leases), ["c"]);
    }

    #[test]
    fn a_worker_that_does_not_renew_what_it_has_gets_nothing_more() {
        let takers = |row: Lease| {
            let mut observations = Observations::default();
            let mut workers = items(&["w"]);
            for (beat, seconds) in [(1, 0), (2, 11)] {
                workers[0].heartbeat = Some(crate::Heartbeat { incarnation: 1, beat });
                observations.observe(std::slice::from_ref(&row), at(seconds));
                observations.observe_workers(&workers, at(seconds), Timestamp::default());
            }
            let fleet = Fleet { leases: &[row], workers: &workers, draining: &BTreeSet::new() };
            fleet.snapshot(&observations, &PATIENCE, at(11)).1.len()
        };
        assert_eq!(takers(lease("a", Some("w"))), 0);
        assert_eq!(takers(lease("a", Some("x"))), 1, "it is another one's");
        assert_eq!(takers(handed("a", "w", "x")), 1, "it has no way to find it again, and there is nobody else");
        assert_eq!(takers(Lease { checkpoint: Checkpoint::ShardEnd, ..lease("a", Some("w")) }), 1, "it is finished");
    }

    /// Found by the simulator: a worker thawed without a lease that it had been asked for, and the only other one was drained.
    #[test]
    fn rather_one_that_lost_a_lease_to_time_than_only_those_that_are_drained() {
        let mut observations = Observations::default();
        let mut workers = items(&["thawed", "drained"]);
        let row = handed("a", "thawed", "drained");
        for (beat, seconds) in [(1, 0), (2, 11)] {
            for worker in &mut workers {
                worker.heartbeat = Some(crate::Heartbeat { incarnation: 1, beat });
            }
            observations.observe(std::slice::from_ref(&row), at(seconds));
            observations.observe_workers(&workers, at(seconds), Timestamp::default());
        }
        let draining = ["drained".into()].into();
        let fleet = Fleet { leases: &[row], workers: &workers, draining: &draining };
        let (leases, takers) = fleet.snapshot(&observations, &PATIENCE, at(11));
        let moves = plan(&leases, &takers, &PlanSettings::default()).moves;
        assert_eq!(moves.iter().map(|change| change.to.as_str()).collect::<Vec<_>>(), ["thawed"]);
    }

    #[test]
    fn what_was_given_to_a_dead_worker_need_not_expire_in_full() {
        let mut observations = Observations::default();
        let mut given = lease("a", Some("alive"));
        observations.observe(&[given.clone()], at(0));
        observations.observe_workers(&items(&["dead", "alive"]), at(0), Timestamp::default());
        given.counter += 1;
        observations.observe(&[given.clone()], at(59));
        given.counter += 1;
        given.owner = Some("dead".into());
        observations.observe(&[given.clone()], at(61));
        let (leases, workers) = (vec![given], items(&["dead", "alive"]));
        let fleet = Fleet { leases: &leases, workers: &workers, draining: &BTreeSet::new() };
        let held = |seconds| fleet.snapshot(&observations, &PATIENCE, at(seconds)).0[0].held.clone();
        assert_eq!((held(61), held(68)), (Held::HandedTo("dead".into()), Held::HandedTo("dead".into())));
        assert_eq!(held(69), Held::Free, "half of the time of a Java worker");
        let (_, workers) = fleet.snapshot(&observations, &PATIENCE, at(61));
        assert_eq!(workers.iter().map(|worker| worker.id.as_str()).collect::<Vec<_>>(), ["alive"]);
    }

    #[test]
    fn who_does_not_renew_gets_nothing_more() {
        let mut observations = Observations::default();
        let leases = [lease("a", Some("dying")), lease("b", None)];
        observations.observe(&leases, at(0));
        let workers = items(&["dying", "well"]);
        observations.observe_workers(&workers, at(9), Timestamp::default());
        let fleet = Fleet { leases: &leases, workers: &workers, draining: &BTreeSet::new() };
        let takers = |seconds| fleet.snapshot(&observations, &PATIENCE, at(seconds)).1.len();
        assert_eq!((takers(15), takers(16)), (2, 1), "its item is fresh, its lease has expired");
    }

    #[test]
    fn a_worker_that_leaves_gives_each_lease_to_one_who_consumes_its_stream() {
        let owned = |n: usize, stream: &str| {
            let mut lease = Lease::in_stream(Some(stream), format!("s{n}").into(), Checkpoint::TrimHorizon);
            lease.owner = Some("leaving".into());
            lease
        };
        let leases: Vec<Lease> =
            (0..4).flat_map(|n| ["1:a:1", "1:b:1", "1:c:1"].map(|stream| owned(n, stream))).collect();
        let mut workers = items(&["leaving", "x", "y"]);
        workers[1].streams = Some(["1:a:1".to_owned()].into());
        workers[2].streams = Some(["1:b:1".to_owned()].into());
        let fleet = Fleet { leases: &leases, workers: &workers, draining: &BTreeSet::new() };
        let successors = fleet.successors(&"leaving".into(), &PlanSettings::default(), Timestamp::default());
        assert_eq!(successors.len(), 8, "nobody consumes c: {successors:?}");
        for (lease, to) in successors {
            assert_eq!(to.as_str(), if lease.as_str().starts_with("1:a") { "x" } else { "y" });
        }
    }

    #[test]
    fn a_worker_that_leaves_spreads_what_it_has_over_those_that_stay() {
        let owned = |n: usize, owner: &str| lease(&format!("s{n}"), Some(owner));
        let mut leases: Vec<Lease> = (0..6).map(|n| owned(n, "leaving")).collect();
        leases.extend((6..8).map(|n| owned(n, "b")));
        leases.push(handed("h", "leaving", "c"));
        leases.push(lease("nobody's", None));
        let workers = items(&["leaving", "b", "c", "drained"]);
        let draining = ["drained".into()].into();
        let fleet = Fleet { leases: &leases, workers: &workers, draining: &draining };
        let successors = fleet.successors(&"leaving".into(), &PlanSettings::default(), Timestamp::default());
        let count = |id: &str| successors.values().filter(|to| to.as_str() == id).count();
        assert_eq!((successors.len(), count("b"), count("c")), (7, 3, 4), "{successors:?}");
        let alone = Fleet { leases: &leases, workers: &items(&["leaving"]), draining: &BTreeSet::new() };
        assert!(alone.successors(&"leaving".into(), &PlanSettings::default(), Timestamp::default()).is_empty());
    }

    #[test]
    fn a_java_worker_whose_item_is_old_gets_nothing_from_one_that_leaves() {
        let leases = [lease("a", Some("leaving")), lease("b", Some("leaving"))];
        let mut workers = items(&["leaving", "java", "ours"]);
        workers[2].heartbeat = Some(crate::Heartbeat { incarnation: 1, beat: 1 });
        let fleet = Fleet { leases: &leases, workers: &workers, draining: &BTreeSet::new() };
        let takers = |seconds| -> BTreeSet<String> {
            let wall = Timestamp::default().plus(Duration::from_secs(seconds));
            let successors = fleet.successors(&"leaving".into(), &PlanSettings::default(), wall);
            successors.values().map(ToString::to_string).collect()
        };
        assert_eq!(takers(60), ["java".to_owned(), "ours".to_owned()].into());
        assert_eq!(takers(61), ["ours".to_owned()].into());
    }
}
