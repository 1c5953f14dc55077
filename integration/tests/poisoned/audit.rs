//! What must hold over a whole run, judged from what was put, what the processes wrote down, the checkpoints that were
//! stored after each of them, and the dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::dead_letter::{ArchivedLetter, DeadReason, LetterId, LetterState};
use shardwell_core::{Checkpoint, ShardId};
use shardwell_integration::{APPLICATION, Event, EventKind, Trouble};

use crate::flights::producer::{Put, newest_by_shard};
use crate::flights::{PlannedFlight, STREAM};

/// A run.
pub(crate) struct Ledger {
    /// By number.
    pub(crate) flights: Arc<[PlannedFlight]>,
    pub(crate) puts: Vec<Put>,
    pub(crate) reshards: u32,
    /// One for each process, in order. The next one was started after the one before was dead.
    pub(crate) rounds: Vec<Round>,
    /// What was dead when all was done.
    pub(crate) letters: Vec<ArchivedLetter>,
}

/// One process, and what it left behind.
pub(crate) struct Round {
    /// The id of its worker.
    pub(crate) worker: String,
    pub(crate) events: Vec<Event>,
    pub(crate) end: End,
    /// What the lease table held after its death, by shard.
    pub(crate) checkpoints: BTreeMap<ShardId, Checkpoint>,
    /// From its start to its death.
    pub(crate) took: Duration,
    /// How many of its shards were under suspicion.
    pub(crate) suspicions: usize,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Aborted,
    Stopped,
}

/// The numbers of the flights that were handled, in order, repeated ones too.
pub(crate) fn handled(events: &[Event]) -> impl Iterator<Item = u64> {
    events.iter().filter_map(|event| match &event.kind {
        EventKind::Record { number, .. } => Some(*number),
        _ => None,
    })
}

/// The same for those that were handled or failed.
fn tried(events: &[Event]) -> impl Iterator<Item = u64> {
    events.iter().filter_map(|event| match &event.kind {
        EventKind::Record { number, .. } | EventKind::Failed { number } => Some(*number),
        _ => None,
    })
}

pub(crate) fn redriven(events: &[Event]) -> impl Iterator<Item = u64> {
    events.iter().filter_map(|event| match &event.kind {
        EventKind::Redriven { number, .. } => Some(*number),
        _ => None,
    })
}

/// The shards of which something may be done again, what is stored of each, and what was put last.
pub(crate) fn left_to_store<'a, I: Iterator<Item = &'a Event>>(
    puts: &[Put],
    checkpoints: &BTreeMap<ShardId, Checkpoint>,
    events: impl Fn() -> I,
) -> Vec<String> {
    let has_ended =
        |shard: &ShardId| events().any(|event| event.shard == *shard && event.kind == EventKind::ShardEnded);
    let mut left = Vec::new();
    for (shard, newest) in newest_by_shard(puts) {
        let (stored, newest) = (checkpoints.get(&shard).copied(), Checkpoint::At(newest));
        let is_stored = match stored {
            Some(stored) => stored.is_shard_end() || stored == newest,
            // The lease of a shard that was done has been cleaned up.
            None => has_ended(&shard),
        };
        if !is_stored {
            left.push(format!("{shard}: {stored:?} is stored, {newest} was put"));
        }
    }
    left
}

/// The numbers of the flights that no attempt can process.
pub(crate) fn poison(flights: &[PlannedFlight]) -> BTreeSet<u64> {
    let is_poison = |planned: &&PlannedFlight| planned.flight.trouble.is_some_and(Trouble::is_poison);
    flights.iter().filter(is_poison).map(|planned| planned.flight.number).collect()
}

impl Ledger {
    /// All that holds for every run.
    pub(crate) fn assert_all(&self) {
        self.assert_nothing_else_lost();
        self.assert_exactly_the_poison_is_dead();
        self.assert_letters_tell_what_was_put();
        self.assert_nothing_is_both_done_and_dead();
        self.assert_first_deliveries_in_put_order();
        self.assert_checkpoints_only_advance();
        self.assert_what_has_ended_is_not_read_again();
        self.assert_all_stored_at_the_end();
    }

