//! Records that kill the process, and processes that die before they have done anything.

mod common;

use common::{Reaction, World, millis, secs};
use shardwell_consumer::{DeliveryPolicy, InitialPosition};
use shardwell_core::EnvExt;
use shardwell_core::dead_letter::DeadReason;

/// Starts one process after the other until nothing is left to do. Answers how many died.
async fn run_until_settled(world: &World, policy: &DeliveryPolicy) -> u64 {
    let put = usize::try_from(world.put_so_far()).expect("a small number");
    for died in 0..60 {
        let process = world.process(died);
        let builder = world.builder(&format!("w{died}"), &process).dead_letters(world.letters.clone());
        let worker = world.start(builder.delivery(policy.clone()).lease_duration(secs(3)));
        for _ in 0..3000 {
            world.env.sleep(millis(10)).await;
            if world.log.distinct() + world.dead_numbers().await.len() == put {
                worker.stop().await.expect("a clean stop");
                return died;
            }
        }
        drop(worker);
    }
    panic!("it does not come to an end; dead: {:?}", world.dead_numbers().await);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_kills_the_process_is_dead_after_some_restarts_and_nothing_else_is() {
    for lanes in [1, 8] {
        let world = World::new(4).with_script(|_, number, _| match number {
            250 => Reaction::Die,
            _ => Reaction::Fine,
        });
        world.put(1000, 100);
        let policy = DeliveryPolicy::default().with_lanes(lanes).with_batch_records(100);
        let died = run_until_settled(&world, &policy).await;
        assert_eq!(world.dead_numbers().await, [250]);
        assert_eq!(world.dead().await[0].1.letter.reason, DeadReason::CrashLoop);
        assert!((4..=10).contains(&died), "{died} processes died, with {lanes} lanes");
        world.log.assert_key_order();
    }
}

/// That a record was condemned and buried is stored before the next one, of which the process dies at once, is tried: else
/// nothing would ever be known of that one.
#[tokio::test(start_paused = true)]
async fn of_two_records_in_a_row_that_kill_the_process_both_die() {
    let world = World::new(1).with_script(|_, number, _| match number {
        0 | 1 => Reaction::Die,
        _ => Reaction::Fine,
    });
    world.put(20, 5);
    let policy = DeliveryPolicy::default().with_batch_records(1);
    let died = run_until_settled(&world, &policy).await;
    assert_eq!(world.dead_numbers().await, [0, 1]);
    assert!(died <= 16, "{died} processes died");
}

#[tokio::test(start_paused = true)]
async fn processes_that_are_killed_for_other_reasons_cost_no_record() {
    let world = World::new(4).with_script(|_, _, _| Reaction::Take(millis(40)));
    world.put(600, 50);
    let policy = DeliveryPolicy::default().with_batch_records(20);
    for round in 0..12u64 {
        let process = world.process(round);
        let builder = world.builder(&format!("w{round}"), &process).dead_letters(world.letters.clone());
        let worker = world.start(builder.delivery(policy.clone()).lease_duration(secs(1)));
        // Long enough to take the leases over and to begin, too short to store any progress.
        world.env.sleep(millis(1400 + 37 * round)).await;
        process.crash();
        drop(worker);
    }
    run_until_settled(&world, &policy).await;
    assert_eq!(world.dead_numbers().await, [0u64; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_nobody_has_done_anything_yet_is_not_missed() {
    let world = World::new(2).with_script(|_, number, attempt| match (number, attempt) {
        (0, 1) => Reaction::Fail,
        _ => Reaction::Fine,
    });
    let process = world.process(1);
    let first = world.start(world.builder("first", &process).initial_position(InitialPosition::Latest));
    assert!(first.handle.ready().await);
    // It dies with the first record at hand.
    process.freeze();
    world.put(20, 10);
    process.crash();
    drop(first);
    world.env.sleep(secs(30)).await;
    world.put(20, 10);
    let second = world.builder("second", &world.process(2)).initial_position(InitialPosition::Latest);
    let second = world.start(second);
    world.until_all_seen(secs(60)).await;
    second.stop().await.expect("a clean stop");
}
