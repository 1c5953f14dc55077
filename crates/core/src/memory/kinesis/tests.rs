use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::{HashKeyRange, Placed, PutEntry, Record, SequenceNumber, StreamStatus};

const NAME: &str = "flights";
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + millis)
}

fn kinesis(shards: u32) -> Kinesis {
    let mut kinesis = Kinesis::new("us-east-1");
    kinesis.create_stream(NAME, StreamSettings::new(shards), at(0)).expect("created");
    kinesis
}

fn routed(key: &str, data: &str) -> RoutedEntry {
    PutEntry::new(key, data.to_owned()).into()
}

fn put(kinesis: &mut Kinesis, key: &str, data: &str, now: Timestamp) -> Placed {
    let results = kinesis.put_records(NAME, vec![routed(key, data)], now).expect("put");
    results.into_iter().next().expect("a result").expect("placed")
}

fn shards(kinesis: &mut Kinesis, filter: &ShardFilter, now: Timestamp) -> Vec<Shard> {
    kinesis.list_shards(NAME, filter, now).expect("listed")
}

fn ids(kinesis: &mut Kinesis, filter: &ShardFilter, now: Timestamp) -> Vec<u32> {
    shards(kinesis, filter, now).iter().map(|s| shard::shard_index(&s.id).expect("an id")).collect()
}

fn id(index: u32) -> ShardId {
    shard::shard_id(index)
}

fn read_all(kinesis: &mut Kinesis, shard: &ShardId, now: Timestamp) -> Vec<Record> {
    let mut next = Some(kinesis.shard_iterator(NAME, shard, StartPosition::TrimHorizon, now).expect("an iterator"));
    let mut records = Vec::new();
    while let Some(iterator) = next {
        let batch = kinesis.get_records(&iterator, 3, now).expect("records");
        records.extend(batch.records);
        next = batch.next.filter(|_| !batch.behind_latest.is_zero());
    }
    records
}

fn kind<T: std::fmt::Debug>(result: Result<T, KinesisError>) -> KinesisErrorKind {
    result.expect_err("refused").kind
}

/// The open shards own every hash key once.
fn assert_tiles(kinesis: &mut Kinesis, filter: &ShardFilter, now: Timestamp) {
    let mut ranges: Vec<_> = shards(kinesis, filter, now).iter().map(|shard| shard.hash_key_range).collect();
    ranges.sort_unstable();
    let whole = ranges[1..].iter().try_fold(ranges[0], |whole, range| whole.merge(range));
    assert_eq!(whole, Some(HashKeyRange::FULL), "{ranges:?}");
}

#[test]
fn states_follow_the_clock() {
    use KinesisErrorKind::{ResourceInUse, ResourceNotFound};
    let delays = StateDelays::all(Duration::from_millis(100));
    let mut kinesis = Kinesis::new("us-east-1").with_delays(delays);
    kinesis.create_stream(NAME, StreamSettings::new(1), at(0)).expect("created");
    let status = |kinesis: &mut Kinesis, now| kinesis.describe(NAME, now).map(|summary| summary.status);
    assert_eq!(status(&mut kinesis, at(99)), Ok(StreamStatus::Creating));
    assert_eq!(shards(&mut kinesis, &ShardFilter::All, at(99)), []);
    assert_eq!(kind(kinesis.put_records(NAME, vec![routed("a", "1")], at(99))), ResourceNotFound);
    assert_eq!(kind(kinesis.split_shard(NAME, &id(0), 5, at(99))), ResourceInUse);
    assert_eq!(status(&mut kinesis, at(100)), Ok(StreamStatus::Active));

    kinesis.split_shard(NAME, &id(0), 5, at(150)).expect("split");
    assert_eq!(status(&mut kinesis, at(249)), Ok(StreamStatus::Updating));
    assert_eq!(put(&mut kinesis, "a", "1", at(249)).shard, id(0), "still the parent");
    assert_eq!(kind(kinesis.split_shard(NAME, &id(0), 5, at(249))), ResourceInUse);
    assert_eq!(kind(kinesis.increase_retention(NAME, 48, at(249))), ResourceInUse);
    assert_eq!(put(&mut kinesis, "a", "1", at(250)).shard, id(2), "now a child");

    kinesis.delete_stream(NAME, at(300)).expect("deleted");
    assert_eq!(status(&mut kinesis, at(399)), Ok(StreamStatus::Deleting));
    assert_eq!(kind(kinesis.delete_stream(NAME, at(399))), ResourceInUse);
    assert_eq!(kind(kinesis.create_stream(NAME, StreamSettings::new(1), at(399))), ResourceInUse);
    assert_eq!(kinesis.list_streams(at(400)), []);
    kinesis.create_stream(NAME, StreamSettings::new(1), at(400)).expect("the name is free again");
}

