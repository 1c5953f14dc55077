//! The file and the connections to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::error::{Failure, Report};
use crate::schema::{self, Schema};
use crate::sql;

/// How long a call waits for other processes' locks, unless told otherwise.
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How many calls may read at the same time.
const READERS: usize = 4;

/// Above the rows of any statement that writes: the thread that runs a statement must never wait for us to take its
/// rows, since it holds the write lock until the statement has ended.
const ROW_BUFFER: usize = 1024;

/// Where the file is and how it may be used.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) schema: &'static Schema,
    pub(crate) path: PathBuf,
    pub(crate) busy_timeout: Duration,
    pub(crate) read_only: bool,
}

/// Whether SQLite would take a path for a database in memory or a temporary one, of which each connection has its own.
fn names_no_file(path: &Path) -> bool {
    ["", ":memory:"].iter().any(|special| path == Path::new(special))
}

impl File {
    /// A file that may be created and written. A relative path is taken from the current directory at this moment.
    pub(crate) fn new(schema: &'static Schema, path: &Path) -> Self {
        let mut path = path.to_owned();
        if !names_no_file(&path) {
            // Fails only where the current directory is gone; then opening fails too, and says so.
            path = std::path::absolute(&path).unwrap_or(path);
        }
        Self { schema, path, busy_timeout: DEFAULT_BUSY_TIMEOUT, read_only: false }
    }

    fn options(&self) -> SqliteConnectOptions {
        // Beyond this SQLite's own counter of milliseconds overflows.
        const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
        SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(!self.read_only)
            .read_only(self.read_only)
            .busy_timeout(self.busy_timeout.min(LONGEST))
            .synchronous(self.schema.synchronous)
            .row_buffer_size(ROW_BUFFER)
            .thread_name(|n| format!("shardwell-sqlite-{n}"))
            .disable_statement_logging()
    }

    /// Creates or migrates what is missing; for a file that is only read, makes sure that nothing is.
    fn prepare(&self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            if names_no_file(&self.path) {
                return Err(Failure::NoFile(self.schema.in_memory));
            }
            let mut connection = self.options().connect().await?;
            if self.read_only {
                schema::verify(self.schema, &mut connection).await?;
            } else {
                schema::verify_alone(self.schema, &mut connection).await?;
                self.switch_to_wal(&mut connection).await?;
                schema::migrate(self.schema, &mut connection).await?;
            }
            connection.close().await?;
            Ok(())
        })
    }

    /// The one step that SQLite's busy time-out does not cover: switching needs the file for itself, and where waiting
    /// could be a deadlock SQLite refuses at once. Processes that start together get in each other's way here.
    async fn switch_to_wal(&self, connection: &mut SqliteConnection) -> Result<(), Failure> {
        let switch = async {
            for attempt in 0u64.. {
                match try_switch_to_wal(connection).await {
                    Err(failure) if failure.is_busy() => pause(Duration::from_millis((1 + attempt).min(20))).await,
                    other => return other,
                }
            }
            Err(Failure::Locked)
        };
        within(self.busy_timeout, switch).await.unwrap_or(Err(Failure::Locked))
    }
}

async fn try_switch_to_wal(connection: &mut SqliteConnection) -> Result<(), Failure> {
    let mode = |modes: Vec<String>| modes.into_iter().next().unwrap_or_default();
    let current = mode(sqlx::query_scalar(sql::JOURNAL_MODE).fetch_all(&mut *connection).await?);
    if current.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    let switched = mode(sqlx::query_scalar(sql::SWITCH_TO_WAL).fetch_all(&mut *connection).await?);
    if switched.eq_ignore_ascii_case("wal") { Ok(()) } else { Err(Failure::NoWal(switched)) }
}

#[expect(clippy::disallowed_methods, reason = "SQLite lives on real threads and a real disk, outside of any `Env`")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The output of a future, or nothing if it takes too long.
#[expect(clippy::disallowed_methods, reason = "SQLite lives on real threads and a real disk, outside of any `Env`")]
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

