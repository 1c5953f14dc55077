//! Workers stop gracefully.

use std::time::Duration;

use futures_util::future::join_all;
use shardwell_core::WorkerId;

use crate::report;
use crate::runs::{RUNS, over_seeds};
use crate::world::{Member, Who, World, take};

struct Stopped {
    /// For every shard that moved, how long nobody processed it.
    gaps: Vec<Duration>,
    /// Until the workers had stopped.
    time: Duration,
    /// Until the next worker led, and planned.
    next_plan: Option<Duration>,
}

pub(crate) fn measure() {
    report::title("A graceful stop of one of 4 workers, 32 shards");
    let cases: [(&str, &[Who]); 3] = [
        ("not the leader", &[Who::Other]),
        ("the leader", &[Who::Leader]),
        ("two at once", &[Who::Leader, Who::Other]),
    ];
    for (name, who) in cases {
        let runs = over_seeds(RUNS, |seed| stop(seed, who));
        let gaps = runs.iter().flat_map(|run| run.gaps.iter().copied());
        report::seconds(&format!("{name}: each moved shard without processing"), gaps, "1 + a read", "20-50");
        let longest = runs.iter().filter_map(|run| run.gaps.iter().copied().max());
        report::seconds(&format!("{name}: the longest of a run"), longest, "1 + a read", "20-50");
        report::seconds(&format!("{name}: until stopped"), runs.iter().map(|run| run.time), "", "");
        if who.contains(&Who::Leader) {
            let plans = runs.iter().filter_map(|run| run.next_plan);
            report::seconds(&format!("{name}: until the next leader plans"), plans, "", "");
        }
    }
}

async fn stop(seed: u64, who: &[Who]) -> Stopped {
    let world = World::new(seed, 32);
    let mut fleet = world.fleet(4).await;
    let feeding = world.feed();
    world.some_time().await;
    let leavers: Vec<Member> = who.iter().map(|who| take(&mut fleet, *who)).collect();
    let gone: Vec<WorkerId> = leavers.iter().map(|leaver| leaver.id.clone()).collect();
    let leases: usize = gone.iter().map(|leaver| world.load(leaver)).sum();
    let at = world.now();
    join_all(leavers.into_iter().map(Member::stop)).await;
    let time = world.now().since(at);
    world.until_all_processed(at, &gone).await;
    world.stop_feeding(feeding).await;
    let gaps: Vec<Duration> = world.log.moves_since(at).into_iter().map(|gap| gap.length).collect();
    assert!(gaps.len() >= leases, "every lease of those who left moved");
    world.until("somebody leads", || fleet.iter().any(|member| member.handle.status().leads)).await;
    let next_plan = who.contains(&Who::Leader).then(|| world.journal.next_plan(at, &gone)).flatten();
    Stopped { gaps, time, next_plan: next_plan.map(|plan| plan.since(at)) }
}