#[test]
fn an_iterator_lives_five_minutes_and_not_beyond_its_stream() {
    let mut kinesis = kinesis(1);
    let iterator = kinesis.shard_iterator(NAME, &id(0), StartPosition::TrimHorizon, at(0)).expect("an iterator");
    let next = kinesis.get_records(&iterator, 1, at(5 * MINUTE)).expect("just in time").next.expect("open");
    assert_eq!(kind(kinesis.get_records(&iterator, 1, at(5 * MINUTE + 1))), KinesisErrorKind::ExpiredIterator);
    kinesis.get_records(&next, 1, at(10 * MINUTE)).expect("each has five minutes of its own");
    let last = kinesis.get_records(&next, 1, at(10 * MINUTE)).expect("open").next.expect("open");
    kinesis.delete_stream(NAME, at(11 * MINUTE)).expect("deleted");
    kinesis.create_stream(NAME, StreamSettings::new(1), at(11 * MINUTE)).expect("created again");
    assert_eq!(kind(kinesis.get_records(&last, 1, at(11 * MINUTE))), KinesisErrorKind::ResourceNotFound);
}

#[test]
fn positions_that_cannot_be_are_refused() {
    let mut kinesis = kinesis(2);
    let entry = RoutedEntry { hash_key: 0, ..routed("a", "1") };
    let placed = kinesis.put_records(NAME, vec![entry], at(1)).expect("put")[0].clone().expect("placed");
    let mut open = |shard: u32, position, now| kinesis.shard_iterator(NAME, &id(shard), position, now).map(|_| ());
    let number = placed.sequence_number;
    assert_eq!(open(0, StartPosition::AtSequenceNumber(number), at(1)), Ok(()));
    assert_eq!(open(0, StartPosition::AtTimestamp(at(1)), at(1)), Ok(()));
    for (shard, position) in [
        (1, StartPosition::AtSequenceNumber(number)),
        (0, StartPosition::AfterSequenceNumber(SequenceNumber::ZERO)),
        (0, StartPosition::AtSequenceNumber("9".repeat(129).parse().expect("a number"))),
        (0, StartPosition::AtTimestamp(at(2))),
    ] {
        assert_eq!(kind(open(shard, position, at(1))), KinesisErrorKind::InvalidArgument, "{position:?}");
    }
    assert_eq!(kind(open(7, StartPosition::Latest, at(1))), KinesisErrorKind::ResourceNotFound);
}