/// A few connections, each opened when it is first needed.
///
/// Not sqlx's pool: that one gives a connection back by spawning a task, which needs a runtime where the guard is dropped
/// and delays the next call until that runtime gets round to it. Each connection is a thread of its own that finishes
/// what it was told even if nobody waits for it any more, so one that was left in the middle of a call can be used again.
struct Connections {
    slots: Vec<Mutex<Option<SqliteConnection>>>,
    next: AtomicUsize,
}

impl Connections {
    fn new(count: usize) -> Self {
        Self { slots: (0..count).map(|_| Mutex::new(None)).collect(), next: AtomicUsize::new(0) }
    }

    async fn acquire(&self) -> MutexGuard<'_, Option<SqliteConnection>> {
        if let Some(free) = self.slots.iter().find_map(|slot| slot.try_lock().ok()) {
            return free;
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.slots[turn % self.slots.len()].lock().await
    }

    /// Drops the connections that nobody uses right now.
    fn reset(&self) {
        for mut idle in self.slots.iter().filter_map(|slot| slot.try_lock().ok()) {
            *idle = None;
        }
    }
}

/// Holds a connection while a call uses it.
pub(crate) struct Guard<'a> {
    slot: MutexGuard<'a, Option<SqliteConnection>>,
    file: &'a File,
}

impl Guard<'_> {
    /// The connection, opened if it is not yet.
    pub(crate) async fn connection(&mut self) -> Result<&mut SqliteConnection, Failure> {
        match &mut *self.slot {
            Some(connection) => Ok(connection),
            empty => Ok(empty.insert(self.file.options().connect().await?)),
        }
    }
}

/// A file, prepared before it is first used, with one connection that writes and some that read.
pub(crate) struct Database {
    file: File,
    ready: OnceCell<()>,
    writer: Connections,
    readers: Connections,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("file", &self.file).field("ready", &self.ready.initialized()).finish()
    }
}

impl Database {
    /// Without I/O.
    pub(crate) fn new(file: File) -> Self {
        let (writer, readers) = (Connections::new(1), Connections::new(READERS));
        Self { file, ready: OnceCell::new(), writer, readers }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Prepares the file unless that has been done.
    pub(crate) async fn prepare<E: From<Report> + Send>(&self) -> Result<(), E> {
        self.call(self.file.schema.opening, async { Ok(()) }).await
    }

    /// The connection for a write. SQLite has one writer at a time, so a second connection would only wait for the first.
    pub(crate) async fn writer(&self) -> Guard<'_> {
        Guard { slot: self.writer.acquire().await, file: &self.file }
    }

    /// A connection for reads, which wait for nobody.
    pub(crate) async fn reader(&self) -> Guard<'_> {
        Guard { slot: self.readers.acquire().await, file: &self.file }
    }

    /// Runs a call on the prepared file, bounded in time, and says what went wrong with what.
    pub(crate) fn call<'a, T: Send + 'a, E: From<Report> + Send + 'a>(
        &'a self,
        what: &'a str,
        call: impl Future<Output = Result<T, Failure>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, E>> {
        Box::pin(async move {
            self.ready().await.map_err(|failure| self.report(failure, self.file.schema.opening))?;
            // SQLite itself gives up after the busy time-out: this bounds the wait behind other calls, and a disk that
            // hangs.
            let limit = self.file.busy_timeout.saturating_mul(2).max(Duration::from_secs(1));
            let outcome = within(limit, call).await.unwrap_or(Err(Failure::TimedOut(limit)));
            Ok(outcome.map_err(|failure| self.report(failure, what))?)
        })
    }

    async fn ready(&self) -> Result<(), Failure> {
        if self.ready.initialized() {
            return Ok(());
        }
        // The switch to WAL and the migration may wait for locks one after the other.
        let limit = self.file.busy_timeout.saturating_mul(4).max(Duration::from_secs(1));
        let preparing = self.ready.get_or_try_init(|| self.file.prepare());
        within(limit, preparing).await.unwrap_or(Err(Failure::TimedOut(limit))).map(drop)
    }

    fn report(&self, failure: Failure, what: &str) -> Report {
        if failure.spoils_connection() {
            self.writer.reset();
            self.readers.reset();
        }
        failure.report(what, &self.file.path, self.file.busy_timeout)
    }
}
