//! A fleet of worker processes that share 32 shards by a lease table in SQLite, while processes are killed, paused, stopped
//! and started.
//!
//! `SHARDWELL_LONG=1` runs at full length: as many flights as a year has. `SHARDWELL_FLIGHTS` names a file of them, one JSON
//! object in each line, gzipped or not; without it the flights of a week come again and again. `SHARDWELL_SEED` repeats the
//! random choices of an earlier run. Needs `python3`, whose standard library has SQLite.

mod common;
mod flights;
mod workers;

use std::time::Duration;

use shardwell_core::{EnvExt, Monotonic, WriteToken};

use common::{PATIENCE, long, say, seed, until};
use workers::deliveries::Ledger;
use workers::faults::Fleet;
use workers::member::{End, Member};
use workers::{Settings, World};

/// So many of 2013 left New York City.
const FLIGHTS_OF_A_YEAR: usize = 336_776;

const FLIGHTS_OF_A_WEEK: usize = 6_099;

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_which_processes_are_killed_paused_stopped_and_started() {
    let mut random = fastrand::Rng::with_seed(seed("fleet"));
    let (count, seconds, pause) = if long() { (FLIGHTS_OF_A_YEAR, 480.0, 800) } else { (FLIGHTS_OF_A_WEEK, 22.0, 600) };
    let (path, file) = flights::file();
    let flights = flights::plan(&file, count, &[], 0..count, &mut random);
    let mut world = World::start(flights, settings(32, count as f64 / seconds), random.u64(..)).await;
    let started = world.env.now();
    let mut fleet = Fleet::new(random.fork());
    fleet.live_through_faults(&mut world, Duration::from_millis(pause)).await;
    let (mut members, faults) = fleet.calm_down(&mut world).await;
    let env = world.env.clone();
    let puts = world.settle(&mut members).await;
    let ledger = world.finish(members, puts, random.bool()).await;
    let took = env.now().since(started);
    ledger.assert_deliveries();
    let leases = ledger.assert_leases();
    assert!(ledger.reshards > 0, "shards were split or merged meanwhile");
    let mut lives: Vec<Duration> = ledger.lives.iter().map(|life| life.took).collect();
    lives.sort_unstable();
    say(&format!(
        "{count} flights, {}, in {took:?}; all had their share {:?} after all was done\n  \
         {faults:?}, and {} splits and merges\n  \
         processes: {} were killed, {} stopped in order; half of them lived for {:?} or longer\n  \
         {leases:?}\n  \
         records handled again: {}",
        path.display(),
        ledger.settled_within,
        ledger.reshards,
        ledger.ends(End::Killed),
        ledger.ends(End::Stopped),
        lives[lives.len() / 2],
        ledger.redelivered(),
    ));
}

