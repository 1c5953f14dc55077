//! What every [`Stream`] with its [`StreamWriter`] must do.
//!
//! [`conforms`] runs it all; each function is one property. The suite makes no assumption on time: an implementation
//! over a network runs it as well as one in memory. It reads until it has what it waits for and fails when that does not
//! come within [`PATIENCE`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    ChildShard, Env, EnvExt, HashKeyRange, Placed, PutEntry, Record, Shard, ShardFilter, ShardId, ShardReader,
    StartPosition, Stream, StreamErrorKind, StreamStatus, StreamWriter, Timestamp, hash_key,
};

/// How long the suite waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the seams cannot do and the suite needs. Each call returns when it has taken effect; it may panic when it fails.
#[async_trait]
pub trait StreamHooks: fmt::Debug + Send + Sync {
    /// Creates a stream that keeps records for at least an hour, and gives handles on it once it is active.
    async fn create(&self, name: &str, shards: u32) -> Fixture;

    /// Splits a shard, and returns once its children are listed.
    async fn split(&self, name: &str, shard: &ShardId, new_start: u128);

    /// Merges two shards, and returns once their child is listed.
    async fn merge(&self, name: &str, shard: &ShardId, adjacent: &ShardId);

    /// Deletes a stream, and returns once it is gone.
    async fn delete(&self, name: &str);

    /// Clocks. Its wall clock must be the stream's to within a few milliseconds.
    fn env(&self) -> Arc<dyn Env>;
}

/// Handles on one stream.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// To read it.
    pub stream: Arc<dyn Stream>,
    /// To write it.
    pub writer: Arc<dyn StreamWriter>,
}

/// Runs the whole suite, on the handles that the hooks give and on [`Stream::dedicated`] ones.
///
/// # Panics
/// Where the implementation does not conform.
pub async fn conforms(hooks: &dyn StreamHooks) {
    describes_itself(hooks).await;
    puts_are_read_back_once_and_in_order(hooks).await;
    explicit_hash_keys_win(hooks).await;
    small_reads_lose_nothing(hooks).await;
    every_position_starts_where_it_says(hooks).await;
    latest_is_resolved_at_opening(hooks).await;
    impossible_positions_are_refused(hooks).await;
    an_oversized_put_is_refused_whole(hooks).await;
    a_split_ends_the_parent_with_two_children(hooks).await;
    a_merge_ends_both_parents_with_one_child(hooks).await;
    filters_select_by_time_and_ancestry(hooks).await;
    a_follower_sees_every_record_once_across_reshards(hooks).await;
    dedicated_handles_see_the_same_stream(hooks).await;
    a_deleted_stream_is_not_found(hooks).await;
}

/// A stream tells its name, an ARN that ends with it, and that it is active.
pub async fn describes_itself(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-describe", 3).await;
    let description = stream.describe().await.expect("described");
    assert_eq!(description.identity.name, "conformance-describe");
    assert!(description.identity.arn.ends_with("stream/conformance-describe"), "{}", description.identity.arn);
    assert_eq!(description.status, StreamStatus::Active);
    assert!(description.retention >= Duration::from_secs(3600));
    assert_eq!(
        (stream.to_string().as_str(), writer.to_string().as_str()),
        ("conformance-describe", "conformance-describe")
    );
    let shards = list(&*stream, ShardFilter::All).await;
    let ranges: Vec<_> = shards.iter().map(|shard| shard.hash_key_range).collect();
    assert_eq!(ranges, HashKeyRange::even_split(3));
    assert!(shards.iter().all(|shard| shard.is_open() && shard.parents().next().is_none()));
}

