//! What one observer sees of a fleet, on its own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{Heartbeat, Lease, LeaseKey, Monotonic, Timestamp, WorkerId, WorkerMetrics, WriteToken};

/// What one observer has seen of leases and workers, and when.
///
/// Nothing here compares clocks of different machines. A lease has expired for this observer when *it* has seen the same
/// counter for longer than the lease duration; a worker lives for as long as it is seen to write something. First sight
/// starts the time, so an observer that has just started judges nothing expired and nobody dead.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    leases: BTreeMap<LeaseKey, SeenLease>,
    workers: BTreeMap<WorkerId, SeenWorker>,
}

#[derive(Clone, Debug)]
struct SeenLease {
    counter: u64,
    /// The token of its owner's last renewal. One beside a Java worker's lease is of somebody before it, and is left out.
    token: Option<WriteToken>,
    /// Since when the counter is seen like this.
    since: Monotonic,
    /// When it was last seen so.
    seen: Monotonic,
    owner: Option<WorkerId>,
    /// Whether the owner was seen to renew it.
    taken_up: bool,
    handoff: Option<SeenHandoff>,
    throughput_kbps: Option<f64>,
}

#[derive(Clone, Debug)]
struct SeenHandoff {
    from: WorkerId,
    to: Option<WorkerId>,
    since: Monotonic,
}

#[derive(Clone, Debug, Default)]
struct SeenWorker {
    /// The worker's item as it was last seen.
    item: Option<(Option<Heartbeat>, Timestamp)>,
    /// Whether an item was seen that is not there any more.
    has_left: bool,
    /// When something was last seen that only the living do; before anything was, when the worker was first seen.
    since: Monotonic,
    /// Whether anything was.
    was_alive: bool,
    /// For how long it was seen not to renew a lease that was then taken from it, since it was last seen alive.
    neglected: Duration,
}

/// Since when the newest sign of life of a worker may be, by whose item it is: ours is written thrice per lease duration by
/// those who have no leases to renew; a Java worker's every 30 s, and it counts as alive for twice that (KCL).
pub(super) const JAVA_PATIENCE: Duration = Duration::from_secs(60);

/// A Java worker finds what it was given within a lease duration, and renews it a third of one later (KCL).
const JAVA_TAKES_UP_WITHIN: f64 = 1.5;

/// An item that is older than this when it is first seen, by wall clocks that may disagree, tells nothing of its worker: it is
/// alive once it is seen to change.
const STALE_AT_FIRST_SIGHT: Duration = Duration::from_secs(60);

/// How fast a change of throughput becomes visible. What a lease reports swings with every batch, and leases that move because
/// of that are never at rest.
const THROUGHPUT_SMOOTHING: Duration = Duration::from_secs(60);

impl Observations {
    /// Takes note of a listing of leases that was asked for at `asked`; forgets leases that are no longer there.
    ///
    /// The time is that of the question: the answer may be older than its arrival, never older than that.
    pub fn observe(&mut self, leases: &[Lease], asked: Monotonic) {
        let (mut seen, mut taken_away) = (BTreeMap::new(), Vec::new());
        for lease in leases {
            let before = self.leases.remove(&lease.key);
            let owner = lease.actual_owner();
            let token = lease.token.filter(|_| !owner.is_some_and(|owner| self.is_java(owner)));
            if let (Some(before), Some(owner)) = (&before, owner)
                && before.is_renewed(lease, token)
                && (token.is_some() || !self.writes_tokens(owner))
            {
                self.workers.entry(owner.clone()).or_default().is_seen_alive(asked);
            }
            taken_away
                .extend(before.as_ref().filter(|_| !lease.is_finished()).and_then(|before| before.taken_away(lease)));
            seen.insert(lease.key.clone(), SeenLease::new(lease, token, before.as_ref(), asked));
        }
        self.leases = seen;
        for (owner, unchanged) in taken_away {
            if let Some(seen) = self.workers.get_mut(&owner).filter(|seen| seen.since != asked) {
                seen.neglected = seen.neglected.max(unchanged);
            }
        }
    }

