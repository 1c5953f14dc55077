//! A rolling deploy: every worker of a fleet is replaced, one after another.

use std::time::Duration;

use crate::report;
use crate::runs::{RUNS, over_seeds};
use crate::world::{Member, World};

/// How long a processor takes for a batch, so that batches run while leases are handed over.
const WORK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    NewFirst,
    OldFirst,
}

struct Deployed {
    time: Duration,
    longest_gap: Duration,
    duplicates: u64,
    moves: u64,
}

pub(crate) fn measure() {
    report::title("A rolling deploy of 4 workers, 32 shards, 50 ms of work for each batch");
    for (order, name) in
        [(Order::NewFirst, "new one ready, old one stops"), (Order::OldFirst, "old one stops, new one starts")]
    {
        let runs = over_seeds(RUNS, |seed| deploy(seed, order));
        report::seconds(&format!("{name}: all of it"), runs.iter().map(|run| run.time), "", "");
        let longest = runs.iter().map(|run| run.longest_gap);
        report::seconds(&format!("{name}: longest without processing"), longest, "1 + a read", "20-50");
        report::count(&format!("{name}: moves"), runs.iter().map(|run| run.moves), ">= 32", "");
        report::count(&format!("{name}: records delivered twice"), runs.iter().map(|run| run.duplicates), "0", "");
    }
}

async fn deploy(seed: u64, order: Order) -> Deployed {
    let world = World::new(seed, 32).with_work(WORK);
    let old = world.fleet(4).await;
    let feeding = world.feed();
    world.some_time().await;
    let at = world.now();
    let mut new: Vec<Member> = Vec::new();
    for worker in old {
        match order {
            Order::OldFirst => {
                worker.stop().await;
                new.push(ready(&world).await);
            }
            Order::NewFirst => {
                new.push(ready(&world).await);
                worker.stop().await;
            }
        }
    }
    let time = world.now().since(at);
    world.until("the load is even", || world.is_even(&new)).await;
    world.until_all_processed(world.now(), &[]).await;
    world.stop_feeding(feeding).await;
    let longest_gap = world.log.gaps_since(at).into_iter().map(|gap| gap.length).max().expect("there are batches");
    Deployed { time, longest_gap, duplicates: world.log.duplicates(), moves: world.journal.assigned_since(at) as u64 }
}

/// A new worker, once it is ready.
async fn ready(world: &World) -> Member {
    let worker = world.start();
    assert!(worker.handle.ready().await, "it starts");
    worker
}
