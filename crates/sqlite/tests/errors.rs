//! What cannot be used says so, and says what to do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::{Checkpoint, Created, Lease, LeaseStore, StoreError, StoreErrorKind};
use shardwell_sqlite::SqliteLeaseStore;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

fn lease() -> Lease {
    Lease::new("shardId-000000000000".into(), Checkpoint::TrimHorizon)
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.expect("a plain connection")
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.expect("it runs");
}

async fn refusal(path: &Path) -> StoreError {
    SqliteLeaseStore::open(path, "a").await.expect_err("it cannot be used")
}

fn assert_says(error: &StoreError, kind: StoreErrorKind, words: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` in: {message}");
    }
}

#[tokio::test]
async fn a_missing_directory_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = refusal(&directory.path().join("absent/leases.db")).await;
    assert_says(&error, StoreErrorKind::Invalid, &["absent", "create it"]);
    assert!(!directory.path().join("absent").exists());
}

#[tokio::test]
async fn a_directory_is_not_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_says(&refusal(directory.path()).await, StoreErrorKind::Invalid, &["directory", "name a file"]);
}

#[tokio::test]
async fn names_with_a_meaning_of_their_own_are_refused() {
    for name in ["", ":memory:"] {
        let error = SqliteLeaseStore::open(name, "a").await.expect_err("not a file");
        assert_says(&error, StoreErrorKind::Invalid, &["MemoryLeaseStore"]);
    }
    assert!(!Path::new(":memory:").exists());
}

#[tokio::test]
async fn what_is_not_a_database_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notes.txt");
    let text = "not a database, but longer than the header of one\n".repeat(100);
    std::fs::write(&path, &text).expect("written");
    assert_says(&refusal(&path).await, StoreErrorKind::Unusable, &["not a SQLite database"]);
    assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
}

#[tokio::test]
async fn a_corrupt_database_is_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    let store = SqliteLeaseStore::open(&path, "a").await.expect("opened");
    store.create_lease(&lease()).await.expect("created");
    drop(store);
    let mut connection = raw(&path).await;
    run(&mut connection, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    connection.close().await.expect("closed");
    let mut bytes = std::fs::read(&path).expect("read");
    for byte in bytes.iter_mut().skip(100) {
        *byte ^= 0x5a;
    }
    std::fs::write(&path, bytes).expect("written");
    assert_says(&refusal(&path).await, StoreErrorKind::Unusable, &["corrupt"]);
}

#[tokio::test]
async fn an_empty_file_is_an_empty_database() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    std::fs::write(&path, "").expect("written");
    SqliteLeaseStore::open(&path, "a").await.expect("opened");
}

#[tokio::test]
async fn tables_of_our_names_that_are_not_ours_are_left_alone() {
    let cases = [
        ("CREATE TABLE shardwell_leases (id INTEGER PRIMARY KEY, note TEXT)", "shardwell_leases"),
        ("CREATE TABLE shardwell_migrations (id INTEGER PRIMARY KEY)", "version"),
        ("CREATE VIEW shardwell_streams AS SELECT 1 AS application", "shardwell_streams"),
    ];
    for (foreign, named) in cases {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("theirs.db");
        let mut connection = raw(&path).await;
        run(&mut connection, foreign).await;
        assert_says(&refusal(&path).await, StoreErrorKind::Unusable, &["not made by shardwell", named]);
        let objects: Vec<String> =
            sqlx::query_scalar("SELECT sql FROM sqlite_schema").fetch_all(&mut connection).await.expect("the schema");
        assert_eq!(objects, [foreign], "nothing is added");
    }
}

#[tokio::test]
async fn our_tables_in_another_shape_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    drop(SqliteLeaseStore::open(&path, "a").await.expect("opened"));
    let mut connection = raw(&path).await;
    run(&mut connection, "ALTER TABLE shardwell_leases RENAME COLUMN lease_counter TO counter").await;
    assert_says(&refusal(&path).await, StoreErrorKind::Unusable, &["lease_counter"]);
    run(&mut connection, "UPDATE shardwell_migrations SET checksum = x'00'").await;
    assert_says(&refusal(&path).await, StoreErrorKind::Unusable, &["not as shardwell made it"]);
}

#[tokio::test]
async fn a_newer_schema_asks_for_an_upgrade() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    drop(SqliteLeaseStore::open(&path, "a").await.expect("opened"));
    let mut connection = raw(&path).await;
    run(
        &mut connection,
        "INSERT INTO shardwell_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'from the future', TRUE, x'00', 0)",
    )
    .await;
    assert_says(&refusal(&path).await, StoreErrorKind::Unusable, &["version 99", "upgrade"]);
    let error = SqliteLeaseStore::open_existing(&path, "a").await.expect_err("newer");
    assert_says(&error, StoreErrorKind::Unusable, &["version 99", "upgrade"]);
}

#[tokio::test]
async fn a_users_own_database_keeps_what_it_has() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("theirs.db");
    let mut connection = raw(&path).await;
    run(
        &mut connection,
        "PRAGMA application_id = 4711; PRAGMA user_version = 12; CREATE TABLE _sqlx_migrations (mine TEXT); \
         CREATE TABLE leases (mine TEXT); INSERT INTO leases VALUES ('kept')",
    )
    .await;
    connection.close().await.expect("closed");
    let store = SqliteLeaseStore::open(&path, "a").await.expect("opened");
    store.create_lease(&lease()).await.expect("created");
    let mut connection = raw(&path).await;
    let kept: String = sqlx::query_scalar("SELECT mine FROM leases").fetch_one(&mut connection).await.expect("kept");
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.expect("kept");
    assert_eq!((kept.as_str(), version), ("kept", 12));
}

#[tokio::test]
async fn a_lock_that_is_kept_too_long_is_reported_and_waited_out_otherwise() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    let patient = Arc::new(SqliteLeaseStore::open(&path, "a").await.expect("opened"));
    let hasty = patient.with_busy_timeout(Duration::from_millis(30));
    hasty.prepare().await.expect("opened");
    let mut other = raw(&path).await;
    run(&mut other, "BEGIN IMMEDIATE").await;

    let error = hasty.create_lease(&lease()).await.expect_err("locked");
    assert_says(&error, StoreErrorKind::Unavailable, &["creating a lease", "locked for 30ms"]);
    assert!(error.is_retryable());
    assert_eq!(hasty.lease(&lease().key).await.expect("readers do not wait"), None);
    let error = hasty.with_busy_timeout(Duration::from_millis(30)).prepare().await.expect_err("locked");
    assert_says(&error, StoreErrorKind::Unavailable, &["opening", "locked for 30ms"]);

    // The impatient one gives up while the patient one waits; only then is the lock given back.
    let the_lease = lease();
    let waiting = patient.create_lease(&the_lease);
    let release = async {
        hasty.create_lease(&the_lease).await.expect_err("still locked");
        run(&mut other, "ROLLBACK").await;
    };
    let (created, ()) = tokio::join!(waiting, release);
    assert_eq!(created.expect("waited"), Created::New);
    assert_eq!(hasty.create_lease(&lease()).await.expect("it goes on afterwards"), Created::Existed);
}

#[tokio::test]
async fn looking_on_creates_and_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    let error = SqliteLeaseStore::open_existing(&path, "a").await.expect_err("there is no file");
    assert_says(&error, StoreErrorKind::Denied, &["no such file"]);
    assert_eq!(std::fs::read_dir(directory.path()).expect("a listing").count(), 0, "no file is created");

    let writer = SqliteLeaseStore::open(&path, "b").await.expect("opened");
    SqliteLeaseStore::open(&path, "a").await.expect("opened").create_lease(&lease()).await.expect("created");
    writer.create_lease(&lease()).await.expect("created");
    assert_eq!(SqliteLeaseStore::applications(&path).await.expect("a listing"), ["a", "b"]);

    let reader = SqliteLeaseStore::open_existing(&path, "b").await.expect("opened");
    assert_eq!(reader.leases().await.expect("a listing").leases, [lease()]);
    let error = reader.delete_lease(&lease().key).await.expect_err("read-only");
    assert_says(&error, StoreErrorKind::Denied, &["deleting a lease", "may only be read"]);
    let error = reader.dedicated().delete_lease(&lease().key).await.expect_err("read-only too");
    assert_eq!(error.kind(), StoreErrorKind::Denied);
    writer.delete_lease(&lease().key).await.expect("deleted");
    assert!(reader.leases().await.expect("a listing").leases.is_empty(), "it sees what others write");
}

#[tokio::test]
async fn looking_on_at_anothers_database_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("theirs.db");
    run(&mut raw(&path).await, "CREATE TABLE theirs (a TEXT)").await;
    let error = SqliteLeaseStore::open_existing(&path, "a").await.expect_err("not ours");
    assert_says(&error, StoreErrorKind::Unusable, &["shardwell_migrations"]);
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    let store = SqliteLeaseStore::open(&path, "a").await.expect("opened");
    for n in 0..3 {
        let lease = Lease::new(format!("shardId-00000000000{n}").into(), Checkpoint::Latest);
        store.create_lease(&lease).await.expect("created");
    }
    let mut connection = raw(&path).await;
    run(&mut connection, "UPDATE shardwell_leases SET checkpoint = 'NEWEST' WHERE lease_key LIKE '%1'").await;
    run(&mut connection, "UPDATE shardwell_leases SET parent_shard_ids = '{' WHERE lease_key LIKE '%2'").await;
    let listing = store.leases().await.expect("a listing");
    let unreadable: Vec<_> = listing.unreadable.iter().map(shardwell_core::LeaseKey::as_str).collect();
    assert_eq!(unreadable, ["shardId-000000000001", "shardId-000000000002"]);
    assert_eq!(listing.leases.len(), 1);
    let error = store.lease(&listing.unreadable[0]).await.expect_err("damaged");
    assert_says(&error, StoreErrorKind::Unusable, &["shardId-000000000001", "NEWEST"]);
}

#[tokio::test]
async fn numbers_beyond_sqlites_are_refused_one_by_one() {
    use futures_util::StreamExt;
    use shardwell_core::{Assignment, RenewOutcome, Renewal, WriteToken};

    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteLeaseStore::open(directory.path().join("leases.db"), "a").await.expect("opened");
    store.create_lease(&lease()).await.expect("created");
    store.assign(&Assignment::of(&lease(), "w".into())).await.expect("assigned");
    let fits = Renewal {
        key: lease().key,
        counter: 1,
        token: WriteToken::new(1),
        throughput_kbps: Some(f64::NAN),
        checkpoint: None,
    };
    let beyond = Renewal { key: "other".into(), counter: u64::MAX, ..fits.clone() };
    let worker = "w".into();
    let answers: Vec<_> = store.renew(&worker, vec![beyond, fits]).collect().await;
    for answer in answers {
        match (answer.key.as_str(), answer.outcome) {
            ("other", RenewOutcome::Unknown(error)) => assert_eq!(error.kind(), StoreErrorKind::Invalid),
            ("shardId-000000000000", RenewOutcome::Renewed(row)) => assert_eq!(row.throughput_kbps, None),
            other => panic!("{other:?}"),
        }
    }
}
