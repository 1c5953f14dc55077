//! A second model of a lane, as naive as can be, against the machine.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;
use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{DeliveryPolicy, ErrorClass, Verdict};

use super::runner::{Step, backoff, run};
use super::script::{Kind, Report, Script, record};

/// The settings, as far as they matter here.
#[derive(Clone, Copy, Debug)]
struct Rules {
    batch: usize,
    retries: Option<u32>,
    bisect: bool,
    isolate: bool,
    /// Reports are believed beyond their first record, and outages are told from failures.
    modern: bool,
}

impl Rules {
    fn policy(self) -> DeliveryPolicy {
        let base = if self.modern { DeliveryPolicy::default() } else { DeliveryPolicy::lambda() };
        let base = base.with_batch_records(self.batch).with_max_retries(self.retries);
        let base = base.with_bisect(self.bisect).with_isolate(self.isolate);
        base.with_backoff(backoff()).with_outage_backoff(backoff().with_initial(Duration::from_millis(400)))
    }
}

/// Records that are tried together.
#[derive(Clone, Debug)]
struct Work {
    records: Vec<usize>,
    failures: u32,
    outages: u32,
    /// In milliseconds.
    not_before: u64,
}

fn fresh(records: &[usize], not_before: u64) -> Work {
    Work { records: records.to_vec(), failures: 0, outages: 0, not_before }
}

/// Half of `initial × 2^(n-1)`, at most 500 ms.
fn half_delay(initial: u64, n: u32) -> u64 {
    (initial << (n - 1).min(20)).min(1000) / 2
}

/// What a lane does with `len` records.
fn oracle(len: usize, rules: Rules, mut script: Script) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut queue: VecDeque<Work> = VecDeque::new();
    let (mut next, mut now) = (0, 0);
    loop {
        if queue.is_empty() {
            let batch: Vec<usize> = (next..len.min(next + rules.batch)).collect();
            if batch.is_empty() {
                return steps;
            }
            next += batch.len();
            queue.push_back(fresh(&batch, now));
        }
        let work = queue.pop_front().expect("just filled");
        now = now.max(work.not_before);
        steps.push(Step::Call { at: Duration::from_millis(now), records: work.records.clone() });
        let (follow, dead) = after(&work, script.process(&work.records), rules, now);
        steps.extend(dead.map(|(records, reason)| Step::Letter { at: Duration::from_millis(now), records, reason }));
        for work in follow.into_iter().rev() {
            queue.push_front(work);
        }
    }
}

type After = (Vec<Work>, Option<(Vec<usize>, DeadReason)>);

fn class(failure: ErrorClass, rules: Rules) -> ErrorClass {
    if failure == ErrorClass::Transient && !rules.modern { ErrorClass::Retryable } else { failure }
}

/// What is left of a batch, and what died; everything else is done.
fn after(work: &Work, verdict: Verdict, rules: Rules, now: u64) -> After {
    match verdict {
        Verdict::Done => (Vec::new(), None),
        Verdict::NotInvoked => (vec![work.clone()], None),
        Verdict::Failed(failure) => whole(work, class(failure.class, rules), rules, now),
        Verdict::FailedFrom { index, failure } => prefix(work, index, class(failure.class, rules), rules, now),
        Verdict::FailedExactly(failed) if rules.modern && work.records.len() > 1 => {
            let one = |(index, class): (usize, ErrorClass)| {
                let (outages, wait) = if class == ErrorClass::Transient { (1, 200) } else { (0, 50) };
                Work { outages, ..fresh(&work.records[index..=index], now + wait) }
            };
            (failed.iter().map(|(index, failure)| one((*index, failure.class))).collect(), None)
        }
        Verdict::FailedExactly(failed) => prefix(work, failed[0].0, class(failed[0].1.class, rules), rules, now),
    }
}

fn prefix(work: &Work, at: usize, class: ErrorClass, rules: Rules, now: u64) -> After {
    let (bad, behind) = (&work.records[at..=at], &work.records[at + 1..]);
    let behind_work = || if behind.is_empty() { vec![] } else { vec![fresh(behind, now)] };
    match class {
        ErrorClass::Permanent if work.records.len() > 1 => (behind_work(), Some((bad.to_vec(), DeadReason::Permanent))),
        ErrorClass::Transient if at > 0 => (vec![Work { outages: 1, ..fresh(&work.records[at..], now + 200) }], None),
        ErrorClass::Retryable if rules.isolate && !behind.is_empty() => {
            ([vec![fresh(bad, now)], behind_work()].concat(), None)
        }
        ErrorClass::Retryable if at > 0 => (vec![fresh(&work.records[at..], now)], None),
        class => whole(work, class, rules, now),
    }
}