/// What was put is read once, in the order of its sequence numbers, from the shard that the put named.
pub async fn puts_are_read_back_once_and_in_order(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-puts", 4).await;
    let before = hooks.env().timestamp();
    let mut expected: BTreeMap<ShardId, Vec<(Placed, PutEntry)>> = BTreeMap::new();
    for batch in 0..5 {
        let entries: Vec<_> = (0..20).map(|i| entry(&format!("key-{}", i % 7), &format!("{batch}/{i}"))).collect();
        for (placed, entry) in put(&*writer, &entries).await.into_iter().zip(entries) {
            expected.entry(placed.shard.clone()).or_default().push((placed, entry));
        }
    }
    assert!(expected.len() > 1, "seven keys over four shards");
    for shard in list(&*stream, ShardFilter::All).await {
        let mut put = expected.remove(&shard.id).unwrap_or_default();
        put.sort_by_key(|(placed, _)| placed.sequence_number);
        let records =
            read_some(hooks, &mut *open(&*stream, &shard.id, StartPosition::TrimHorizon).await, put.len()).await;
        assert_eq!(records.len(), put.len(), "exactly what was put");
        for (record, (placed, entry)) in records.iter().zip(&put) {
            assert_eq!(record.sequence_number, placed.sequence_number);
            assert!(record.sequence_number > shard.starting_sequence_number);
            assert_eq!((&record.data, record.partition_key.as_ref()), (&entry.data, Some(&entry.partition_key)));
            assert!(shard.hash_key_range.contains(hash_key(entry.partition_key.as_str().as_bytes())));
            assert!(
                record.arrival >= before.minus(PATIENCE) && record.arrival <= hooks.env().timestamp().plus(PATIENCE)
            );
        }
    }
    assert!(expected.is_empty(), "every shard that took a record is listed");
}

/// An explicit hash key decides the shard, at the very edges of the ranges too.
pub async fn explicit_hash_keys_win(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-hash-keys", 3).await;
    for shard in list(&*stream, ShardFilter::All).await {
        for key in [shard.hash_key_range.start(), shard.hash_key_range.end()] {
            let entry = PutEntry { explicit_hash_key: Some(key), ..entry("same", "data") };
            assert_eq!(put(&*writer, &[entry]).await[0].shard, shard.id, "{key}");
        }
    }
}

/// Reading one by one gives what reading at once gives, and says how far behind it is.
pub async fn small_reads_lose_nothing(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-small-reads", 1).await;
    let placed = put(&*writer, &(0..5).map(|i| entry("key", &i.to_string())).collect::<Vec<_>>()).await;
    let mut reader = open(&*stream, &placed[0].shard, StartPosition::TrimHorizon).await;
    let mut numbers = Vec::new();
    let deadline = hooks.env().now().plus(PATIENCE);
    while numbers.len() < placed.len() {
        assert!(hooks.env().now() < deadline, "only {} records came", numbers.len());
        let read = reader.read(1).await.expect("read");
        assert!(read.records.len() <= 1);
        assert_eq!(read.end, None);
        numbers.extend(read.records.iter().map(|record| record.sequence_number));
        if numbers.len() < placed.len() && !read.records.is_empty() {
            assert_ne!(read.behind_latest, Some(Duration::ZERO), "records are left");
        }
    }
    assert_eq!(numbers, placed.iter().map(|p| p.sequence_number).collect::<Vec<_>>());
    let at_tip = reader.read(10).await.expect("read");
    assert!(at_tip.records.is_empty());
    assert!(at_tip.behind_latest.is_none_or(|behind| behind.is_zero()));
}

/// At and after a number, and at a time.
pub async fn every_position_starts_where_it_says(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-positions", 1).await;
    let early = put(&*writer, &[entry("key", "0"), entry("key", "1")]).await;
    let first_seen = read_some(hooks, &mut *open(&*stream, &early[0].shard, StartPosition::TrimHorizon).await, 2).await;
    later_than(hooks, first_seen[1].arrival).await;
    let between = hooks.env().timestamp();
    later_than(hooks, between).await;
    let late = put(&*writer, &[entry("key", "2")]).await;
    let shard = &early[0].shard;
    for (position, expected) in [
        (StartPosition::TrimHorizon, "012"),
        (StartPosition::AtSequenceNumber(early[1].sequence_number), "12"),
        (StartPosition::AfterSequenceNumber(early[1].sequence_number), "2"),
        (StartPosition::AfterSequenceNumber(late[0].sequence_number), ""),
        (StartPosition::AtTimestamp(between), "2"),
        (StartPosition::AtTimestamp(first_seen[0].arrival), "012"),
        (StartPosition::AtTimestamp(Timestamp::from_millis(0)), "012"),
    ] {
        let mut reader = open(&*stream, shard, position).await;
        let records = read_some(hooks, &mut *reader, expected.len()).await;
        let text: Vec<u8> = records.iter().flat_map(|record| record.data.to_vec()).collect();
        assert_eq!(String::from_utf8_lossy(&text), expected, "{position:?}");
    }
    let starting = list(&*stream, ShardFilter::All).await[0].starting_sequence_number;
    let mut reader = open(&*stream, shard, StartPosition::AtSequenceNumber(starting)).await;
    assert_eq!(read_some(hooks, &mut *reader, 3).await.len(), 3, "a shard may be read from its starting number");
}

