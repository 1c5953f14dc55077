//! Aggregated records: every user record by itself, checkpoints inside them, and those that cannot be read.

mod common;

use std::sync::{Arc, Mutex};

use common::{Reaction, START, World, secs};
use shardwell_consumer::{
    Batch, DeliveryPolicy, InitialPosition, LaneContext, OnUndecodable, Outcome, ProcessError, RangePolicy,
    RecordProcessor, Worker, WorkerBuilder, WorkerError, async_trait,
};
use shardwell_core::{Bytes, Checkpoint, EnvExt};
use shardwell_sim::SimEnv;

#[tokio::test(start_paused = true)]
async fn user_records_arrive_one_by_one_and_in_order() {
    let world = World::new(1);
    world.put_aggregated(1000, 20, 37);
    world.put(10, 5);
    world.put_aggregated(100, 20, 1);
    let worker = world.start_default("w");
    world.until_all_seen(secs(10)).await;
    assert_eq!(world.log.numbers(), (0..1110).collect::<Vec<_>>());
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_restart_inside_an_aggregated_record_delivers_exactly_the_rest() {
    for stop_after in [1, 9, 10, 11, 25, 39] {
        let world = World::new(1).with_script(|_, _, _| Reaction::Take(secs(1)));
        world.put_aggregated(40, 4, 10);
        let first = world.start(
            world.builder("first", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(1)),
        );
        world.until("it is far enough", secs(60), || world.log.distinct() == stop_after).await;
        first.stop().await.expect("a clean stop");
        let done = world.log.distinct();
        let Checkpoint::At(position) = world.leases().await.remove(0).checkpoint else { panic!("it has a position") };
        assert_eq!(position.sub_sequence_number, (done as u64 - 1) % 10, "{done} are done");
        let second = world.start(world.builder("second", &SimEnv::new(2, START)));
        world.until_all_seen(secs(100)).await;
        assert_eq!(world.log.numbers(), (0..40).collect::<Vec<_>>(), "stopped after {done}");
        second.stop().await.expect("a clean stop");
    }
}

#[tokio::test(start_paused = true)]
async fn user_records_outside_of_their_shard_are_delivered_unless_told_otherwise() {
    // Aggregated without regard to shards, so of each record about half belongs elsewhere.
    for (policy, all) in [(RangePolicy::DeliverAll, true), (RangePolicy::FilterRecords, false)] {
        let world = World::new(2);
        world.put_aggregated(100, 50, 20);
        let worker = world.start(world.builder("w", &SimEnv::new(1, START)).range_policy(policy));
        world.env.sleep(secs(5)).await;
        let seen = world.log.distinct();
        assert!(if all { seen == 100 } else { seen > 10 && seen < 90 }, "{policy:?}: {seen}");
        worker.stop().await.expect("a clean stop");
    }
}

/// Magic, a body that is no message, and the right digest.
const BROKEN: &[u8] = b"\xf3\x89\x9a\xc2\xff\x00\xe0\xe8\xbf\xaf\xbb\x06\x89\x56\x3b\x2f\xba\x78\x9c\x97\xb3\xcc";

#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Vec<Bytes>>>);

#[async_trait]
impl RecordProcessor for Keep {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        self.0.lock().map_err(|_| "poisoned")?.extend(batch.into_iter().map(|record| record.data.clone()));
        Ok(Outcome::Done)
    }
}

fn keeping(world: &World, keep: &Keep) -> WorkerBuilder {
    let keep = keep.clone();
    Worker::builder("test", world.stream.clone(), world.store.clone(), move |_: &LaneContext| keep.clone())
        .env(Arc::new(SimEnv::new(1, START)))
        .initial_position(InitialPosition::TrimHorizon)
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_delivered_as_it_is_or_stops_the_worker() {
    let (world, keep) = (World::new(1), Keep::default());
    world.put(3, 1);
    world.stream.append("key", BROKEN).expect("the stream takes it");
    let strict = world
        .start(keeping(&world, &keep).delivery(DeliveryPolicy::default().with_on_undecodable(OnUndecodable::Fail)));
    let error = strict.ended().await.expect_err("it stops");
    assert!(matches!(error, WorkerError::Undecodable { .. }), "{error:?}");
    assert!(error.to_string().contains("claims to be aggregated and cannot be read"), "{error}");

    let lenient = world.start(keeping(&world, &keep));
    let seen = || keep.0.lock().expect("not poisoned").clone();
    world.until("it is delivered", secs(20), || seen().iter().any(|data| data == BROKEN)).await;
    lenient.stop().await.expect("a clean stop");
}
