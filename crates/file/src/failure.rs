//! Why the file cannot be used, and what to do.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use shardwell_core::dead_letter::{LetterId, SinkError, SinkErrorKind};

use crate::MAX_LINE_BYTES;

/// Why a call failed, before it is known on which file.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The system says no, while this was done.
    Io(&'static str, io::Error),
    /// There is something at the path, and it is no plain file.
    NotAFile,
    /// The file holds something else.
    Foreign,
    /// The file is gone again whenever it was written.
    Vanishes,
    /// A letter makes too long a line.
    TooLong(Box<LetterId>, usize),
    /// Another process kept the lock for so long.
    Locked(Duration),
    /// The call took too long.
    TimedOut(Duration),
    /// The thread that did it ended without an answer.
    NoAnswer,
}

impl Failure {
    /// The error for a caller who was doing `what`.
    pub(crate) fn into_sink_error(self, what: &str, path: &Path) -> SinkError {
        let (kind, advice) = self.advice(path);
        let error = SinkError::new(kind, format!("{what} in {}: {advice}", path.display()));
        match self {
            Self::Io(_, cause) => error.because(cause),
            _ => error,
        }
    }

    fn advice(&self, path: &Path) -> (SinkErrorKind, String) {
        use SinkErrorKind::{Refused, Unavailable, Unusable};
        match self {
            Self::Io(doing, error) => io_advice(doing, error, path),
            Self::NotAFile => (Unusable, "this is not a plain file; name a file".into()),
            Self::Foreign => {
                (Unusable, "the file holds something else than dead letters; name another one, or remove it".into())
            }
            Self::Vanishes => (
                Unavailable,
                "the file is deleted again and again while it is written; let whatever does that leave it alone".into(),
            ),
            Self::TooLong(id, bytes) => {
                (Refused, format!("{id} takes a line of {bytes} bytes, and a line may have {MAX_LINE_BYTES}"))
            }
            Self::Locked(patience) => (
                Unavailable,
                format!("another process has kept the file locked for {patience:?}; end what holds the lock"),
            ),
            Self::TimedOut(limit) => (Unavailable, format!("no answer within {limit:?}; is the disk stuck?")),
            Self::NoAnswer => (Unavailable, "the thread that wrote ended without an answer".into()),
        }
    }
}

fn io_advice(doing: &str, error: &io::Error, path: &Path) -> (SinkErrorKind, String) {
    use SinkErrorKind::{Unavailable, Unusable};
    match error.kind() {
        ErrorKind::NotFound => match path.parent() {
            Some(directory) if !directory.is_dir() => {
                (Unusable, format!("there is no directory {}; create it first", directory.display()))
            }
            _ => (Unusable, "there is no such file; check the path".into()),
        },
        ErrorKind::NotADirectory => (Unusable, "a part of the path is no directory; check the path".into()),
        ErrorKind::IsADirectory => (Unusable, "this is a directory; name a file".into()),
        ErrorKind::PermissionDenied => (
            Unusable,
            format!("{doing} is not permitted; allow this user to read and write the file and its directory"),
        ),
        ErrorKind::ReadOnlyFilesystem => (Unusable, "the file system can only be read; name a file elsewhere".into()),
        ErrorKind::Unsupported => {
            (Unusable, format!("{doing} is not possible on this file system; name a file on a local disk"))
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (Unavailable, "the disk is full; free some space".into()),
        ErrorKind::FileTooLarge => {
            (Unavailable, "the file is as large as it may become; move it away, and a new one is begun".into())
        }
        _ => (Unavailable, format!("{doing} failed: {error}")),
    }
}