    fn planned(&self, number: u64) -> &PlannedFlight {
        &self.flights[usize::try_from(number).expect("an index")]
    }

    fn events(&self) -> impl Iterator<Item = &Event> {
        self.rounds.iter().flat_map(|round| &round.events)
    }

    /// Every flight but the poison was handled, as it was put and where it was put.
    pub(crate) fn assert_nothing_else_lost(&self) {
        let puts: BTreeMap<u64, &Put> = self.puts.iter().map(|put| (put.number, put)).collect();
        assert_eq!(puts.len(), self.flights.len(), "every flight was put");
        let mut missing: BTreeSet<u64> = puts.keys().copied().collect();
        for event in self.events() {
            let EventKind::Record { sequence_number, number, key } = &event.kind else { continue };
            let put = puts.get(number).unwrap_or_else(|| panic!("{number} was never put"));
            let expected = (&put.shard, put.position.sequence_number, &self.planned(*number).key);
            assert_eq!((&event.shard, *sequence_number, key), expected, "flight {number}");
            missing.remove(number);
        }
        let poison = poison(&self.flights);
        let lost: Vec<_> = missing.difference(&poison).collect();
        assert!(lost.is_empty(), "{} of {} were lost: {lost:?}", lost.len(), puts.len());
    }

    /// The letters are about the poison and nothing else, with one for each.
    pub(crate) fn assert_exactly_the_poison_is_dead(&self) {
        let ids: BTreeSet<LetterId> = self.letters.iter().map(|letter| letter.letter.id()).collect();
        assert_eq!(ids.len(), self.letters.len(), "one letter for each identity");
        let expected: BTreeSet<LetterId> = self.poison_by_id().into_keys().collect();
        let told = |ids: Vec<&LetterId>| ids.iter().map(|id| self.told(id)).collect::<Vec<_>>();
        let innocent = told(ids.difference(&expected).collect());
        let alive = told(expected.difference(&ids).collect());
        assert!(innocent.is_empty() && alive.is_empty(), "innocent and dead: {innocent:?}; poison and not: {alive:?}");
    }

    /// What a letter should be called, of each flight that is poison.
    fn poison_by_id(&self) -> BTreeMap<LetterId, u64> {
        let poison = poison(&self.flights);
        let dead = self.puts.iter().filter(|put| poison.contains(&put.number));
        dead.map(|put| {
            let (shard, position) = (put.shard.clone(), put.position);
            (LetterId { application: APPLICATION.into(), stream: STREAM.into(), shard, position }, put.number)
        })
        .collect()
    }

    /// All that helps to find out why a flight is dead.
    fn told(&self, id: &LetterId) -> String {
        let put = self.puts.iter().find(|put| (&put.shard, put.position) == (&id.shard, id.position));
        let letter = self.letters.iter().find(|letter| letter.letter.id() == *id);
        let letter = letter.map(|archived| {
            let letter = &archived.letter;
            format!("{} by {} at lane {}: {:?}", letter.reason, letter.worker, letter.lane, letter.error)
        });
        let number = put.map(|put| put.number);
        let history: Vec<String> = self
            .rounds
            .iter()
            .filter(|round| tried(&round.events).any(|tried| Some(tried) == number))
            .map(|round| format!("{} ({:?})", round.worker, round.end))
            .collect();
        format!("{id}, flight {number:?}, {letter:?}, tried in {history:?}")
    }

    /// A letter holds the record as it was put, and the error that the processor had.
    pub(crate) fn assert_letters_tell_what_was_put(&self) {
        let poison = self.poison_by_id();
        for archived in &self.letters {
            let letter = &archived.letter;
            let Some(number) = poison.get(&letter.id()) else { continue };
            let planned = self.planned(*number);
            assert_eq!(archived.state, LetterState::Dead, "flight {number}");
            assert_eq!(letter.record.data, planned.payload, "flight {number}");
            let key = letter.record.partition_key.as_ref().map(ToString::to_string);
            assert_eq!(key.as_deref(), Some(&*planned.key), "flight {number}");
            let trouble = planned.flight.trouble.expect("poison");
            assert!(is_reason(trouble, letter.reason), "flight {number}, {trouble:?}, is dead for {}", letter.reason);
            let error = letter.error_line();
            assert!(names_cause(trouble, *number, letter.reason, &error), "flight {number}, {trouble:?}: {error}");
        }
    }

