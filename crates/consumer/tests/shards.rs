//! Shards: resharding in order, streams that are not what they were, records that are gone.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::{Event, Reaction, START, World, millis, secs};
use shardwell_consumer::{
    Batch, DeliveryPolicy, OnDataLoss, Outcome, ProcessError, RecordProcessor, ShardState, Worker, WorkerError,
    async_trait,
};
use shardwell_core::memory::MemoryStream;
use shardwell_core::{
    Checkpoint, Env, EnvExt, Read, ReadLimits, Shard, ShardFilter, ShardId, ShardReader, StartPosition, Stream,
    StreamDescription, StreamError, StreamErrorKind,
};
use shardwell_sim::{Fault, SimEnv};

fn open_shards(world: &World) -> Vec<Shard> {
    world.stream.shards(&ShardFilter::AtLatest).expect("the stream is there")
}

fn split(world: &World, shard: &Shard) {
    let range = shard.hash_key_range;
    world.stream.split(&shard.id, range.start() + (range.end() - range.start()) / 2).expect("it splits");
}

#[tokio::test(start_paused = true)]
async fn children_start_when_all_their_parents_are_done() {
    let world = World::new(2).with_script(|_, _, _| Reaction::Take(millis(10)));
    world.put(300, 30);
    let worker = world
        .start(world.builder("w", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(10)));
    world.until("it works", secs(5), || world.log.distinct() > 20).await;
    let shards = open_shards(&world);
    split(&world, &shards[0]);
    world.put(300, 30);
    let shards = open_shards(&world);
    let (left, right) = (&shards[0], &shards[1]);
    let adjacent =
        if left.hash_key_range.merge(&right.hash_key_range).is_some() { (left, right) } else { (left, &shards[2]) };
    let adjacent = if adjacent.0.hash_key_range.merge(&adjacent.1.hash_key_range).is_some() {
        adjacent
    } else {
        (right, &shards[2])
    };
    world.stream.merge(&adjacent.0.id, &adjacent.1.id).expect("they merge");
    world.put(300, 30);
    world.until_all_seen(secs(120)).await;
    world.log.assert_key_order();
    assert_eq!(world.log.numbers().len(), 900, "nothing came twice");

    let all = world.stream.shards(&ShardFilter::All).expect("shards");
    let events = world.log.events();
    let started = |shard: &ShardId| {
        events.iter().position(|e| matches!(e, Event::Initialized { shard: s, .. } if s == shard.as_str()))
    };
    let ended = |shard: &ShardId| {
        events.iter().position(|e| matches!(e, Event::ShardEnded { shard: s } if s == shard.as_str()))
    };
    for shard in &all {
        for parent in shard.parents() {
            assert!(ended(parent) < started(&shard.id), "{} before {parent}", shard.id);
        }
    }
    world.env.sleep(secs(1)).await;
    for shard in all.iter().filter(|shard| !shard.is_open()) {
        if let Some(lease) = world.lease(shard.id.as_str()).await {
            assert_eq!(lease.checkpoint, Checkpoint::ShardEnd);
            assert!(!lease.children.is_empty());
            assert_eq!(lease.owner, None);
        }
    }
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_merged_child_waits_for_a_parent_that_has_no_lease_yet() {
    let world = World::new(2);
    let slow = open_shards(&world)[1].hash_key_range;
    let world = world.with_script(move |record, _, _| {
        let key = record.partition_key.as_ref().expect("a key").as_str().as_bytes().to_vec();
        Reaction::Take(if slow.contains(shardwell_core::hash_key(&key)) { millis(200) } else { millis(1) })
    });
    world.put(100, 30);
    let worker = world
        .start(world.builder("w", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(1)));
    world.until("it works", secs(5), || world.log.distinct() > 3).await;
    // 1 becomes 2 and 3; 0 and 2 become 4, while 1 is read slowly and 0 is done soon.
    split(&world, &open_shards(&world)[1]);
    world.put(100, 30);
    world.stream.merge(&"shardId-000000000000".into(), &"shardId-000000000002".into()).expect("they merge");
    world.put(100, 30);
    world.until_all_seen(secs(300)).await;
    world.log.assert_key_order();
    let events = world.log.events();
    let started = events
        .iter()
        .position(|event| matches!(event, Event::Initialized { shard, .. } if shard == "shardId-000000000004"));
    for parent in ["shardId-000000000000", "shardId-000000000002"] {
        let ended = Event::ShardEnded { shard: parent.to_owned() };
        assert!(events.iter().position(|event| *event == ended) < started, "{parent} ends before its child starts");
    }
    worker.stop().await.expect("a clean stop");
}

/// Found by the simulator: the creation of a lease was refused, and its shard merged meanwhile.
#[tokio::test(start_paused = true)]
async fn a_merged_child_waits_for_a_parent_whose_lease_could_not_be_created() {
    let mut world = World::new(2);
    let is_refused = Arc::new(AtomicBool::new(true));
    let (tries, refuses) = (AtomicU32::new(0), is_refused.clone());
    world.faults = Arc::new(move |method| match method {
        "create_lease" if tries.fetch_add(1, Ordering::Relaxed) > 0 && refuses.load(Ordering::Relaxed) => Fault::Refuse,
        _ => Fault::None,
    });
    world.put(200, 20);
    let worker = world.start(world.builder("w", &SimEnv::new(1, START)));
    world.until("one has its lease", secs(5), || !world.log.numbers().is_empty()).await;
    let (first, second) = ("shardId-000000000000", "shardId-000000000001");
    world.stream.merge(&first.into(), &second.into()).expect("they merge");
    world.put(200, 20);
    let ended = Event::ShardEnded { shard: first.to_owned() };
    world.until("it is done", secs(10), || world.log.events().contains(&ended)).await;
    world.env.sleep(secs(2)).await;
    is_refused.store(false, Ordering::Relaxed);
    world.until_all_seen(secs(60)).await;
    world.log.assert_key_order();
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn finished_leases_go_once_their_children_have_begun() {
    let world = World::new(1);
    world.put(10, 5);
    let worker = world.start_default("w");
    world.until_all_seen(secs(5)).await;
    split(&world, &open_shards(&world)[0]);
    world.put(50, 50);
    world.until_all_seen(secs(5)).await;
    world.env.sleep(secs(130)).await;
    let mut keys: Vec<String> = world.leases().await.iter().map(|lease| lease.key.to_string()).collect();
    keys.sort();
    assert_eq!(keys, ["shardId-000000000001", "shardId-000000000002"]);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn the_status_names_the_parent_that_a_child_waits_for() {
    let world = World::new(1).with_script(|_, _, _| Reaction::Take(secs(100)));
    world.put(1, 1);
    let worker = world.start_default("w");
    world.until("it is open", secs(5), || worker.handle.is_ready()).await;
    split(&world, &open_shards(&world)[0]);
    let mut child = shardwell_core::Lease::new("shardId-000000000001".into(), Checkpoint::TrimHorizon);
    child.parents = ["shardId-000000000000".into()].into();
    shardwell_core::LeaseStore::create_lease(&world.store, &child).await.expect("created");
    world.env.sleep(secs(2)).await;
    let status = worker.handle.status();
    let waiting = status.shards.iter().find(|shard| shard.shard.as_str() == "shardId-000000000001").expect("listed");
    assert_eq!(waiting.state, ShardState::WaitingForParents(vec!["shardId-000000000000".into()]));
    assert_eq!(waiting.not_reading.as_deref(), Some("its parents are not finished: shardId-000000000000"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_deleted_and_created_again_is_refused() {
    let world = World::new(1);
    world.put(10, 5);
    let worker = world.start_default("first");
    world.until_all_seen(secs(5)).await;
    worker.stop().await.expect("a clean stop");
    world.stream.delete().expect("it goes");
    world.env.sleep(secs(5)).await;
    world.stream.create_with(shardwell_core::memory::kinesis::StreamSettings::new(1)).expect("it comes back");
    let error = world.start_default("second").ended().await.expect_err("it refuses");
    assert!(matches!(error, WorkerError::StreamRecreated { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("deleted and created again") && text.contains("shardwell leases reset"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_deleted_under_a_running_worker_ends_it() {
    let world = World::new(1);
    world.put(10, 5);
    let worker = world.start_default("w");
    world.until_all_seen(secs(5)).await;
    world.stream.delete().expect("it goes");
    let error = worker.ended().await.expect_err("it cannot go on");
    assert!(matches!(error, WorkerError::StreamDeleted { .. }), "{error:?}");
    assert_ne!(world.leases().await.remove(0).checkpoint, Checkpoint::ShardEnd, "nothing is marked as done");
}

/// A stream whose readers answer a deletion with an end without children, as polling does.
#[derive(Clone, Debug)]
struct EndsWhenDeleted(MemoryStream);

impl std::fmt::Display for EndsWhenDeleted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

#[async_trait]
impl Stream for EndsWhenDeleted {
    async fn describe(&self) -> Result<StreamDescription, StreamError> {
        self.0.describe().await
    }

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError> {
        Stream::list_shards(&self.0, filter).await
    }

    async fn open(&self, shard: &ShardId, position: StartPosition) -> Result<Box<dyn ShardReader>, StreamError> {
        self.0.open(shard, position).await.map(|reader| Box::new(EndingReader(reader)) as Box<dyn ShardReader>)
    }

    fn read_limits(&self) -> ReadLimits {
        self.0.read_limits()
    }

    fn dedicated(&self) -> Arc<dyn Stream> {
        Arc::new(self.clone())
    }
}

#[derive(Debug)]
struct EndingReader(Box<dyn ShardReader>);

#[async_trait]
impl ShardReader for EndingReader {
    async fn read(&mut self, limit: usize) -> Result<Read, StreamError> {
        match self.0.read(limit).await {
            Err(error) if error.kind() == StreamErrorKind::NotFound => {
                Ok(Read { end: Some(Vec::new()), ..Read::default() })
            }
            other => other,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_without_children_is_not_the_end_of_a_shard_whose_stream_is_gone() {
    let world = World::new(1);
    world.put(10, 5);
    let worker = Worker::builder("test", EndsWhenDeleted(world.stream.clone()), world.store.clone(), |_| Idle)
        .env(Arc::new(SimEnv::new(1, START)));
    let worker = world.start(worker);
    world.until("it is open", secs(5), || worker.handle.is_ready()).await;
    world.stream.delete().expect("it goes");
    let error = worker.ended().await.expect_err("it cannot go on");
    assert!(matches!(error, WorkerError::StreamDeleted { .. }), "{error:?}");
    assert_ne!(world.leases().await.remove(0).checkpoint, Checkpoint::ShardEnd, "nothing is marked as done");
}

struct Idle;

#[async_trait]
impl RecordProcessor for Idle {
    async fn process(&mut self, _: &Batch) -> Result<Outcome, ProcessError> {
        Ok(Outcome::Done)
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_were_trimmed_before_they_were_read_are_reported_with_their_range() {
    let world = World::new(1);
    world.put(10, 5);
    let worker = world.start_default("first");
    world.until_all_seen(secs(5)).await;
    worker.stop().await.expect("a clean stop");
    let stored = world.leases().await.remove(0).checkpoint;
    world.put(10, 5);
    world.env.sleep(secs(25 * 3600)).await;
    world.put(5, 5);

    let strict = world.builder("strict", &SimEnv::new(2, world.env.timestamp())).on_data_loss(OnDataLoss::Stop);
    let error = world.start(strict).ended().await.expect_err("it stops");
    let WorkerError::DataLoss(loss) = &error else { panic!("{error:?}") };
    assert_eq!(loss.after, stored);
    assert!(loss.first_left.is_some());
    assert!(error.to_string().contains("behind the trim horizon"), "{error}");
    assert_eq!(world.leases().await.remove(0).checkpoint, stored, "nothing is checkpointed beyond the loss");

    let going_on = world.start(world.builder("going-on", &SimEnv::new(3, world.env.timestamp())));
    world.until("the rest is read", secs(5), || world.log.distinct() == 15).await;
    let status = going_on.handle.status();
    assert_eq!(status.shards[0].data_loss.as_ref(), Some(&**loss));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_shard_whose_last_record_aged_out_is_not_suspected_of_a_loss() {
    // Read and renewed rarely, so that 30 virtual hours are few steps.
    let mut world = World::new(1);
    let mut limits = ReadLimits::POLLING;
    limits.reads_per_second = Some(0.1);
    world.stream = world.stream.with_read_limits(limits);
    world.put(10, 5);
    let calm = world.builder("first", &SimEnv::new(1, START)).lease_duration(secs(100)).discovery_interval(secs(50));
    let worker = world.start(calm);
    world.until_all_seen(secs(50)).await;
    world.env.sleep(secs(30 * 3600)).await;
    worker.stop().await.expect("a clean stop");
    world.env.sleep(secs(10 * 3600)).await;
    world.put(5, 5);
    let second = world.builder("second", &SimEnv::new(2, world.env.timestamp())).lease_duration(secs(100));
    let second = world.start(second.on_data_loss(OnDataLoss::Stop));
    world.until_all_seen(secs(50)).await;
    assert_eq!(second.handle.status().shards[0].data_loss, None);
    second.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_was_trimmed_whole_is_reported_and_its_children_go_on() {
    let world = World::new(1).with_script(|_, number, _| match number {
        0..9 => Reaction::Fine,
        _ => Reaction::Take(millis(1)),
    });
    world.put(10, 5);
    let worker = world.start(
        world.builder("first", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(1)),
    );
    world.until_all_seen(secs(5)).await;
    worker.stop().await.expect("a clean stop");
    split(&world, &open_shards(&world)[0]);
    world.env.sleep(secs(25 * 3600)).await;
    world.put(20, 20);
    let second = world.start(world.builder("second", &SimEnv::new(2, world.env.timestamp())));
    world.until_all_seen(secs(70)).await;
    // Not before two syncs have seen that it may go.
    world.env.sleep(secs(130)).await;
    second.stop().await.expect("a clean stop");
    assert!(!world.leases().await.iter().any(|lease| lease.key.as_str() == "shardId-000000000000"), "cleaned up");
}
