//! The sink: opening the file, and putting letters.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::async_trait;
use shardwell_core::dead_letter::{DeadLetter, DeadLetterArchive, DeadLetterSink, SinkError};
use sqlx::Connection;

use super::row;
use super::sql::DEAD_LETTERS;
use crate::database::{Database, File};
use crate::error::Failure;

/// Dead letters in a SQLite file, for any number of processes on one machine, to be listed and redriven from there.
///
/// Clones share their connections. The file may hold the letters of several applications, but nothing else: a database of
/// something else, a lease table too, is refused.
///
/// ```
/// use shardwell_core::dead_letter::{DeadLetterArchive, DeadLetterSink, LetterQuery};
/// use shardwell_sqlite::SqliteDeadLetters;
///
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let path = directory.path().join("dead-letters.db");
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
/// let dead_letters = SqliteDeadLetters::open(&path).await?;
/// let page = dead_letters.letters(&LetterQuery::default(), None, 100).await?;
/// assert!(page.letters.is_empty());
/// # Ok::<_, shardwell_core::dead_letter::SinkError>(())
/// # }).expect("it works");
/// ```
///
/// # The file
/// It must be on a **local disk**: the write-ahead log needs memory that all processes share, which no network file system
/// gives. SQLite keeps `<file>-wal` and `<file>-shm` beside it, so the directory must be writable too. Keep all three
/// together when you copy it. Letters stay until somebody deletes them; `state = 'redriven'` are those that are done.
///
/// # Durability
/// With `synchronous=FULL`: a letter that was put is on the disk, and survives a crash of the machine as far as the disk
/// keeps its word. The letters of one call are kept together or not at all.
///
/// # Time
/// Calls wait for each other's locks up to the busy time-out, and give up in all after twice that. They need a tokio
/// runtime with its timer, on real time: SQLite runs on threads of its own, which a paused clock does not know about.
///
/// # Cancel safety
/// As [`DeadLetterSink`] demands. A dropped write is finished or undone; no lock and no transaction stays behind.
#[derive(Clone, Debug)]
pub struct SqliteDeadLetters {
    pub(super) database: Arc<Database>,
}

impl SqliteDeadLetters {
    /// Dead letters in a file, which is created or brought up to date when it is first used. Made without I/O. A relative
    /// path is taken from the current directory at this moment.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self::on(File::new(&DEAD_LETTERS, path.as_ref()))
    }

    /// Opens a file now, and creates or migrates it where needed. Safe in many processes at once.
    ///
    /// # Errors
    /// - [`Unusable`](shardwell_core::dead_letter::SinkErrorKind::Unusable): there is no such directory, the file or its
    ///   directory cannot be written, or the file is not a SQLite database, a database of something else, corrupt, of a
    ///   newer version, or on a network file system.
    /// - [`Unavailable`](shardwell_core::dead_letter::SinkErrorKind::Unavailable): another process keeps it locked, or the
    ///   disk is full or failing.
    ///
    /// # Cancel safety
    /// May be dropped at any time; an unfinished migration is rolled back.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, SinkError> {
        let opened = Self::new(path);
        opened.prepare().await?;
        Ok(opened)
    }

    /// Opens an existing file for reading only: for tools that look on. It is neither created nor migrated, and every
    /// write is refused.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Unusable`](shardwell_core::dead_letter::SinkErrorKind::Unusable) where there is no
    /// file.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    pub async fn open_existing(path: impl AsRef<Path>) -> Result<Self, SinkError> {
        let opened = Self::on(File { read_only: true, ..File::new(&DEAD_LETTERS, path.as_ref()) });
        opened.prepare().await?;
        Ok(opened)
    }

    /// How long a call waits for other processes' locks. Default: 5 s. Too small turns a moment of contention into errors,
    /// after which a worker waits and tries again.
    ///
    /// The result has connections of its own.
    #[must_use]
    pub fn with_busy_timeout(&self, busy_timeout: Duration) -> Self {
        Self::on(File { busy_timeout, ..self.database.file().clone() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    fn on(file: File) -> Self {
        Self { database: Arc::new(Database::new(file)) }
    }

    /// All in one transaction, which takes the write lock when it begins: one that began by reading could be refused it
    /// later.
    async fn put_all(&self, letters: &[DeadLetter]) -> Result<(), Failure> {
        let mut guard = self.database.writer().await;
        let mut transaction = guard.connection().await?.begin_with("BEGIN IMMEDIATE").await?;
        for letter in letters {
            row::put(letter)?.execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

impl fmt::Display for SqliteDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dead letters in {}", self.path().display())
    }
}

#[async_trait]
impl DeadLetterSink for SqliteDeadLetters {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.database.prepare().await
    }

    async fn put(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.database.call("putting dead letters", self.put_all(letters)).await
    }

    fn archive(&self) -> Option<&dyn DeadLetterArchive> {
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the sink promises rests on this, and every connection sets it for itself.
    #[tokio::test]
    async fn every_connection_waits_for_the_disk() {
        const FULL: i64 = 2;
        let directory = tempfile::tempdir().expect("a directory");
        let opened = SqliteDeadLetters::open(directory.path().join("dead-letters.db")).await.expect("opened");
        let mut guard = opened.database.writer().await;
        let connection = guard.connection().await.expect("a connection");
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await.expect("set");
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(connection).await.expect("set");
        assert_eq!((synchronous, mode.as_str()), (FULL, "wal"));
    }
}
