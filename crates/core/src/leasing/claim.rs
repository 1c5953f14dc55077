//! Which leases a worker may take.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Lease, LeaseKey, Monotonic, ShardId, WorkerId};

/// What one observer has seen of the counters of leases, on its own clock.
///
/// A lease has expired for this observer when *it* has seen the same counter for longer than the lease duration. First
/// sight starts the time, so a worker that has just started judges nothing expired.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    first_seen: BTreeMap<LeaseKey, (u64, Monotonic)>,
}

impl Observations {
    /// Takes note of a listing that was asked for at `asked`; forgets leases that are no longer there.
    ///
    /// The time is that of the question: the answer may be older than its arrival, never older than that.
    pub fn observe(&mut self, leases: &[Lease], asked: Monotonic) {
        let mut seen = BTreeMap::new();
        for lease in leases {
            let since = match self.first_seen.get(&lease.key) {
                Some((counter, since)) if *counter == lease.counter => *since,
                _ => asked,
            };
            seen.insert(lease.key.clone(), (lease.counter, since));
        }
        self.first_seen = seen;
    }

    /// Whether the counter of a lease, as given, has not changed for longer than `duration`.
    pub fn is_expired(&self, lease: &Lease, duration: Duration, now: Monotonic) -> bool {
        self.first_seen
            .get(&lease.key)
            .is_some_and(|(counter, since)| *counter == lease.counter && now.since(*since) > duration)
    }
}

/// The parents of a shard that still have a lease and are not finished: what it waits for.
///
/// A parent without a lease does not block, as in the KCL: it was finished and cleaned up, or lies before the initial
/// position.
pub fn blocking_parents<'a>(lease: &'a Lease, leases: &'a [Lease]) -> impl Iterator<Item = &'a ShardId> {
    lease.parents.iter().filter(move |parent| {
        leases.iter().any(|other| other.shard == **parent && other.stream == lease.stream && !other.is_finished())
    })
}

/// The leases that `worker` may take now: not finished, not blocked by a parent, and free, expired, or its own without
/// being held (`is_held`).
pub fn claimable<'a>(
    leases: &'a [Lease],
    observations: &Observations,
    worker: &WorkerId,
    is_held: impl Fn(&LeaseKey) -> bool,
    lease_duration: Duration,
    now: Monotonic,
) -> Vec<&'a Lease> {
    leases
        .iter()
        .filter(|lease| !is_held(&lease.key) && !lease.is_finished())
        .filter(|lease| match lease.actual_owner() {
            None => true,
            // Ours by the table, and nobody here works on it: a former life of this very worker.
            Some(owner) if owner == worker => true,
            Some(_) => observations.is_expired(lease, lease_duration, now),
        })
        .filter(|lease| blocking_parents(lease, leases).next().is_none())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    const DURATION: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    fn lease(shard: &str, owner: Option<&str>) -> Lease {
        let mut lease = Lease::new(shard.into(), Checkpoint::TrimHorizon);
        lease.owner = owner.map(Into::into);
        lease
    }

    fn claimed(leases: &[Lease], observations: &Observations, now: Monotonic) -> Vec<String> {
        claimable(leases, observations, &"me".into(), |_| false, DURATION, now)
            .into_iter()
            .map(|lease| lease.key.to_string())
            .collect()
    }

    #[test]
    fn free_leases_are_taken_at_once_and_owned_ones_after_their_counter_stood_still() {
        let mut leases = vec![lease("a", None), lease("b", Some("other"))];
        let mut observations = Observations::default();
        observations.observe(&leases, at(0));
        assert_eq!(claimed(&leases, &observations, at(9)), ["a"]);
        observations.observe(&leases, at(8));
        assert_eq!(claimed(&leases, &observations, at(11)), ["a", "b"], "seen since 0");
        leases[1].counter += 1;
        observations.observe(&leases, at(11));
        assert_eq!(claimed(&leases, &observations, at(12)), ["a"], "its owner lives");
    }

    #[test]
    fn first_sight_judges_nothing_expired() {
        let leases = [lease("a", Some("other"))];
        assert!(claimed(&leases, &Observations::default(), at(1_000_000)).is_empty());
    }

    #[test]
    fn a_child_waits_for_all_its_parents() {
        let mut leases = vec![lease("p1", Some("other")), lease("p2", Some("other")), lease("c", None)];
        leases[2].parents = ["p1".into(), "p2".into(), "gone".into()].into();
        let observations = Observations::default();
        assert!(claimed(&leases, &observations, at(0)).is_empty());
        leases[0].checkpoint = Checkpoint::ShardEnd;
        assert!(claimed(&leases, &observations, at(0)).is_empty());
        assert_eq!(blocking_parents(&leases[2], &leases).map(ShardId::as_str).collect::<Vec<_>>(), ["p2"]);
        leases[1].checkpoint = Checkpoint::ShardEnd;
        assert_eq!(claimed(&leases, &observations, at(0)), ["c"]);
    }

    #[test]
    fn a_lease_in_handoff_belongs_to_its_old_owner() {
        let mut one = lease("a", Some("me"));
        one.checkpoint_owner = Some("other".into());
        assert!(claimed(&[one.clone()], &Observations::default(), at(0)).is_empty());
        one.checkpoint_owner = None;
        assert_eq!(claimed(&[one], &Observations::default(), at(0)), ["a"]);
    }
}
