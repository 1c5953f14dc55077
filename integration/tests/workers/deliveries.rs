//! What must hold of the records over a whole run, judged from what was put and what the processes wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::{Checkpoint, Lease, Shard, ShardId, Timestamp, WorkerId};
use shardwell_integration::{Event, EventKind};

use super::history::LeaseWrite;
use super::member::End;
use super::numbers;
use crate::flights::PlannedFlight;
use crate::flights::producer::{Put, newest_by_shard};

/// A run.
pub(crate) struct Ledger {
    /// By number.
    pub(crate) flights: Arc<[PlannedFlight]>,
    pub(crate) puts: Vec<Put>,
    /// How often shards were split or merged.
    pub(crate) reshards: u32,
    /// From when all was done and stored until every worker had its share.
    pub(crate) settled_within: Duration,
    pub(crate) shards: Vec<Shard>,
    /// One for each process.
    pub(crate) lives: Vec<Life>,
    /// Every write to a lease.
    pub(crate) history: Vec<LeaseWrite>,
    /// When everybody had stopped.
    pub(crate) leases: Vec<Lease>,
    pub(crate) lease_duration: Duration,
}

/// One process.
pub(crate) struct Life {
    pub(crate) worker: WorkerId,
    pub(crate) events: Vec<Event>,
    pub(crate) end: End,
    /// From its start to its end.
    pub(crate) took: Duration,
}

impl Ledger {
    /// All that holds for the records of every run.
    pub(crate) fn assert_deliveries(&self) {
        self.assert_nothing_lost();
        self.assert_first_deliveries_in_put_order();
        self.assert_children_after_parents();
        self.assert_all_stored_and_released_at_the_end();
    }

    /// Every flight was handled, as it was put and where it was put.
    pub(crate) fn assert_nothing_lost(&self) {
        let puts: BTreeMap<u64, &Put> = self.puts.iter().map(|put| (put.number, put)).collect();
        assert_eq!(puts.len(), self.flights.len(), "every flight was put");
        let mut missing: BTreeSet<u64> = puts.keys().copied().collect();
        for event in self.lives.iter().flat_map(|life| &life.events) {
            let EventKind::Record { sequence_number, number, key } = &event.kind else { continue };
            let put = puts.get(number).unwrap_or_else(|| panic!("{number} was never put"));
            let expected = (&put.shard, put.position.sequence_number, &self.planned(*number).key);
            assert_eq!((&event.shard, *sequence_number, key), expected, "flight {number}");
            missing.remove(number);
        }
        assert!(missing.is_empty(), "{} of {} were lost: {missing:?}", missing.len(), puts.len());
    }

    fn planned(&self, number: u64) -> &PlannedFlight {
        &self.flights[usize::try_from(number).expect("an index")]
    }

    /// All records that were handled, in the order of time: when, by which process, and which. Processes of one machine have
    /// the same clock. A shard that goes from one to another takes longer than its resolution.
    fn handled(&self) -> Vec<(Timestamp, usize, &Event)> {
        let lives = self.lives.iter().enumerate();
        let mut handled: Vec<_> = lives
            .flat_map(|(life, Life { events, .. })| events.iter().map(move |event| (event.at, life, event)))
            .filter(|(.., event)| matches!(event.kind, EventKind::Record { .. }))
            .collect();
        handled.sort_by_key(|(at, life, _)| (*at, *life));
        handled
    }

    /// Flights of the same key were handled for the first time in the order in which they were put.
    pub(crate) fn assert_first_deliveries_in_put_order(&self) {
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (_, life, event) in self.handled() {
            let EventKind::Record { number, key, .. } = &event.kind else { continue };
            if seen.insert(*number) {
                let before = newest.insert(key, *number);
                let worker = &self.lives[life].worker;
                assert!(before < Some(*number), "{key}: {number} came after {before:?}, at {worker}: {event}");
            }
        }
    }

    /// No record of a shard was handled before all records of its parents were.
    pub(crate) fn assert_children_after_parents(&self) {
        let put: BTreeMap<u64, &ShardId> = self.puts.iter().map(|put| (put.number, &put.shard)).collect();
        let mut missing: BTreeMap<&ShardId, BTreeSet<u64>> = BTreeMap::new();
        for (number, shard) in &put {
            missing.entry(shard).or_default().insert(*number);
        }
        let parents: BTreeMap<&ShardId, Vec<&ShardId>> =
            self.shards.iter().map(|shard| (&shard.id, shard.parents().collect())).collect();
        for (_, life, event) in self.handled() {
            let EventKind::Record { number, .. } = &event.kind else { continue };
            for parent in &parents[&event.shard] {
                let left = missing.get(parent).filter(|left| !left.is_empty());
                let worker = &self.lives[life].worker;
                assert!(left.is_none(), "{worker} handled {event} before {left:?} of {parent}");
            }
            if let Some(left) = missing.get_mut(&event.shard) {
                left.remove(number);
            }
        }
    }

