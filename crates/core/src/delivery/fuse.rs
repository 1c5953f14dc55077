//! The fuse: too many dead letters in too short a time are an outage, not bad records.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Monotonic;

/// When too many records die, and what to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusePolicy {
    letters: u32,
    per: Duration,
    action: FuseAction,
}

/// What a fuse does when it blows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FuseAction {
    /// The worker pauses: leases are kept, nothing is read, processed or dead-lettered until it is resumed.
    Pause,
    /// The worker stops with an error.
    Stop,
}

impl FusePolicy {
    /// Pauses the worker when more than `letters` records would die within `per`.
    pub const fn pause(letters: u32, per: Duration) -> Self {
        Self { letters, per, action: FuseAction::Pause }
    }

    /// Stops the worker when more than `letters` records would die within `per`.
    pub const fn stop(letters: u32, per: Duration) -> Self {
        Self { letters, per, action: FuseAction::Stop }
    }

    /// What to do when it blows.
    pub const fn action(&self) -> FuseAction {
        self.action
    }

    pub(super) const fn is_valid(&self) -> bool {
        self.letters > 0 && !self.per.is_zero()
    }
}

/// Counts the dead of a worker.
#[derive(Debug)]
pub struct Fuse {
    policy: FusePolicy,
    /// When how many died, within the last `per`.
    deaths: VecDeque<(Monotonic, u32)>,
}

impl Fuse {
    /// A fuse that nobody has died under.
    pub const fn new(policy: FusePolicy) -> Self {
        Self { policy, deaths: VecDeque::new() }
    }

    /// Whether so many more may die now; if so, they are counted. A batch is let through if at least one of it may die: it
    /// could be larger than the limit, and would never pass.
    pub fn admit(&mut self, letters: u32, now: Monotonic) -> bool {
        while self.deaths.front().is_some_and(|(at, _)| now.since(*at) >= self.policy.per) {
            self.deaths.pop_front();
        }
        let dead: u32 = self.deaths.iter().map(|(_, count)| count).sum();
        let admitted = dead < self.policy.letters;
        if admitted {
            self.deaths.push_back((now, letters));
        }
        admitted
    }

    /// Forgets everything: somebody looked and said to go on.
    pub fn reset(&mut self) {
        self.deaths.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_blows_at_the_limit_and_recovers_with_time_or_a_reset() {
        let at = |seconds| Monotonic::from_origin(Duration::from_secs(seconds));
        let mut fuse = Fuse::new(FusePolicy::pause(3, Duration::from_secs(10)));
        assert!(fuse.admit(2, at(0)));
        assert!(fuse.admit(5, at(5)), "one more may die, so the batch may");
        assert!(!fuse.admit(1, at(9)));
        assert!(!fuse.admit(1, at(14)));
        assert!(fuse.admit(1, at(15)));
        assert!(fuse.admit(2, at(15)));
        assert!(!fuse.admit(1, at(15)));
        fuse.reset();
        assert!(fuse.admit(1, at(15)));
    }
}
