//! When to read next.

use std::time::Duration;

use crate::{Monotonic, ReadLimits};

/// Spaces the reads of one shard so that they keep to its limits.
///
/// The limits hold for all applications together, and there is no way to see the others but through throttling. So the
/// distance between reads grows with each throttled one and shrinks slowly with each that was not.
#[derive(Clone, Debug)]
pub struct ReadPacer {
    limits: ReadLimits,
    next: Monotonic,
    /// By how much the distance is stretched, at least 1.
    stretch: f64,
}

/// How much a throttled read stretches the distance between reads.
const STRETCH_ON_THROTTLE: f64 = 2.0;

/// How much of the stretch each good read leaves.
const STRETCH_DECAY: f64 = 0.95;

/// The distance between reads never grows beyond this many times the ordinary one.
const MAX_STRETCH: f64 = 25.0;

/// The least distance after a read that returned nothing: without limits, a quiet shard would be read without a pause.
const IDLE_DISTANCE: Duration = Duration::from_millis(20);

/// The distance between reads that throttling stretches where the limits name none.
const UNPACED_DISTANCE: Duration = Duration::from_millis(10);

impl ReadPacer {
    /// A pacer that lets the first read happen at once.
    pub const fn new(limits: ReadLimits) -> Self {
        Self { limits, next: Monotonic::ZERO, stretch: 1.0 }
    }

    /// When the next read may start.
    pub const fn next_read(&self) -> Monotonic {
        self.next
    }

    /// Takes note of a read that started at `started` and returned `records` with `bytes` of payload.
    pub fn on_read(&mut self, started: Monotonic, records: usize, bytes: usize) {
        let by_count = self.distance().max(if records == 0 { IDLE_DISTANCE.as_secs_f64() } else { 0.0 });
        let by_bytes = self.limits.bytes_per_second.map_or(0.0, |rate| bytes as f64 / rate);
        self.next = started.plus(Duration::from_secs_f64(by_count.max(by_bytes)));
        self.stretch = 1.0 + (self.stretch - 1.0) * STRETCH_DECAY;
    }

    /// Takes note of a read that was throttled at `now`; `random` spreads the callers that were throttled together.
    pub fn on_throttled(&mut self, now: Monotonic, random: u64) {
        self.stretch = (self.stretch * STRETCH_ON_THROTTLE).min(MAX_STRETCH);
        let distance = self.distance().max(UNPACED_DISTANCE.as_secs_f64() * self.stretch);
        let spread = (random >> 11) as f64 / (1u64 << 53) as f64;
        self.next = now.plus(Duration::from_secs_f64(distance * (0.5 + spread)));
    }

    fn distance(&self) -> f64 {
        self.limits.reads_per_second.map_or(0.0, |rate| self.stretch / rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(at: Monotonic) -> u128 {
        at.since_origin().as_millis()
    }

    #[test]
    fn five_reads_a_second_and_two_mebibytes() {
        let mut pacer = ReadPacer::new(ReadLimits::POLLING);
        assert_eq!(pacer.next_read(), Monotonic::ZERO);
        pacer.on_read(Monotonic::ZERO, 1, 1000);
        assert_eq!(millis(pacer.next_read()), 200);
        pacer.on_read(pacer.next_read(), 1, 4 * 1024 * 1024);
        assert_eq!(millis(pacer.next_read()), 2200);
    }

    #[test]
    fn throttling_stretches_and_good_reads_recover() {
        let mut pacer = ReadPacer::new(ReadLimits::POLLING);
        for _ in 0..10 {
            pacer.on_throttled(Monotonic::ZERO, 1 << 63);
        }
        assert_eq!(millis(pacer.next_read()), 5000, "25 times 200 ms, in the middle of the spread");
        for _ in 0..200 {
            pacer.on_read(Monotonic::ZERO, 0, 0);
        }
        assert!(millis(pacer.next_read()) < 210);
    }

    #[test]
    fn without_limits_only_throttling_and_quiet_delay() {
        let mut pacer = ReadPacer::new(ReadLimits::NONE);
        pacer.on_read(Monotonic::ZERO, 1, usize::MAX);
        assert_eq!(pacer.next_read(), Monotonic::ZERO);
        pacer.on_read(Monotonic::ZERO, 0, 0);
        assert_eq!(millis(pacer.next_read()), 20);
        pacer.on_throttled(Monotonic::ZERO, 1 << 63);
        assert!(millis(pacer.next_read()) > 0);
    }
}
