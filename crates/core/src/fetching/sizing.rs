//! How many records to ask for.

use std::time::Duration;

use crate::ReadLimits;

/// Learns what a shard's records weigh, and sizes reads by it.
///
/// A read should fetch no more than pacing can sustain (a larger one only means a longer wait afterwards, with the
/// records held in memory meanwhile) and no more than the shard may hold.
#[derive(Clone, Debug)]
pub struct ReadSizer {
    /// The mean weight of a record, overhead included, moving: what counts against the share.
    mean_weight: f64,
    /// The mean payload of a record, moving: what counts against the pace.
    mean_payload: f64,
    /// Records in one read at most.
    max_records: usize,
    /// The payload that a read should have.
    target_payload: f64,
}

/// The payload of a read where no pace says otherwise: large enough that the cost of a call does not matter, small enough
/// that one read for each of many shards fits in memory.
const UNPACED_PAYLOAD: f64 = 256.0 * 1024.0;

/// What a record is taken to weigh, and to carry, before any was seen.
const FIRST_GUESS_BYTES: f64 = 1024.0;

/// The weight of the newest read in the mean.
const LEARNING_RATE: f64 = 0.3;

impl ReadSizer {
    /// A sizer for a shard with these limits.
    pub fn new(limits: &ReadLimits) -> Self {
        let target_payload = match (limits.bytes_per_second, limits.reads_per_second) {
            (Some(bytes), Some(reads)) => bytes / reads,
            (Some(_) | None, None) | (None, Some(_)) => UNPACED_PAYLOAD,
        };
        Self {
            mean_weight: FIRST_GUESS_BYTES,
            mean_payload: FIRST_GUESS_BYTES,
            max_records: limits.records_per_read.max(1),
            target_payload,
        }
    }

    /// How many records to ask for when the shard may hold `share` bytes; at least 1.
    pub fn limit(&self, share: usize) -> usize {
        let by_pace = self.target_payload / self.mean_payload.max(1.0);
        let by_share = share as f64 / self.mean_weight.max(1.0);
        (by_pace.min(by_share) as usize).clamp(1, self.max_records)
    }

    /// What an answer with `limit` records is expected to weigh.
    pub fn expected(&self, limit: usize) -> usize {
        (limit as f64 * self.mean_weight).ceil() as usize
    }

    /// Learns from an answer: how many records, their payload, and their weight.
    pub fn observe(&mut self, records: usize, payload: usize, weight: usize) {
        if records > 0 {
            let learn = |mean: &mut f64, sum: usize| *mean += LEARNING_RATE * (sum as f64 / records as f64 - *mean);
            learn(&mut self.mean_payload, payload);
            learn(&mut self.mean_weight, weight);
        }
    }
}

/// How far behind a shard is by a share of what the stream keeps, from 0 to 1 and beyond.
pub fn share_of_retention(behind: Duration, retention: Duration) -> f64 {
    behind.as_secs_f64() / retention.as_secs_f64().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_follow_the_pace_and_the_share() {
        let mut sizer = ReadSizer::new(&ReadLimits::POLLING);
        for _ in 0..50 {
            sizer.observe(1000, 200_000, 400_000);
        }
        let sustainable = 2 * 1024 * 1024 / 5;
        assert!((sustainable / 200 - 1..=sustainable / 200).contains(&sizer.limit(usize::MAX)), "by payload");
        assert!((99..=100).contains(&sizer.limit(40_000)), "by weight");
        assert_eq!(sizer.limit(0), 1, "one record always");
        assert!(sizer.expected(100).abs_diff(40_000) < 10);
    }

    #[test]
    fn the_services_limit_holds() {
        let mut sizer = ReadSizer::new(&ReadLimits::NONE);
        for _ in 0..50 {
            sizer.observe(10, 10, 2000);
        }
        assert_eq!(sizer.limit(usize::MAX), 10_000);
    }
}
