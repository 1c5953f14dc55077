//! Lanes: order within a key, and many batches of a shard at once.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Reaction, World, millis, secs};
use shardwell_consumer::DeliveryPolicy;
use shardwell_core::{Env, EnvExt};

fn lanes(lanes: u32) -> DeliveryPolicy {
    DeliveryPolicy::default().with_lanes(lanes).with_batch_records(10)
}

#[tokio::test(start_paused = true)]
async fn many_lanes_of_one_shard_work_at_once_and_keys_stay_in_order() {
    let world = World::new(1).with_script(|_, _, _| Reaction::Take(millis(10)));
    world.put(1600, 640);
    let begun = world.env.now();
    let worker = world.start(world.builder("w", &world.process(1)).delivery(lanes(64)));
    world.until_all_seen(secs(60)).await;
    let took = world.env.now().since(begun);
    assert!(took < secs(2), "one after the other it would be 16 s: {took:?}");
    world.log.assert_key_order();
    assert_eq!(world.log.numbers().len(), 1600, "nothing came twice");
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_key_holds_up_its_lane_alone() {
    let stuck = Arc::new(AtomicBool::new(true));
    let is_stuck = stuck.clone();
    let world = World::new(1).with_script(move |_, number, _| match number {
        5 if is_stuck.load(Ordering::Relaxed) => Reaction::Fail,
        _ => Reaction::Fine,
    });
    world.put(3000, 500);
    let worker = world.start(world.builder("w", &world.process(1)).delivery(lanes(16)));
    world.until("the other lanes are through", secs(60), || world.log.distinct() > 2600).await;
    let status = worker.handle.status();
    assert!(status.shards[0].failures > 0, "{:?}", status.shards);
    stuck.store(false, Ordering::Relaxed);
    world.until_all_seen(secs(61)).await;
    world.log.assert_key_order();
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn what_is_finished_beyond_the_checkpoint_is_not_delivered_again_after_a_restart() {
    let stuck = Arc::new(AtomicBool::new(true));
    let is_stuck = stuck.clone();
    let world = World::new(1).with_script(move |_, number, _| match number {
        5 if is_stuck.load(Ordering::Relaxed) => Reaction::Fail,
        _ => Reaction::Fine,
    });
    world.put(1000, 200);
    for (round, crash) in [(1, false), (2, true), (3, false)] {
        let process = world.process(round);
        let builder = world.builder(&format!("w{round}"), &process).delivery(lanes(16));
        let worker = world.start(builder.lease_duration(secs(3)));
        world.until("the other lanes are through", secs(60), || world.log.distinct() > 900).await;
        world.env.sleep(secs(10)).await;
        if crash {
            process.crash();
            drop(worker);
        } else {
            worker.stop().await.expect("a clean stop");
        }
    }
    stuck.store(false, Ordering::Relaxed);
    // Another number of lanes, too.
    let worker = world.start(world.builder("last", &world.process(9)).delivery(lanes(5)));
    world.until_all_seen(secs(61)).await;
    assert_eq!(world.log.numbers().len(), 1000, "nothing came twice");
    world.log.assert_key_order();
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_a_shard_every_lane_is_done_before_the_children_begin() {
    let world = World::new(1).with_script(|_, _, _| Reaction::Take(millis(3)));
    world.put(400, 100);
    let worker = world.start(world.builder("w", &world.process(1)).delivery(lanes(8)));
    world.until("some are seen", secs(10), || world.log.distinct() > 50).await;
    world.stream.split(&"shardId-000000000000".into(), 1 << 127).expect("it splits");
    world.put(400, 100);
    world.until_all_seen(secs(60)).await;
    world.log.assert_key_order();
    worker.stop().await.expect("a clean stop");
}
