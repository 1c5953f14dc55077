//! `kill -9` of a consuming process at random moments, again and again, under a stream that is written all the time.
//!
//! Ten kills by default; fifty with `SHARDWELL_LONG=1`. `SHARDWELL_SEED` repeats the moments of an earlier run.

mod common;
mod harness;
mod moment;

use std::time::Duration;

use common::{long, say, seed};
use harness::World;
use harness::audit::Ledger;

/// A third of the lease duration of one second: how often a lease is renewed and a checkpoint stored.
const RENEWAL_PERIOD: Duration = Duration::from_nanos(1_000_000_000 / 3);

/// What may come on top of the renewal period: the way of a record from the processor's return into the next renewal,
/// the renewal's own write, and the time that a thread waits for one of two cores on a machine that does other things too.
const ALLOWANCE: Duration = Duration::from_millis(150);

/// What holds for every run.
fn audit(what: &str, ledger: &Ledger) {
    ledger.assert_nothing_lost();
    ledger.assert_first_deliveries_in_put_order();
    ledger.assert_resumed_right_after_the_checkpoint();
    ledger.assert_checkpoints_only_advance();
    ledger.assert_no_lease_lost();
    ledger.assert_all_stored_at_the_end();
    let lags = ledger.checkpoint_lags();
    report(what, ledger, &lags);
    for (round, lag) in lags.into_iter().enumerate() {
        assert!(
            lag <= RENEWAL_PERIOD + ALLOWANCE,
            "round {round}: what was done {lag:?} before the kill is not stored"
        );
    }
}

fn report(what: &str, ledger: &Ledger, lags: &[Duration]) {
    let millis = |times: &[Duration]| times.iter().map(Duration::as_millis).collect::<Vec<_>>();
    let took: Vec<Duration> = ledger.rounds.iter().map(|round| round.took).collect();
    let redelivered = &ledger.redelivered()[1..];
    say(&format!(
        "{what}: {} kills, {} records put\n  \
         checkpoint behind what was done at the kill: at most {:?}; {:?} ms\n  \
         records delivered again after each kill: {} in all; {redelivered:?}\n  \
         life of each process: {:?} ms",
        lags.len(),
        ledger.puts.len(),
        lags.iter().max().copied().unwrap_or_default(),
        millis(lags),
        redelivered.iter().sum::<usize>(),
        millis(&took),
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_consumer_loses_nothing_and_the_next_goes_on_at_its_checkpoint() {
    let mut world = World::start(seed("kill")).await;
    for _ in 0..if long() { 50 } else { 10 } {
        world.round().await;
    }
    let ledger = world.finish().await;
    audit("kill", &ledger);
    assert!(ledger.redelivered().iter().sum::<usize>() > 0, "the kills came while there was something to lose");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_while_shards_are_split_and_merged() {
    let mut world = World::start(seed("kill and reshard")).await;
    for _ in 0..if long() { 16 } else { 4 } {
        world.round_with_resharding().await;
    }
    audit("kill and reshard", &world.finish().await);
}
