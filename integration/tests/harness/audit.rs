//! What must hold over a whole run, judged from what was put, what the processes wrote down, and the checkpoints that
//! were stored after each kill.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardwell_core::{Checkpoint, SequenceNumber, ShardId, Timestamp};
use shardwell_integration::{Event, EventKind};

use super::producer::{Put, key_of};

/// A run.
pub(crate) struct Ledger {
    pub(crate) puts: Vec<Put>,
    /// One for each process, in order. The next one was started after the one before was dead.
    pub(crate) rounds: Vec<Round>,
}

/// One process, and what it left behind.
pub(crate) struct Round {
    pub(crate) events: Vec<Event>,
    /// Just before the signal was sent; nothing for a process that was stopped gracefully.
    pub(crate) killed_at: Option<Timestamp>,
    /// What the lease table held after its death, by shard.
    pub(crate) checkpoints: BTreeMap<ShardId, Checkpoint>,
    /// From its start to its death.
    pub(crate) took: Duration,
}

/// The numbers of the records that were handled, in order, repeated ones too.
pub(crate) fn numbers(events: &[Event]) -> impl Iterator<Item = u64> {
    events.iter().filter_map(|event| match &event.kind {
        EventKind::Record { number, .. } => Some(*number),
        _ => None,
    })
}

/// The checkpoint of a shard after some processes.
///
/// A shard that was done and whose lease is gone has been cleaned up. One that never had a lease is read from its
/// beginning, as the first shards of an application and all children are.
fn stored_after(rounds: &[Round], shard: &ShardId) -> Checkpoint {
    let stored = rounds.last().and_then(|round| round.checkpoints.get(shard));
    let ended = |event: &Event| event.shard == *shard && event.kind == EventKind::ShardEnded;
    match stored {
        Some(checkpoint) => *checkpoint,
        None if rounds.iter().flat_map(|round| &round.events).any(ended) => Checkpoint::ShardEnd,
        None => Checkpoint::TrimHorizon,
    }
}

/// The last record of each shard that is not stored as done after some processes, and what is.
pub(crate) fn left_to_store<'a>(puts: &'a [Put], rounds: &'a [Round]) -> impl Iterator<Item = (&'a Put, Checkpoint)> {
    let newest: BTreeMap<&ShardId, &Put> = puts.iter().map(|put| (&put.shard, put)).collect();
    let stored = newest.into_iter().map(|(shard, put)| (put, stored_after(rounds, shard)));
    stored.filter(|(put, stored)| !stored.is_shard_end() && *stored != at(put.sequence_number))
}

impl Ledger {
    /// Every record that was put was handled, as it was put and where it was put.
    pub(crate) fn assert_nothing_lost(&self) {
        let puts: BTreeMap<u64, &Put> = self.puts.iter().map(|put| (put.number, put)).collect();
        let mut seen = BTreeSet::new();
        for event in self.rounds.iter().flat_map(|round| &round.events) {
            if let EventKind::Record { sequence_number, number, key } = &event.kind {
                let put = puts.get(number).unwrap_or_else(|| panic!("{number} was never put"));
                assert_eq!((&put.shard, put.sequence_number), (&event.shard, *sequence_number), "record {number}");
                assert_eq!(*key, key_of(*number), "record {number}");
                seen.insert(*number);
            }
        }
        let lost: Vec<_> = self.puts.iter().filter(|put| !seen.contains(&put.number)).collect();
        assert!(lost.is_empty(), "{} of {} were lost: {lost:?}", lost.len(), puts.len());
    }

    /// Records of the same key were handled for the first time in the order in which they were put.
    pub(crate) fn assert_first_deliveries_in_put_order(&self) {
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for number in self.rounds.iter().flat_map(|round| numbers(&round.events)) {
            if seen.insert(number) {
                let before = newest.insert(key_of(number), number);
                assert!(before < Some(number), "{}: {number} came after {before:?}", key_of(number));
            }
        }
    }

    /// Each process went on, in each shard, right after the checkpoint that was stored before it started, and handled
    /// from there on record after record.
    pub(crate) fn assert_resumed_right_after_the_checkpoint(&self) {
        for (index, round) in self.rounds.iter().enumerate() {
            for (shard, events) in by_shard(&round.events) {
                let stored = self.stored_before(index, shard);
                let resumed: Vec<_> = events.iter().filter_map(|event| initialized_at(event)).collect();
                assert_eq!(resumed, [stored], "round {index}, {shard}: initialized once, at the stored checkpoint");
                let handled: Vec<_> = events.iter().filter_map(|event| position(event)).collect();
                let expected = self.records_after(shard, stored);
                assert!(
                    expected.starts_with(&handled),
                    "round {index}, {shard}: handled {:?}.. after the checkpoint {stored}, which {:?}.. follow",
                    &handled[..handled.len().min(3)],
                    &expected[..expected.len().min(3)],
                );
            }
        }
    }

    /// No checkpoint went back.
    pub(crate) fn assert_checkpoints_only_advance(&self) {
        for (index, round) in self.rounds.iter().enumerate() {
            for (shard, checkpoint) in &round.checkpoints {
                let before = self.stored_before(index, shard);
                assert!(before <= *checkpoint, "round {index}, {shard}: {checkpoint} was stored after {before}");
            }
        }
    }

    /// Nobody took a lease from a process that lived.
    pub(crate) fn assert_no_lease_lost(&self) {
        let lost: Vec<_> = self.events().filter(|event| event.kind == EventKind::LeaseLost).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }

