//! What Lambda was recorded to do, call by call.

use std::time::Duration;

use shardwell_core::Timestamp;
use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{DeliveryPolicy, ErrorClass, Verdict};

use super::runner::{Call, Trace, backoff, run};
use super::script::{Report, Script, failure, record};

fn lambda(batch: usize, retries: u32) -> DeliveryPolicy {
    let policy = DeliveryPolicy::lambda().with_batch_records(batch).with_max_retries(Some(retries));
    policy.with_backoff(backoff())
}

fn send(policy: DeliveryPolicy, len: usize, report: Report, bad: usize) -> Trace {
    let mut script = Script::poisoned(len, report, |n| n == bad);
    let records = (0..len).map(|n| record(n, None)).collect();
    run(policy, records, Duration::ZERO, |call| script.process(&call.records))
}

fn sizes(trace: &Trace) -> Vec<usize> {
    trace.calls.iter().map(|call| call.records.len()).collect()
}

#[test]
fn v1_progress_then_a_split_then_a_retry() {
    let trace = send(lambda(100, 1).with_bisect(true), 4, Report::Prefix, 1);
    assert_eq!(trace.sent(), [vec![0, 1, 2, 3], vec![1, 2, 3], vec![1], vec![1], vec![2, 3]]);
    let [letter] = &trace.letters[..] else { panic!("{trace:?}") };
    assert_eq!((&letter.records[..], letter.reason), (&[1][..], DeadReason::RetryAttemptsExhausted));
    // Progress and splits are free and immediate; the retry waits.
    let at: Vec<u128> = trace.calls.iter().map(|call| call.at.as_millis()).collect();
    assert_eq!(at, [0, 0, 0, 50, 50]);
}

#[test]
fn v2_progress_gives_new_retries_and_the_count_is_of_the_rest_alone() {
    let trace = send(lambda(3, 3), 6, Report::Prefix, 5);
    assert_eq!(trace.sent(), [vec![0, 1, 2], vec![3, 4, 5], vec![5], vec![5], vec![5], vec![5]]);
    let [letter] = &trace.letters[..] else { panic!("{trace:?}") };
    assert_eq!((letter.records.len(), letter.invocations, letter.attempts, letter.partial), (1, 4, 4, true));
}

#[test]
fn v3_retries_follow_the_first_attempt() {
    for (retries, calls) in [(0, 1), (1, 2), (2, 3), (3, 4)] {
        let trace = send(lambda(100, retries), 1, Report::Whole, 0);
        let attempts: Vec<u32> = trace.calls.iter().map(|call| call.attempt).collect();
        assert_eq!(attempts, (1..=calls).collect::<Vec<_>>());
        let [letter] = &trace.letters[..] else { panic!("{trace:?}") };
        assert_eq!((letter.invocations, letter.partial), (calls, false));
    }
}

#[test]
fn v4_only_what_is_too_old_dies_of_age() {
    let mut records: Vec<_> = (0..6).map(|n| record(n, None)).collect();
    records[0].arrival = Timestamp::from_millis(-60_000);
    records[1].arrival = Timestamp::from_millis(-59_999);
    let policy = DeliveryPolicy::lambda().with_max_record_age(Some(Duration::from_secs(60)));
    let trace = run(policy, records, Duration::ZERO, |_| Verdict::Done);
    assert_eq!(trace.sent(), [[1, 2, 3, 4, 5]]);
    let [letter] = &trace.letters[..] else { panic!("{trace:?}") };
    assert_eq!((&letter.records[..], letter.reason), (&[0][..], DeadReason::RecordAgeExceeded));
    assert_eq!((letter.invocations, letter.attempts), (0, 0));
}

/// T1: what is left of a batch keeps the attempts that it has had.
#[test]
fn age_takes_records_out_of_a_retry_and_grants_no_attempts() {
    let mut records: Vec<_> = (0..3).map(|n| record(n, None)).collect();
    records[1].arrival = Timestamp::from_millis(-59_960);
    let policy = lambda(100, 1).with_max_record_age(Some(Duration::from_secs(60)));
    let trace = run(policy, records, Duration::ZERO, |_| Verdict::Failed(failure(ErrorClass::Retryable)));
    let calls: Vec<_> = trace.calls.iter().map(|call| (call.records.clone(), call.attempt)).collect();
    assert_eq!(calls, [(vec![0, 1, 2], 1), (vec![0, 2], 2)]);
    let letters: Vec<_> = trace.letters.iter().map(|letter| (&letter.records[..], letter.reason)).collect();
    assert_eq!(letters, [(&[1][..], DeadReason::RecordAgeExceeded), (&[0, 2][..], DeadReason::RetryAttemptsExhausted)]);
    assert_eq!((trace.letters[0].invocations, trace.letters[1].invocations), (1, 2));
}

