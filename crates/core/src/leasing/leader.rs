//! Who leads.

use std::time::Duration;

use crate::{LeaderLock, Monotonic, WorkerId};

/// The times of the leader lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderTiming {
    duration: Duration,
}

impl LeaderTiming {
    /// The times for a lock that holds for `duration` after a write.
    pub const fn new(duration: Duration) -> Self {
        Self { duration }
    }

    /// How long the lock holds after a write.
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// How often the leader writes the lock, and the others read it: three times per duration and a little more.
    pub fn heartbeat(&self) -> Duration {
        self.duration * 3 / 10
    }

    /// Until when the leader leads whose last successful write was started at `attempt`: a tenth of the duration less than
    /// others wait, for clocks that run at different rates.
    pub fn leads_until(&self, attempt: Monotonic) -> Monotonic {
        attempt.plus(self.duration - self.duration / 10)
    }
}

/// What a candidate has seen of the leader lock, on its own clock.
#[derive(Clone, Debug, Default)]
pub struct LockWatch {
    seen: Option<(LeaderLock, Monotonic)>,
}

impl LockWatch {
    /// Takes note of the lock as it was asked for at `asked`.
    pub fn observe(&mut self, lock: Option<LeaderLock>, asked: Monotonic) {
        self.seen = lock.map(|lock| match &self.seen {
            Some((seen, since)) if seen.version == lock.version => (lock, *since),
            Some(_) | None => (lock, asked),
        });
    }

    /// The lock as it was last seen.
    pub fn lock(&self) -> Option<&LeaderLock> {
        self.seen.as_ref().map(|(lock, _)| lock)
    }

    /// Whether the leader asks `worker` to watch the leases too.
    pub fn is_standby(&self, worker: &WorkerId) -> bool {
        self.lock().is_some_and(|lock| lock.standbys.contains(worker))
    }

    /// When `worker` may try to take the lock, if it still is as it was last seen.
    ///
    /// A lock that is not there may be taken at once; one that was given up too; another one when it stood still for longer than
    /// it holds. Where the leader named standbys, the others give them one `heartbeat` more.
    pub fn free_at(&self, worker: &WorkerId, heartbeat: Duration) -> Monotonic {
        /// Longer than it holds, and not just as long.
        const LONGER: Duration = Duration::from_millis(1);
        let Some((lock, since)) = &self.seen else { return Monotonic::ZERO };
        let goes_first = lock.standbys.is_empty() || lock.standbys.contains(worker);
        let precedence = if goes_first { Duration::ZERO } else { heartbeat };
        let holds = if lock.released { Duration::ZERO } else { lock.duration + LONGER };
        since.plus(holds + precedence)
    }
}

/// How often to plan: every `interval`, and more seldom where reading the table that often would cost more than
/// `read_units` DynamoDB read units a second.
pub fn planning_interval(interval: Duration, leases: usize, read_units: f64) -> Duration {
    /// Half of what a row takes, as measured with a resume state in it, in a scan that need not be consistent: a unit is
    /// 8 KiB.
    const ROWS_PER_UNIT: f64 = 16.0;
    let cost = leases as f64 / ROWS_PER_UNIT;
    let stretched = Duration::try_from_secs_f64(cost / read_units).unwrap_or(Duration::MAX);
    interval.max(stretched.min(LONGEST_PLANNING_INTERVAL.max(interval)))
}

/// The KCL's: however large a table is, it is looked at this often.
const LONGEST_PLANNING_INTERVAL: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);
    const THREE: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    fn lock(version: &str, standbys: &[&str]) -> LeaderLock {
        LeaderLock {
            owner: "leader".into(),
            duration: TEN,
            version: version.into(),
            released: false,
            standbys: standbys.iter().map(|id| WorkerId::from(*id)).collect(),
        }
    }

    #[test]
    fn a_leader_stops_before_anybody_takes_over() {
        let timing = LeaderTiming::new(TEN);
        assert_eq!(timing.leads_until(at(5)), at(14));
        assert_eq!(timing.heartbeat(), THREE);
    }

    #[test]
    fn a_lock_is_taken_when_it_stood_still_and_standbys_go_first() {
        let mut watch = LockWatch::default();
        let may = |watch: &LockWatch, worker: &str, seconds| watch.free_at(&worker.into(), THREE) <= at(seconds);
        assert!(may(&watch, "any", 0), "there is none");
        watch.observe(Some(lock("1", &["standby"])), at(0));
        watch.observe(Some(lock("1", &["standby"])), at(9));
        assert!(!may(&watch, "standby", 10));
        assert!(may(&watch, "standby", 11) && !may(&watch, "any", 13) && may(&watch, "any", 14));
        assert!(watch.is_standby(&"standby".into()) && !watch.is_standby(&"any".into()));
        watch.observe(Some(lock("2", &["standby"])), at(11));
        assert!(!may(&watch, "standby", 21), "the leader lives");
        watch.observe(Some(lock("3", &[])), at(22));
        assert!(may(&watch, "any", 33), "there are no standbys");
    }

    #[test]
    fn a_lock_that_was_given_up_is_taken_at_once() {
        let mut watch = LockWatch::default();
        watch.observe(Some(LeaderLock { released: true, ..lock("1", &["standby"]) }), at(0));
        assert_eq!(watch.free_at(&"standby".into(), THREE), at(0));
        assert_eq!(watch.free_at(&"any".into(), THREE), at(3));
    }

    #[test]
    fn large_tables_are_planned_less_often() {
        let two = Duration::from_secs(2);
        assert_eq!(planning_interval(two, 1000, 50.0), two);
        assert_eq!(planning_interval(two, 10_000, 50.0), Duration::from_millis(12_500));
        assert_eq!(planning_interval(two, 1_000_000, 50.0), LONGEST_PLANNING_INTERVAL);
        assert_eq!(planning_interval(two, 10_000, 0.0), LONGEST_PLANNING_INTERVAL);
        assert_eq!(planning_interval(Duration::from_secs(60), 1_000_000, 50.0), Duration::from_secs(60));
    }
}
