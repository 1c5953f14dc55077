//! What happens next to a shard's records.

use super::batch::{Batch, BatchSettings, Collecting};
use crate::{ExtendedSequenceNumber, Monotonic, RetryPolicy, UserRecord};

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// User records came in from the stream, in order.
    Arrived(Vec<UserRecord>),
    /// The shard has ended; nothing more will arrive.
    ShardEnded,
    /// The invocation in flight is over.
    Finished(Verdict),
    /// Time passed, or the driver may invoke again.
    Tick,
}

/// How an invocation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All records of the batch are done.
    Done,
    /// The batch failed as a whole.
    Failed,
    /// The processor was not called; nothing is counted.
    NotInvoked,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Call the processor with this batch.
    Invoke {
        /// The batch.
        batch: Batch,
        /// Which attempt this is, from 1.
        attempt: u32,
    },
    /// Everything up to and including this position is done.
    Done {
        /// The watermark.
        up_to: ExtendedSequenceNumber,
        /// How many records were done by this.
        records: usize,
        /// What they weigh ([`UserRecord::weight`]).
        weight: usize,
    },
}

/// The state of a shard's delivery.
#[derive(Debug)]
pub struct Delivery {
    settings: BatchSettings,
    retry: RetryPolicy,
    collecting: Collecting,
    head: Option<Head>,
    shard_ended: bool,
}

/// The batch that is next, or in flight.
#[derive(Debug)]
struct Head {
    batch: Batch,
    /// How often it has failed.
    failures: u32,
    not_before: Monotonic,
    in_flight: bool,
}

impl Delivery {
    /// A delivery with nothing to do. A `retry` policy with a limit is used without it: nothing is ever skipped.
    pub fn new(settings: BatchSettings, retry: RetryPolicy) -> Self {
        Self {
            settings,
            retry: retry.with_max_retries(None),
            collecting: Collecting::default(),
            head: None,
            shard_ended: false,
        }
    }

    /// Takes an event and gives what to do about it. `random` spreads retries; `may_invoke` is whether the driver would
    /// carry out an [`Command::Invoke`] now (it is not paused or stopping).
    pub fn step(&mut self, event: Event, now: Monotonic, random: u64, may_invoke: bool) -> Vec<Command> {
        let mut commands = Vec::new();
        match event {
            Event::Arrived(records) => self.collecting.push(records),
            Event::ShardEnded => self.shard_ended = true,
            Event::Finished(verdict) => commands.extend(self.finished(verdict, now, random)),
            Event::Tick => {}
        }
        if may_invoke {
            commands.extend(self.invoke(now));
        }
        commands
    }

    fn finished(&mut self, verdict: Verdict, now: Monotonic, random: u64) -> Option<Command> {
        let head = self.head.as_mut().filter(|head| head.in_flight)?;
        head.in_flight = false;
        match verdict {
            Verdict::NotInvoked => None,
            Verdict::Failed => {
                head.failures = head.failures.saturating_add(1);
                head.not_before = now.plus(self.retry.delay(head.failures, random).unwrap_or_default());
                None
            }
            Verdict::Done => {
                let records = self.head.take()?.batch;
                let records = records.records();
                Some(Command::Done {
                    up_to: records.last()?.position,
                    records: records.len(),
                    weight: records.iter().map(UserRecord::weight).sum(),
                })
            }
        }
    }

    fn invoke(&mut self, now: Monotonic) -> Option<Command> {
        if self.head.is_none() {
            self.collecting.idle(now);
            let batch = self.collecting.take(&self.settings, self.shard_ended, now)?;
            self.head = Some(Head { batch, failures: 0, not_before: now, in_flight: false });
        }
        let head = self.head.as_mut().filter(|head| !head.in_flight && head.not_before <= now)?;
        head.in_flight = true;
        Some(Command::Invoke { batch: head.batch.clone(), attempt: head.failures + 1 })
    }

    /// When to step again with [`Event::Tick`] if nothing else happens.
    pub fn wake_at(&self) -> Option<Monotonic> {
        match &self.head {
            Some(head) if head.in_flight => None,
            Some(head) => Some(head.not_before),
            None => self.collecting.window_end(&self.settings),
        }
    }

