//! The idempotent ways to write, on a DynamoDB engine: each outcome, and random deliveries that must end as if every record had come
//! once and in order.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use shardwell_aws::sink::{
    Accumulator, Applied, Delta, ExactlyOnce, IdempotentTable, NoQuarantine, Report, Step, Version, Write,
};
use shardwell_core::delivery::DeliveryPolicy;
use shardwell_core::{Bytes, Record, Timestamp, UserRecord};
use shardwell_integration_dynamodb::{Engine, create_table};

fn text(text: impl ToString) -> AttributeValue {
    AttributeValue::S(text.to_string())
}

fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// The record at this position; 56 digits, as Kinesis has them.
fn record(position: u64) -> UserRecord {
    let digits = format!("49590338271490256608559692538361571095921575{position:012}");
    UserRecord::from(Record {
        sequence_number: digits.parse().expect("digits"),
        partition_key: Some("key".into()),
        arrival: Timestamp::default(),
        data: Bytes::new(),
    })
}

async fn table(engine: &Engine, name: &str) -> IdempotentTable {
    create_table(&engine.client(), name, "id").await.expect("a new table");
    IdempotentTable::open(&engine.client(), name).await.expect("opened")
}

fn outcomes(report: &Report) -> Vec<Result<Applied, bool>> {
    report.results().map(|(_, result)| result.clone().map_err(|error| error.is_of_the_item())).collect()
}

async fn items(engine: &Engine, table: &str) -> BTreeMap<String, BTreeMap<String, AttributeValue>> {
    let pages = engine.client().scan().table_name(table).consistent_read(true).into_paginator().items().send();
    let items = pages.collect::<Result<Vec<_>, _>>().await.expect("a scan");
    items.into_iter().map(|item| (item["id"].as_s().expect("text").clone(), item.into_iter().collect())).collect()
}

