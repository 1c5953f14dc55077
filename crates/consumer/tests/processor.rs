//! The calls to a processor beside `process`: made again when they fail, and listened to.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use common::{START, World, millis, secs};
use shardwell_consumer::{
    Batch, BuildError, Checkpointer, DeliveryPolicy, InitialPosition, LaneContext, Outcome, ProcessError,
    RecordProcessor, Start, Worker, WorkerBuilder, async_trait,
};
use shardwell_core::memory::{MemoryLeaseStore, MemoryStream};
use shardwell_core::{Checkpoint, Env, EnvExt, ExtendedSequenceNumber};
use shardwell_sim::SimEnv;

/// Keeps its own position, as a sink with transactions does, and fails its first calls.
#[derive(Clone, Default)]
struct Sink {
    position: Arc<Mutex<Option<ExtendedSequenceNumber>>>,
    seen: Arc<Mutex<Vec<ExtendedSequenceNumber>>>,
    initialized: Arc<AtomicU32>,
    ended: Arc<AtomicU32>,
}

#[async_trait]
impl RecordProcessor for Sink {
    async fn initialize(&mut self, _: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        if self.initialized.fetch_add(1, Ordering::Relaxed) < 2 {
            return Err("not connected yet".into());
        }
        Ok(self.position.lock().map_err(|_| "poisoned")?.map(Checkpoint::At))
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        self.seen.lock().map_err(|_| "poisoned")?.extend(batch.into_iter().map(|record| record.position));
        Ok(Outcome::Done)
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        match self.ended.fetch_add(1, Ordering::Relaxed) {
            0 => Err("not flushed yet".into()),
            1 => panic!("flushing upset me"),
            _ => Ok(()),
        }
    }
}

fn builder(world: &World, sink: &Sink) -> WorkerBuilder {
    let sink = sink.clone();
    Worker::builder("test", world.stream.clone(), world.store.clone(), move |_: &LaneContext| sink.clone())
        .env(Arc::new(SimEnv::new(1, START)))
        .initial_position(InitialPosition::TrimHorizon)
}

fn seen(sink: &Sink) -> Vec<ExtendedSequenceNumber> {
    sink.seen.lock().expect("not poisoned").clone()
}

#[tokio::test(start_paused = true)]
async fn a_position_from_the_processor_wins_over_the_checkpoint_and_moves_nothing_backwards() {
    let (world, sink) = (World::new(1), Sink::default());
    world.put(10, 1);
    let first = world.start(builder(&world, &sink));
    world.until("all are seen", secs(5), || seen(&sink).len() == 10).await;
    first.stop().await.expect("a clean stop");
    let stored = world.leases().await.remove(0).checkpoint;
    let all = seen(&sink);
    assert_eq!(stored, Checkpoint::At(all[9]));

    // The sink lost its last three commits.
    *sink.position.lock().expect("not poisoned") = Some(all[6]);
    let second = world.start(builder(&world, &sink));
    world.until("three come again", secs(5), || seen(&sink).len() == 13).await;
    assert_eq!(seen(&sink)[10..], all[7..]);
    world.env.sleep(secs(5)).await;
    assert_eq!(world.leases().await.remove(0).checkpoint, stored);
    second.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_waits_for_the_processor() {
    let (world, sink) = (World::new(1), Sink::default());
    world.put(10, 5);
    let worker = world.start(builder(&world, &sink));
    world.until("all are seen", secs(5), || seen(&sink).len() == 10).await;
    world.stream.split(&"shardId-000000000000".into(), 1 << 127).expect("it splits");
    let deadline = world.env.now().plus(secs(5));
    while sink.ended.load(Ordering::Relaxed) < 3 {
        assert!(world.env.now() < deadline, "the processor is told until it has answered");
        assert_ne!(world.leases().await.remove(0).checkpoint, Checkpoint::ShardEnd);
        world.env.sleep(millis(1)).await;
    }
    world.env.sleep(millis(500)).await;
    assert_eq!(world.leases().await.len(), 3);
    assert_eq!(world.leases().await.remove(0).checkpoint, Checkpoint::ShardEnd);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_be_is_not_built() {
    let env: Arc<dyn Env> = Arc::new(SimEnv::new(1, START));
    let stream = MemoryStream::create(env.clone(), "flights", 1).expect("a new stream");
    let build = |application: &str, change: fn(WorkerBuilder) -> WorkerBuilder| {
        let store = MemoryLeaseStore::new();
        let builder = Worker::builder(application, stream.clone(), store, |_: &LaneContext| Sink::default());
        change(builder.env(env.clone())).build()
    };
    assert!(build("app", |builder| builder).is_ok());
    assert!(matches!(build("", |builder| builder), Err(BuildError::Invalid(_))));
    let error =
        build("app", |builder| builder.delivery(DeliveryPolicy::default().with_batch_bytes(10)).max_buffered_bytes(9))
            .expect_err("refused");
    assert!(error.to_string().contains("batch_bytes (10) is above max_buffered_bytes (9)"), "{error}");
}
