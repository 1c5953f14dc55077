//! What a fleet at rest costs its lease table.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::metered::{Access, Call};
use crate::report;
use crate::runs::over_seeds;
use crate::world::World;

/// How long the calls are counted: everything that is done now and then is done twice at least.
const WINDOW: Duration = Duration::from_secs(120);

/// A fleet at rest differs little from another.
const RUNS: u64 = 20;

const WORKERS: usize = 4;

/// DynamoDB units for each lease and hour, by what the call is.
type Units = BTreeMap<(Access, &'static str), f64>;

pub(crate) fn measure() {
    for (leases, busy) in [(32, false), (32, true), (128, false)] {
        let load = if busy { "records all the time" } else { "no records" };
        let units = "DynamoDB units per lease-hour";
        report::title(&format!("Lease table of {leases} leases and {WORKERS} workers at rest, {load}: {units}"));
        let runs = over_seeds(RUNS, |seed| cost(seed, leases, busy));
        let kinds: BTreeSet<_> = runs.iter().flat_map(|run| run.keys().copied()).collect();
        for kind in &kinds {
            let values: Vec<f64> = runs.iter().map(|run| run.get(kind).copied().unwrap_or(0.0)).collect();
            let kcl = if kind.1 == "renew" { "1087" } else { "" };
            report::row(&format!("{} ({})", kind.1, name(kind.0)), &values, 1, "", kcl);
        }
        let sum = |wanted: fn(Access) -> bool| -> Vec<f64> {
            let of_run = |run: &Units| run.iter().filter(|(kind, _)| wanted(kind.0)).map(|(_, units)| units).sum();
            runs.iter().map(of_run).collect()
        };
        report::row("all write units", &sum(|access| access == Access::Write), 1, "", "");
        report::row("all read units", &sum(|access| access != Access::Write), 1, "", "");
    }
}

const fn name(access: Access) -> &'static str {
    match access {
        Access::Write => "1 a row written",
        Access::Get => "0.5 a row",
        Access::Query => "0.5 a query",
        Access::Scan => "1/16 a row, 0.5 at least",
    }
}

async fn cost(seed: u64, leases: u32, busy: bool) -> Units {
    let world = World::new(seed, leases);
    let _fleet = world.fleet(WORKERS).await;
    let feeding = busy.then(|| world.feed());
    world.some_time().await;
    let at = world.now();
    world.sleep(WINDOW).await;
    let calls = world.journal.since(at);
    drop(feeding);
    per_lease_hour(&calls, f64::from(leases) * WINDOW.as_secs_f64() / 3600.0)
}

fn per_lease_hour(calls: &[Call], lease_hours: f64) -> Units {
    let mut units = Units::new();
    for call in calls {
        *units.entry((call.access, call.method)).or_default() += call.units() / lease_hours;
    }
    units
}