    /// Whether a worker is one of ours, whose renewals leave a token.
    fn writes_tokens(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|seen| matches!(seen.item, Some((Some(_), _))))
    }

    /// Whether a worker is known not to be one of ours.
    fn is_java(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|seen| matches!(seen.item, Some((None, _))))
    }

    /// Takes note of the workers' items that were asked for at `asked`, with the wall clock at `wall`; forgets workers that have
    /// neither an item nor a lease.
    pub fn observe_workers(&mut self, workers: &[WorkerMetrics], asked: Monotonic, wall: Timestamp) {
        let registered: BTreeSet<&WorkerId> = workers.iter().map(|metrics| &metrics.worker).collect();
        for (id, seen) in &mut self.workers {
            if !registered.contains(id) {
                seen.has_left |= seen.item.take().is_some();
            }
        }
        for metrics in workers {
            let first_seen = || SeenWorker { since: asked, ..SeenWorker::default() };
            let seen = self.workers.entry(metrics.worker.clone()).or_insert_with(first_seen);
            let item = Some((metrics.heartbeat, metrics.last_update));
            let is_fresh = match seen.item {
                Some(_) => seen.item != item,
                None => wall.since(metrics.last_update) <= STALE_AT_FIRST_SIGHT,
            };
            if is_fresh {
                seen.is_seen_alive(asked);
            }
            (seen.item, seen.has_left) = (item, false);
        }
        let owners: BTreeSet<&WorkerId> = self.leases.values().filter_map(|lease| lease.owner.as_ref()).collect();
        self.workers.retain(|id, seen| seen.item.is_some() || owners.contains(id));
    }

    /// Whether the counter of a lease, as given, has not changed for longer than `duration`; than one and a half of it, where a Java
    /// worker was given the lease and may not have found it yet.
    pub fn is_expired(&self, lease: &Lease, duration: Duration, now: Monotonic) -> bool {
        let is_java = || lease.actual_owner().is_some_and(|owner| self.is_java(owner));
        let patience = |seen: &SeenLease| match !seen.taken_up && is_java() {
            true => duration.mul_f64(JAVA_TAKES_UP_WITHIN),
            false => duration,
        };
        self.leases
            .get(&lease.key)
            .is_some_and(|seen| seen.counter == lease.counter && now.since(seen.since) > patience(seen))
    }

    /// Since when the handoff of a lease, as given, is seen to be under way.
    pub fn handoff_since(&self, lease: &Lease) -> Option<Monotonic> {
        let seen = self.leases.get(&lease.key)?.handoff.as_ref()?;
        (Some(&seen.from) == lease.checkpoint_owner.as_ref() && seen.to == lease.owner).then_some(seen.since)
    }

    /// Whether the owner of a lease, as given, has renewed it. One that has not may not have found it yet.
    pub fn is_taken_up(&self, lease: &Lease) -> bool {
        self.leases.get(&lease.key).is_some_and(|seen| seen.taken_up && seen.owner.as_ref() == lease.actual_owner())
    }

    /// The throughput of a lease in KiB per second, without its swings; `None` where none was reported.
    pub fn throughput_kbps(&self, lease: &Lease) -> Option<f64> {
        self.leases.get(&lease.key).map_or(lease.throughput_kbps, |seen| seen.throughput_kbps)
    }

    /// The observer removes a worker's item itself: that does not mean that the worker stops, if it lives after all.
    pub fn bury(&mut self, worker: &WorkerId) {
        if let Some(seen) = self.workers.get_mut(worker) {
            (seen.item, seen.has_left) = (None, false);
        }
    }

    /// Whether a worker has taken itself out of the plan: it stops, and hands over what it has.
    pub fn is_leaving(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|seen| seen.has_left)
    }

    /// Whether a worker has shown a sign of life lately: it was seen to renew a lease or to write its item, and has not lost a lease
    /// since because it did not renew it. (A Java worker that has lost all its leases so would count as alive for a minute.)
    pub fn is_alive(&self, worker: &WorkerId, duration: Duration, now: Monotonic) -> bool {
        let is_alive =
            |seen: &SeenWorker| seen.was_alive && !seen.is_silent(duration, now) && seen.neglected <= duration;
        self.workers.get(worker).is_some_and(is_alive)
    }

    /// The workers that have shown a sign of life at `since` or later, ordered.
    pub fn alive_since(&self, since: Monotonic) -> impl Iterator<Item = &WorkerId> {
        self.workers.iter().filter(move |(_, seen)| seen.was_alive && seen.since >= since).map(|(id, _)| id)
    }

    /// Whether a worker has not shown a sign of life for too long, since it last did or was first seen.
    pub fn is_dead(&self, worker: &WorkerId, duration: Duration, now: Monotonic) -> bool {
        self.workers.get(worker).is_some_and(|seen| seen.is_silent(duration, now))
    }
}