/// `LATEST` is where the shard was when the reader was opened, not where it is at the first read; a time after the last
/// record waits for the next one.
pub async fn latest_is_resolved_at_opening(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-latest", 1).await;
    let old = put(&*writer, &[entry("key", "old")]).await;
    let arrived = read_some(hooks, &mut *open(&*stream, &old[0].shard, StartPosition::TrimHorizon).await, 1).await;
    later_than(hooks, arrived[0].arrival).await;
    let after_all = hooks.env().timestamp();
    later_than(hooks, after_all).await;
    let mut latest = open(&*stream, &old[0].shard, StartPosition::Latest).await;
    let mut timed = open(&*stream, &old[0].shard, StartPosition::AtTimestamp(after_all)).await;
    let new = put(&*writer, &[entry("key", "new")]).await;
    for reader in [&mut *latest, &mut *timed] {
        let records = read_some(hooks, reader, 1).await;
        assert_eq!(records.iter().map(|r| r.sequence_number).collect::<Vec<_>>(), [new[0].sequence_number]);
    }
}

/// A shard that is not there, and numbers that the shard never gave out.
pub async fn impossible_positions_are_refused(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-refusals", 2).await;
    let missing = stream.open(&"shardId-000000000099".into(), StartPosition::TrimHorizon).await;
    assert_eq!(missing.expect_err("no such shard").kind(), StreamErrorKind::NotFound);
    let shards = list(&*stream, ShardFilter::All).await;
    let entry = PutEntry { explicit_hash_key: Some(0), ..entry("key", "data") };
    let placed = put(&*writer, &[entry]).await;
    let foreign = StartPosition::AfterSequenceNumber(placed[0].sequence_number);
    let other = stream.open(&shards[1].id, foreign).await;
    assert_eq!(other.expect_err("the other shard's number").kind(), StreamErrorKind::Invalid);
    let made_up = StartPosition::AtSequenceNumber(12_345u64.into());
    assert_eq!(stream.open(&shards[0].id, made_up).await.expect_err("made up").kind(), StreamErrorKind::Invalid);
}

/// A call over the limits fails as a whole, and nothing of it is written.
pub async fn an_oversized_put_is_refused_whole(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-limits", 1).await;
    let many: Vec<_> = (0..501).map(|i| entry("key", &i.to_string())).collect();
    let large = [entry("key", "fits"), PutEntry::new("key", Bytes::from(vec![0; 1024 * 1024 + 1]))];
    for entries in [&many[..], &large, &[PutEntry::new("", "no key")]] {
        let error = writer.put(entries).await.expect_err("too much");
        assert_eq!(error.kind(), StreamErrorKind::Invalid, "{error}");
        assert!(!error.may_have_applied());
    }
    let placed = put(&*writer, &many[..500]).await;
    let mut reader = open(&*stream, &placed[0].shard, StartPosition::TrimHorizon).await;
    let records = read_some(hooks, &mut *reader, 500).await;
    assert_eq!(records.iter().map(|r| r.sequence_number).collect::<Vec<_>>(), numbers(&placed));
}

