//! How much a lease table is asked to do when it has said that it is too much.

use std::time::Duration;

use crate::Monotonic;

/// The strain on a lease table, from its answers. The more often it has throttled, the longer everything waits that can, so that
/// renewals, which cannot, get through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    level: u32,
    /// When it last throttled.
    throttled: Monotonic,
    /// When the level was last raised.
    raised: Monotonic,
}

impl Strain {
    /// Four times as seldom is enough: what remains is a quarter of the reads, and a fleet still notices a death in time.
    const MOST: u32 = 2;

    /// Answers that come together say it once.
    const TOGETHER: Duration = Duration::from_secs(1);

    /// How long a table must not throttle to be asked more often again.
    const RELIEF: Duration = Duration::from_secs(3);

    /// The table has throttled. Tells whether that is news: it had not lately.
    pub fn throttled(&mut self, now: Monotonic) -> bool {
        let level = self.level(now);
        if level == 0 || now.since(self.raised) >= Self::TOGETHER {
            self.level = (level + 1).min(Self::MOST);
            self.raised = now;
        } else {
            self.level = level;
        }
        self.throttled = now;
        level == 0
    }

    /// How long to wait where one would wait for `interval` on a table that keeps up.
    pub fn stretch(&self, interval: Duration, now: Monotonic) -> Duration {
        interval.saturating_mul(1 << self.level(now))
    }

    fn level(&self, now: Monotonic) -> u32 {
        let reliefs = now.since(self.throttled).as_millis() / Self::RELIEF.as_millis();
        self.level.saturating_sub(u32::try_from(reliefs).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    #[test]
    fn what_can_wait_waits_longer_while_a_table_throttles_and_not_for_long_after_that() {
        let second = Duration::from_secs(1);
        let mut strain = Strain::default();
        assert_eq!(strain.stretch(second, at(0)), second);
        assert!(strain.throttled(at(10_000)));
        assert!(!strain.throttled(at(10_001)), "said together with the first");
        assert_eq!(strain.stretch(second, at(10_002)), second * 2);
        assert!(!strain.throttled(at(11_500)));
        assert!(!strain.throttled(at(13_000)));
        assert_eq!(strain.stretch(second, at(13_000)), second * 4, "and no longer than that");
        assert_eq!(strain.stretch(second, at(15_999)), second * 4);
        assert_eq!(strain.stretch(second, at(16_000)), second * 2);
        assert_eq!(strain.stretch(second, at(19_000)), second);
        assert!(strain.throttled(at(20_000)), "news again");
    }
}
