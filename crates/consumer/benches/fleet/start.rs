//! A fleet starts.

use std::time::Duration;

use crate::report;
use crate::runs::{RUNS, over_seeds};
use crate::world::World;

struct Started {
    /// Until every shard was processed.
    processed: Duration,
    /// Until the load was even and no lease on its way.
    even: Duration,
    /// Leases that were given to somebody and then to somebody else.
    moves: u64,
    duplicates: u64,
}

pub(crate) fn measure() {
    report::title("4 workers start within a second on an empty table, 32 shards");
    let runs = over_seeds(RUNS, start);
    let processed = runs.iter().map(|run| run.processed);
    report::seconds("until every shard is processed", processed, "", "a minute and more");
    report::seconds("until the load is even", runs.iter().map(|run| run.even), "", "");
    report::count("moves after the first assignment", runs.iter().map(|run| run.moves), "", "");
    report::count("records delivered twice", runs.iter().map(|run| run.duplicates), "0", "");
}

async fn start(seed: u64) -> Started {
    let world = World::new(seed, 32);
    let feeding = world.feed();
    let at = world.now();
    let fleet = world.start_all(4).await;
    world.until_all_processed(at, &[]).await;
    let processed = world.log.first_since(at, &[]).into_iter().max().expect("there are shards");
    world.until("the load is even", || world.is_even(&fleet)).await;
    let even = world.now().since(at);
    world.stop_feeding(feeding).await;
    let moves = world.journal.assigned_since(at) - world.shards();
    Started { processed: processed.since(at), even, moves: moves as u64, duplicates: world.log.duplicates() }
}
