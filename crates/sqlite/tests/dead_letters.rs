//! Dead letters: the suites of the seam on files and on real time, and what cannot be used says so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shardwell_core::dead_letter::{
    ArchivedLetter, Claim, DeadLetter, DeadLetterArchive, DeadLetterSink, LetterId, LetterPage, LetterQuery,
    LetterState, Resolution, SinkError, SinkErrorKind,
};
use shardwell_core::testing::dead_letters::{Place, agrees_with_the_model, exercise_archive, exercise_sink, letter};
use shardwell_core::{PartitionKey, Timestamp, WorkerId, async_trait};
use shardwell_sqlite::{SqliteDeadLetters, SqliteLeaseStore};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

struct File(PathBuf);

#[async_trait]
impl Place for File {
    async fn open(&self) -> Arc<dyn DeadLetterSink> {
        Arc::new(SqliteDeadLetters::open(&self.0).await.expect("opened"))
    }

    async fn kept(&self) -> Vec<DeadLetter> {
        let opened = SqliteDeadLetters::open(&self.0).await.expect("opened");
        let page = opened.letters(&LetterQuery::default(), None, usize::MAX).await.expect("a page");
        assert_eq!(page.unreadable, 0);
        page.letters.into_iter().map(|archived| archived.letter).collect()
    }
}

fn unique(directory: &Path) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    directory.join(format!("{}.db", NEXT.fetch_add(1, Ordering::Relaxed)))
}

async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.expect("a plain connection")
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.expect("it runs");
}

async fn refusal(path: &Path) -> SinkError {
    SqliteDeadLetters::open(path).await.expect_err("it cannot be used")
}

