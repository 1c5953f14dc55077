//! What SQLite answers, in the words of the seam.

use std::path::Path;
use std::time::Duration;

use shardwell_core::dead_letter::{SinkError, SinkErrorKind};
use shardwell_core::{BoxError, StoreError, StoreErrorKind};
use sqlx::migrate::MigrateError;

/// Why a call failed, before it is known which call and on which file.
#[derive(Debug)]
pub(crate) enum Failure {
    Sqlite(sqlx::Error),
    Migration(MigrateError),
    /// Another process kept the lock all the time.
    Locked,
    /// The file stays in another journal mode.
    NoWal(String),
    /// The schema is of this version, which we do not know.
    Newer(i64),
    /// The schema lacks migrations, and the file may not be written.
    Older,
    /// The file holds this table, so it is of something else.
    Foreign(String),
    /// The path names no file. Holds the name of what is meant for memory.
    NoFile(&'static str),
    /// A row does not hold what it should.
    Damaged(String),
    /// A letter cannot be read, for this reason.
    Unreadable(String),
    /// An argument cannot be stored.
    Invalid(String),
    /// The call took too long.
    TimedOut(Duration),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Self::Sqlite(error),
            other => Self::Migration(other),
        }
    }
}

/// What kind of error it is, finer than in either seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It may pass by itself.
    Unavailable,
    /// There was no answer in time.
    Timeout,
    /// Permissions are missing.
    Denied,
    /// The path cannot be that of a file.
    Misnamed,
    /// The file cannot be used as it is.
    Unusable,
    /// What should be stored cannot be.
    Argument,
}

/// An error, before it is known which seam it goes through.
#[derive(Debug)]
pub(crate) struct Report {
    kind: Kind,
    message: String,
    cause: Option<BoxError>,
}

impl From<Report> for StoreError {
    fn from(report: Report) -> Self {
        let kind = match report.kind {
            Kind::Unavailable => StoreErrorKind::Unavailable,
            Kind::Timeout => StoreErrorKind::Timeout,
            Kind::Denied => StoreErrorKind::Denied,
            Kind::Misnamed | Kind::Argument => StoreErrorKind::Invalid,
            Kind::Unusable => StoreErrorKind::Unusable,
        };
        let error = Self::new(kind, report.message);
        match report.cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }
}

impl From<Report> for SinkError {
    fn from(report: Report) -> Self {
        let kind = match report.kind {
            Kind::Unavailable | Kind::Timeout => SinkErrorKind::Unavailable,
            Kind::Denied | Kind::Misnamed | Kind::Unusable => SinkErrorKind::Unusable,
            Kind::Argument => SinkErrorKind::Refused,
        };
        let error = Self::new(kind, report.message);
        match report.cause {
            Some(cause) => error.because(cause),
            None => error,
        }
    }
}

/// SQLite's primary result codes (<https://www.sqlite.org/rescode.html>).
mod code {
    pub(super) const ERROR: i32 = 1;
    pub(super) const PERM: i32 = 3;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const TOOBIG: i32 = 18;
    pub(super) const AUTH: i32 = 23;
    pub(super) const NOTADB: i32 = 26;
}

/// The primary result code, where SQLite gave one.
fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}

