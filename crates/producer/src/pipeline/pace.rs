//! How fast a shard may be written: its limits, and less for as long as it throttles.

use std::time::Duration;

use shardwell_core::Monotonic;

use crate::settings::ShardRate;

/// What a throttled shard is slowed down to.
const SLOWER: f64 = 0.7;

/// Never slower than this share of the limits, or nothing would show that the shard has room again.
const SLOWEST: f64 = 0.02;

/// What is throttled within this time was under way together, and says the same once.
const ONE_REASON: Duration = Duration::from_millis(250);

/// How much of the limits comes back in a second.
const FASTER_PER_SECOND: f64 = 0.1;

/// How much may be saved up, in seconds.
const BURST: f64 = 1.0;

/// The pace of one shard. Others may write to the shard too, so throttling teaches what is left of its limits.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    rate: ShardRate,
    /// The share of the rate that is used.
    share: f64,
    /// What may be sent at once; below zero after something that was larger.
    bytes: f64,
    records: f64,
    at: Monotonic,
    throttled_at: Option<Monotonic>,
}

impl Pace {
    /// Begins with all that may be saved up.
    pub(crate) fn new(rate: ShardRate, now: Monotonic) -> Self {
        let (bytes, records) = (rate.bytes * BURST, rate.records * BURST);
        Self { rate, share: 1.0, bytes, records, at: now, throttled_at: None }
    }

    /// The share of the limits that is used, from 0 to 1.
    pub(crate) const fn share(&self) -> f64 {
        self.share
    }

    /// From when on the next record may be sent.
    pub(crate) fn next(&mut self, now: Monotonic) -> Monotonic {
        self.refill(now);
        let wait = |left: f64, rate: f64, least: f64| ((least - left) / (rate * self.share)).max(0.0);
        let wait = wait(self.records, self.rate.records, 1.0).max(wait(self.bytes, self.rate.bytes, 1.0));
        if wait > 0.0 { now.plus(Duration::from_secs_f64(wait)).max(now.plus(Duration::from_nanos(1))) } else { now }
    }

    /// A record is sent.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.records -= 1.0;
        self.bytes -= bytes as f64;
    }

    /// The shard was over its limit.
    pub(crate) fn throttled(&mut self, now: Monotonic) {
        if self.throttled_at.is_some_and(|at| now.since(at) < ONE_REASON) {
            return;
        }
        self.refill(now);
        self.throttled_at = Some(now);
        self.share = (self.share * SLOWER).max(SLOWEST);
        // What was saved up was not there.
        (self.bytes, self.records) = (self.bytes.min(0.0), self.records.min(0.0));
    }

    fn refill(&mut self, now: Monotonic) {
        let seconds = now.since(self.at).as_secs_f64();
        self.at = now;
        self.share = (self.share + FASTER_PER_SECOND * seconds).min(1.0);
        let fill = |left: f64, rate: f64| (left + rate * self.share * seconds).min(rate * self.share * BURST);
        (self.bytes, self.records) = (fill(self.bytes, self.rate.bytes), fill(self.records, self.rate.records));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn pace() -> Pace {
        Pace::new(ShardRate { bytes: 1000.0, records: 10.0 }, at(0))
    }

    #[test]
    fn a_second_may_be_saved_up_and_then_the_rate_holds() {
        let mut pace = pace();
        for _ in 0..10 {
            assert_eq!(pace.next(at(0)), at(0));
            pace.take(50);
        }
        assert_eq!(pace.next(at(0)), at(100), "ten records a second");
        pace.take(600);
        assert_eq!(pace.next(at(300)), at(300), "300 bytes have come back");
        pace.take(600);
        assert!(pace.next(at(300)) > at(700), "at 1000 bytes a second");
    }

    #[test]
    fn throttling_slows_down_once_for_one_reason_and_time_speeds_up() {
        let mut pace = pace();
        pace.throttled(at(0));
        pace.throttled(at(100));
        assert!((pace.share() - 0.7).abs() < 1e-9);
        assert!(pace.next(at(100)) > at(100), "nothing is saved up any more");
        pace.throttled(at(250));
        assert!(pace.share() < 0.55);
        pace.next(at(10_250));
        assert!((pace.share() - 1.0).abs() < 1e-9);
        for n in 0..100 {
            pace.throttled(at(20_000 + n * 250));
        }
        assert!(pace.share() >= SLOWEST);
    }
}
