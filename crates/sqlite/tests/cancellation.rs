//! Dropped calls leave nothing behind.

use std::time::Duration;

use futures_util::StreamExt;
use shardwell_core::{Assignment, Checkpoint, Lease, LeaseStore, RenewOutcome, Renewal, WorkerId, WriteToken};
use shardwell_sqlite::SqliteLeaseStore;

/// Lets a future run for a number of turns of the runtime, then drops it. Tells whether it had ended.
async fn run_for<T>(turns: usize, future: impl Future<Output = T>) -> bool {
    let enough = async {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = future => true,
        () = enough => false,
    }
}

#[tokio::test]
async fn a_dropped_opening_locks_nobody_out() {
    let mut dropped = 0;
    for turns in (0..120).step_by(3) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("leases.db");
        let store = SqliteLeaseStore::new(&path, "a");
        dropped += usize::from(!run_for(turns * turns, store.prepare()).await);
        let other = SqliteLeaseStore::open(&path, "a").await.expect("another one opens it");
        store.prepare().await.expect("it can be opened again");
        let lease = Lease::new("shard".into(), Checkpoint::Latest);
        store.create_lease(&lease).await.expect("created");
        assert_eq!(other.lease(&lease.key).await.expect("read"), Some(lease));
    }
    assert!(dropped > 5, "the openings are dropped on their way: {dropped}");
}

#[tokio::test]
async fn a_dropped_renewal_is_applied_or_not_and_locks_nobody_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    let store = SqliteLeaseStore::open(&path, "a").await.expect("opened");
    let other = store.with_busy_timeout(Duration::from_secs(1));
    let me = WorkerId::from("me");
    let mut rows = Vec::new();
    for n in 0..40 {
        let lease = Lease::new(format!("shard-{n:02}").into(), Checkpoint::Latest);
        store.create_lease(&lease).await.expect("created");
        let assignment = Assignment::of(&lease, me.clone());
        rows.push(store.assign(&assignment).await.expect("an answer").applied().expect("assigned"));
    }
    let mut dropped = 0;
    for turn in 0..120usize {
        let token = WriteToken::new(turn as u64);
        let renewals: Vec<_> = rows
            .iter()
            .map(|row| Renewal {
                key: row.key.clone(),
                counter: row.counter,
                token,
                throughput_kbps: None,
                checkpoint: None,
            })
            .collect();
        dropped += usize::from(!run_for(turn % 40 * 3, store.renew(&me, renewals.clone()).count()).await);

        let free = Lease::new(format!("free-{turn}").into(), Checkpoint::Latest);
        other.create_lease(&free).await.expect("another one can write");
        rows.clear();
        // Repeated with the same token, it is applied once, whatever became of the first attempt.
        for (answer, renewal) in store.renew(&me, renewals.clone()).collect::<Vec<_>>().await.into_iter().zip(&renewals)
        {
            match answer.outcome {
                RenewOutcome::Renewed(row) => {
                    assert_eq!((row.counter, &row.key), (renewal.counter + 1, &renewal.key));
                    rows.push(row);
                }
                outcome => panic!("the renewal is applied: {outcome:?}"),
            }
        }
    }
    assert!(dropped > 20, "the renewals are dropped on their way: {dropped}");
}

#[test]
fn a_store_outlives_its_runtime() {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let lease = Lease::new("shard".into(), Checkpoint::Latest);
    let store = SqliteLeaseStore::new(directory.path().join("leases.db"), "a");
    runtime().block_on(store.create_lease(&lease)).expect("created");
    let read = runtime().block_on(store.lease(&lease.key)).expect("read on another runtime");
    assert_eq!(read, Some(lease));
    drop(store);
}
