//! Records reach the processor once and in order, whatever fails on the way.

mod common;

use common::{Event, Reaction, World, millis, secs};
use shardwell_consumer::{DeliveryPolicy, ShardState, WorkerPhase};
use shardwell_core::{Checkpoint, EnvExt};
use shardwell_sim::SimEnv;

#[tokio::test(start_paused = true)]
async fn every_record_arrives_once_and_in_order_and_is_checkpointed() {
    let world = World::new(4);
    world.put(2000, 50);
    let worker = world.start_default("w");
    world.until_all_seen(secs(10)).await;
    world.log.assert_key_order();
    assert_eq!(world.log.numbers().len(), 2000, "nothing came twice");
    worker.stop().await.expect("a clean stop");
    for lease in world.leases().await {
        assert!(matches!(lease.checkpoint, Checkpoint::At(_)), "{lease:?}");
        assert_eq!(lease.owner, None, "released");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_record_of_an_empty_application_arrives_within_a_second() {
    let world = World::new(4);
    world.put(1, 1);
    let _worker = world.start_default("w");
    world.until_all_seen(millis(200)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_right_after_the_checkpoint() {
    let world = World::new(2);
    world.put(500, 20);
    let first = world.start_default("first");
    world.until_all_seen(secs(10)).await;
    first.stop().await.expect("a clean stop");
    world.put(500, 20);
    let second = world.start_default("second");
    world.until_all_seen(millis(500)).await;
    assert_eq!(world.log.numbers().len(), 1000, "a planned move delivers nothing twice");
    world.log.assert_key_order();
    second.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_failed_batch_comes_again_until_it_is_done() {
    let world = World::new(1).with_script(|_, number, attempt| match (number, attempt) {
        (150, 1..=5) => Reaction::Fail,
        (250, 1..=2) => Reaction::Panic,
        _ => Reaction::Fine,
    });
    world.put(400, 7);
    let worker = world.start(
        world
            .builder("w", &SimEnv::new(1, common::START))
            .delivery(DeliveryPolicy::default().with_batch_records(100).with_bisect(false)),
    );
    world
        .until("it fails", secs(10), || {
            worker.handle.status().shards.iter().any(|shard| {
                shard.state == ShardState::Retrying
                    && shard.failures > 0
                    && shard.last_error.as_deref() == Some("record 150 is not to my taste")
            })
        })
        .await;
    world.until_all_seen(secs(60)).await;
    world.log.assert_key_order();
    let initialized = world.log.events().iter().filter(|e| matches!(e, Event::Initialized { .. })).count();
    assert_eq!(initialized, 3, "a processor that panicked is made anew");
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_shard_neither_breaks_the_budget_nor_slows_the_others() {
    // One shard of sixteen takes an hour for its first record.
    let world = World::new(16);
    let stalled = world.stream.shards(&shardwell_core::ShardFilter::All).expect("shards")[0].hash_key_range;
    let world = world.with_script(move |record, _, _| {
        let key = record.partition_key.as_ref().expect("a key").as_str().as_bytes().to_vec();
        let stuck = stalled.contains(shardwell_core::hash_key(&key));
        if stuck { Reaction::Take(secs(3600)) } else { Reaction::Fine }
    });
    world.put(20_000, 1000);
    let budget = 400_000;
    let read = budget / 16 + 2000;
    let builder = world.builder("w", &SimEnv::new(1, common::START));
    let worker =
        world.start(builder.max_buffered_bytes(budget).delivery(DeliveryPolicy::default().with_batch_bytes(10_000)));
    let seen_keys =
        |log: &common::Log| log.events().iter().filter(|event| matches!(event, Event::Record { .. })).count();
    let others = (0..20_000u64)
        .filter(|n| !stalled.contains(shardwell_core::hash_key(format!("key-{}", n % 1000).as_bytes())))
        .count();
    world.until("the other shards are done", secs(60), || seen_keys(&world.log) == others).await;
    let status = worker.handle.status();
    assert!(status.peak_buffered_bytes <= budget + read, "peak {}", status.peak_buffered_bytes);
    assert!(status.peak_buffered_bytes > budget / 16, "the budget was put to use");
    let stuck = status.shards.iter().find(|shard| shard.not_reading.is_some()).expect("one shard does not read");
    assert!(stuck.not_reading.as_deref().is_some_and(|why| why.contains("buffer is full")), "{stuck:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_keeps_the_leases_and_reads_nothing() {
    let world = World::new(2);
    world.put(100, 10);
    let worker = world.start_default("w");
    assert!(worker.handle.ready().await);
    world.until_all_seen(secs(5)).await;
    worker.handle.pause();
    assert_eq!(worker.handle.status().phase, WorkerPhase::Paused);
    world.env.sleep(secs(1)).await;
    world.put(100, 10);
    world.env.sleep(secs(60)).await;
    assert_eq!(world.log.distinct(), 100);
    assert!(world.leases().await.iter().all(|lease| lease.owner.as_ref().is_some_and(|owner| owner.as_str() == "w")));
    worker.handle.resume();
    world.until_all_seen(millis(500)).await;
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_the_running_batch_finish_and_drops_the_rest() {
    let world = World::new(1).with_script(|_, _, _| Reaction::Take(secs(2)));
    world.put(10, 1);
    let worker = world.start(
        world.builder("w", &SimEnv::new(1, common::START)).delivery(DeliveryPolicy::default().with_batch_records(3)),
    );
    world.until("it works", secs(5), || world.log.distinct() == 1).await;
    worker.stop().await.expect("a clean stop");
    assert_eq!(world.log.numbers(), [0, 1, 2]);
    assert!(world.log.events().iter().any(|event| matches!(event, Event::ShutdownRequested { .. })));
    let second = world.start_default("second");
    world.until_all_seen(secs(60)).await;
    assert_eq!(world.log.numbers().len(), 10, "nothing came twice");
    second.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_outlives_the_deadline_is_abandoned_and_comes_again() {
    let world = World::new(1).with_script(|_, number, _| match number {
        1 => Reaction::Take(secs(100)),
        _ => Reaction::Fine,
    });
    world.put(3, 1);
    let builder = world
        .builder("w", &SimEnv::new(1, common::START))
        .delivery(DeliveryPolicy::default().with_batch_records(1))
        .shutdown_deadline(secs(5));
    let worker = world.start(builder);
    world.until("it works", secs(5), || world.log.distinct() == 1).await;
    let before = world.env.now();
    use shardwell_core::Env;
    worker.stop().await.expect("a stop");
    assert!(world.env.now().since(before) < secs(7));
    let second = world.start_default("second");
    world.until_all_seen(secs(200)).await;
    assert_eq!(world.log.numbers(), [0, 1, 2]);
    drop(second);
}
