//! A worker dies.

use std::time::Duration;

use crate::report;
use crate::runs::{RUNS, over_seeds};
use crate::world::{Who, World, take};

struct Crash {
    /// Until every shard was processed again.
    again: Duration,
    /// Until the next worker led, and planned.
    next_plan: Option<Duration>,
    duplicates: u64,
}

pub(crate) fn measure() {
    report::title("A crash of one of 4 workers, 32 shards (one record each 100 ms in every shard)");
    let other = over_seeds(RUNS, |seed| crash(seed, Who::Other));
    let again = |runs: &[Crash]| runs.iter().map(|run| run.again).collect::<Vec<_>>();
    report::seconds("not the leader: until every shard is processed again", again(&other), "15", "20-50");
    report::count("  records delivered again", other.iter().map(|run| run.duplicates), "", "");
    let leader = over_seeds(RUNS, |seed| crash(seed, Who::Leader));
    report::seconds("the leader: until every shard is processed again", again(&leader), "28", "minutes");
    let plans = leader.iter().filter_map(|run| run.next_plan);
    report::seconds("the leader: until the next leader plans", plans, "13", "150-240");
    report::count("  records delivered again", leader.iter().map(|run| run.duplicates), "", "");
}

async fn crash(seed: u64, who: Who) -> Crash {
    let world = World::new(seed, 32);
    let mut fleet = world.fleet(4).await;
    let feeding = world.feed();
    world.some_time().await;
    let victim = take(&mut fleet, who);
    let gone = [victim.id.clone()];
    let at = world.now();
    victim.crash();
    world.until_all_processed(at, &gone).await;
    let again = world.log.first_since(at, &gone).into_iter().max().expect("there are shards");
    let next_plan = world.journal.next_plan(at, &gone).map(|plan| plan.since(at));
    world.stop_feeding(feeding).await;
    Crash { again: again.since(at), next_plan, duplicates: world.log.duplicates() }
}
