//! Noticing that the stream has trimmed records before they were read.
//!
//! Kinesis opens a shard behind its trim horizon without a word, and starts at the oldest record it has. But a shard is
//! opened *at* the record of its checkpoint; so if the first record that comes is another one, the checkpoint's is gone,
//! and whatever followed it may be.
//!
//! It need not be: on a quiet shard the newest record ages out too. So the lease carries the time when everything that
//! had arrived was done. If the stream still holds all that arrived since, nothing was lost.

use std::time::Duration;

use shardwell_core::fetching::share_of_retention;
use shardwell_core::{Checkpoint, Read, SequenceNumber, Timestamp};

/// The oldest record that is left, and when it arrived.
pub(super) type FirstLeft = Option<(SequenceNumber, Timestamp)>;

/// Watches one shard's distance from the trim horizon.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The record that must come first. `None` once it came, or where nothing can be said.
    expected: Option<SequenceNumber>,
    /// Whether the warning was given and the shard has not recovered since.
    warned: bool,
}

/// The share of the retention at which to warn.
const WARN_AT: f64 = 0.8;

/// The share of the retention below which the warning may be given anew.
const RECOVERED_AT: f64 = 0.6;

/// How far our clock may be from the stream's.
pub(super) const CLOCK_MARGIN: Duration = Duration::from_secs(60);

impl Horizon {
    /// `caught_up_at` is when everything that had arrived was done.
    pub(super) fn new(from: Checkpoint, caught_up_at: Option<Timestamp>, now: Timestamp, retention: Duration) -> Self {
        let nothing_trimmed_since = now.minus(retention).plus(CLOCK_MARGIN);
        let safe = caught_up_at.is_some_and(|time| time > nothing_trimmed_since);
        let expected = from.position().filter(|_| !safe).map(|position| position.sequence_number);
        Self { expected, warned: false }
    }

    /// The oldest record that is left, if this read shows that the record of the checkpoint is gone.
    pub(super) fn check(&mut self, read: &Read) -> Option<FirstLeft> {
        let expected = self.expected?;
        match read.records.first() {
            Some(first) => {
                self.expected = None;
                (first.sequence_number > expected).then_some(Some((first.sequence_number, first.arrival)))
            }
            // At the tip, or at the end, without a single record.
            None if read.behind_latest == Some(Duration::ZERO) || read.end.is_some() => {
                self.expected = None;
                Some(None)
            }
            None => None,
        }
    }

    /// Whether to warn now that records are about to be trimmed.
    pub(super) fn is_near(&mut self, behind: Duration, retention: Duration) -> bool {
        let share = share_of_retention(behind, retention);
        let warn = share >= WARN_AT && !self.warned;
        self.warned = share >= WARN_AT || (self.warned && share >= RECOVERED_AT);
        warn
    }
}

#[cfg(test)]
mod tests {
    use shardwell_core::{Bytes, Record};

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn read(numbers: &[u64], behind: u64) -> Read {
        let record = |number: &u64| Record {
            sequence_number: (*number).into(),
            partition_key: None,
            arrival: Timestamp::from_millis(7),
            data: Bytes::new(),
        };
        let behind_latest = Some(Duration::from_millis(behind));
        Read { records: numbers.iter().map(record).collect(), behind_latest, end: None }
    }

    fn from(number: u64) -> Checkpoint {
        Checkpoint::At(SequenceNumber::from(number).into())
    }

    fn horizon(from: Checkpoint) -> Horizon {
        Horizon::new(from, None, Timestamp::default(), DAY)
    }

    #[test]
    fn the_record_of_the_checkpoint_must_come_first() {
        assert_eq!(horizon(from(5)).check(&read(&[5, 6], 0)), None);
        let lost = Some(Some((7u64.into(), Timestamp::from_millis(7))));
        assert_eq!(horizon(from(5)).check(&read(&[7], 0)), lost);
        assert_eq!(horizon(Checkpoint::TrimHorizon).check(&read(&[7], 0)), None);
    }

    #[test]
    fn an_empty_read_says_something_at_the_tip_only() {
        let mut horizon = horizon(from(5));
        assert_eq!(horizon.check(&read(&[], 10)), None);
        assert_eq!(horizon.check(&read(&[], 0)), Some(None));
        assert_eq!(horizon.check(&read(&[], 0)), None, "once");
    }

    #[test]
    fn nothing_is_lost_where_everything_since_the_tip_is_still_there() {
        let caught_up = Timestamp::from_millis(1_000_000_000);
        let soon = caught_up.plus(DAY / 2);
        let late = caught_up.plus(DAY);
        assert_eq!(Horizon::new(from(5), Some(caught_up), soon, DAY).check(&read(&[7], 0)), None);
        assert!(Horizon::new(from(5), Some(caught_up), late, DAY).check(&read(&[7], 0)).is_some());
    }

    #[test]
    fn the_warning_comes_once_until_the_shard_recovers() {
        let mut horizon = horizon(from(5));
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let near: Vec<bool> = [10, 20, 21, 15, 20, 10, 20].map(|h| horizon.is_near(hours(h), DAY)).to_vec();
        assert_eq!(near, [false, true, false, false, false, false, true]);
    }
}