#[test]
fn an_answer_holds_ten_mebibytes_and_at_least_one_record() {
    let mut kinesis = Kinesis::new("us-east-1");
    let settings = StreamSettings { max_record_size: 10 * 1024 * 1024, ..StreamSettings::new(1) };
    kinesis.create_stream(NAME, settings, at(0)).expect("created");
    for size in [MAX_PUT_BYTES - 1, 6 << 20, (4 << 20) - 2, 1] {
        let entry = PutEntry::new("k", vec![0u8; size]);
        kinesis.put_records(NAME, vec![entry.into()], at(0)).expect("put");
    }
    let over = PutEntry::new("k", vec![0u8; MAX_PUT_BYTES]);
    assert_eq!(kind(kinesis.put_records(NAME, vec![over.into()], at(0))), KinesisErrorKind::Validation);
    let mut next = kinesis.shard_iterator(NAME, &id(0), StartPosition::TrimHorizon, at(5)).ok();
    let mut counts = Vec::new();
    while let Some(iterator) = next {
        let batch = kinesis.get_records(&iterator, 10_000, at(5)).expect("records");
        counts.push((batch.records.len(), batch.behind_latest.as_millis()));
        next = batch.next.filter(|_| !batch.records.is_empty());
    }
    assert_eq!(counts, [(1, 5), (2, 5), (1, 0), (0, 0)], "sizes count with the key, to the byte");
}

#[test]
fn put_limits_are_checked_before_anything_is_put() {
    let mut kinesis = kinesis(1);
    let half = |_| RoutedEntry::from(PutEntry::new("k", vec![0u8; 1024 * 1024 - 1]));
    let long_key = "é".repeat(257);
    for (entries, expected) in [
        (vec![], KinesisErrorKind::Validation),
        (vec![routed("k", ""); 501], KinesisErrorKind::Validation),
        (vec![routed("k", "fits"), routed(&long_key, "")], KinesisErrorKind::Validation),
        ((0..11).map(half).collect(), KinesisErrorKind::InvalidArgument),
    ] {
        assert_eq!(kind(kinesis.put_records(NAME, entries, at(0))), expected);
    }
    put(&mut kinesis, &"é".repeat(256), "", at(0));
    assert_eq!(read_all(&mut kinesis, &id(0), at(0)).len(), 1);
}

#[test]
fn automatic_distribution_ignores_the_keys() {
    let mut kinesis = Kinesis::new("us-east-1");
    let settings = StreamSettings { automatic_distribution: true, ..StreamSettings::new(3) };
    kinesis.create_stream(NAME, settings, at(0)).expect("created");
    let owners: BTreeSet<_> = (0..3).map(|_| put(&mut kinesis, "same", "", at(0)).shard).collect();
    assert_eq!(owners.len(), 3);
}

#[test]
fn a_closed_shard_changes_no_more() {
    let mut kinesis = kinesis(2);
    let middle = 1 << 126;
    kinesis.split_shard(NAME, &id(0), middle, at(1)).expect("split");
    let invalid = KinesisErrorKind::InvalidArgument;
    assert_eq!(kind(kinesis.split_shard(NAME, &id(0), middle, at(2))), invalid);
    assert_eq!(kind(kinesis.merge_shards(NAME, &id(0), &id(1), at(2))), invalid);
    assert_eq!(kind(kinesis.merge_shards(NAME, &id(2), &id(1), at(2))), invalid, "not adjacent");
    assert_eq!(kind(kinesis.merge_shards(NAME, &id(1), &id(1), at(2))), invalid, "with itself");
    assert_eq!(kind(kinesis.split_shard(NAME, &id(2), 0, at(2))), invalid, "at its first key");
    assert_eq!(kind(kinesis.split_shard(NAME, &id(9), 5, at(2))), KinesisErrorKind::ResourceNotFound);
    kinesis.merge_shards(NAME, &id(1), &id(3), at(3)).expect("in either order");
    let merged = shards(&mut kinesis, &ShardFilter::All, at(3)).pop().expect("a child");
    assert_eq!((merged.parent, merged.adjacent_parent), (Some(id(1)), Some(id(3))));
}

#[test]
fn an_on_demand_stream_is_not_resharded() {
    let mut kinesis = Kinesis::new("us-east-1");
    let settings = StreamSettings { mode: StreamMode::OnDemand, ..StreamSettings::new(4) };
    kinesis.create_stream(NAME, settings, at(0)).expect("created");
    assert_eq!(kind(kinesis.update_shard_count(NAME, 8, at(0))), KinesisErrorKind::Validation);
}

