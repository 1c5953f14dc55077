//! Our workers beside those of the Java KCL, in one fleet on one lease table. `SHARDWELL_JAVA_CLASSPATH` says where the KCL is;
//! `integration/run` sets it. `SHARDWELL_LONG=1` leaves the KCL its default timings.
#![expect(clippy::disallowed_methods, reason = "what is waited for here happens in other processes")]

mod fleet;
mod log;
mod member;
mod world;

use fleet::{Fleet, Kind};
use member::classpath;
use world::{World, is_long};

/// One process at a time: ours gives to a Java worker, which leads and gives to the next of ours, which takes over.
#[tokio::test(flavor = "multi_thread")]
async fn they_share_and_hand_over_whoever_leads() {
    let Some(classpath) = classpath() else { return };
    let world = World::start(classpath, 8).await;
    let ours = world.ours("ours-1");
    world.until_shared(&[("ours-1", 8)]).await;

    let java = world.java("java-1");
    world.until_shared(&[("ours-1", 4), ("java-1", 4)]).await;
    world.split().await;
    ours.stop().await;
    world.until_shared(&[("java-1", 9)]).await;
    world.until_leads("java-1").await;

    let ours = world.ours("ours-2");
    world.until_shared(&[("ours-2", 3), ("java-1", 3)]).await;
    world.merge().await;
    java.stop().await;
    world.until_shared(&[("ours-2", 8)]).await;
    world.until_leads("ours-2").await;
    world.finish().await;
    assert_eq!(world.log.repeated(), 0, "every move was planned");
    ours.stop().await;
}

/// Processes of both kinds are killed, stopped and started, whoever leads, while shards are split and merged.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whoever_is_killed() {
    let Some(classpath) = classpath() else { return };
    let mut random = fastrand::Rng::with_seed(seed());
    let world = World::start(classpath, 6).await;
    let mut fleet = Fleet::default();
    for kind in [Kind::Java, Kind::Ours, Kind::Java] {
        fleet.join(&world, kind);
    }
    fleet.until_all_have_leases(&world).await;
    let rounds = if is_long() { 12 } else { 3 };
    for round in 0..rounds {
        fleet.lose_one(&world, &mut random, round).await;
        match random.u8(0..4) {
            0 => world.split().await,
            1 => world.merge().await,
            _ => {}
        }
        fleet.join(&world, fleet.rarer(&mut random));
        fleet.until_all_have_leases(&world).await;
    }
    world.finish().await;
    fleet.stop(&world).await;
}

/// What the random choices come from: that of an earlier run, or a new one.
fn seed() -> u64 {
    let seed =
        std::env::var("SHARDWELL_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    println!("SHARDWELL_SEED={seed}");
    seed
}
