//! The suite of the seam, on files, on real time.

use std::sync::Arc;

use shardwell_core::LeaseStore;
use shardwell_core::testing::lease_store::{agrees_with_the_model, exercise};
use shardwell_sqlite::SqliteLeaseStore;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_as_a_value() {
    let directory = tempfile::tempdir().expect("a directory");
    exercise(|| async {
        let name = format!("{}.db", unique());
        Arc::new(SqliteLeaseStore::open(directory.path().join(name), "conformance").await.expect("opened"))
    })
    .await;
}

/// Every table of the suite is another application in one file, made without opening it first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_as_an_object_that_shares_its_file() {
    let directory = tempfile::tempdir().expect("a directory");
    exercise(|| async {
        let store = SqliteLeaseStore::new(directory.path().join("shared.db"), &unique());
        Arc::new(store) as Arc<dyn LeaseStore>
    })
    .await;
}

#[tokio::test]
async fn agrees_with_the_model_at_length() {
    let directory = tempfile::tempdir().expect("a directory");
    for seed in 100..104 {
        let store = SqliteLeaseStore::new(directory.path().join(format!("{seed}.db")), "model");
        agrees_with_the_model(&store, seed, 300).await;
    }
}

fn unique() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("application-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