#[test]
fn the_number_of_shards_at_most_doubles_and_at_least_halves() {
    for (from, to, allowed) in [
        (2, 4, true),
        (2, 5, false),
        (3, 4, true),
        (4, 2, true),
        (5, 2, false),
        (5, 3, true),
        (3, 3, false),
        (2, 0, false),
    ] {
        let mut kinesis = kinesis(from);
        let result = kinesis.update_shard_count(NAME, to, at(1));
        assert_eq!(result.is_ok(), allowed, "{from} to {to}: {result:?}");
        if allowed {
            let mut open = shards(&mut kinesis, &ShardFilter::AtLatest, at(1));
            open.sort_by_key(|shard| shard.hash_key_range);
            let ranges: Vec<_> = open.iter().map(|shard| shard.hash_key_range).collect();
            assert_eq!(ranges, HashKeyRange::even_split(to));
            assert!(
                open.iter().all(|shard| shard.parents().next().is_some() || ranges.contains(&shard.hash_key_range))
            );
        }
    }
    let mut kinesis = kinesis(2);
    kinesis.update_shard_count(NAME, 4, at(1)).expect("doubled");
    let parents: Vec<_> =
        shards(&mut kinesis, &ShardFilter::AtLatest, at(1)).iter().map(|s| s.parent.clone()).collect();
    assert_eq!(parents, [Some(id(0)), Some(id(0)), Some(id(1)), Some(id(1))]);
}

#[test]
fn filters_hold_at_the_very_millisecond_of_a_reshard() {
    let mut kinesis = kinesis(1);
    kinesis.split_shard(NAME, &id(0), 1 << 127, at(10)).expect("split");
    kinesis.merge_shards(NAME, &id(1), &id(2), at(10)).expect("merged");
    let mut list = |filter| ids(&mut kinesis, &filter, at(20));
    assert_eq!(list(ShardFilter::AtLatest), [3]);
    assert_eq!(list(ShardFilter::AtTrimHorizon), [0]);
    assert_eq!(list(ShardFilter::AtTimestamp(at(9))), [0]);
    assert_eq!(list(ShardFilter::AtTimestamp(at(10))), [0, 1, 2, 3], "a shard counts as open when it ends");
    assert_eq!(list(ShardFilter::AtTimestamp(at(11))), [3]);
    assert_eq!(list(ShardFilter::AtTimestamp(at(-5))), [0], "before the stream: the oldest");
    assert_eq!(list(ShardFilter::FromTimestamp(at(11))), [3]);
    assert_eq!(list(ShardFilter::FromTimestamp(at(0))), [0, 1, 2, 3]);
    assert_eq!(list(ShardFilter::AfterShardId(id(1))), [2, 3]);
}

#[test]
fn closed_shards_vanish_when_all_they_held_has_expired() {
    let mut kinesis = kinesis(1);
    put(&mut kinesis, "a", "1", at(0));
    kinesis.split_shard(NAME, &id(0), 1 << 127, at(HOUR)).expect("split");
    let day = 24 * HOUR;
    assert_eq!(read_all(&mut kinesis, &id(0), at(day - 1)).len(), 1);
    assert_eq!(read_all(&mut kinesis, &id(0), at(day)).len(), 0);
    assert_eq!(ids(&mut kinesis, &ShardFilter::All, at(day + HOUR - 1)), [0, 1, 2]);
    assert_eq!(ids(&mut kinesis, &ShardFilter::All, at(day + HOUR)), [1, 2]);
    assert_eq!(ids(&mut kinesis, &ShardFilter::AtTrimHorizon, at(day + HOUR)), [1, 2]);
    let children = shards(&mut kinesis, &ShardFilter::All, at(day + HOUR));
    assert_eq!(children[0].parent, Some(id(0)), "the parent is still named");
    let gone = kinesis.shard_iterator(NAME, &id(0), StartPosition::TrimHorizon, at(day + HOUR));
    assert_eq!(kind(gone), KinesisErrorKind::ResourceNotFound);
}