#[test]
fn v5_a_report_of_nothing_is_a_success() {
    for policy in [DeliveryPolicy::lambda(), DeliveryPolicy::default()] {
        let records = (0..3).map(|n| record(n, None)).collect();
        let trace = run(policy, records, Duration::ZERO, |_| Verdict::FailedExactly(Vec::new()));
        assert_eq!((sizes(&trace), trace.letters.len()), (vec![3], 0));
    }
}

#[test]
fn v6_a_report_of_what_is_not_in_the_batch_fails_it_as_a_whole() {
    let foreign = || failure(ErrorClass::Retryable);
    let verdicts: [fn(usize) -> Verdict; 4] = [
        |len| Verdict::FailedFrom { index: len, failure: failure(ErrorClass::Retryable) },
        |len| Verdict::FailedExactly(vec![(len, failure(ErrorClass::Retryable))]),
        |len| Verdict::FailedExactly(vec![(0, failure(ErrorClass::Retryable)), (len, failure(ErrorClass::Retryable))]),
        |_| Verdict::FailedExactly(vec![(usize::MAX, failure(ErrorClass::Retryable))]),
    ];
    for verdict in verdicts {
        let exact = DeliveryPolicy::default().with_max_retries(Some(2)).with_bisect(false);
        for policy in [lambda(100, 2), exact] {
            let records = (0..3).map(|n| record(n, None)).collect();
            let trace = run(policy, records, Duration::ZERO, |call| verdict(call.records.len()));
            assert_eq!((sizes(&trace), trace.dead()), (vec![3, 3, 3], vec![0, 1, 2]), "{:?}", foreign());
        }
    }
}

#[test]
fn v7_halves_are_driven_to_their_end_left_first() {
    let trace = send(lambda(100, 0).with_bisect(true), 4, Report::Whole, 1);
    assert_eq!(trace.sent(), [vec![0, 1, 2, 3], vec![0, 1], vec![0], vec![1], vec![2, 3]]);
    assert_eq!(trace.dead(), [1]);
    assert_eq!(trace.calls.last().map(|call| call.at), Some(Duration::ZERO), "splits do not wait");
}

#[test]
fn v8_without_a_split_the_rest_dies_with_its_first_record() {
    let trace = send(lambda(100, 1), 3, Report::Prefix, 1);
    assert_eq!(trace.sent(), [vec![0, 1, 2], vec![1, 2], vec![1, 2]]);
    let [letter] = &trace.letters[..] else { panic!("{trace:?}") };
    assert_eq!(letter.records, [1, 2]);
}

#[test]
fn v9_what_was_not_invoked_spends_no_quota_while_age_goes_on() {
    let policy = lambda(100, 1).with_max_record_age(Some(Duration::from_secs(60)));
    let refused = |times: usize| {
        let mut left = times;
        let records = (0..2).map(|n| record(n, None)).collect();
        run(policy.clone(), records, Duration::from_secs(10), move |_: &Call| {
            let verdict = if left > 0 { Verdict::NotInvoked } else { Verdict::Failed(failure(ErrorClass::Retryable)) };
            left = left.saturating_sub(1);
            verdict
        })
    };
    let trace = refused(3);
    assert_eq!(trace.calls.iter().map(|call| call.attempt).collect::<Vec<_>>(), [1, 1, 1, 1, 2]);
    assert_eq!((trace.letters[0].invocations, trace.letters[0].reason), (2, DeadReason::RetryAttemptsExhausted));
    let trace = refused(100);
    assert_eq!((trace.calls.len(), trace.dead()), (6, vec![0, 1]));
    assert_eq!((trace.letters[0].invocations, trace.letters[0].reason), (0, DeadReason::RecordAgeExceeded));
}

#[test]
fn v10_a_retry_keeps_its_identity_and_a_part_has_a_new_one() {
    let trace = send(lambda(100, 1).with_bisect(true), 4, Report::Prefix, 1);
    let ids: Vec<u64> = trace.calls.iter().map(|call| call.id).collect();
    assert_eq!(ids[2], ids[3], "a retry");
    let mut distinct = vec![ids[0], ids[1], ids[2], ids[4]];
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 4, "{ids:?}");
}

/// The order in which a processor names records must not matter: what it named last is not done.
#[test]
fn failures_in_any_order_are_failures() {
    for (policy, sent) in [
        (DeliveryPolicy::default(), vec![vec![0, 1, 2, 3], vec![1], vec![3]]),
        (lambda(100, 9), vec![vec![0, 1, 2, 3], vec![1, 2, 3]]),
    ] {
        let mut first = true;
        let records = (0..4).map(|n| record(n, None)).collect();
        let trace = run(policy, records, Duration::ZERO, |_| {
            let failed = [3, 1, 3].map(|index| (index, failure(ErrorClass::Retryable))).to_vec();
            if std::mem::take(&mut first) { Verdict::FailedExactly(failed) } else { Verdict::Done }
        });
        assert_eq!((trace.sent(), trace.letters.len()), (sent, 0));
    }
}
