//! What only looking again tells: who is alive, and since when something stands still.

use std::collections::BTreeMap;
use std::time::Duration;

use shardwell::core::Monotonic;
use shardwell::core::leasing::Observations;
use shardwell::{Checkpoint, Lease, LeaseKey};

use super::look::Look;

/// What was seen of a fleet so far.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) observations: Observations,
    began: Option<Monotonic>,
    leases: BTreeMap<LeaseKey, SeenLease>,
    /// The version of the leader lock.
    lock: Option<Seen<String>>,
}

#[derive(Debug)]
struct SeenLease {
    counter: Seen<u64>,
    checkpoint: Seen<Checkpoint>,
}

/// A value, and since when it is seen.
#[derive(Debug)]
struct Seen<T> {
    value: T,
    since: Monotonic,
    changed: bool,
}

/// For how long something has stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Still {
    pub(super) time: Duration,
    /// Whether it was seen to change. It has stood still for longer, nobody knows how long, if it was not.
    pub(super) is_exact: bool,
}

impl<T: PartialEq> Seen<T> {
    fn new(before: Option<Self>, value: T, asked: Monotonic) -> Self {
        match before {
            Some(before) if before.value == value => before,
            before => Self { value, since: asked, changed: before.is_some() },
        }
    }

    fn still(&self, now: Monotonic) -> Still {
        Still { time: now.since(self.since), is_exact: self.changed }
    }
}

impl Watched {
    /// Takes note of a look; forgets the leases that are gone.
    pub(super) fn note(&mut self, look: &Look) {
        self.began.get_or_insert(look.asked);
        self.observations.observe(&look.listing.leases, look.asked);
        self.observations.observe_workers(&look.workers, look.asked, look.at);
        let mut before = std::mem::take(&mut self.leases);
        for lease in &look.listing.leases {
            let (counter, checkpoint) = match before.remove(&lease.key) {
                Some(seen) => (Some(seen.counter), Some(seen.checkpoint)),
                None => (None, None),
            };
            let counter = Seen::new(counter, lease.counter, look.asked);
            let checkpoint = Seen::new(checkpoint, lease.checkpoint, look.asked);
            self.leases.insert(lease.key.clone(), SeenLease { counter, checkpoint });
        }
        let before = self.lock.take();
        self.lock = look.leader.as_ref().map(|lock| Seen::new(before, lock.version.clone(), look.asked));
    }

    /// The time since the first look.
    pub(super) fn time(&self, now: Monotonic) -> Duration {
        self.began.map(|began| now.since(began)).unwrap_or_default()
    }

    /// Since when nobody has renewed a lease.
    pub(super) fn counter(&self, lease: &Lease, now: Monotonic) -> Option<Still> {
        self.leases.get(&lease.key).map(|seen| seen.counter.still(now))
    }

    pub(super) fn checkpoint(&self, lease: &Lease, now: Monotonic) -> Option<Still> {
        self.leases.get(&lease.key).map(|seen| seen.checkpoint.still(now))
    }

    /// Since when nobody has written the leader lock.
    pub(super) fn lock(&self, now: Monotonic) -> Option<Still> {
        self.lock.as_ref().map(|seen| seen.still(now))
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{at, lease, lock, look, position};
    use super::*;

    #[test]
    fn what_stands_still_is_timed_from_when_it_was_seen_to_change_or_first_seen() {
        let mut watched = Watched::default();
        let mut row = lease("a", Some("w"));
        watched.note(&look(0, std::slice::from_ref(&row)));
        let still = |seconds, is_exact| Some(Still { time: Duration::from_secs(seconds), is_exact });
        assert_eq!(watched.counter(&row, at(3)), still(3, false));
        row.counter += 1;
        watched.note(&look(4, std::slice::from_ref(&row)));
        assert_eq!(watched.counter(&row, at(9)), still(5, true));
        assert_eq!(watched.checkpoint(&row, at(9)), still(9, false));
        row.checkpoint = position(5);
        watched.note(&look(9, std::slice::from_ref(&row)));
        assert_eq!(watched.checkpoint(&row, at(9)), still(0, true));
        assert_eq!(watched.time(at(9)), Duration::from_secs(9));
        watched.note(&look(10, &[]));
        assert_eq!(watched.counter(&row, at(10)), None, "it is gone");
    }

    #[test]
    fn a_leader_is_heard_of_by_the_version_of_its_lock() {
        let mut watched = Watched::default();
        let mut note = |seconds: u32, version: Option<&str>| {
            watched.note(&Look { leader: version.map(|version| lock("w", version)), ..look(seconds, &[]) });
            watched.lock(at(10)).map(|still| (still.time.as_secs(), still.is_exact))
        };
        assert_eq!(note(0, None), None);
        assert_eq!(note(1, Some("1")), Some((9, false)));
        assert_eq!(note(2, Some("1")), Some((9, false)));
        assert_eq!(note(4, Some("2")), Some((6, true)));
    }
}