#[test]
fn retention_has_its_bounds_and_never_brings_back_what_expired() {
    let mut kinesis = kinesis(1);
    put(&mut kinesis, "a", "old", at(0));
    put(&mut kinesis, "a", "new", at(20 * HOUR));
    for (hours, increase) in [(23, true), (23, false), (8761, true), (48, false)] {
        let result = match increase {
            true => kinesis.increase_retention(NAME, hours, at(20 * HOUR)),
            false => kinesis.decrease_retention(NAME, hours, at(20 * HOUR)),
        };
        assert_eq!(kind(result), KinesisErrorKind::InvalidArgument, "{hours} h");
    }
    kinesis.increase_retention(NAME, 48, at(21 * HOUR)).expect("longer");
    assert_eq!(read_all(&mut kinesis, &id(0), at(30 * HOUR)).len(), 2);
    kinesis.decrease_retention(NAME, 24, at(30 * HOUR)).expect("shorter");
    kinesis.increase_retention(NAME, 48, at(30 * HOUR)).expect("longer again");
    assert_eq!(read_all(&mut kinesis, &id(0), at(30 * HOUR)).len(), 1);
}

#[test]
fn a_clock_that_goes_back_stands_still() {
    let mut kinesis = kinesis(1);
    put(&mut kinesis, "a", "1", at(100));
    put(&mut kinesis, "a", "2", at(40));
    let arrivals: Vec<_> = read_all(&mut kinesis, &id(0), at(10)).iter().map(|record| record.arrival).collect();
    assert_eq!(arrivals, [at(100), at(100)]);
}

#[test]
fn names_that_no_stream_can_have_are_refused() {
    let mut kinesis = Kinesis::new("us-east-1");
    for name in ["", "a b", "é", "a/b", &"x".repeat(129)] {
        let result = kinesis.create_stream(name, StreamSettings::new(1), at(0));
        assert_eq!(kind(result), KinesisErrorKind::Validation, "{name:?}");
    }
    for shards in [0, MAX_SHARDS + 1] {
        let result = kinesis.create_stream(NAME, StreamSettings::new(shards), at(0));
        assert_eq!(kind(result), KinesisErrorKind::Validation, "{shards}");
    }
}

/// What may happen to a stream, with raw choices that are fitted to its state.
#[derive(Clone, Debug)]
enum Step {
    Put { keys: Vec<u8> },
    Split { shard: u8, part: u8 },
    Merge { shard: u8 },
    Count { target: u8 },
    Read { readers: u8, limit: u8 },
    Advance { millis: i64 },
}

fn steps(longest_wait: i64) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::collection::vec(0u8..8, 1..6).prop_map(|keys| Step::Put { keys }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(shard, part)| Step::Split { shard, part }),
        1 => any::<u8>().prop_map(|shard| Step::Merge { shard }),
        1 => (1u8..9).prop_map(|target| Step::Count { target }),
        4 => (any::<u8>(), 1u8..5).prop_map(|(readers, limit)| Step::Read { readers, limit }),
        2 => (0..longest_wait).prop_map(|millis| Step::Advance { millis }),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A stream, what was put into it, and a reader that follows it from parents to children.
struct World {
    kinesis: Kinesis,
    now: i64,
    put: Vec<(u8, Placed, i64)>,
    readers: BTreeMap<ShardId, ShardIterator>,
    waiting: BTreeMap<ShardId, Vec<ShardId>>,
    ended: BTreeSet<ShardId>,
    seen: Vec<(ShardId, Record)>,
}

