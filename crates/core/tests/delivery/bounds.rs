//! How often a processor is called at most, for one batch with poison in it.

use std::time::Duration;

use proptest::prelude::*;
use shardwell_core::RetryPolicy;
use shardwell_core::delivery::DeliveryPolicy;

use super::runner::{Trace, run};
use super::script::{Report, Script, record};

fn policy(n: usize, retries: u32, bisect: bool, isolate: bool) -> DeliveryPolicy {
    let policy = DeliveryPolicy::default().with_batch_records(n).with_max_retries(Some(retries));
    let policy = policy.with_backoff(RetryPolicy::default().with_initial(Duration::ZERO).with_cap(Duration::ZERO));
    policy.with_bisect(bisect).with_isolate(isolate)
}

/// One batch; time stands still, since delays are zero.
fn send(n: usize, retries: u32, report: Report, bisect: bool, isolate: bool, poison: &[usize]) -> Trace {
    let mut script = Script::poisoned(n, report, |n| poison.binary_search(&n).is_ok());
    let records = (0..n).map(|n| record(n, None)).collect();
    run(policy(n, retries, bisect, isolate), records, Duration::ZERO, |call| script.process(&call.records))
}

/// Nodes of the halving tree with at least two records and poison among them.
fn failing_nodes(n: usize, from: usize, poison: &[usize]) -> usize {
    if n < 2 || !poison.iter().any(|at| (from..from + n).contains(at)) {
        return 0;
    }
    1 + failing_nodes(n / 2, from, poison) + failing_nodes(n - n / 2, from + n / 2, poison)
}

fn ceil_log2(n: usize) -> usize {
    n.next_power_of_two().trailing_zeros() as usize
}

/// B1 to B6 and P11 for one set of poison records.
fn check(n: usize, retries: u32, poison: &[usize]) {
    let (k, r, depth) = (poison.len(), retries as usize, ceil_log2(n));
    let case = format!("{n} records, poison {poison:?}, {retries} retries");
    let most = |trace: &Trace| {
        assert_eq!(trace.dead(), poison, "P11: {case}");
        let deliveries = trace.deliveries(n);
        let good = (0..n).filter(|at| poison.binary_search(at).is_err());
        good.map(|at| deliveries[at]).max().unwrap_or(0)
    };
    let bisected = send(n, retries, Report::Whole, true, false, poison);
    assert_eq!(bisected.calls.len(), 1 + 2 * failing_nodes(n, 0, poison) + k * r, "B1: {case}");
    assert!(k == 0 || bisected.calls.len() <= k * (2 * depth + r + 1), "B1: {case}");
    assert!(most(&bisected) <= 1 + depth, "B6: {case}");
    let prefix = send(n, retries, Report::Prefix, true, false, poison);
    assert!(k == 0 || prefix.calls.len() <= k * (2 * depth + r + 1), "B2: {case}");
    assert!(most(&prefix) <= 1 + depth + k, "B6: {case}");
    let isolated = send(n, retries, Report::Prefix, false, true, poison);
    assert!(isolated.calls.len() <= 1 + k * (r + 2), "B3: {case}");
    assert!(most(&isolated) <= 1 + k, "B6: {case}");
    let exact = send(n, retries, Report::Exact, false, false, poison);
    assert!(exact.calls.len() <= 1 + k * (r + 1), "B4: {case}");
    assert!(most(&exact) <= 1, "B6: {case}");
}

#[test]
fn every_set_of_poison_records_in_a_small_batch() {
    for n in 1..=10 {
        for subset in 0u32..1 << n {
            let poison: Vec<usize> = (0..n).filter(|at| subset >> at & 1 == 1).collect();
            for retries in [0, 1, 3] {
                check(n, retries, &poison);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn some_poison_in_a_large_batch(
        n in 11usize..2000,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..30),
        retries in 0u32..4,
    ) {
        let poison: std::collections::BTreeSet<usize> = picks.iter().map(|pick| pick.index(n)).collect();
        check(n, retries, &poison.into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn b1_is_met_with_equality_by_one_record_in_a_power_of_two() {
    for (n, at) in [(1, 0), (2, 1), (64, 17), (1024, 1023)] {
        let trace = send(n, 3, Report::Whole, true, false, &[at]);
        assert_eq!(trace.calls.len(), 2 * ceil_log2(n) + 3 + 1);
    }
}

#[test]
fn b5_with_nothing_on_all_die_together() {
    for report in [Report::Whole, Report::Prefix] {
        let trace = send(9, 4, report, false, false, &[0]);
        assert_eq!((trace.calls.len(), trace.dead().len(), trace.letters.len()), (5, 9, 1));
    }
}

#[test]
fn b7_what_an_outage_costs() {
    let everything: Vec<usize> = (0..100).collect();
    assert_eq!(send(100, 3, Report::Whole, true, false, &everything).calls.len(), 499);
    assert_eq!(send(100, 3, Report::Whole, false, false, &everything).calls.len(), 4);
}