impl Failure {
    /// Whether the lock was taken.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Locked => true,
            Self::Sqlite(error) => matches!(primary_code(error), Some(code::BUSY | code::LOCKED)),
            _ => false,
        }
    }

    /// Whether the connection that it happened on may be at fault, and is better opened anew.
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(self, Self::Sqlite(_)) && !self.is_busy()
    }

    /// What to tell a caller who was doing `what` with the file at `path`.
    pub(crate) fn report(self, what: &str, path: &Path, busy_timeout: Duration) -> Report {
        let (kind, advice) = self.advice(path, busy_timeout);
        let message = format!("{what} in {}: {advice}", path.display());
        let cause = match self {
            Self::Sqlite(source) => Some(BoxError::from(source)),
            Self::Migration(source) => Some(BoxError::from(source)),
            _ => None,
        };
        Report { kind, message, cause }
    }

    fn advice(&self, path: &Path, busy_timeout: Duration) -> (Kind, String) {
        use Kind::{Argument, Misnamed, Timeout, Unavailable, Unusable};
        match self {
            Self::Sqlite(error) => sqlite_advice(error, path, busy_timeout),
            Self::Locked => (Unavailable, locked_advice(busy_timeout)),
            Self::TimedOut(limit) => (Timeout, format!("no answer within {limit:?}; is the disk overloaded or stuck?")),
            Self::NoWal(mode) => (
                Unusable,
                format!(
                    "the journal mode stays `{mode}` and cannot become WAL; put the file on a local disk, not on a \
                     network file system"
                ),
            ),
            Self::Newer(version) => (
                Unusable,
                format!(
                    "its schema has version {version}, which is newer than this build of shardwell knows; upgrade \
                     shardwell in this program"
                ),
            ),
            Self::Older => (
                Unusable,
                "its schema is of an older version and is opened read-only; start a worker of this version on it \
                 once to bring it up to date"
                    .into(),
            ),
            Self::Migration(error) => (
                Unusable,
                format!("its schema is not as shardwell made it ({error}); restore the file, or use another one"),
            ),
            Self::Foreign(table) => (
                Unusable,
                format!(
                    "it holds `{table}`, so it is a database of something else; dead letters have a file of their own: \
                     name another one"
                ),
            ),
            Self::NoFile(in_memory) => (Misnamed, format!("the path names no file; for memory, use {in_memory}")),
            Self::Damaged(what) => (Unusable, format!("{what}; restore or delete the row")),
            Self::Unreadable(what) => (Unusable, what.clone()),
            Self::Invalid(what) => (Argument, what.clone()),
        }
    }
}

fn locked_advice(busy_timeout: Duration) -> String {
    format!(
        "another process has kept the database locked for {busy_timeout:?}; end what holds the lock (a backup, a \
         shell with an open transaction), or raise the busy time-out"
    )
}

fn sqlite_advice(error: &sqlx::Error, path: &Path, busy_timeout: Duration) -> (Kind, String) {
    use Kind::{Argument, Denied, Unavailable, Unusable};
    match primary_code(error) {
        Some(code::BUSY | code::LOCKED) => (Unavailable, locked_advice(busy_timeout)),
        Some(code::READONLY) => (
            Denied,
            "the file may only be read (or was opened so); allow this user to write the file and its directory, \
             where SQLite keeps its log"
                .into(),
        ),
        Some(code::PERM | code::AUTH) => (Denied, format!("access is not permitted: {error}")),
        Some(code::CANTOPEN) => cannot_open_advice(path),
        Some(code::NOTADB) => {
            (Unusable, "the file is not a SQLite database; name another file, or remove this one".into())
        }
        Some(code::CORRUPT) => {
            (Unusable, format!("the database is corrupt ({error}); restore it from a backup, or remove it"))
        }
        Some(code::TOOBIG) => (Argument, "it is larger than SQLite can store (1 GB)".into()),
        Some(code::FULL) => (Unavailable, "the disk is full; free some space".into()),
        Some(code::ERROR) => (
            Unusable,
            format!(
                "its tables named shardwell_* are missing or were not made by shardwell ({error}); use another file"
            ),
        ),
        _ => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => {
                (Unusable, format!("a row does not hold what it should ({error}); restore or delete the row"))
            }
            _ => (Unavailable, error.to_string()),
        },
    }
}

/// SQLite says only that it cannot open the file; the file system knows why.
fn cannot_open_advice(path: &Path) -> (Kind, String) {
    use Kind::{Denied, Misnamed};
    let directory = path.parent().unwrap_or(Path::new("/"));
    if path.is_dir() {
        (Misnamed, "this is a directory; name a file".into())
    } else if !directory.is_dir() {
        (Misnamed, format!("there is no directory {}; create it first", directory.display()))
    } else if path.exists() {
        (Denied, "the file cannot be opened; allow this user to read and write it and its directory".into())
    } else {
        (
            Denied,
            "there is no such file, and it cannot be created; check the path, or allow this user to write the directory"
                .into(),
        )
    }
}