fn assert_says(error: &SinkError, kind: SinkErrorKind, words: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` in: {message}");
    }
}

fn any() -> LetterQuery {
    LetterQuery::default()
}

fn claim() -> Claim {
    Claim {
        application: "delays".into(),
        stream: "flights".into(),
        worker: "w".into(),
        now: Timestamp::from_millis(10),
        until: Timestamp::from_millis(1000),
        limit: 2,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_as_a_sink() {
    let directory = tempfile::tempdir().expect("a directory");
    exercise_sink(|| async { File(unique(directory.path())) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_as_an_archive() {
    let directory = tempfile::tempdir().expect("a directory");
    exercise_archive(|| async { Arc::new(SqliteDeadLetters::open(unique(directory.path())).await.expect("opened")) })
        .await;
}

/// Made without opening it first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_as_an_object() {
    let directory = tempfile::tempdir().expect("a directory");
    exercise_archive(|| async {
        Arc::new(SqliteDeadLetters::new(unique(directory.path()))) as Arc<dyn DeadLetterSink>
    })
    .await;
}

/// Several handles on one file, which take turns: each call may go through another one, as if from another process.
#[derive(Debug)]
struct Several {
    handles: Vec<SqliteDeadLetters>,
    turn: AtomicUsize,
}

impl Several {
    fn next(&self) -> &SqliteDeadLetters {
        &self.handles[self.turn.fetch_add(1, Ordering::Relaxed) % self.handles.len()]
    }
}

impl std::fmt::Display for Several {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.handles[0].fmt(f)
    }
}

#[async_trait]
impl DeadLetterSink for Several {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.next().put(letters).await
    }

    fn archive(&self) -> Option<&dyn DeadLetterArchive> {
        Some(self)
    }
}

#[async_trait]
impl DeadLetterArchive for Several {
    async fn letters(
        &self,
        query: &LetterQuery,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<LetterPage, SinkError> {
        self.next().letters(query, after, limit).await
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<ArchivedLetter>, SinkError> {
        self.next().letter(id).await
    }

    async fn request_redrive(&self, query: &LetterQuery, at: Timestamp) -> Result<u64, SinkError> {
        self.next().request_redrive(query, at).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<ArchivedLetter>, SinkError> {
        self.next().claim(claim).await
    }

    async fn resolve(&self, id: &LetterId, worker: &WorkerId, resolution: &Resolution) -> Result<bool, SinkError> {
        self.next().resolve(id, worker, resolution).await
    }

    async fn mark_redriven(&self, id: &LetterId, at: Timestamp) -> Result<bool, SinkError> {
        self.next().mark_redriven(id, at).await
    }

    async fn dead_keys(&self, application: &str, stream: &str) -> Result<BTreeSet<PartitionKey>, SinkError> {
        self.next().dead_keys(application, stream).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_handles_conform_as_one_archive() {
    let directory = tempfile::tempdir().expect("a directory");
    exercise_archive(|| async {
        let path = unique(directory.path());
        let handles = (0..5).map(|_| SqliteDeadLetters::new(&path)).collect();
        Arc::new(Several { handles, turn: AtomicUsize::new(0) })
    })
    .await;
}

#[tokio::test]
async fn agrees_with_the_model_at_length() {
    let directory = tempfile::tempdir().expect("a directory");
    for seed in 100..102 {
        agrees_with_the_model(&SqliteDeadLetters::new(unique(directory.path())), seed, 400).await;
    }
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (text, theirs) = (directory.path().join("notes.txt"), directory.path().join("theirs.db"));
    std::fs::write(&text, "not a database, but longer than the header of one\n".repeat(100)).expect("written");
    assert_says(&refusal(&text).await, SinkErrorKind::Unusable, &["notes.txt", "not a SQLite database"]);

    let mut connection = raw(&theirs).await;
    run(&mut connection, "CREATE TABLE theirs (a TEXT)").await;
    assert_says(&refusal(&theirs).await, SinkErrorKind::Unusable, &["theirs.db", "`theirs`", "name another one"]);
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.expect("a mode");
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema").fetch_all(&mut connection).await.expect("the schema");
    assert_eq!((mode.as_str(), tables), ("delete", vec!["theirs".to_owned()]), "nothing is changed");
    connection.close().await.expect("closed");
    let error = SqliteDeadLetters::open_existing(&theirs).await.expect_err("not ours");
    assert_says(&error, SinkErrorKind::Unusable, &["not made by shardwell"]);
}

#[tokio::test]
async fn a_lease_table_is_a_database_of_something_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("leases.db");
    SqliteLeaseStore::open(&path, "a").await.expect("opened");
    assert_says(&refusal(&path).await, SinkErrorKind::Unusable, &["opening the dead letters", "file of their own"]);
    // The other way round, what is there already goes on.
    let path = directory.path().join("dead-letters.db");
    let opened = SqliteDeadLetters::open(&path).await.expect("opened");
    SqliteLeaseStore::open(&path, "a").await.expect("opened");
    SqliteDeadLetters::open(&path).await.expect("opened again");
    opened.put(&[letter(1)]).await.expect("put");
}

#[tokio::test]
async fn paths_that_cannot_be_used_say_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("absent/dead-letters.db");
    assert_says(&refusal(&missing).await, SinkErrorKind::Unusable, &["absent", "create it"]);
    assert_says(&refusal(directory.path()).await, SinkErrorKind::Unusable, &["directory", "name a file"]);
    for name in ["", ":memory:"] {
        assert_says(&refusal(Path::new(name)).await, SinkErrorKind::Unusable, &["MemoryDeadLetters"]);
    }
    let error = SqliteDeadLetters::open_existing(directory.path().join("none.db")).await.expect_err("no file");
    assert_says(&error, SinkErrorKind::Unusable, &["no such file"]);
    assert_eq!(std::fs::read_dir(directory.path()).expect("a listing").count(), 0, "nothing is created");
}

#[tokio::test]
async fn newer_and_changed_schemas_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dead-letters.db");
    drop(SqliteDeadLetters::open(&path).await.expect("opened"));
    let mut connection = raw(&path).await;
    run(
        &mut connection,
        "INSERT INTO shardwell_dead_letter_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'from the future', TRUE, x'00', 0)",
    )
    .await;
    for error in [refusal(&path).await, SqliteDeadLetters::open_existing(&path).await.expect_err("newer")] {
        assert_says(&error, SinkErrorKind::Unusable, &["version 99", "upgrade"]);
    }
    run(&mut connection, "DELETE FROM shardwell_dead_letter_migrations WHERE version = 99").await;
    run(&mut connection, "ALTER TABLE shardwell_dead_letters RENAME COLUMN rounds TO turns").await;
    assert_says(&refusal(&path).await, SinkErrorKind::Unusable, &["rounds"]);
}

#[tokio::test]
async fn a_lock_that_is_kept_too_long_is_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dead-letters.db");
    let opened = SqliteDeadLetters::open(&path).await.expect("opened").with_busy_timeout(Duration::from_millis(30));
    opened.prepare().await.expect("opened");
    let mut other = raw(&path).await;
    run(&mut other, "BEGIN IMMEDIATE").await;
    let error = opened.put(&[letter(1)]).await.expect_err("locked");
    assert_says(&error, SinkErrorKind::Unavailable, &["putting dead letters", "dead-letters.db", "locked for 30ms"]);
    assert!(opened.claim(&claim()).await.expect("nothing is there, so no lock is needed").is_empty());
    run(&mut other, "ROLLBACK").await;
    opened.put(&[letter(1)]).await.expect("it goes on afterwards");
}

#[tokio::test]
async fn looking_on_writes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dead-letters.db");
    let writer = SqliteDeadLetters::open(&path).await.expect("opened");
    let reader = SqliteDeadLetters::open_existing(&path).await.expect("opened");
    writer.put(&[letter(1)]).await.expect("put");
    assert!(reader.letter(&letter(1).id()).await.expect("an answer").is_some(), "it sees what others write");
    let denied = [
        reader.put(&[letter(2)]).await.expect_err("read-only"),
        reader.request_redrive(&any(), Timestamp::from_millis(1)).await.expect_err("read-only"),
    ];
    for error in denied {
        assert_says(&error, SinkErrorKind::Unusable, &["may only be read"]);
    }
}

/// Rows that somebody changed by hand, or that a newer version wrote, are counted and in nobody's way.
#[tokio::test]
async fn letters_that_cannot_be_read_are_passed_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dead-letters.db");
    let opened = SqliteDeadLetters::open(&path).await.expect("opened");
    opened.put(&(0..6).map(letter).collect::<Vec<_>>()).await.expect("put");
    let mut connection = raw(&path).await;
    for damage in [
        "UPDATE shardwell_dead_letters SET letter = '{' WHERE sequence_number = '0'",
        "UPDATE shardwell_dead_letters SET letter = json_set(letter, '$.version', 2) WHERE sequence_number = '1'",
        "UPDATE shardwell_dead_letters SET letter = json_set(letter, '$.shard', 'x') WHERE sequence_number = '2'",
    ] {
        run(&mut connection, damage).await;
    }
    for (limit, pages) in [(100, 1), (2, 3), (1, 6)] {
        let (mut unreadable, mut found, mut after, mut seen) = (0, Vec::new(), None, 0);
        loop {
            let page = opened.letters(&any(), after.as_ref(), limit).await.expect("a page");
            unreadable += page.unreadable;
            found.extend(page.letters.into_iter().map(|archived| archived.letter));
            seen += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!((unreadable, found, seen), (3, vec![letter(3), letter(4), letter(5)], pages), "pages of {limit}");
    }
    for (n, why) in [(0, "not the JSON"), (1, "upgrade"), (2, "it says that it is delays/flights/x/2/0")] {
        let error = opened.letter(&letter(n).id()).await.expect_err("not readable");
        assert_says(&error, SinkErrorKind::Unusable, &["delays/flights/shardId-000000000000", why]);
    }

    opened.request_redrive(&any(), Timestamp::from_millis(1)).await.expect("an answer");
    let mut given = Vec::new();
    for _ in 0..3 {
        given.extend(opened.claim(&claim()).await.expect("an answer").into_iter().map(|found| found.letter));
    }
    assert_eq!(given, [letter(3), letter(4), letter(5)], "two at a time, behind three that cannot be read");
    let requested: i64 = sqlx::query_scalar("SELECT count(*) FROM shardwell_dead_letters WHERE state = 'requested'")
        .fetch_one(&mut connection)
        .await
        .expect("a count");
    assert_eq!(requested, 3, "they wait for somebody who can read them");
}

#[tokio::test]
async fn a_state_of_a_newer_version_is_not_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dead-letters.db");
    let opened = SqliteDeadLetters::open(&path).await.expect("opened");
    opened.put(&[letter(1)]).await.expect("put");
    run(&mut raw(&path).await, "UPDATE shardwell_dead_letters SET state = 'quarantined'").await;
    assert_eq!(opened.request_redrive(&any(), Timestamp::from_millis(1)).await.expect("an answer"), 0);
    assert!(opened.claim(&claim()).await.expect("an answer").is_empty());
    let error = opened.letter(&letter(1).id()).await.expect_err("not readable");
    assert_says(&error, SinkErrorKind::Unusable, &["quarantined"]);
}

#[tokio::test]
async fn a_letter_that_does_not_fit_is_refused_with_its_batch() {
    let directory = tempfile::tempdir().expect("a directory");
    let opened = SqliteDeadLetters::open(directory.path().join("dead-letters.db")).await.expect("opened");
    let mut beyond = letter(2);
    beyond.record.position.sub_sequence_number = u64::MAX;
    let error = opened.put(&[letter(1), beyond.clone()]).await.expect_err("beyond SQLite's numbers");
    assert_says(&error, SinkErrorKind::Refused, &["63 bits"]);
    assert!(opened.letters(&any(), None, 10).await.expect("a page").letters.is_empty(), "all or nothing");
    opened.put(&[letter(1)]).await.expect("no transaction is left open");
    assert_eq!(opened.letter(&beyond.id()).await.expect("an answer"), None);
    let this = LetterQuery { id: Some(beyond.id()), ..any() };
    assert!(opened.letters(&this, None, 10).await.expect("a page").letters.is_empty());
}

#[tokio::test]
async fn many_open_a_missing_file_at_the_same_time_and_dropped_calls_leave_no_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    for turns in 0..40usize {
        let path = unique(directory.path());
        let sinks: Vec<_> = (0..6).map(|_| SqliteDeadLetters::new(&path)).collect();
        let give_up = async {
            for _ in 0..turns * turns {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            opened = futures_util::future::join_all(sinks.iter().map(DeadLetterSink::prepare)) => {
                opened.into_iter().for_each(|opened| opened.expect("opened"));
            }
            () = give_up => {}
        }
        for (n, sink) in sinks.iter().enumerate() {
            sink.put(&[letter(n as u64)]).await.unwrap_or_else(|error| panic!("{error}"));
        }
        let states = [LetterState::Dead].into();
        let page = sinks[0].letters(&LetterQuery { states, ..any() }, None, 100).await.expect("a page");
        assert_eq!(page.letters.len(), sinks.len());
    }
}