use Applied::{AlreadyApplied, Applied as Done, Stale};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_record_of_a_key_wins() {
    let engine = Engine::start().await.expect("an engine");
    let table = table(&engine, "facts").await;
    let write = |position: u64, id: &str| Write::new(&record(position), [("id", text(id)), ("n", number(position))]);
    let report = table.insert_once(vec![write(2, "a"), write(1, "a"), write(3, "b")]).await;
    assert_eq!(outcomes(&report), [Ok(Stale), Ok(Done), Ok(Done)]);
    let report = table.insert_once(vec![write(1, "a"), write(2, "a"), write(4, "c")]).await;
    assert_eq!(outcomes(&report), [Ok(AlreadyApplied), Ok(Stale), Ok(Done)]);
    assert_eq!(items(&engine, "facts").await["a"]["n"], number(1));
    assert_eq!((report.count(Stale), report.first_failure().is_none()), (1, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_record_of_a_key_wins_and_a_deletion_stays() {
    let engine = Engine::start().await.expect("an engine");
    let table = table(&engine, "positions").await;
    let write = |position: u64, id: &str| Write::new(&record(position), [("id", text(id)), ("n", number(position))]);
    let report = table.upsert_if_newer(vec![write(1, "a"), write(2, "a"), write(3, "b")]).await;
    assert_eq!(outcomes(&report), [Ok(Stale), Ok(Done), Ok(Done)]);
    let report = table.upsert_if_newer(vec![write(2, "a"), write(1, "b"), write(10, "b")]).await;
    assert_eq!(outcomes(&report), [Ok(AlreadyApplied), Ok(Stale), Ok(Done)]);
    let deleted = Write::tombstone(&record(11), [("id", text("b"))]);
    assert_eq!(outcomes(&table.upsert_if_newer(vec![deleted]).await), [Ok(Done)]);
    assert_eq!(outcomes(&table.upsert_if_newer(vec![write(10, "b")]).await), [Ok(Stale)]);
    let items = items(&engine, "positions").await;
    assert_eq!(items["a"]["n"], number(2));
    assert!(items["b"].contains_key("shardwellDeleted") && !items["b"].contains_key("n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_refused_fails_alone() {
    let engine = Engine::start().await.expect("an engine");
    let table = table(&engine, "poisoned").await;
    let good = |position: u64, id: &str| Write::new(&record(position), [("id", text(id))]);
    let huge = |position: u64, id: &str| {
        Write::new(&record(position), [("id", text(id)), ("data", text("x".repeat(500 << 10)))])
    };
    let keyless = Write::new(&record(5), [("n", number(1))]);
    let report = table.upsert_if_newer(vec![good(1, "a"), huge(2, "a"), huge(3, "b"), good(4, "c"), keyless]).await;
    assert_eq!(outcomes(&report), [Ok(Done), Err(true), Err(true), Ok(Done), Err(true)]);
    let (version, error) = report.first_failure().expect("a failure");
    assert_eq!(version, Version::from(&record(2)));
    assert!(error.to_string().contains("PutItem on table `poisoned`"), "{error}");
    engine.client().delete_table().table_name("poisoned").send().await.expect("deleted");
    let report = table.upsert_if_newer(vec![good(1, "a"), good(2, "a")]).await;
    assert_eq!(outcomes(&report), [Err(false), Err(false)], "the record is not to blame");
    let error = IdempotentTable::open(&engine.client(), "nowhere").await.expect_err("there is none").to_string();
    assert!(error.contains("table `nowhere`"), "{error}");
}

fn delta(position: u64, id: &str, n: i64) -> Delta {
    Delta::new(&record(position), [("id", text(id))]).add("n", n)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_is_counted_once() {
    let engine = Engine::start().await.expect("an engine");
    let table = table(&engine, "counts").await;
    let accumulator = Accumulator::marked(table.clone(), table.clone()).expect("a key of text");
    let count = async |deltas| outcomes(&accumulator.accumulate(deltas, false).await);
    assert_eq!(count(vec![delta(1, "a", 1), delta(2, "a", 2), delta(3, "b", 3)]).await, [Ok(Done); 3]);
    // Other borders: two were counted, one was not.
    let again = count(vec![delta(2, "a", 2), delta(1, "a", 1), delta(4, "a", 4)]).await;
    assert_eq!(again, [Ok(AlreadyApplied), Ok(AlreadyApplied), Ok(Done)]);
    assert_eq!(items(&engine, "counts").await["a"]["n"], number(7));
    assert!(matches!(Accumulator::quarantined(table, &DeliveryPolicy::default()), Err(NoQuarantine)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_counted_holds_back_the_later_ones_of_its_item() {
    let engine = Engine::start().await.expect("an engine");
    let table = table(&engine, "counts").await;
    let accumulator = Accumulator::marked(table.clone(), table.clone()).expect("a key of text");
    let count = async |deltas| outcomes(&accumulator.accumulate(deltas, false).await);
    let word = Write::new(&record(1), [("id", text("a")), ("word", text("no number"))]);
    assert_eq!(outcomes(&table.upsert_if_newer(vec![word]).await), [Ok(Done)]);
    let wrong = Delta::new(&record(3), [("id", text("a"))]).add("word", 1);
    let all = || vec![delta(2, "a", 1), wrong.clone(), delta(4, "a", 1), delta(5, "b", 1)];
    assert_eq!(count(all()).await, [Ok(Done), Err(true), Err(false), Ok(Done)]);
    // It is given up on, and the rest comes again.
    assert_eq!(count(vec![delta(4, "a", 1), delta(5, "b", 1)]).await, [Ok(Done), Ok(AlreadyApplied)]);
    assert_eq!(items(&engine, "counts").await["a"]["n"], number(2));
    // It is mended and redriven, twice: it is older than what was counted since.
    for expected in [Done, AlreadyApplied] {
        let report = accumulator.accumulate(vec![delta(3, "a", 1)], true).await;
        assert_eq!(outcomes(&report), [Ok(expected)]);
    }
    assert_eq!(items(&engine, "counts").await["a"]["n"], number(3));
}

async fn exactly_once(engine: &Engine) -> ExactlyOnce {
    let positions = IdempotentTable::open(&engine.client(), "positions").await.expect("opened");
    ExactlyOnce::open(positions, "delays/flights/shard", 0).await.expect("opened")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_records_change_happens_once_whoever_is_faster() {
    let engine = Engine::start().await.expect("an engine");
    let (_, counts) = (table(&engine, "positions").await, table(&engine, "counts").await);
    let step = |position: u64, id: &str| Step::new(&record(position)).add(&counts, [("id", text(id))], "n", 1);
    let steps =
        |positions: std::ops::Range<u64>| positions.map(|at| step(at, &format!("{}", at % 7))).collect::<Vec<_>>();
    let mut one = exactly_once(&engine).await;
    assert_eq!(one.position(), None);
    assert_eq!(outcomes(&one.transactional_batch(steps(0..10)).await), [Ok(Done); 10]);
    // It has lost its lease and does not know it yet.
    let mut zombie = one.clone();
    let mut other = exactly_once(&engine).await;
    assert_eq!(other.position(), Some(record(9).position));
    assert_eq!(outcomes(&other.transactional_batch(steps(10..15)).await), [Ok(Done); 5]);
    let expected = [[Ok(AlreadyApplied); 5], [Ok(Done); 5]].concat();
    assert_eq!(outcomes(&zombie.transactional_batch(steps(10..20)).await), expected);
    assert_eq!(outcomes(&other.transactional_batch(steps(15..25)).await), expected);
    // More items than a transaction takes.
    let many: Vec<Step> = (25..325).map(|at| step(at, &format!("many-{at}"))).collect();
    assert_eq!(outcomes(&other.transactional_batch(many).await), [Ok(Done); 300]);
    let items = items(&engine, "counts").await;
    let total: u64 =
        items.values().map(|item| item["n"].as_n().expect("a number").parse::<u64>().expect("small")).sum();
    assert_eq!(total, 325);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_changes_are_refused_fails_alone() {
    let engine = Engine::start().await.expect("an engine");
    let (_, counts) = (table(&engine, "positions").await, table(&engine, "counts").await);
    let mut once = exactly_once(&engine).await;
    let step = |position: u64| Step::new(&record(position)).add(&counts, [("id", text("a"))], "n", 1);
    let huge = Step::new(&record(3)).put(&counts, [("id", text("b")), ("data", text("x".repeat(500 << 10)))]);
    let all = || vec![step(1), step(2), huge.clone(), step(4)];
    assert_eq!(outcomes(&once.transactional_batch(all()).await), [Ok(Done), Ok(Done), Err(true), Err(false)]);
    assert_eq!(once.position(), Some(record(2).position));
    assert_eq!(outcomes(&once.transactional_batch(vec![step(4)]).await), [Ok(Done)], "it was given up on");
    for expected in [Done, AlreadyApplied] {
        assert_eq!(outcomes(&once.redriven_batch(vec![step(3)]).await), [Ok(expected)]);
    }
    assert_eq!(items(&engine, "counts").await["a"]["n"], number(4));
    assert!(ExactlyOnce::open(counts, "delays/flights/shard", 1).await.is_err(), "another lane");
}

/// A little generator, so that a failing run is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Records are delivered in batches of any size, and again from any earlier place, by one worker or by two at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn random_deliveries_end_as_if_each_record_had_come_once() {
    for seed in 0..8 {
        let engine = Engine::start().await.expect("an engine");
        let newest = table(&engine, "newest").await;
        let (counts, _) = (table(&engine, "counts").await, table(&engine, "positions").await);
        let sums = table(&engine, "sums").await;
        let accumulator = Accumulator::marked(counts.clone(), counts).expect("a key of text");
        let mut random = Random(seed);
        let all: Vec<(UserRecord, String)> = (0..120).map(|at| (record(at), format!("k{}", random.below(9)))).collect();
        let (mut done, mut workers) = (0, vec![exactly_once(&engine).await]);
        while done < all.len() {
            // From the checkpoint, which may lie behind, to somewhere.
            let from = done - random.below(done as u64 + 1).min(20) as usize;
            let to = (from + 1 + random.below(30) as usize).min(all.len());
            let batch = &all[from..to];
            let writes = batch
                .iter()
                .map(|(record, key)| Write::new(record, [("id", text(key)), ("at", text(record.position))]));
            let deltas = batch.iter().map(|(record, key)| Delta::new(record, [("id", text(key))]).add("n", 1));
            let steps: Vec<Step> =
                batch.iter().map(|(record, key)| Step::new(record).add(&sums, [("id", text(key))], "n", 1)).collect();
            if random.below(4) == 0 {
                workers.push(exactly_once(&engine).await);
            }
            let who = random.below(workers.len() as u64) as usize;
            let (a, b, c) = tokio::join!(
                newest.upsert_if_newer(writes.collect()),
                accumulator.accumulate(deltas.collect(), false),
                workers[who].transactional_batch(steps),
            );
            assert!([a, b, c].iter().all(|report| report.first_failure().is_none()), "seed {seed}");
            done = done.max(to);
        }
        let mut truth: BTreeMap<&str, Vec<&UserRecord>> = BTreeMap::new();
        for (record, key) in &all {
            truth.entry(key).or_default().push(record);
        }
        let (newest, counts, sums) =
            (items(&engine, "newest").await, items(&engine, "counts").await, items(&engine, "sums").await);
        assert_eq!(newest.keys().map(String::as_str).collect::<BTreeSet<_>>(), truth.keys().copied().collect());
        for (key, records) in truth {
            let last = records.last().expect("at least one").position;
            assert_eq!(newest[key]["at"], text(last), "seed {seed}");
            assert_eq!(counts[key]["n"], number(records.len()), "seed {seed}");
            assert_eq!(sums[key]["n"], number(records.len()), "seed {seed}");
        }
    }
}
