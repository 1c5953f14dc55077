//! The metrics that a run leaves behind are those of the catalogue, and say what happened.

mod common;

use std::collections::BTreeMap;

use common::{Reaction, START, World, secs};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use shardwell_consumer::DeliveryPolicy;
use shardwell_consumer::metrics;
use shardwell_sim::SimEnv;

/// Runs a worker over 200 records with one failure, and stops it.
async fn run() {
    let world = World::new(2).with_script(|_, number, attempt| match (number, attempt) {
        (70, 1) => Reaction::Fail,
        _ => Reaction::Fine,
    });
    world.put(200, 20);
    let worker = world
        .start(world.builder("w", &SimEnv::new(1, START)).delivery(DeliveryPolicy::default().with_batch_records(10)));
    world.until_all_seen(secs(20)).await;
    worker.stop().await.expect("a clean stop");
}

/// The sum over all labels of each counter and gauge, and the number of samples of each histogram.
fn sums(snapshotter: &Snapshotter) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let value = match value {
            DebugValue::Counter(count) => count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        };
        *sums.entry(key.key().name().to_owned()).or_default() += value;
    }
    sums
}

#[test]
fn a_run_is_told_by_its_metrics() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    ::metrics::with_local_recorder(&recorder, || {
        metrics::describe();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime").block_on(run());
    });
    let sums = sums(&snapshotter);
    assert_eq!(sums[metrics::RECORDS_READ], 200.0);
    assert_eq!(sums[metrics::RECORDS_DONE], 200.0);
    assert_eq!(sums[metrics::RETRIES], 1.0);
    assert_eq!(sums[metrics::BUFFERED], 0.0, "everything was given back");
    assert!(sums[metrics::BATCHES] >= 21.0 && sums[metrics::PROCESSOR_TIME] == sums[metrics::BATCHES]);
    assert!(sums[metrics::CHECKPOINTS] >= 2.0 && sums[metrics::RENEWALS] >= 2.0);
    for name in [metrics::BYTES_READ, metrics::READS, metrics::ITERATOR_AGE, metrics::BEHIND_LATEST] {
        assert!(sums.contains_key(name), "{name}");
    }
    let unknown: Vec<_> = sums.keys().filter(|name| !name.starts_with("shardwell_")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
