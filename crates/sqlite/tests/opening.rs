//! Opening a file that others open too.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use shardwell_core::{LeaseStore, StoreErrorKind};
use shardwell_sqlite::SqliteLeaseStore;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.expect("a plain connection")
}

/// Each store has a thread of its own, so they meet more closely than processes do, which take their time to start.
#[tokio::test]
async fn many_open_a_missing_file_at_the_same_time() {
    for _ in 0..15 {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("leases.db");
        let stores: Vec<_> = (0..12).map(|_| SqliteLeaseStore::new(&path, "a")).collect();
        for opened in join_all(stores.iter().map(LeaseStore::prepare)).await {
            opened.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
        }
        let mut connection = raw(&path).await;
        let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM shardwell_migrations")
            .fetch_one(&mut connection)
            .await
            .expect("a count");
        assert_eq!(applied, 2, "each migration ran once");
    }
}

/// The switch to the write-ahead log needs the file for itself.
#[tokio::test]
async fn the_switch_to_wal_waits_for_readers() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("theirs.db");
    let mut reader = raw(&path).await;
    let begin = "CREATE TABLE theirs (a TEXT); BEGIN; SELECT count(*) FROM theirs";
    sqlx::raw_sql(begin).execute(&mut reader).await.expect("a reader");

    let patient = SqliteLeaseStore::new(&path, "a");
    let hasty = patient.with_busy_timeout(Duration::from_millis(50));
    let release = async {
        let error = hasty.prepare().await.expect_err("the reader is still there");
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("locked for 50ms"), "{error}");
        sqlx::raw_sql("COMMIT").execute(&mut reader).await.expect("the reader ends");
    };
    let (opened, ()) = tokio::join!(patient.prepare(), release);
    opened.expect("waited");
}