impl SeenLease {
    /// Whether its owner has renewed a lease since: the counter has risen, and the token is another one. Whoever gives a lease
    /// away removes the token. A Java worker does not, nor does it write one; so of a row without a token the counter must be
    /// believed, if the owner is the same.
    fn is_renewed(&self, lease: &Lease, token: Option<WriteToken>) -> bool {
        let by_owner = match token {
            Some(_) => self.token != token,
            None => self.token.is_none() && self.owner.as_ref() == lease.actual_owner(),
        };
        self.counter != lease.counter && by_owner
    }

    /// From whom the lease, as given, was taken, and for how long that one was seen not to renew it.
    fn taken_away(&self, lease: &Lease) -> Option<(WorkerId, Duration)> {
        let owner = self.owner.as_ref().filter(|owner| lease.actual_owner() != Some(owner))?;
        Some((owner.clone(), self.seen.since(self.since)))
    }

    fn new(lease: &Lease, token: Option<WriteToken>, before: Option<&Self>, asked: Monotonic) -> Self {
        let unchanged = before.filter(|before| before.counter == lease.counter);
        let handoff = lease.checkpoint_owner.as_ref().map(|from| {
            let same = before.and_then(|before| before.handoff.as_ref());
            let same = same.filter(|seen| seen.from == *from && seen.to == lease.owner);
            let since = same.map_or(asked, |seen| seen.since);
            SeenHandoff { from: from.clone(), to: lease.owner.clone(), since }
        });
        let same_owner = before.filter(|before| before.owner.as_ref() == lease.actual_owner());
        // A token that is gone was removed by whoever gave the lease away, be it to the same owner again.
        let without_token = same_owner.filter(|before| before.token.is_none());
        let taken_up =
            token.is_some() || without_token.is_some_and(|before| before.taken_up || before.is_renewed(lease, token));
        let reported = lease.throughput_kbps.filter(|kbps| kbps.is_finite());
        let throughput_kbps = match (before, reported) {
            (Some(Self { throughput_kbps: Some(old), since, .. }), Some(new)) if unchanged.is_none() => {
                let weight = 1.0 - (-asked.since(*since).as_secs_f64() / THROUGHPUT_SMOOTHING.as_secs_f64()).exp();
                Some(old + weight * (new - old))
            }
            (Some(Self { throughput_kbps: Some(old), .. }), _) => Some(*old),
            (_, new) => new,
        };
        Self {
            counter: lease.counter,
            token,
            seen: asked,
            since: unchanged.map_or(asked, |before| before.since),
            owner: lease.actual_owner().cloned(),
            taken_up,
            handoff,
            throughput_kbps,
        }
    }
}

impl SeenWorker {
    const fn is_seen_alive(&mut self, asked: Monotonic) {
        (self.since, self.was_alive, self.neglected) = (asked, true, Duration::ZERO);
    }

    fn is_silent(&self, duration: Duration, now: Monotonic) -> bool {
        now.since(self.since) > self.patience(duration)
    }

