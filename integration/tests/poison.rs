//! Flights that cannot be processed, planted among those that can, while the consuming process is killed again and again.
//!
//! `SHARDWELL_LONG=1` runs at full length: as many flights as a year has. `SHARDWELL_FLIGHTS` names a file of them, one JSON
//! object in each line, gzipped or not; without it the flights of a week come again and again. `SHARDWELL_COMMAND` names the
//! command `shardwell`, which then asks for the redrive. `SHARDWELL_SEED` repeats the random choices of an earlier run.

mod common;
mod flights;
mod moment;
mod poisoned;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{long, say, seed};
use poisoned::audit::{End, Ledger, redriven};
use poisoned::{Settings, World};
use shardwell_core::dead_letter::{ArchivedLetter, DeadReason, LetterState};
use shardwell_integration::{EventKind, Trouble};

/// So many of 2013 left New York City.
const FLIGHTS_OF_A_YEAR: usize = 336_776;

/// How often the process is started until a record that aborts it is in the dead letters. By design: three times without
/// progress, once in a batch that is processed alone, and three times by itself; the rest is for lanes and shards that make
/// progress in between.
const MOST_ABORTS: usize = 11;

#[tokio::test(flavor = "multi_thread")]
async fn year_with_poison() {
    let mut random = fastrand::Rng::with_seed(seed("year with poison"));
    let (kills, count) = if long() { (50, FLIGHTS_OF_A_YEAR) } else { (7, 12_000) };
    let (path, file) = flights::file();
    let flights = flights::plan(&file, count, &troubles(), 0..count, &mut random);
    let per_second = count as f64 / f64::from(2 * kills);
    let settings = Settings { lanes: 8, lease_duration: Duration::from_secs(1), per_second };
    let mut world = World::start(random, flights, settings).await;
    let mut round = 0;
    while round < kills || world.is_being_written() {
        world.consume_and_kill(round % 3 == 2).await;
        round += 1;
    }
    world.consume_the_rest().await;
    let (ledger, mut world) = world.ledger().await;
    report(&format!("{count} flights, {}", path.display()), &ledger);
    ledger.assert_all();
    assert!(ledger.redelivered().iter().sum::<usize>() > 0, "the kills came while there was something to lose");
    redrive_all(&mut world, &ledger).await;
}

/// Fifty that are poison, and some that look like it at first.
fn troubles() -> Vec<Trouble> {
    let counts = [
        (Trouble::Permanent, 12),
        (Trouble::Named, 12),
        (Trouble::Whole, 11),
        (Trouble::Panic, 11),
        // Each is looked for at the time-out's pace, from the whole batch down.
        (Trouble::Slow, 4),
        (Trouble::Flaky, 15),
        (Trouble::Outage, 15),
    ];
    counts.into_iter().flat_map(|(trouble, count)| vec![trouble; count]).collect()
}

/// After the service is fixed, all letters are tried again, once each and in the order of their keys, and nothing else is.
async fn redrive_all(world: &mut World, ledger: &Ledger) {
    let (round, letters) = world.redrive().await;
    say(&format!("redrive: {} letters within {:?} of the start of the process", letters.len(), round.took));
    let is_redriven = |letter: &&ArchivedLetter| (letter.state, letter.rounds) == (LetterState::Redriven, 1);
    assert_eq!(letters.iter().filter(is_redriven).count(), ledger.letters.len(), "{letters:?}");
    let read_again: BTreeMap<_, _> = round
        .events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Record { .. }))
        .map(|event| (&event.shard, &event.kind))
        .collect();
    assert!(read_again.is_empty(), "what was done or dead is read again, in each shard up to {read_again:?}");
    let mut numbers: Vec<u64> = redriven(&round.events).collect();
    let keys = numbers.iter().map(|number| &ledger.flights[*number as usize].key).zip(&numbers);
    let mut in_order: Vec<_> = keys.clone().collect();
    in_order.sort_by_key(|(key, _)| *key);
    assert!(in_order.is_sorted(), "in the order of their keys: {:?}", keys.collect::<Vec<_>>());
    numbers.sort_unstable();
    let expected: Vec<u64> = poisoned::audit::poison(&ledger.flights).into_iter().collect();
    assert_eq!(numbers, expected, "all come back, once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_aborts_the_process_with_one_lane() {
    abort(1, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_aborts_the_process_with_eight_lanes() {
    abort(8, false).await;
}

/// The same, while the process is killed for no reason of its records.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_aborts_the_process_among_random_kills() {
    abort(8, true).await;
    if long() {
        abort(1, true).await;
    }
}

async fn abort(lanes: u32, kills: bool) {
    let what = format!("abort with {lanes} lanes{}", if kills { " among kills" } else { "" });
    let mut random = fastrand::Rng::with_seed(seed(&what));
    let count = if long() { 6000 } else { 1500 };
    let (_, file) = flights::file();
    let flights = flights::plan(&file, count, &[Trouble::Abort], count / 10..count / 2, &mut random);
    let settings = Settings { lanes, lease_duration: Duration::from_millis(500), per_second: 300.0 };
    let mut world = World::start(random, flights, settings).await;
    world.supervise(kills).await;
    let (ledger, _) = world.ledger().await;
    report(&what, &ledger);
    ledger.assert_all();
    assert_eq!(ledger.dead_for(DeadReason::CrashLoop), 1);
    let aborts = ledger.ends(End::Aborted);
    assert!((2..=MOST_ABORTS).contains(&aborts), "the process aborted {aborts} times");
}

fn report(what: &str, ledger: &Ledger) {
    let reasons = [DeadReason::Permanent, DeadReason::RetryAttemptsExhausted, DeadReason::CrashLoop];
    let dead = reasons.map(|reason| format!("{} {reason}", ledger.dead_for(reason)));
    let took: Vec<Duration> = ledger.rounds.iter().map(|round| round.took).collect();
    let redelivered = ledger.redelivered();
    say(&format!(
        "{what}: {} processes, {} killed, {} aborted; {} reshards\n  \
         dead: {}\n  \
         handled for the first time by each process: {:?}\n  \
         handled again by a later process: {} of {}; {redelivered:?}\n  \
         shards under suspicion: {:?}\n  \
         life of each process, in {:?}: {:?} ms\n  \
         handled by the last one in each five seconds: {:?}",
        ledger.rounds.len(),
        ledger.ends(End::Killed),
        ledger.ends(End::Aborted),
        ledger.reshards,
        dead.join(", "),
        ledger.delivered(),
        redelivered.iter().sum::<usize>(),
        ledger.flights.len(),
        ledger.rounds.iter().map(|round| round.suspicions).collect::<Vec<_>>(),
        took.iter().sum::<Duration>(),
        took.iter().map(Duration::as_millis).collect::<Vec<_>>(),
        ledger.last_pace(),
    ));
}