impl World {
    fn new(shards: u32, delay: u64) -> Self {
        let mut kinesis = Kinesis::new("us-east-1")
            .with_delays(StateDelays { update: Duration::from_millis(delay), ..StateDelays::default() });
        kinesis.create_stream(NAME, StreamSettings::new(shards), at(0)).expect("created");
        let waiting =
            ids(&mut kinesis, &ShardFilter::AtTrimHorizon, at(0)).into_iter().map(|i| (id(i), vec![])).collect();
        let (readers, ended) = (BTreeMap::new(), BTreeSet::new());
        Self { kinesis, now: 0, put: Vec::new(), readers, waiting, ended, seen: Vec::new() }
    }

    fn now(&self) -> Timestamp {
        at(self.now)
    }

    fn step(&mut self, step: &Step) {
        let now = self.now();
        let mut open = shards(&mut self.kinesis, &ShardFilter::AtLatest, now);
        open.sort_by_key(|shard| shard.hash_key_range);
        let pick = |raw: u8| &open[usize::from(raw) % open.len()];
        match step {
            Step::Put { keys } => self.put(keys),
            Step::Split { shard, part } => {
                let shard = pick(*shard);
                let (start, end) = (shard.hash_key_range.start(), shard.hash_key_range.end());
                let new_start = start + (end - start) / 256 * u128::from(*part);
                // A refusal (a stream that is being updated, a split at the first key) must leave no trace.
                let _ = self.kinesis.split_shard(NAME, &shard.id, new_start, now);
            }
            Step::Merge { shard } if open.len() > 1 => {
                let place = usize::from(*shard) % (open.len() - 1);
                let _ = self.kinesis.merge_shards(NAME, &open[place].id, &open[place + 1].id, now);
            }
            Step::Count { target } => {
                let _ = self.kinesis.update_shard_count(NAME, u32::from(*target), now);
            }
            Step::Read { readers, limit } => self.read(*readers, usize::from(*limit)),
            Step::Advance { millis } => self.now += millis,
            Step::Merge { .. } => {}
        }
        let now = self.now();
        assert_tiles(&mut self.kinesis, &ShardFilter::AtLatest, now);
        assert_tiles(&mut self.kinesis, &ShardFilter::AtTrimHorizon, now);
    }

    fn put(&mut self, keys: &[u8]) {
        let entries = keys.iter().map(|key| routed(&key.to_string(), "")).collect();
        let results = self.kinesis.put_records(NAME, entries, self.now()).expect("put");
        assert_eq!(results.len(), keys.len());
        for (key, result) in keys.iter().zip(results) {
            self.put.push((*key, result.expect("placed"), self.now));
        }
    }

    /// Reads from the readers whose bit is set, then lets those children in whose parents all ended.
    fn read(&mut self, chosen: u8, limit: usize) {
        let now = self.now();
        for (place, (shard, iterator)) in std::mem::take(&mut self.readers).into_iter().enumerate() {
            if chosen & (1 << (place % 8)) == 0 {
                self.readers.insert(shard, iterator);
                continue;
            }
            let iterator = match self.kinesis.get_records(&iterator, limit, now) {
                Err(error) if error.kind == KinesisErrorKind::ExpiredIterator => {
                    self.kinesis.shard_iterator(NAME, &shard, iterator.place.into(), now).expect("opened again")
                }
                _ => iterator,
            };
            let batch = self.kinesis.get_records(&iterator, limit, now).expect("records");
            self.seen.extend(batch.records.into_iter().map(|record| (shard.clone(), record)));
            match batch.next {
                Some(next) => {
                    assert!(batch.children.is_empty());
                    self.readers.insert(shard, next);
                }
                None => {
                    assert!(!batch.children.is_empty());
                    self.ended.insert(shard);
                    self.waiting.extend(batch.children.into_iter().map(|child| (child.id, child.parents)));
                }
            }
        }
        let ended = &self.ended;
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, parents)| parents.iter().all(|p| ended.contains(p)));
        self.waiting = waiting;
        let ready: BTreeMap<ShardId, Vec<ShardId>> = ready;
        for (shard, _) in ready {
            let iterator = self.kinesis.shard_iterator(NAME, &shard, StartPosition::TrimHorizon, now).expect("opened");
            self.readers.insert(shard, iterator);
        }
    }

    fn drain(&mut self) {
        loop {
            let before = (self.seen.len(), self.ended.len(), self.waiting.len());
            self.read(0xff, 3);
            if before == (self.seen.len(), self.ended.len(), self.waiting.len()) {
                break;
            }
        }
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
    }
}