fn whole(work: &Work, class: ErrorClass, rules: Rules, now: u64) -> After {
    let many = work.records.len() > 1;
    let (failures, outages) = (work.failures + 1, work.outages + 1);
    match class {
        ErrorClass::Transient => {
            let not_before = now + half_delay(400, outages);
            (vec![Work { outages, not_before, ..work.clone() }], None)
        }
        _ if many && rules.bisect => {
            let (left, right) = work.records.split_at(work.records.len() / 2);
            (vec![fresh(left, now), fresh(right, now)], None)
        }
        ErrorClass::Permanent => (vec![], Some((work.records.clone(), DeadReason::Permanent))),
        ErrorClass::Retryable if rules.retries.is_some_and(|retries| failures > retries) => {
            (vec![], Some((work.records.clone(), DeadReason::RetryAttemptsExhausted)))
        }
        ErrorClass::Retryable => {
            let not_before = now + half_delay(100, failures);
            (vec![Work { failures, outages: 0, not_before, ..work.clone() }], None)
        }
    }
}

fn kinds(retries_are_limited: bool) -> impl Strategy<Value = Vec<Kind>> {
    // Without a limit nothing else would ever happen.
    let poison = if retries_are_limited { Kind::Poison } else { Kind::Flaky(4) };
    let kind = prop_oneof![
        12 => Just(Kind::Good),
        2 => Just(poison),
        2 => (1u32..6).prop_map(Kind::Flaky),
        1 => (1u32..4).prop_map(Kind::Outage),
    ];
    prop::collection::vec(kind, 0..64)
}

fn rules() -> impl Strategy<Value = Rules> {
    let retries = prop_oneof![3 => (0u32..4).prop_map(Some), 1 => Just(None)];
    (1usize..40, retries, any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(batch, retries, bisect, isolate, modern)| Rules { batch, retries, bisect, isolate, modern })
}

fn case() -> impl Strategy<Value = (Rules, Script)> {
    let report = prop_oneof![Just(Report::Whole), Just(Report::Prefix), Just(Report::Exact)];
    (rules(), report).prop_flat_map(|(rules, report)| {
        // Exact reports of several permanent failures are compared by hand: the oracle buries one at a time.
        let permanent = if report == Report::Exact { 0 } else { 6 };
        (kinds(rules.retries.is_some()), prop::collection::vec(0usize..64, 0..=permanent)).prop_map(
            move |(mut kinds, permanent)| {
                for index in permanent {
                    if let Some(kind) = kinds.get_mut(index) {
                        *kind = Kind::Permanent;
                    }
                }
                (rules, Script::new(kinds, report))
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Every invocation, every letter, and when: the same.
    #[test]
    fn the_machine_does_what_the_oracle_does((rules, script) in case()) {
        let len = script.kinds.len();
        let expected = oracle(len, rules, script.clone());
        let mut script = script;
        let records = (0..len).map(|n| record(n, None)).collect();
        let trace = run(rules.policy(), records, Duration::ZERO, |call| script.process(&call.records));
        prop_assert_eq!(trace.steps, expected);
    }
}

#[test]
fn several_permanent_failures_are_buried_in_order() {
    let kinds = [Kind::Good, Kind::Permanent, Kind::Good, Kind::Permanent, Kind::Flaky(1)].to_vec();
    let mut script = Script::new(kinds, Report::Exact);
    let records = (0..5).map(|n| record(n, None)).collect();
    let trace = run(DeliveryPolicy::default(), records, Duration::ZERO, |call| script.process(&call.records));
    assert_eq!(trace.sent(), [vec![0, 1, 2, 3, 4], vec![4]]);
    let letters: Vec<_> = trace.letters.iter().map(|letter| (letter.records.clone(), letter.reason)).collect();
    assert_eq!(letters, [(vec![1], DeadReason::Permanent), (vec![3], DeadReason::Permanent)]);
}