/// The parent's records come first, then its end with both children; the end stays the end.
pub async fn a_split_ends_the_parent_with_two_children(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-split", 1).await;
    let placed = put(&*writer, &[entry("a", "1"), entry("b", "2")]).await;
    let parent = placed[0].shard.clone();
    let mut reader = open(&*stream, &parent, StartPosition::TrimHorizon).await;
    let new_start = 1 << 127;
    hooks.split("conformance-split", &parent, new_start).await;
    let shards = list(&*stream, ShardFilter::All).await;
    assert_eq!(shards.len(), 3);
    assert!(shards[0].ending_sequence_number.is_some_and(|end| end > placed[1].sequence_number));
    let (low, high) = HashKeyRange::FULL.split_at(new_start).expect("in range");
    assert_eq!((shards[1].hash_key_range, shards[2].hash_key_range), (low, high));
    for child in &shards[1..] {
        assert_eq!(child.parents().collect::<Vec<_>>(), [&parent]);
        assert!(child.is_open() && Some(child.starting_sequence_number) > shards[0].ending_sequence_number);
    }
    let (records, children) = read_to_end(hooks, &mut *reader).await;
    assert_eq!(records.iter().map(|r| r.sequence_number).collect::<Vec<_>>(), numbers(&placed));
    assert_eq!(children, [child_of(&shards[1], &[&parent]), child_of(&shards[2], &[&parent])]);
    let again = reader.read(10).await.expect("a reader at its end may be read");
    assert!(again.records.is_empty() && again.end.is_some_and(|end| end == children));
    let after_all = StartPosition::AfterSequenceNumber(placed[1].sequence_number);
    let (records, same) = read_to_end(hooks, &mut *open(&*stream, &parent, after_all).await).await;
    assert!(records.is_empty() && same == children, "opened after its last record, a closed shard still has its end");
}

/// Either parent's end names the one child and both parents.
pub async fn a_merge_ends_both_parents_with_one_child(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-merge", 2).await;
    let parents: Vec<_> = list(&*stream, ShardFilter::All).await.into_iter().map(|shard| shard.id).collect();
    let entries: Vec<_> = (0..20).map(|i| entry(&format!("key-{i}"), "data")).collect();
    let placed = put(&*writer, &entries).await;
    hooks.merge("conformance-merge", &parents[0], &parents[1]).await;
    let shards = list(&*stream, ShardFilter::All).await;
    assert_eq!(shards.len(), 3);
    assert_eq!(shards[2].parents().collect::<Vec<_>>(), [&parents[0], &parents[1]]);
    assert_eq!(shards[2].hash_key_range, HashKeyRange::FULL);
    let mut seen = BTreeSet::new();
    for parent in &parents {
        let mut reader = open(&*stream, parent, StartPosition::TrimHorizon).await;
        let (records, children) = read_to_end(hooks, &mut *reader).await;
        assert_eq!(children, [child_of(&shards[2], &[&parents[0], &parents[1]])]);
        seen.extend(records.iter().map(|record| record.sequence_number));
    }
    assert_eq!(seen, placed.iter().map(|placed| placed.sequence_number).collect());
    assert_eq!(put(&*writer, &[entry("key", "after")]).await[0].shard, shards[2].id);
}

/// Every filter, over one split.
pub async fn filters_select_by_time_and_ancestry(hooks: &dyn StreamHooks) {
    let Fixture { stream, .. } = hooks.create("conformance-filters", 2).await;
    let first = list(&*stream, ShardFilter::All).await;
    later_than(hooks, hooks.env().timestamp()).await;
    let before = hooks.env().timestamp();
    later_than(hooks, before).await;
    hooks.split("conformance-filters", &first[0].id, first[0].hash_key_range.end() / 2).await;
    later_than(hooks, hooks.env().timestamp()).await;
    let after = hooks.env().timestamp();
    later_than(hooks, after).await;
    let all: Vec<_> = list(&*stream, ShardFilter::All).await.into_iter().map(|shard| shard.id).collect();
    assert_eq!(all.len(), 4);
    let (oldest, open) = (vec![0, 1], vec![1, 2, 3]);
    for (filter, expected) in [
        (ShardFilter::AfterShardId(all[1].clone()), vec![2, 3]),
        (ShardFilter::AtLatest, open.clone()),
        (ShardFilter::AtTrimHorizon, oldest.clone()),
        (ShardFilter::FromTrimHorizon, vec![0, 1, 2, 3]),
        (ShardFilter::AtTimestamp(before), oldest),
        (ShardFilter::AtTimestamp(after), open.clone()),
        (ShardFilter::FromTimestamp(before), vec![0, 1, 2, 3]),
        (ShardFilter::FromTimestamp(after), open),
    ] {
        let listed: Vec<_> = list(&*stream, filter.clone()).await.into_iter().map(|shard| shard.id).collect();
        assert_eq!(listed, expected.iter().map(|i| all[*i].clone()).collect::<Vec<_>>(), "{filter:?}");
    }
}