    fn patience(&self, duration: Duration) -> Duration {
        match self.item {
            Some((None, _)) => duration.max(JAVA_PATIENCE),
            Some((Some(_), _)) | None => duration,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    const DURATION: Duration = Duration::from_secs(10);
    const NOON: Timestamp = Timestamp::from_millis(1_357_041_600_000);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    fn lease(owner: &str, counter: u64) -> Lease {
        let mut lease = Lease::new("a".into(), Checkpoint::TrimHorizon);
        lease.owner = Some(owner.into());
        lease.counter = counter;
        lease
    }

    fn item(worker: &str, beat: u64) -> WorkerMetrics {
        let mut metrics = WorkerMetrics::new(worker.into(), NOON);
        metrics.heartbeat = Some(Heartbeat { incarnation: 1, beat });
        metrics
    }

    #[test]
    fn a_lease_expires_when_its_counter_stood_still_since_it_was_first_seen() {
        let mut observations = Observations::default();
        assert!(!observations.is_expired(&lease("w", 1), DURATION, at(1_000_000)), "never seen");
        observations.observe(&[lease("w", 1)], at(0));
        observations.observe(&[lease("w", 1)], at(8));
        assert!(!observations.is_expired(&lease("w", 1), DURATION, at(10)));
        assert!(observations.is_expired(&lease("w", 1), DURATION, at(11)), "seen since 0");
        assert!(!observations.is_expired(&lease("w", 2), DURATION, at(11)), "another counter than the one seen");
        observations.observe(&[lease("w", 2)], at(11));
        assert!(!observations.is_expired(&lease("w", 2), DURATION, at(20)), "its owner lives");
    }

    #[test]
    fn whoever_renews_or_writes_its_item_is_alive() {
        let mut observations = Observations::default();
        let mut look = |leases: &[Lease], items: &[WorkerMetrics], seconds| {
            observations.observe(leases, at(seconds));
            observations.observe_workers(items, at(seconds), NOON);
            let states = ["idle", "busy"].map(|w| {
                (
                    observations.is_alive(&w.into(), DURATION, at(seconds)),
                    observations.is_dead(&w.into(), DURATION, at(seconds)),
                )
            });
            states.map(|state| match state {
                (true, false) => "alive",
                (false, true) => "dead",
                (false, false) => "unknown",
                (true, true) => unreachable!("both"),
            })
        };
        assert_eq!(look(&[], &[], 0), ["unknown", "unknown"]);
        assert_eq!(look(&[lease("busy", 1)], &[item("idle", 1)], 1), ["alive", "unknown"], "it may have been given");
        assert_eq!(look(&[lease("busy", 2)], &[item("idle", 1)], 9), ["alive", "alive"]);
        assert_eq!(look(&[lease("busy", 3)], &[item("idle", 1)], 12), ["dead", "alive"]);
        assert_eq!(look(&[lease("busy", 3)], &[item("idle", 2)], 23), ["alive", "dead"]);
        assert_eq!(look(&[lease("idle", 4)], &[item("idle", 2)], 34), ["dead", "unknown"], "to be given is no sign");
        let renewed = Lease { token: Some(WriteToken::new(1)), ..lease("idle", 5) };
        assert_eq!(look(&[renewed], &[], 35), ["alive", "unknown"], "stopping, and still renewing");
        assert_eq!(look(&[], &[], 36), ["unknown", "unknown"], "forgotten");
    }

    #[test]
    fn a_lease_that_is_given_away_is_no_sign_of_life() {
        let with_token =
            |owner, counter, token: Option<u64>| Lease { token: token.map(WriteToken::new), ..lease(owner, counter) };
        let mut observations = Observations::default();
        observations.observe(&[with_token("w", 1, Some(7))], at(0));
        observations.observe(&[with_token("w", 2, Some(8))], at(1));
        observations.observe_workers(&[item("w", 1), item("v", 1)], at(1), NOON);
        observations.observe(&[with_token("w", 3, None)], at(9));
        observations.observe(&[with_token("v", 4, None)], at(10));
        let is_dead = |worker: &str, seconds| observations.is_dead(&worker.into(), DURATION, at(seconds));
        assert_eq!((is_dead("w", 11), is_dead("w", 12), is_dead("v", 12)), (false, true, true));
    }

    #[test]
    fn a_worker_that_was_given_a_lease_and_renewed_it_between_two_looks_is_alive() {
        let mut observations = Observations::default();
        observations.observe(&[Lease { owner: None, ..lease("w", 0) }], at(0));
        observations.observe_workers(&[item("w", 1)], at(0), NOON);
        observations.observe(&[Lease { token: Some(WriteToken::new(7)), ..lease("w", 2) }], at(20));
        observations.observe_workers(&[item("w", 1)], at(20), NOON);
        assert!(observations.is_alive(&"w".into(), DURATION, at(20)), "it writes its item no more while it renews");
    }

    #[test]
    fn an_old_item_is_no_sign_of_life_before_it_changes() {
        let mut observations = Observations::default();
        let later = NOON.plus(Duration::from_secs(61));
        observations.observe_workers(&[item("w", 1)], at(0), later);
        assert!(!observations.is_alive(&"w".into(), DURATION, at(0)));
        assert!(
            !observations.is_dead(&"w".into(), DURATION, at(10)) && observations.is_dead(&"w".into(), DURATION, at(11))
        );
        observations.observe_workers(&[item("w", 2)], at(1), later);
        assert!(observations.is_alive(&"w".into(), DURATION, at(1)), "its wall clock is wrong");
    }

    #[test]
    fn a_java_worker_is_alive_for_a_minute() {
        let mut observations = Observations::default();
        observations.observe_workers(&[WorkerMetrics::new("w".into(), NOON)], at(0), NOON);
        assert!(observations.is_alive(&"w".into(), DURATION, at(60)));
        assert!(observations.is_dead(&"w".into(), DURATION, at(61)));
    }

    /// Found beside real Java workers: dead ones were given the same leases again and again for a minute.
    #[test]
    fn a_java_worker_that_lost_a_lease_because_it_did_not_renew_it_is_not_alive_before_it_shows_it() {
        let java = |seconds: u64| WorkerMetrics::new("w".into(), NOON.plus(Duration::from_secs(seconds)));
        let mut observations = Observations::default();
        let mut look = |lease: Lease, item: WorkerMetrics, seconds| {
            observations.observe(&[lease], at(seconds));
            observations.observe_workers(&[item], at(seconds), NOON);
            observations.is_alive(&"w".into(), DURATION, at(seconds))
        };
        assert!(look(lease("w", 1), java(0), 0) && look(lease("w", 2), java(0), 2) && look(lease("w", 2), java(0), 12));
        assert!(look(lease("w", 2), java(0), 13), "its item is fresh enough");
        assert!(!look(lease("v", 3), java(0), 15), "it did not renew for 11 s");
        assert!(look(lease("v", 3), java(30), 30), "it was only slow");
        assert!(look(lease("w", 4), java(30), 32) && look(lease("w", 5), java(30), 34));
        assert!(look(lease("v", 6), java(30), 36), "it gave the lease away");
    }

    #[test]
    fn a_java_worker_may_take_longer_to_find_what_it_was_given() {
        let mut observations = Observations::default();
        let given = Lease { token: Some(WriteToken::new(7)), ..lease("java", 5) };
        observations.observe_workers(&[WorkerMetrics::new("java".into(), NOON), item("ours", 1)], at(0), NOON);
        observations.observe(std::slice::from_ref(&given), at(0));
        assert!(!observations.is_taken_up(&given), "the token is of one of ours that had it before");
        let is_expired =
            |observations: &Observations, lease: &Lease, seconds| observations.is_expired(lease, DURATION, at(seconds));
        assert!(!is_expired(&observations, &given, 15) && is_expired(&observations, &given, 16));
        let renewed = Lease { counter: 6, ..given };
        observations.observe(std::slice::from_ref(&renewed), at(13));
        assert!(observations.is_taken_up(&renewed) && is_expired(&observations, &renewed, 24));
        observations.observe(&[lease("ours", 7)], at(30));
        assert!(is_expired(&observations, &lease("ours", 7), 41), "ours are faster");
    }

    #[test]
    fn a_lease_is_taken_up_once_its_owner_renewed_it() {
        let mut observations = Observations::default();
        let mut look = |lease: Lease, seconds| {
            observations.observe(std::slice::from_ref(&lease), at(seconds));
            observations.is_taken_up(&lease)
        };
        assert!(!look(lease("a", 1), 0), "it was given just now");
        let renewed = |owner, counter| Lease { token: Some(WriteToken::new(counter)), ..lease(owner, counter) };
        assert!(look(renewed("a", 2), 1) && look(renewed("a", 2), 2));
        assert!(!look(lease("b", 3), 3));
        assert!(look(renewed("b", 4), 4));
        let handoff = Lease { owner: Some("c".into()), checkpoint_owner: Some("b".into()), ..renewed("b", 4) };
        assert!(look(handoff, 5), "it is still b's");
        assert!(!look(lease("b", 5), 5), "it was given to b again");
        assert!(look(renewed("b", 6), 5));
        assert!(!look(lease("java", 6), 6));
        assert!(look(lease("java", 7), 7), "it writes no tokens");
    }

    #[test]
    fn whoever_removes_its_item_and_has_leases_is_leaving() {
        let mut observations = Observations::default();
        let mut look = |items: &[WorkerMetrics]| {
            observations.observe(&[lease("w", 1)], at(0));
            observations.observe_workers(items, at(0), NOON);
            observations.is_leaving(&"w".into())
        };
        assert!(!look(&[]), "it never had an item");
        assert!(!look(&[item("w", 1)]));
        assert!(look(&[]) && look(&[]));
        assert!(!look(&[item("w", 2)]), "it is there again");
        observations.bury(&"w".into());
        observations.observe_workers(&[], at(1), NOON);
        assert!(!observations.is_leaving(&"w".into()), "its item was removed by the observer");
    }

    #[test]
    fn a_handoff_is_timed_from_when_it_is_first_seen() {
        let mut observations = Observations::default();
        let handoff = |to: &str, counter| Lease { checkpoint_owner: Some("old".into()), ..lease(to, counter) };
        observations.observe(&[lease("old", 1)], at(0));
        assert_eq!(observations.handoff_since(&lease("old", 1)), None);
        observations.observe(&[handoff("new", 1)], at(5));
        observations.observe(&[handoff("new", 2)], at(9));
        assert_eq!(observations.handoff_since(&handoff("new", 3)), Some(at(5)), "renewals do not matter");
        assert_eq!(observations.handoff_since(&handoff("other", 3)), None);
        observations.observe(&[handoff("other", 3)], at(12));
        assert_eq!(observations.handoff_since(&handoff("other", 3)), Some(at(12)));
    }

    #[test]
    fn throughput_is_smoothed_over_a_minute() {
        let mut observations = Observations::default();
        let reporting = |kbps, counter| Lease { throughput_kbps: kbps, ..lease("w", counter) };
        observations.observe(&[reporting(None, 0)], at(0));
        assert_eq!(observations.throughput_kbps(&reporting(None, 0)), None);
        observations.observe(&[reporting(Some(100.0), 1)], at(3));
        assert_eq!(observations.throughput_kbps(&reporting(None, 0)), Some(100.0));
        observations.observe(&[reporting(Some(0.0), 2)], at(6));
        let soon = observations.throughput_kbps(&reporting(None, 0)).expect("known");
        assert!((94.0..97.0).contains(&soon), "{soon}");
        observations.observe(&[reporting(Some(0.0), 2)], at(60));
        assert_eq!(observations.throughput_kbps(&reporting(None, 0)), Some(soon), "nothing new was reported");
        for n in 3..60 {
            observations.observe(&[reporting(Some(0.0), n)], at(60 + n * 3));
        }
        assert!(observations.throughput_kbps(&reporting(None, 0)).expect("known") < 10.0);
    }
}