    /// The last process, which was stopped gracefully, left nothing to be done again.
    pub(crate) fn assert_all_stored_at_the_end(&self) {
        let left: Vec<_> = left_to_store(&self.puts, &self.rounds).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// For each process that was killed, the age at the kill of the oldest record that it had handled, and that the
    /// stored checkpoint of the record's shard did not cover. Zero where all was covered.
    pub(crate) fn checkpoint_lags(&self) -> Vec<Duration> {
        let killed = self.rounds.iter().enumerate().filter_map(|(index, round)| Some((index, round, round.killed_at?)));
        killed
            .map(|(index, round, killed_at)| {
                let uncovered = round.events.iter().filter(|event| {
                    position(event).is_some_and(|position| at(position) > self.stored_before(index + 1, &event.shard))
                });
                uncovered.map(|event| killed_at.since(event.at)).max().unwrap_or_default()
            })
            .collect()
    }

    /// How many records each process handled that an earlier one had handled.
    pub(crate) fn redelivered(&self) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let rounds = self.rounds.iter();
        rounds.map(|round| numbers(&round.events).filter(|number| !seen.insert(*number)).count()).collect()
    }

    /// The checkpoint of a shard when round `index` started.
    fn stored_before(&self, index: usize, shard: &ShardId) -> Checkpoint {
        stored_after(&self.rounds[..index], shard)
    }

    fn records_after(&self, shard: &ShardId, checkpoint: Checkpoint) -> Vec<SequenceNumber> {
        let of_shard = self.puts.iter().filter(|put| put.shard == *shard);
        let mut after: Vec<_> =
            of_shard.map(|put| put.sequence_number).filter(|number| at(*number) > checkpoint).collect();
        after.sort_unstable();
        after
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.rounds.iter().flat_map(|round| &round.events)
    }
}

fn at(number: SequenceNumber) -> Checkpoint {
    Checkpoint::At(number.into())
}

fn position(event: &Event) -> Option<SequenceNumber> {
    match event.kind {
        EventKind::Record { sequence_number, .. } => Some(sequence_number),
        _ => None,
    }
}

fn initialized_at(event: &Event) -> Option<Checkpoint> {
    match event.kind {
        EventKind::Initialized(checkpoint) => Some(checkpoint),
        _ => None,
    }
}

fn by_shard(events: &[Event]) -> BTreeMap<&ShardId, Vec<&Event>> {
    let mut shards: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        shards.entry(&event.shard).or_default().push(event);
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: &str = "shard";

    fn event(at: i64, kind: EventKind) -> Event {
        Event { at: Timestamp::from_millis(at), shard: SHARD.into(), kind }
    }

    fn record(at: i64, number: u64) -> Event {
        event(at, EventKind::Record { sequence_number: (100 + number).into(), number, key: key_of(number) })
    }

    fn started(checkpoint: Checkpoint) -> Event {
        event(0, EventKind::Initialized(checkpoint))
    }

    fn after(number: u64) -> Checkpoint {
        at((100 + number).into())
    }

    fn round(events: Vec<Event>, checkpoint: Checkpoint) -> Round {
        let checkpoints = [(SHARD.into(), checkpoint)].into();
        Round { events, killed_at: Some(Timestamp::from_millis(1000)), checkpoints, took: Duration::ZERO }
    }

    /// Records 0, 50 and 100, which have the same key.
    fn ledger(rounds: Vec<Round>) -> Ledger {
        let put = |number| Put { number, shard: SHARD.into(), sequence_number: (100 + number).into() };
        Ledger { puts: [0, 50, 100].map(put).into(), rounds }
    }

    /// The first process handles 0 and 50 and stores 0; the second goes on with `numbers`, after `from`.
    fn second(from: Checkpoint, numbers: &[u64]) -> Ledger {
        let first = vec![started(Checkpoint::TrimHorizon), record(400, 0), record(700, 50)];
        let mut events = vec![started(from)];
        events.extend(numbers.iter().map(|number| record(900, *number)));
        ledger(vec![round(first, after(0)), round(events, after(100))])
    }

    #[test]
    fn a_faultless_run_passes() {
        let ledger = second(after(0), &[50, 100]);
        ledger.assert_nothing_lost();
        ledger.assert_first_deliveries_in_put_order();
        ledger.assert_resumed_right_after_the_checkpoint();
        ledger.assert_checkpoints_only_advance();
        ledger.assert_no_lease_lost();
        ledger.assert_all_stored_at_the_end();
        assert_eq!(ledger.checkpoint_lags(), [Duration::from_millis(300), Duration::ZERO]);
        assert_eq!(ledger.redelivered(), [0, 1]);
    }

    #[test]
    #[should_panic(expected = "1 of 3 were lost")]
    fn a_record_that_nobody_handled_is_lost() {
        second(after(0), &[50]).assert_nothing_lost();
    }

    #[test]
    #[should_panic(expected = "50 came after Some(100)")]
    fn a_first_delivery_out_of_order_is_found() {
        let events = [0, 100, 50].map(|number| record(1, number));
        ledger(vec![round(events.into(), after(100))]).assert_first_deliveries_in_put_order();
    }

    #[test]
    #[should_panic(expected = "handled [200].. after the checkpoint 100")]
    fn a_record_skipped_after_the_checkpoint_is_found() {
        second(after(0), &[100]).assert_resumed_right_after_the_checkpoint();
    }

    #[test]
    #[should_panic(expected = "at the stored checkpoint")]
    fn a_start_at_another_checkpoint_is_found() {
        second(after(50), &[100]).assert_resumed_right_after_the_checkpoint();
    }

    #[test]
    #[should_panic(expected = "was stored after")]
    fn a_checkpoint_that_goes_back_is_found() {
        ledger(vec![round(vec![], after(50)), round(vec![], after(0))]).assert_checkpoints_only_advance();
    }
}