/// Puts, splits and merges interleaved with a reader that follows from parents to children: every record once, and each
/// key's records in the order of their puts.
pub async fn a_follower_sees_every_record_once_across_reshards(hooks: &dyn StreamHooks) {
    const NAME: &str = "conformance-follower";
    let Fixture { stream, writer } = hooks.create(NAME, 2).await;
    let mut follower = Follower::new(hooks, stream).await;
    let mut count = 0;
    for round in 0..4 {
        for i in 0..10u32 {
            // One record a call: the service keeps no order between the entries of one call.
            put(&*writer, &[entry(&format!("key-{}", i % 5), &count.to_string())]).await;
            count += 1;
        }
        follower.read_round(3).await;
        let open = list(&*follower.stream, ShardFilter::AtLatest).await;
        if round % 2 == 0 {
            let range = open[0].hash_key_range;
            hooks.split(NAME, &open[0].id, range.start() + (range.end() - range.start()) / 2).await;
        } else {
            let mut open = open;
            open.sort_by_key(|shard| shard.hash_key_range.start());
            hooks.merge(NAME, &open[0].id, &open[1].id).await;
        }
    }
    let deadline = hooks.env().now().plus(PATIENCE);
    while follower.seen() < count {
        assert!(hooks.env().now() < deadline, "{} of {count} records came", follower.seen());
        follower.read_round(1000).await;
    }
    follower.read_round(1000).await;
    assert_eq!(follower.seen(), count, "none twice");
    for (key, seen) in &follower.by_key {
        assert!(seen.is_sorted(), "{key}: {seen:?}");
    }
}

/// A dedicated handle reads what the first one's writer puts.
pub async fn dedicated_handles_see_the_same_stream(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-dedicated", 1).await;
    let dedicated = stream.dedicated();
    drop(stream);
    let placed = put(&*writer, &[entry("key", "data")]).await;
    let mut reader = open(&*dedicated, &placed[0].shard, StartPosition::TrimHorizon).await;
    assert_eq!(read_some(hooks, &mut *reader, 1).await[0].sequence_number, placed[0].sequence_number);
    assert!(dedicated.read_limits().records_per_read >= 1);
}

/// Calls on a stream that is gone say so; a reader of it fails so too, or ends without children.
pub async fn a_deleted_stream_is_not_found(hooks: &dyn StreamHooks) {
    let Fixture { stream, writer } = hooks.create("conformance-deleted", 1).await;
    let shard = list(&*stream, ShardFilter::All).await[0].id.clone();
    let mut reader = open(&*stream, &shard, StartPosition::TrimHorizon).await;
    hooks.delete("conformance-deleted").await;
    let not_found = StreamErrorKind::NotFound;
    assert_eq!(stream.describe().await.expect_err("gone").kind(), not_found);
    assert_eq!(stream.list_shards(ShardFilter::All).await.expect_err("gone").kind(), not_found);
    assert_eq!(stream.open(&shard, StartPosition::Latest).await.expect_err("gone").kind(), not_found);
    assert_eq!(writer.put(&[entry("key", "data")]).await.expect_err("gone").kind(), not_found);
    match reader.read(10).await {
        Ok(read) => assert_eq!((read.records.len(), read.end), (0, Some(Vec::new()))),
        Err(error) => assert_eq!(error.kind(), not_found),
    }
}

/// Reads a stream as a consumer does: children after all their parents.
struct Follower<'a> {
    hooks: &'a dyn StreamHooks,
    stream: Arc<dyn Stream>,
    readers: BTreeMap<ShardId, Box<dyn ShardReader>>,
    ended: BTreeSet<ShardId>,
    waiting: BTreeMap<ShardId, Vec<ShardId>>,
    by_key: BTreeMap<String, Vec<u32>>,
}

impl<'a> Follower<'a> {
    async fn new(hooks: &'a dyn StreamHooks, stream: Arc<dyn Stream>) -> Self {
        let (readers, ended) = (BTreeMap::new(), BTreeSet::new());
        let waiting =
            list(&*stream, ShardFilter::AtTrimHorizon).await.into_iter().map(|s| (s.id, Vec::new())).collect();
        Self { hooks, stream, readers, ended, waiting, by_key: BTreeMap::new() }
    }