    /// Nothing that a process has handled is dead: in particular no process buried what it had said was done. Delivery at
    /// least once allows that a process handles what an earlier one handled too, and writes a letter that an earlier one
    /// wrote (which is the same letter). It does not allow that one is done what for another is dead, since all processes
    /// here fail on the same flights. And nothing is dead that was never tried.
    pub(crate) fn assert_nothing_is_both_done_and_dead(&self) {
        let poison = self.poison_by_id();
        for archived in &self.letters {
            let Some(number) = poison.get(&archived.letter.id()) else { continue };
            let buried = self.rounds.iter().position(|round| round.worker == archived.letter.worker.as_str());
            let buried = buried.unwrap_or_else(|| panic!("no process is called {}", archived.letter.worker));
            let before = &self.rounds[..=buried];
            assert!(before.iter().any(|round| tried(&round.events).any(|tried| tried == *number)), "{number} untried");
            let done = self.rounds.iter().find(|round| handled(&round.events).any(|handled| handled == *number));
            assert!(done.is_none(), "{number} is dead, and {} handled it", done.map_or("", |round| &round.worker));
        }
    }

    /// Flights of the same key were handled, or failed, for the first time in the order in which they were put.
    pub(crate) fn assert_first_deliveries_in_put_order(&self) {
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for number in self.rounds.iter().flat_map(|round| tried(&round.events)) {
            if seen.insert(number) {
                let key = &*self.planned(number).key;
                let before = newest.insert(key, number);
                assert!(before < Some(number), "{key}: {number} came after {before:?}");
            }
        }
    }

    /// No checkpoint went back.
    pub(crate) fn assert_checkpoints_only_advance(&self) {
        let mut newest: BTreeMap<&ShardId, Checkpoint> = BTreeMap::new();
        for (round, (shard, checkpoint)) in
            self.rounds.iter().flat_map(|round| round.checkpoints.iter().map(move |stored| (round, stored)))
        {
            let before = newest.insert(shard, *checkpoint);
            assert!(before <= Some(*checkpoint), "{}, {shard}: {checkpoint} after {before:?}", round.worker);
        }
    }

    /// Once the end of a shard is stored, no process has anything to do with it, also when its lease has been cleaned up.
    pub(crate) fn assert_what_has_ended_is_not_read_again(&self) {
        let mut ended: BTreeMap<&ShardId, &str> = BTreeMap::new();
        let mut known: BTreeSet<&ShardId> = BTreeSet::new();
        for round in &self.rounds {
            for event in &round.events {
                if let (EventKind::Initialized(from), Some(by)) = (&event.kind, ended.get(&event.shard)) {
                    panic!("{} was done by {by}, and {} reads it again from {from}", event.shard, round.worker);
                }
            }
            let gone = known.iter().filter(|shard| !round.checkpoints.contains_key(**shard));
            let at_end = round.checkpoints.iter().filter(|(_, stored)| stored.is_shard_end()).map(|(shard, _)| shard);
            for shard in gone.copied().chain(at_end).collect::<Vec<_>>() {
                ended.entry(shard).or_insert(&round.worker);
            }
            known.extend(round.checkpoints.keys());
        }
    }

    /// The last process, which was stopped gracefully, left nothing to be done again.
    pub(crate) fn assert_all_stored_at_the_end(&self) {
        let last = self.rounds.last().expect("there were processes");
        let left = left_to_store(&self.puts, &last.checkpoints, || self.events());
        assert!(left.is_empty(), "{left:?}");
    }

    /// How many processes ended so.
    pub(crate) fn ends(&self, end: End) -> usize {
        self.rounds.iter().filter(|round| round.end == end).count()
    }

    /// How many flights each process handled that an earlier one had handled.
    pub(crate) fn redelivered(&self) -> Vec<usize> {
        self.known_and_new().map(|(known, _)| known).collect()
    }

    /// How many flights each process handled that no earlier one had handled.
    pub(crate) fn delivered(&self) -> Vec<usize> {
        self.known_and_new().map(|(_, new)| new).collect()
    }

