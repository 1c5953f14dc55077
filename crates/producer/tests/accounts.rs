//! What a producer tells those who keep accounts: by hooks, and by metrics.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{Watched, put};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use shardwell_core::StreamErrorKind;
use shardwell_producer::{AnsweredRecord, ProducerHooks, SettledRecord, metrics};

/// The first request is throttled, and one with a bad record is refused.
fn stream() -> Watched {
    let is_first = AtomicBool::new(true);
    Watched::new(2).refusing(move |entries| {
        if is_first.swap(false, Ordering::Relaxed) {
            return Some(StreamErrorKind::Throttled);
        }
        entries.iter().any(|entry| entry.data == "bad").then_some(StreamErrorKind::Invalid)
    })
}

/// Puts two good records and a bad one, each as a record for Kinesis.
async fn put_three(hooks: impl ProducerHooks) {
    let producer = stream().builder().aggregation(false).hooks(hooks).build().expect("good settings");
    let mut results = Vec::new();
    for (key, data) in [("a", "good"), ("b", "bad"), ("c", "fine")] {
        results.push(put(&producer, key, data).await);
    }
    producer.flush().await;
    for (ticket, lands) in results.into_iter().zip([true, false, true]) {
        assert_eq!(ticket.await.is_ok(), lands);
    }
}

/// Of an attempt, how many user records, and what went wrong.
type Answered = (usize, Option<String>);

#[derive(Clone, Default)]
struct Accounts {
    panics: bool,
    answered: Arc<Mutex<Vec<Answered>>>,
    /// Of each user record, the key, and whether it landed.
    settled: Arc<Mutex<Vec<(String, bool)>>>,
}

impl ProducerHooks for Accounts {
    fn record_answered(&self, answered: &AnsweredRecord<'_>) {
        assert!(!self.panics, "as planned");
        assert!(answered.bytes > 0 && answered.stream.contains("flights") && answered.shard.is_some());
        let error = answered.result.err().map(|error| error.code.clone());
        self.answered.lock().expect("no test panics while it holds this").push((answered.user_records, error));
    }

    fn user_record_settled(&self, settled: &SettledRecord<'_>) {
        assert!(!self.panics, "as planned");
        let key = settled.record.partition_key.as_str().to_owned();
        self.settled.lock().expect("no test panics while it holds this").push((key, settled.result.is_ok()));
    }
}

#[tokio::test(start_paused = true)]
async fn hooks_are_told_of_every_attempt_and_of_every_user_record() {
    let accounts = Accounts::default();
    put_three(accounts.clone()).await;
    let mut settled = accounts.settled.lock().expect("no test panics while it holds this").clone();
    settled.sort();
    assert_eq!(settled, [("a".to_owned(), true), ("b".to_owned(), false), ("c".to_owned(), true)]);
    let answered = accounts.answered.lock().expect("no test panics while it holds this").clone();
    let count = |code: Option<&str>| answered.iter().filter(|(_, error)| error.as_deref() == code).count();
    assert_eq!((count(None), count(Some("Throttled"))), (2, 3));
    assert!(answered.iter().all(|(user_records, _)| *user_records == 1));
}

#[tokio::test(start_paused = true)]
async fn hooks_are_told_of_the_members_of_aggregated_records() {
    let accounts = Accounts::default();
    let producer = Watched::new(1).builder().hooks(accounts.clone()).build().expect("good settings");
    for key in ["a", "b", "c"] {
        drop(put(&producer, key, "x").await);
    }
    producer.close().await;
    let keys = accounts.settled.lock().expect("no test panics while it holds this").clone();
    assert_eq!(keys, ["a", "b", "c"].map(|key| (key.to_owned(), true)));
    assert_eq!(*accounts.answered.lock().expect("no test panics while it holds this"), [(3, None)]);
}

#[tokio::test(start_paused = true)]
async fn hooks_that_panic_change_nothing_for_the_records() {
    put_three(Accounts { panics: true, ..Accounts::default() }).await;
}

#[test]
fn what_happened_is_told_by_metrics() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    ::metrics::with_local_recorder(&recorder, || {
        metrics::describe();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(put_three(Accounts::default()));
    });
    // By name, and by what is counted apart.
    let mut sums: BTreeMap<(String, String), f64> = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        };
        let mut labels = key.key().labels();
        let which = labels.find(|label| matches!(label.key(), "result" | "code")).map(|label| label.value().to_owned());
        *sums.entry((key.key().name().to_owned(), which.unwrap_or_default())).or_default() += value;
    }
    let sum = |name: &str, which: &str| sums.get(&(name.to_owned(), which.to_owned())).copied().unwrap_or_default();
    assert_eq!(
        (sum(metrics::RECEIVED, ""), sum(metrics::PENDING, ""), sum(metrics::PENDING_BYTES, "")),
        (3.0, 0.0, 0.0)
    );
    assert_eq!((sum(metrics::USER_RECORDS, "landed"), sum(metrics::USER_RECORDS, "invalid")), (2.0, 1.0));
    assert_eq!((sum(metrics::RECORDS, "landed"), sum(metrics::ERRORS, "Throttled")), (2.0, 3.0));
    assert_eq!(sum(metrics::RECORDS, "failed"), sum(metrics::ERRORS, "Throttled") + sum(metrics::ERRORS, "Invalid"));
    assert_eq!((sum(metrics::USER_BYTES, ""), sum(metrics::BYTES, "")), (10.0, 10.0));
    assert_eq!((sum(metrics::RETRIES, ""), sum(metrics::LISTINGS, "ok")), (3.0, 1.0));
    let attempts = sum(metrics::RECORDS, "landed") + sum(metrics::RECORDS, "failed");
    assert_eq!((sum(metrics::BUFFERING_TIME, ""), sum(metrics::USER_RECORDS_PER_RECORD, "")), (attempts, attempts));
    let requests = sum(metrics::REQUEST_TIME, "");
    assert!(requests >= 3.0 && requests == sum(metrics::RECORDS_PER_REQUEST, ""));
    assert_eq!(requests, sum(metrics::USER_RECORDS_PER_REQUEST, ""));
    assert!(sums.keys().all(|(name, _)| name.starts_with("shardwell_put_")), "{sums:?}");
}
