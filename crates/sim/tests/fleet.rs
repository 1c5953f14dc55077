//! Whole fleets, a fixed set of seeds; and that the simulator would see if something were wrong.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use shardwell_sim::{Invariant, Lie, Options, Outcome, Tally, run};

/// How many seeds a change must pass.
const SEEDS: u64 = 60;

/// Runs seeds on every processor, in order, until `stop` says that it was enough. Gives the outcomes by seed.
fn run_all(seeds: u64, options: Options, stop: impl Fn(&Outcome) -> bool + Sync) -> Vec<(u64, Outcome)> {
    let (next, outcomes) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = run(seed, options);
                    if stop(&outcome) {
                        next.store(seeds, Ordering::Relaxed);
                    }
                    outcomes.lock().expect("no thread panics while it holds this").push((seed, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no thread panics while it holds this");
    outcomes.sort_by_key(|(seed, _)| *seed);
    outcomes
}

#[test]
fn nothing_that_must_hold_is_violated() {
    let mut tally = Tally::default();
    for (seed, outcome) in run_all(SEEDS, Options::default(), |outcome| outcome.violation.is_some()) {
        tally.add(&outcome.tally);
        if let Some(violation) = outcome.violation {
            let again = format!("cargo run --release -p shardwell-sim -- --seeds 1 --from {seed} --trace");
            panic!("seed {seed} violates {violation}; for its trace: {again}");
        }
    }
    let untested = tally.untested(SEEDS);
    assert!(untested.is_empty(), "{untested:?}");
}

#[test]
fn the_same_seed_gives_the_same_log_byte_for_byte() {
    let log = |seed| run(seed, Options { keep_log: true, lie: None }).log;
    for seed in [1, 12] {
        let first = log(seed);
        assert!(first.lines().count() > 100, "something happens");
        assert!(first == log(seed), "seed {seed}: two runs differ");
    }
    assert!(log(1) != log(2), "the seed matters");
}

/// What may find a lie out. What comes of a broken rule is not always the same.
fn expected(lie: Lie) -> &'static [Invariant] {
    use Invariant::{L1, L2, L3, L4, L5, L6, L7, L8, P2, P3};
    match lie {
        Lie::NoFencing | Lie::RenewalsNotWritten => &[L1],
        Lie::CheckpointBeforeDone => &[P2],
        Lie::LettersNotWritten => &[P2, P3],
        Lie::CheckpointBackwards => &[L2],
        Lie::ChildBeforeParent | Lie::OneParentOnly => &[L3, L5, L7],
        Lie::ExpiryOnFirstSight | Lie::Restless | Lie::StreamsUntold => &[L6],
        Lie::NoExpiry | Lie::ForgottenDeadline | Lie::StopsWithoutLeaving | Lie::NoLastLook => &[L4],
        Lie::HandoffWithoutDrain => &[L5],
        Lie::HandoffUnheard => &[L4, L5, L6, L7],
        Lie::NoBalance => &[L7],
        Lie::ForeignStateTrusted => &[L5, L8, P2, P3],
        Lie::RecordsSkipped => &[P2, P3, L8],
        Lie::RecordsSwapped => &[L5, P3],
        Lie::ChildrenForgotten => &[L8],
    }
}

#[test]
fn a_worker_that_breaks_a_rule_is_found_out() {
    for lie in Lie::ALL {
        let options = Options { keep_log: false, lie: Some(*lie) };
        let outcomes = run_all(250, options, |outcome| outcome.violation.is_some());
        let violations: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.violation.clone()).collect();
        let found = violations.iter().any(|violation| violation.invariant.is_some_and(|i| expected(*lie).contains(&i)));
        assert!(found, "{lie}: {violations:?}");
    }
}