    /// What a process handles again because its batch failed is its own affair.
    fn known_and_new(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut seen = BTreeSet::new();
        self.rounds.iter().map(move |round| {
            let numbers: BTreeSet<u64> = handled(&round.events).collect();
            let known = numbers.intersection(&seen).count();
            seen.extend(&numbers);
            (known, numbers.len() - known)
        })
    }

    /// How many flights the last process handled in each five seconds.
    pub(crate) fn last_pace(&self) -> Vec<usize> {
        let events = self.rounds.last().map_or(&[][..], |round| &round.events);
        let mut pace = Vec::new();
        for event in events.iter().filter(|event| matches!(event.kind, EventKind::Record { .. })) {
            let slot = usize::try_from(event.at.since(events[0].at).as_secs() / 5).expect("a short run");
            pace.resize(pace.len().max(slot + 1), 0);
            pace[slot] += 1;
        }
        pace
    }

    pub(crate) fn dead_for(&self, reason: DeadReason) -> usize {
        self.letters.iter().filter(|letter| letter.letter.reason == reason).count()
    }
}

/// Whether that trouble may end in the dead letters for that reason. Poison that somebody killed the process over, twice
/// while it was alone, cannot be told from what kills the process itself.
fn is_reason(trouble: Trouble, reason: DeadReason) -> bool {
    match reason {
        DeadReason::CrashLoop => true,
        DeadReason::Permanent => trouble == Trouble::Permanent,
        DeadReason::RetryAttemptsExhausted => {
            matches!(trouble, Trouble::Named | Trouble::Whole | Trouble::Panic | Trouble::Slow)
        }
        _ => false,
    }
}

fn names_cause(trouble: Trouble, number: u64, reason: DeadReason, error: &str) -> bool {
    match (reason, trouble) {
        (DeadReason::CrashLoop, _) => error.contains("died"),
        (_, Trouble::Slow) => error.contains("took longer"),
        // On a busy machine any last attempt may be the one that took too long.
        _ => error.contains(&format!("flight {number} is {trouble:?}")) || error.contains("took longer"),
    }
}

#[cfg(test)]
mod tests {
    use shardwell_core::dead_letter::{BatchInfo, DeadLetter};
    use shardwell_core::{ExtendedSequenceNumber, Timestamp, UserRecord};
    use shardwell_integration::Flight;

    use super::*;

    const SHARD: &str = "shardId-0";
    const KEY: &str = "N14228";

    /// Flights of one aircraft, of which the second is poison.
    fn flights() -> Arc<[PlannedFlight]> {
        let planned = |number: u64| {
            let flight = Flight { number, trouble: (number == 1).then_some(Trouble::Named) };
            let payload = flight.with_flight("{}").expect("an object").into();
            PlannedFlight { flight, key: KEY.into(), payload }
        };
        (0..3).map(planned).collect()
    }

    fn position(number: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new((number + 50).into(), 0)
    }

    fn event(kind: EventKind) -> Event {
        Event { at: Timestamp::from_millis(0), shard: SHARD.into(), kind }
    }

    fn record(number: u64) -> Event {
        let sequence_number = position(number).sequence_number;
        event(EventKind::Record { sequence_number, number, key: KEY.into() })
    }

    fn failed(number: u64) -> Event {
        event(EventKind::Failed { number })
    }

    fn initialized() -> Event {
        event(EventKind::Initialized(Checkpoint::TrimHorizon))
    }

    fn letter(number: u64) -> ArchivedLetter {
        let (position, at) = (position(number), Timestamp::from_millis(0));
        let (partition_key, data) = (Some(KEY.into()), flights()[number as usize].payload.clone());
        let (first_arrival, last_arrival, partial) = (at, at, false);
        ArchivedLetter::new(DeadLetter {
            application: APPLICATION.into(),
            stream: STREAM.into(),
            shard: SHARD.into(),
            record: UserRecord { position, partition_key, explicit_hash_key: None, arrival: at, data },
            reason: DeadReason::RetryAttemptsExhausted,
            error: vec![format!("flight {number} is Named")],
            attempts: Vec::new(),
            batch: BatchInfo {
                id: 1,
                invocations: 3,
                size: 1,
                first: position,
                last: position,
                first_arrival,
                last_arrival,
                partial,
            },
            lane: 0,
            worker: "worker-1".into(),
            died_at: at,
        })
    }