proptest! {
    #[test]
    fn a_follower_sees_each_record_once_and_each_key_in_order(
        shards in 1u32..5, delay in 0u64..3, steps in steps(2_000),
    ) {
        let mut world = World::new(shards, delay);
        for step in &steps {
            world.step(step);
        }
        world.drain();
        let placed: BTreeSet<_> = world.put.iter().map(|(_, p, _)| (p.shard.clone(), p.sequence_number)).collect();
        let seen: BTreeSet<_> = world.seen.iter().map(|(s, record)| (s.clone(), record.sequence_number)).collect();
        prop_assert_eq!(world.put.len(), placed.len());
        prop_assert_eq!(world.seen.len(), seen.len(), "none twice");
        prop_assert_eq!(placed, seen);
        prop_assert!(world.put.is_sorted_by(|a, b| a.1.sequence_number < b.1.sequence_number));
        for key in 0u8..8 {
            let text = key.to_string();
            let of_key = world.seen.iter().filter(|(_, r)| r.partition_key.as_ref().is_some_and(|k| k.as_str() == text));
            prop_assert!(of_key.is_sorted_by(|a, b| a.1.sequence_number < b.1.sequence_number && a.1.arrival <= b.1.arrival));
        }
    }

    #[test]
    fn what_is_listed_holds_all_that_has_not_expired(count in 1u32..4, steps in steps(20 * HOUR)) {
        let mut world = World::new(count, 0);
        for step in &steps {
            // The follower is left out: with waits of hours its shards vanish under it.
            if !matches!(step, Step::Read { .. }) {
                world.step(step);
            }
            let now = world.now();
            let mut held = BTreeSet::new();
            for shard in shards(&mut world.kinesis, &ShardFilter::All, now) {
                for record in read_all(&mut world.kinesis, &shard.id, now) {
                    prop_assert!(held.insert(record.sequence_number));
                    prop_assert!(record.sequence_number > shard.starting_sequence_number);
                    prop_assert!(shard.ending_sequence_number.is_none_or(|end| record.sequence_number < end));
                }
            }
            let fresh = world.put.iter().filter(|(_, _, when)| *when > world.now - 24 * HOUR);
            prop_assert_eq!(held, fresh.map(|(_, placed, _)| placed.sequence_number).collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn every_position_is_the_tail_of_the_whole(waits in proptest::collection::vec(0i64..3, 1..20), pick: usize) {
        let mut kinesis = kinesis(1);
        let mut now = 0;
        let mut all = Vec::new();
        for wait in waits {
            now += wait;
            all.push((put(&mut kinesis, "a", "", at(now)).sequence_number, at(now)));
        }
        let (number, time) = all[pick % all.len()];
        for (position, expected) in [
            (StartPosition::AtSequenceNumber(number), all.iter().filter(|(n, _)| *n >= number).count()),
            (StartPosition::AfterSequenceNumber(number), all.iter().filter(|(n, _)| *n > number).count()),
            (StartPosition::AtTimestamp(time), all.iter().filter(|(_, t)| *t >= time).count()),
            (StartPosition::Latest, 0),
            (StartPosition::TrimHorizon, all.len()),
        ] {
            let iterator = kinesis.shard_iterator(NAME, &id(0), position, at(now)).expect("an iterator");
            let batch = kinesis.get_records(&iterator, 10_000, at(now)).expect("records");
            prop_assert_eq!(batch.records.len(), expected, "{:?}", position);
        }
    }
}
