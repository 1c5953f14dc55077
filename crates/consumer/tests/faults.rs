//! A lease table that refuses, loses replies and hangs: leases hold as long as they can, and nothing is lost.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Event, Reaction, START, World, millis, secs};
use shardwell_consumer::DeliveryPolicy;
use shardwell_core::{Checkpoint, EnvExt, Lease};
use shardwell_sim::{Fault, SimEnv};

/// A world whose calls of `method` meet `fault` whenever `when` says so of their running number.
fn world(method: &'static str, fault: Fault, when: impl Fn(u64) -> bool + Send + Sync + 'static) -> World {
    let mut world = World::new(4).with_script(|_, _, _| Reaction::Take(millis(20)));
    let calls = AtomicU64::new(0);
    world.faults = Arc::new(move |called| {
        let hit = called == method && when(calls.fetch_add(u64::from(called == method), Ordering::Relaxed));
        if hit { fault } else { Fault::None }
    });
    world
}

async fn survives(world: World) {
    world.put(4000, 40);
    let worker = world
        .start(world.builder("w", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(10)));
    world.until_all_seen(secs(300)).await;
    let lost = world.log.events().iter().filter(|event| matches!(event, Event::LeaseLost { .. })).count();
    assert_eq!(lost, 0, "every lease was held throughout");
    assert_eq!(world.log.numbers().len(), 4000, "nothing came twice");
    worker.stop().await.expect("a clean stop");
    let leases = world.leases().await;
    assert!(leases.iter().all(|lease: &Lease| lease.owner.is_none() && matches!(lease.checkpoint, Checkpoint::At(_))));
}

#[tokio::test(start_paused = true)]
async fn two_of_three_renewals_lose_their_reply() {
    survives(world("renew", Fault::LoseReply, |call| call % 3 != 2)).await;
}

#[tokio::test(start_paused = true)]
async fn two_of_three_renewals_are_throttled() {
    survives(world("renew", Fault::Refuse, |call| call % 3 != 2)).await;
}

#[tokio::test(start_paused = true)]
async fn every_other_renewal_hangs() {
    survives(world("renew", Fault::Hang, |call| call % 2 == 0)).await;
}

#[tokio::test(start_paused = true)]
async fn claims_lose_their_reply() {
    survives(world("assign", Fault::LoseReply, |call| call % 2 == 0)).await;
}

#[tokio::test(start_paused = true)]
async fn listings_hang() {
    survives(world("leases", Fault::Hang, |call| call > 2 && call % 2 == 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_down_at_the_start_is_waited_for() {
    survives(world("prepare", Fault::Refuse, |call| call < 5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_that_stays_away_costs_the_leases_and_no_record() {
    let world = world("renew", Fault::Refuse, |call| (3..60).contains(&call));
    world.put(4000, 40);
    let worker = world
        .start(world.builder("w", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(10)));
    world.until_all_seen(secs(300)).await;
    let lost = world.log.events().iter().filter(|event| matches!(event, Event::LeaseLost { .. })).count();
    assert!(lost >= 4, "nobody processes on a lease that was not renewed");
    world.log.assert_key_order();
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_loses_its_reply_is_over_all_the_same() {
    let world = world("evict", Fault::LoseReply, |call| call % 2 == 0);
    world.put(100, 10);
    let worker = world.start_default("w");
    world.until_all_seen(secs(60)).await;
    worker.stop().await.expect("a clean stop");
    assert!(world.leases().await.iter().all(|lease| lease.owner.is_none()));
    world.env.sleep(secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_table_in_trouble_is_not_hammered_by_a_checkpoint_that_waits() {
    let processing = Arc::new(AtomicBool::new(false));
    let begun = processing.clone();
    let mut world = World::new(1).with_script(move |_, _, _| {
        begun.store(true, Ordering::Relaxed);
        Reaction::Take(millis(20))
    });
    let renewals = Arc::new(AtomicU64::new(0));
    let counted = renewals.clone();
    world.faults = Arc::new(move |method| match method {
        "renew" if processing.load(Ordering::Relaxed) => {
            counted.fetch_add(1, Ordering::Relaxed);
            Fault::Refuse
        }
        _ => Fault::None,
    });
    world.put(20, 1);
    let worker = world
        .start(world.builder("w", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(10)));
    world.until_all_seen(secs(5)).await;
    // The stop asks for the checkpoint at once, and waits until the lease is not trusted any more.
    worker.stop().await.expect("a stop");
    let calls = renewals.load(Ordering::Relaxed);
    assert!((2..=40).contains(&calls), "{calls} renewals in the nine seconds that the lease was trusted");
}
