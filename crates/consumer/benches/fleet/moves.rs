//! How many leases move when a worker joins or leaves, and what is delivered twice because of that.

use std::time::Duration;

use crate::report;
use crate::runs::{RUNS, over_seeds};
use crate::world::{Who, World, take};

/// Fleets: workers and leases.
const FLEETS: [(usize, u32); 4] = [(2, 9), (4, 32), (7, 50), (10, 64)];

/// By then a fleet is at rest again.
const REST: Duration = Duration::from_secs(20);

/// How long a processor takes for a batch, so that batches run while leases move.
const WORK: Duration = Duration::from_millis(50);

/// What became of a fleet.
struct Changed {
    moves: usize,
    minimum: usize,
}

pub(crate) fn measure() {
    report::title("Moves when a worker joins, and when one leaves gracefully");
    for (workers, leases) in FLEETS {
        let runs = over_seeds(RUNS, |seed| join_and_leave(seed, workers, leases));
        let joins = runs.iter().map(|(join, _)| join);
        let leaves = runs.iter().map(|(_, leave)| leave);
        let what = format!("{workers} workers, {leases} leases, one joins");
        report::count(&what, joins.clone().map(|join| join.moves as u64), &minimum(joins), "");
        let what = format!("{} workers, {leases} leases, one leaves", workers + 1);
        report::count(&what, leaves.clone().map(|leave| leave.moves as u64), &minimum(leaves.clone()), "");
        let beyond = leaves.map(|leave| leave.moves.saturating_sub(leave.minimum) as u64);
        report::count("  beyond the minimum", beyond, "0", "");
    }
}

/// The minimum of moves, in words.
fn minimum<'a>(changes: impl Iterator<Item = &'a Changed> + Clone) -> String {
    let minima = changes.map(|change| change.minimum);
    match (minima.clone().min(), minima.max()) {
        (Some(min), Some(max)) if min == max => format!("{min}"),
        (Some(min), Some(max)) => format!("{min}-{max}"),
        _ => String::new(),
    }
}

async fn join_and_leave(seed: u64, workers: usize, leases: u32) -> (Changed, Changed) {
    let world = World::new(seed, leases);
    let mut fleet = world.fleet(workers).await;
    let at = world.now();
    fleet.push(world.start());
    world.sleep(REST).await;
    let joined = Changed { moves: world.journal.assigned_since(at), minimum: leases as usize / fleet.len() };
    world.some_time().await;
    let who = if seed.is_multiple_of(2) { Who::Leader } else { Who::Other };
    let leaver = take(&mut fleet, who);
    let minimum = world.load(&leaver.id);
    let at = world.now();
    leaver.stop().await;
    world.sleep(REST).await;
    (joined, Changed { moves: world.journal.assigned_since(at), minimum })
}

/// A change that the fleet plans for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planned {
    Join,
    Drain,
    Stop,
}

pub(crate) fn measure_duplicates() {
    report::title("Planned moves under continuous load, 4 workers, 32 shards, 50 ms of work for each batch");
    for (change, name) in [(Planned::Join, "join"), (Planned::Drain, "drain"), (Planned::Stop, "graceful stop")] {
        let runs = over_seeds(RUNS, |seed| duplicates(seed, change));
        report::count(&format!("{name}: moves"), runs.iter().map(|(moves, _, _)| *moves as u64), "", "");
        report::count(&format!("{name}: records delivered twice"), runs.iter().map(|(_, twice, _)| *twice), "0", "");
        let longest = runs.iter().map(|(_, _, longest)| *longest);
        report::seconds(&format!("{name}: longest without processing"), longest, "1 + a read", "");
    }
}

/// Moves, records delivered twice, and the longest gap of a shard that moved.
async fn duplicates(seed: u64, change: Planned) -> (usize, u64, Duration) {
    let world = World::new(seed, 32).with_work(WORK);
    let mut fleet = world.fleet(4).await;
    let feeding = world.feed();
    world.some_time().await;
    let at = world.now();
    let who = if seed.is_multiple_of(2) { Who::Leader } else { Who::Other };
    let member = if change == Planned::Join { world.start() } else { take(&mut fleet, who) };
    let id = member.id.clone();
    match change {
        Planned::Stop => member.stop().await,
        Planned::Join | Planned::Drain => fleet.push(member),
    }
    if change == Planned::Drain {
        world.drain(&id);
    }
    world.sleep(REST).await;
    assert_eq!(world.load(&id) > 0, change == Planned::Join, "what was planned was done");
    world.stop_feeding(feeding).await;
    let gaps = world.log.moves_since(at).into_iter().map(|gap| gap.length);
    (world.journal.assigned_since(at), world.log.duplicates(), gaps.max().unwrap_or_default())
}
