//! Producers in virtual time over a stream in memory, with faults drawn from a seed: every ticket must tell the truth.
//!
//! `SHARDWELL_SEEDS` runs so many seeds, `SHARDWELL_SEED` begins at one.

#[path = "../common/between.rs"]
mod between;
mod check;
mod faults;
mod world;

use shardwell_producer::Ordering;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("SHARDWELL_SEED").unwrap_or(0);
    first..first + number("SHARDWELL_SEEDS").unwrap_or(120)
}

fn run(ordering: Ordering) {
    let mut totals = check::Counts::default();
    for seed in seeds() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let counts = runtime.expect("a runtime").block_on(world::live(seed, ordering));
        totals.add(&counts);
    }
    println!("{totals:?}");
    totals.assert_exercised();
}

#[test]
fn every_ticket_tells_the_truth() {
    run(Ordering::Unordered);
}

#[test]
fn keys_keep_their_order() {
    run(Ordering::PerKey);
}