    async fn read_round(&mut self, limit: usize) {
        let ready =
            |ended: &BTreeSet<ShardId>, parents: &[ShardId]| parents.iter().all(|parent| ended.contains(parent));
        while let Some(child) = self.waiting.iter().find(|(_, p)| ready(&self.ended, p)).map(|(id, _)| id.clone()) {
            self.waiting.remove(&child);
            let reader = open(&*self.stream, &child, StartPosition::TrimHorizon).await;
            self.readers.insert(child, reader);
        }
        for (shard, mut reader) in std::mem::take(&mut self.readers) {
            let read = bounded(self.hooks, reader.read(limit)).await.expect("read");
            for record in &read.records {
                let key = record.partition_key.as_ref().expect("a key").as_str().to_owned();
                let value = std::str::from_utf8(&record.data).expect("text").parse().expect("a number");
                self.by_key.entry(key).or_default().push(value);
            }
            match read.end {
                Some(children) => {
                    self.ended.insert(shard);
                    self.waiting.extend(children.into_iter().map(|child| (child.id, child.parents)));
                }
                None => {
                    self.readers.insert(shard, reader);
                }
            }
        }
    }

    fn seen(&self) -> usize {
        self.by_key.values().map(Vec::len).sum()
    }
}

fn entry(key: &str, data: &str) -> PutEntry {
    PutEntry::new(key, data.to_owned())
}

fn numbers(placed: &[Placed]) -> Vec<crate::SequenceNumber> {
    placed.iter().map(|placed| placed.sequence_number).collect()
}

fn child_of(shard: &Shard, parents: &[&ShardId]) -> ChildShard {
    let parents = parents.iter().map(|&parent| parent.clone()).collect();
    ChildShard { id: shard.id.clone(), parents, hash_key_range: shard.hash_key_range }
}

async fn put(writer: &dyn StreamWriter, entries: &[PutEntry]) -> Vec<Placed> {
    let results = writer.put(entries).await.expect("put");
    assert_eq!(results.len(), entries.len(), "a result for each entry");
    results.into_iter().map(|result| result.expect("placed")).collect()
}

async fn list(stream: &dyn Stream, filter: ShardFilter) -> Vec<Shard> {
    let shards = stream.list_shards(filter).await.expect("listed");
    assert!(shards.is_sorted_by(|a, b| a.id < b.id), "by shard id");
    shards
}

async fn open(stream: &dyn Stream, shard: &ShardId, position: StartPosition) -> Box<dyn ShardReader> {
    stream.open(shard, position).await.expect("opened")
}

/// Waits until the clock is past a time by more than two clocks may differ.
async fn later_than(hooks: &dyn StreamHooks, time: Timestamp) {
    let env = hooks.env();
    let target = time.plus(Duration::from_millis(20));
    while env.timestamp() <= target {
        env.sleep(Duration::from_millis(5)).await;
    }
}

async fn bounded<T>(hooks: &dyn StreamHooks, future: impl Future<Output = T> + Send) -> T {
    let env = hooks.env();
    env.deadline(env.now().plus(PATIENCE), future).await.expect("an answer in time")
}

/// Reads until at least `count` records came, and then once more so that surplus ones show.
async fn read_some(hooks: &dyn StreamHooks, reader: &mut dyn ShardReader, count: usize) -> Vec<Record> {
    let env = hooks.env();
    let deadline = env.now().plus(PATIENCE);
    let mut records = Vec::new();
    while records.len() < count {
        assert!(env.now() < deadline, "{} of {count} records came", records.len());
        records.extend(bounded(hooks, reader.read(1000)).await.expect("read").records);
    }
    records.extend(bounded(hooks, reader.read(1000)).await.expect("read").records);
    records
}

/// Reads until the end of the shard.
async fn read_to_end(hooks: &dyn StreamHooks, reader: &mut dyn ShardReader) -> (Vec<Record>, Vec<ChildShard>) {
    let env = hooks.env();
    let deadline = env.now().plus(PATIENCE);
    let mut records = Vec::new();
    loop {
        assert!(env.now() < deadline, "the end did not come after {} records", records.len());
        let read = bounded(hooks, reader.read(1000)).await.expect("read");
        records.extend(read.records);
        if let Some(children) = read.end {
            return (records, children);
        }
    }
}