/// How a process that was stopped inside a write goes on.
#[derive(Clone, Copy, Debug)]
enum Sequel {
    /// It finishes what it began.
    Continued,
    /// What it began is undone.
    Killed,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_inside_a_write_blocks_the_others_until_it_goes_on() {
    stopped_inside_a_write(Sequel::Continued).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_inside_a_write_blocks_the_others_until_it_is_killed() {
    stopped_inside_a_write(Sequel::Killed).await;
}

/// All goes on within this time, from the first write after the stop on: the lead is taken, and every lease is taken up again
/// or given away.
const RECOVERY: Duration = Duration::from_secs(10);

async fn stopped_inside_a_write(sequel: Sequel) {
    let mut random = fastrand::Rng::with_seed(seed(&format!("inside a write, {sequel:?}")));
    let (mut world, mut members) = small_fleet(&mut random).await;
    // Any may be the leader.
    let victim = random.usize(0..members.len());
    let (blocked_at, known) = stop_inside_a_write(&mut world, &mut members, victim).await;
    match sequel {
        Sequel::Continued => members[victim].resume(),
        Sequel::Killed => {
            assert_eq!(members[victim].kill(), End::Killed);
            let dead = std::mem::replace(&mut members[victim], world.start_member());
            world.bury(dead, End::Killed);
        }
    }
    let ended_at = world.env.now();
    assert!(world.has_outstanding(), "there is something to lose");
    let env = world.env.clone();
    until(&*env, "somebody writes", || world.table.writes() > known).await;
    let written_at = env.now();
    world.until_all_are_renewed(&members, known).await;
    let recovery = env.now().since(written_at);
    assert!(recovery <= RECOVERY, "{recovery:?}");
    let ledger = settle_and_finish(world, members).await;
    ledger.assert_deliveries();
    let leases = ledger.assert_leases();
    say(&format!(
        "{sequel:?}: blocked for {:?}, and for {:?} more; {recovery:?} later all were renewed; all had their share {:?} \
         after all was done; {leases:?}; handled again: {}",
        ended_at.since(blocked_at),
        written_at.since(ended_at),
        ledger.settled_within,
        ledger.redelivered(),
    ));
}

/// Stops a worker while it holds the write lock, for several lease durations. Gives when that began, and how often the leases
/// had been written then.
async fn stop_inside_a_write(world: &mut World, members: &mut [Member], victim: usize) -> (Monotonic, usize) {
    world.table.slow_down(&members[victim].worker);
    members[victim].pause_inside_write(&world.table);
    let (blocked_at, writes) = (world.env.now(), world.table.writes());
    // Nobody can renew, so what was renewed last is not trusted any more after a lease duration.
    let duration = world.settings.lease_duration;
    world.env.sleep_until(blocked_at.plus(2 * duration)).await;
    for member in &mut *members {
        world.take_news(member);
    }
    world.env.sleep_until(blocked_at.plus(4 * duration)).await;
    for member in &mut *members {
        assert_eq!(member.ended(), None, "{} waits", member.worker);
        assert!(!world.take_news(member), "{} handled a record with a lease that had expired", member.worker);
    }
    assert_eq!(world.table.writes(), writes, "nobody else could write");
    (blocked_at, writes)
}

/// The write of a renewal waits for the lock in a process that is stopped, and goes on when the lease has another holder.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_was_held_up_until_somebody_else_has_the_lease_is_refused() {
    let mut random = fastrand::Rng::with_seed(seed("held up"));
    let (world, mut members) = small_fleet(&mut random).await;
    let victim = random.usize(0..members.len());
    let lock = world.table.lock();
    let known = members[victim].renewals().len();
    let env = world.env.clone();
    until(&*env, "it is about to renew", || members[victim].renewals().len() > known).await;
    members[victim].pause();
    let held_up = members[victim].renewals().split_off(known);
    drop(lock);

    let worker = members[victim].worker.clone();
    let deadline = env.now().plus(PATIENCE);
    while !world.leases_of(&worker).await.is_empty() {
        assert!(env.now() < deadline, "its leases are given to others");
        env.sleep(Duration::from_millis(20)).await;
    }
    let given_away = world.table.writes();
    members[victim].resume();
    world.until_all_are_renewed(&members, given_away).await;
    let ledger = settle_and_finish(world, members).await;
    ledger.assert_deliveries();
    let leases = ledger.assert_leases();
    let was_applied = |token: &WriteToken| {
        ledger.history.iter().any(|write| write.after.as_ref().is_some_and(|row| row.token == Some(*token)))
    };
    let applied: Vec<_> = held_up.iter().filter(|token| was_applied(token)).collect();
    assert!(applied.is_empty(), "{applied:?} of {held_up:?}");
    say(&format!(
        "held up: {} renewals; all had their share {:?} after all was done; {leases:?}; handled again: {}",
        held_up.len(),
        ledger.settled_within,
        ledger.redelivered(),
    ));
}

/// Three workers, each of which has work, and eight shards that are written for some more seconds.
async fn small_fleet(random: &mut fastrand::Rng) -> (World, Vec<Member>) {
    let (_, file) = flights::file();
    let flights = flights::plan(&file, 3000, &[], 0..3000, random);
    let mut world = World::start(flights, settings(8, 250.0), random.u64(..)).await;
    let mut members: Vec<Member> = (0..3).map(|_| world.start_member()).collect();
    for member in &mut members {
        until(&*world.env, "every worker has work", || member.has_handled_a_record()).await;
    }
    (world, members)
}

async fn settle_and_finish(mut world: World, mut members: Vec<Member>) -> Ledger {
    let puts = world.settle(&mut members).await;
    world.finish(members, puts, true).await
}

fn settings(shards: u32, per_second: f64) -> Settings {
    Settings {
        shards,
        lease_duration: Duration::from_secs(1),
        planning_interval: Duration::from_millis(200),
        discovery_interval: Duration::from_millis(100),
        per_second,
    }
}