    /// Whether a batch is with the processor.
    pub fn is_in_flight(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.in_flight)
    }

    /// How often the batch that is next has failed.
    pub fn failures(&self) -> u32 {
        self.head.as_ref().map_or(0, |head| head.failures)
    }

    /// Whether the shard has ended and every record of it is done.
    pub fn is_complete(&self) -> bool {
        self.shard_ended && self.head.is_none() && self.collecting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::Timestamp;

    fn records(numbers: std::ops::Range<u64>, size: usize) -> Vec<UserRecord> {
        numbers
            .map(|n| UserRecord {
                position: ExtendedSequenceNumber::new(n.into(), 0),
                partition_key: None,
                explicit_hash_key: None,
                arrival: Timestamp::default(),
                data: Bytes::from(vec![0; size]),
            })
            .collect()
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_millis(millis))
    }

    fn delivery(records: usize, bytes: usize, window: Duration) -> Delivery {
        Delivery::new(BatchSettings { records, bytes, window }, RetryPolicy::default())
    }

    fn invoked(commands: &[Command]) -> Option<(usize, u32)> {
        commands.iter().find_map(|command| match command {
            Command::Invoke { batch, attempt } => Some((batch.records().len(), *attempt)),
            Command::Done { .. } => None,
        })
    }

    #[test]
    fn a_batch_is_closed_by_count_bytes_window_or_the_end() {
        let none = Duration::ZERO;
        let mut by_count = delivery(3, 1000, none);
        assert_eq!(invoked(&by_count.step(Event::Arrived(records(0..5, 1)), at(0), 0, true)), Some((3, 1)));
        let mut by_bytes = delivery(9, 25, none);
        assert_eq!(invoked(&by_bytes.step(Event::Arrived(records(0..5, 10)), at(0), 0, true)), Some((2, 1)));
        let mut oversize = delivery(9, 5, none);
        assert_eq!(invoked(&oversize.step(Event::Arrived(records(0..5, 10)), at(0), 0, true)), Some((1, 1)));
        let mut by_window = delivery(9, 1000, Duration::from_millis(100));
        assert_eq!(invoked(&by_window.step(Event::Arrived(records(0..5, 1)), at(0), 0, true)), None);
        assert_eq!(by_window.wake_at(), Some(at(100)));
        assert_eq!(invoked(&by_window.step(Event::Tick, at(99), 0, true)), None);
        assert_eq!(invoked(&by_window.step(Event::Tick, at(100), 0, true)), Some((5, 1)));
        let mut by_end = delivery(9, 1000, Duration::from_secs(9));
        by_end.step(Event::Arrived(records(0..5, 1)), at(0), 0, true);
        assert_eq!(invoked(&by_end.step(Event::ShardEnded, at(0), 0, true)), Some((5, 1)));
    }

    #[test]
    fn the_window_starts_when_the_lane_is_idle() {
        let mut delivery = delivery(2, 1000, Duration::from_millis(100));
        assert_eq!(invoked(&delivery.step(Event::Arrived(records(0..3, 1)), at(0), 0, true)), Some((2, 1)));
        assert_eq!(invoked(&delivery.step(Event::Finished(Verdict::Done), at(500), 0, true)), None);
        assert_eq!(delivery.wake_at(), Some(at(600)));
    }

    #[test]
    fn a_failed_batch_comes_back_whole_after_its_backoff() {
        let mut delivery = delivery(2, 1000, Duration::ZERO);
        assert_eq!(invoked(&delivery.step(Event::Arrived(records(0..3, 1)), at(0), 0, true)), Some((2, 1)));
        assert_eq!(invoked(&delivery.step(Event::Finished(Verdict::Failed), at(0), u64::MAX, true)), None);
        assert_eq!(delivery.failures(), 1);
        let wake = delivery.wake_at().expect("a retry is due");
        assert!(wake > at(190) && wake <= at(200));
        assert_eq!(invoked(&delivery.step(Event::Tick, wake, 0, true)), Some((2, 2)));
        assert_eq!(invoked(&delivery.step(Event::Finished(Verdict::NotInvoked), wake, 0, true)), Some((2, 2)));
    }

    #[test]
    fn nothing_is_invoked_while_the_driver_may_not() {
        let mut delivery = delivery(2, 1000, Duration::ZERO);
        assert!(delivery.step(Event::Arrived(records(0..3, 1)), at(0), 0, false).is_empty());
        assert_eq!(invoked(&delivery.step(Event::Tick, at(5), 0, true)), Some((2, 1)));
    }

    proptest! {
        /// Every record is done exactly once and in order, whatever fails in between, and batches keep their limits.
        #[test]
        fn everything_is_done_once_and_in_order(
            arrivals in prop::collection::vec(0u64..7, 1..20),
            verdicts in prop::collection::vec(0u8..3, 0..60),
            (max_records, max_bytes, window) in (1usize..6, 1usize..60, 0u64..50),
        ) {
            let mut delivery = delivery(max_records, max_bytes, Duration::from_millis(window));
            let (mut next, mut now, mut done) = (0u64, 0u64, 0u64);
            let mut verdicts = verdicts.into_iter();
            let mut in_flight: Option<(u64, u64)> = None;
            let mut events: Vec<Event> = arrivals
                .into_iter()
                .map(|count| { let range = next..next + count; next += count; Event::Arrived(records(range, 10)) })
                .collect();
            events.push(Event::ShardEnded);
            let mut events = events.into_iter();
            for round in 0.. {
                prop_assert!(round < 10_000, "it must come to an end");
                let event = match in_flight.take() {
                    Some((from, to)) => match verdicts.next() {
                        Some(0) => Event::Finished(Verdict::Failed),
                        Some(1) => Event::Finished(Verdict::NotInvoked),
                        _ => { prop_assert_eq!(from, done); done = to; Event::Finished(Verdict::Done) }
                    },
                    None => events.next().unwrap_or(Event::Tick),
                };
                now = delivery.wake_at().map_or(now, |wake| now.max(wake.since_origin().as_millis() as u64 + 1));
                for command in delivery.step(event, at(now), 1 << 63, true) {
                    match command {
                        Command::Invoke { batch, .. } => {
                            let limbs = |r: &UserRecord| r.position.sequence_number.to_limbs().expect("small")[2];
                            let numbers: Vec<u64> = batch.records().iter().map(limbs).collect();
                            prop_assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                            prop_assert!(numbers.len() <= max_records);
                            prop_assert!(numbers.len() == 1 || numbers.len() * 10 <= max_bytes);
                            in_flight = Some((numbers[0], numbers[0] + numbers.len() as u64));
                        }
                        Command::Done { up_to, .. } => {
                            prop_assert_eq!(up_to.sequence_number, (done - 1).into());
                        }
                    }
                }
                if delivery.is_complete() {
                    break;
                }
            }
            prop_assert_eq!(done, next);
        }
    }
}
