//! A worker joins.

use std::time::Duration;

use shardwell_core::Monotonic;

use crate::report;
use crate::runs::{RUNS, over_seeds};
use crate::world::World;

struct Joined {
    /// Until it had its share.
    share: Duration,
    /// Until every shard that moved was processed by it.
    processed: Duration,
    /// For every shard that moved, how long nobody processed it.
    gaps: Vec<Duration>,
}

pub(crate) fn measure() {
    report::title("A fifth worker joins 4, 32 shards");
    let runs = over_seeds(RUNS, join);
    let rounds = "6 + handoff 3.3";
    report::seconds("until it has its share of the leases", runs.iter().map(|run| run.share), rounds, "minutes");
    let processed = runs.iter().map(|run| run.processed);
    report::seconds("until it processes every shard of its share", processed, "", "minutes");
    let gaps = runs.iter().flat_map(|run| run.gaps.iter().copied());
    report::seconds("without processing, each moved shard", gaps, "1 + a read", "");
}

async fn join(seed: u64) -> Joined {
    let world = World::new(seed, 32);
    let fleet = world.fleet(4).await;
    let feeding = world.feed();
    world.some_time().await;
    let share = world.shards() / (fleet.len() + 1);
    let at = world.now();
    let joiner = world.start();
    world.until("it has its share", || world.load(&joiner.id) >= share).await;
    let has_share = world.now().since(at);
    let moved_to_it = |gaps: &[crate::log::Gap]| gaps.iter().filter(|gap| gap.to == joiner.id).count();
    world.until("it processes its share", || moved_to_it(&world.log.moves_since(at)) >= share).await;
    world.stop_feeding(feeding).await;
    let moves = world.log.moves_since(at);
    let processed: Monotonic = moves.iter().map(|gap| gap.until).max().expect("some moved");
    Joined { share: has_share, processed: processed.since(at), gaps: moves.into_iter().map(|gap| gap.length).collect() }
}