    fn round(worker: &str, events: Vec<Event>, end: End, stored: Option<Checkpoint>) -> Round {
        let checkpoints = stored.map(|checkpoint| (SHARD.into(), checkpoint)).into_iter().collect();
        Round { worker: worker.into(), events, end, checkpoints, took: Duration::ZERO, suspicions: 0 }
    }

    /// A process that is killed over the poison, and one that does the rest.
    fn run() -> Ledger {
        let first = round("worker-0", vec![record(0), failed(1)], End::Killed, Some(Checkpoint::TrimHorizon));
        let events = vec![initialized(), record(0), failed(1), record(2)];
        let second = round("worker-1", events, End::Stopped, Some(Checkpoint::At(position(2))));
        let puts = (0..3).map(|number| Put { number, shard: SHARD.into(), position: position(number) }).collect();
        Ledger { flights: flights(), puts, reshards: 0, rounds: vec![first, second], letters: vec![letter(1)] }
    }

    #[test]
    fn a_good_run_is_judged_good() {
        let ledger = run();
        ledger.assert_all();
        assert_eq!((ledger.redelivered(), ledger.delivered(), ledger.ends(End::Killed)), (vec![0, 1], vec![1, 1], 1));
    }

    #[test]
    #[should_panic(expected = "1 of 3 were lost: [2]")]
    fn a_flight_that_nobody_handled_is_lost() {
        let mut ledger = run();
        ledger.rounds[1].events.pop();
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "innocent and dead: [\"integration/flights/shardId-0/52/0, flight Some(2)")]
    fn a_dead_innocent_is_found() {
        let mut ledger = run();
        ledger.letters.push(letter(2));
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "poison and not: [\"integration/flights/shardId-0/51/0, flight Some(1)")]
    fn poison_that_is_not_dead_is_found() {
        let mut ledger = run();
        ledger.letters.clear();
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "one letter for each identity")]
    fn a_second_letter_is_found() {
        let mut ledger = run();
        ledger.letters.push(letter(1));
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "flight 1, Named, is dead for Oversize")]
    fn a_wrong_reason_is_found() {
        let mut ledger = run();
        ledger.letters[0].letter.reason = DeadReason::Oversize;
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "1 is dead, and worker-0 handled it")]
    fn what_is_done_and_dead_is_found() {
        let mut ledger = run();
        ledger.rounds[0].events.push(record(1));
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "1 untried")]
    fn what_is_dead_without_a_try_is_found() {
        let mut ledger = run();
        ledger.rounds.iter_mut().for_each(|round| round.events.retain(|event| *event != failed(1)));
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "N14228: 1 came after Some(2)")]
    fn a_first_delivery_out_of_order_is_found() {
        let mut ledger = run();
        ledger.rounds[0].events.insert(1, record(2));
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "worker-1, shardId-0: TRIM_HORIZON after")]
    fn a_checkpoint_that_goes_back_is_found() {
        let mut ledger = run();
        ledger.rounds[0].checkpoints.insert(SHARD.into(), Checkpoint::At(position(0)));
        ledger.rounds[1].checkpoints.insert(SHARD.into(), Checkpoint::TrimHorizon);
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "shardId-0 was done by worker-0, and worker-1 reads it again from TRIM_HORIZON")]
    fn a_shard_that_is_read_after_its_end_is_found() {
        let mut ledger = run();
        ledger.rounds[0].checkpoints.insert(SHARD.into(), Checkpoint::ShardEnd);
        ledger.rounds[1].checkpoints.insert(SHARD.into(), Checkpoint::ShardEnd);
        ledger.assert_all();
    }

    #[test]
    #[should_panic(expected = "is stored, 52/0 was put")]
    fn what_is_not_stored_at_the_end_is_found() {
        let mut ledger = run();
        ledger.rounds[1].checkpoints.insert(SHARD.into(), Checkpoint::At(position(1)));
        ledger.assert_all();
    }
}