    /// The fleet left nothing to be done again, and nothing in anybody's hands.
    pub(crate) fn assert_all_stored_and_released_at_the_end(&self) {
        let newest = newest_by_shard(&self.puts);
        let leases: BTreeMap<&ShardId, &Lease> = self.leases.iter().map(|lease| (&lease.shard, lease)).collect();
        for shard in &self.shards {
            // The lease of a shard that was done may have been removed. The history tells that it was at its end.
            let Some(lease) = leases.get(&shard.id) else {
                assert!(!shard.is_open(), "{} has no lease", shard.id);
                continue;
            };
            let expected = match newest.get(&shard.id) {
                _ if !shard.is_open() => Checkpoint::ShardEnd,
                Some(position) => Checkpoint::At(*position),
                None => Checkpoint::TrimHorizon,
            };
            assert_eq!(lease.checkpoint, expected, "{}", shard.id);
            assert_eq!((&lease.owner, &lease.checkpoint_owner), (&None, &None), "{}", shard.id);
        }
    }

    /// How many processes ended so.
    pub(crate) fn ends(&self, end: End) -> usize {
        self.lives.iter().filter(|life| life.end == end).count()
    }

    /// How many records were handled that had been handled before.
    pub(crate) fn redelivered(&self) -> usize {
        let mut seen = BTreeSet::new();
        let events = self.lives.iter().flat_map(|life| numbers(&life.events));
        events.filter(|number| !seen.insert(*number)).count()
    }
}

#[cfg(test)]
mod tests {
    use shardwell_core::{ExtendedSequenceNumber, HashKeyRange};
    use shardwell_integration::Flight;

    use super::*;

    const KEY: &str = "N14228";

    fn position(number: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new((number + 50).into(), 0)
    }

    fn shard_of(number: u64) -> ShardId {
        if number < 2 { "parent".into() } else { "child".into() }
    }

    fn record(at: i64, number: u64) -> Event {
        let sequence_number = position(number).sequence_number;
        let kind = EventKind::Record { sequence_number, number, key: KEY.into() };
        Event { at: Timestamp::from_millis(at), shard: shard_of(number), kind }
    }

    fn shard(id: &str, parent: Option<&str>, end: Option<u64>) -> Shard {
        Shard {
            id: id.into(),
            parent: parent.map(Into::into),
            adjacent_parent: None,
            hash_key_range: HashKeyRange::FULL,
            starting_sequence_number: 50u64.into(),
            ending_sequence_number: end.map(Into::into),
        }
    }

    /// Flights of one aircraft: 0 and 1 in a shard that was split then, 2 and 3 in its child. Handled at these times, by two
    /// processes.
    fn run(handled: [&[(i64, u64)]; 2]) -> Ledger {
        let planned = |number: u64| {
            let flight = Flight { number, trouble: None };
            let payload = flight.with_flight("{}").expect("an object").into();
            PlannedFlight { flight, key: KEY.into(), payload }
        };
        let life = |(index, handled): (usize, &[(i64, u64)])| Life {
            worker: format!("worker-{index}").into(),
            events: handled.iter().map(|(at, number)| record(*at, *number)).collect(),
            end: End::Stopped,
            took: Duration::ZERO,
        };
        Ledger {
            flights: (0..4).map(planned).collect(),
            puts: (0..4).map(|number| Put { number, shard: shard_of(number), position: position(number) }).collect(),
            reshards: 1,
            settled_within: Duration::ZERO,
            shards: vec![shard("parent", None, Some(51)), shard("child", Some("parent"), None)],
            lives: handled.into_iter().enumerate().map(life).collect(),
            history: Vec::new(),
            leases: vec![
                Lease::new("parent".into(), Checkpoint::ShardEnd),
                Lease::new("child".into(), Checkpoint::At(position(3))),
            ],
            lease_duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_good_run_is_judged_good() {
        let ledger = run([&[(1, 0), (2, 1)], &[(2, 1), (3, 2), (4, 3)]]);
        ledger.assert_deliveries();
        assert_eq!((ledger.redelivered(), ledger.ends(End::Stopped)), (1, 2));
    }

    #[test]
    #[should_panic(expected = "1 of 4 were lost: {1}")]
    fn a_flight_that_nobody_handled_is_lost() {
        run([&[(1, 0)], &[(3, 2), (4, 3)]]).assert_nothing_lost();
    }

    #[test]
    #[should_panic(expected = "2 came after Some(3)")]
    fn a_first_delivery_out_of_order_is_found() {
        run([&[(1, 0), (2, 1), (4, 2)], &[(3, 3)]]).assert_first_deliveries_in_put_order();
    }

    #[test]
    #[should_panic(expected = "before Some({1}) of parent")]
    fn a_child_before_its_parent_is_found() {
        run([&[(1, 0), (3, 1)], &[(2, 2), (4, 3)]]).assert_children_after_parents();
    }

    #[test]
    #[should_panic(expected = "child")]
    fn what_is_not_stored_at_the_end_is_found() {
        let mut ledger = run([&[], &[]]);
        ledger.leases[1].checkpoint = Checkpoint::At(position(2));
        ledger.assert_all_stored_and_released_at_the_end();
    }

    #[test]
    #[should_panic(expected = "child")]
    fn what_is_not_released_at_the_end_is_found() {
        let mut ledger = run([&[], &[]]);
        ledger.leases[1].owner = Some("worker-0".into());
        ledger.assert_all_stored_and_released_at_the_end();
    }
}
