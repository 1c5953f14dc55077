//! Appending lines so that they are on the disk, whoever else appends and whatever happens to the file.

use std::borrow::Cow;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;
use crate::lock::{Lock, lock};

/// How often a file may vanish while it is written before that is an error.
const ATTEMPTS: usize = 5;

/// The file that is written to, opened when it is first needed and whenever another one has taken its place.
#[derive(Debug)]
pub(crate) struct Appender {
    path: PathBuf,
    open: Option<File>,
    /// How long others are waited for.
    patience: Duration,
}

impl Appender {
    pub(crate) const fn new(path: PathBuf, patience: Duration) -> Self {
        Self { path, open: None, patience }
    }

    /// Creates the file if it is missing, and makes sure that it can be written.
    pub(crate) fn prepare(&mut self) -> Result<(), Failure> {
        self.with_locked(|_| Ok(()))
    }

    /// Appends whole lines, each with its line feed. When this returns they are on the disk, in the file that is at the
    /// path now, or was moved away from there in this moment.
    pub(crate) fn append(&mut self, lines: &[u8]) -> Result<(), Failure> {
        self.write(|file| append_to(file, lines))
    }

    fn write(&mut self, mut write: impl FnMut(&mut File) -> Result<(), Failure>) -> Result<(), Failure> {
        for _ in 0..ATTEMPTS {
            let kept = self.with_locked(|file| {
                write(file)?;
                Ok(has_a_name(&metadata(file)?))
            })?;
            if kept {
                return Ok(());
            }
            // It was deleted after the look at the path and before the end of the write: nobody will ever read it.
            self.open = None;
        }
        Err(Failure::Vanishes)
    }

    /// Runs something with the file that is at the path, while nobody else writes to it. After an error the file is opened
    /// anew, which ends the lock too.
    fn with_locked<T>(&mut self, run: impl FnOnce(&mut File) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut file = self.locked()?;
        let outcome = run(&mut file)?;
        file.unlock().map_err(|e| Failure::Io("unlocking the file", e))?;
        self.open = Some(file);
        Ok(outcome)
    }

    /// The file, locked. It is compared with the path under the lock: while that was waited for, another process may have
    /// moved the file away.
    fn locked(&mut self) -> Result<File, Failure> {
        for _ in 0..ATTEMPTS {
            let file = match self.open.take() {
                Some(file) => file,
                None => open(&self.path)?,
            };
            lock(&file, Lock::Exclusive, self.patience)?;
            if is_at(&file, &self.path)? {
                return Ok(file);
            }
        }
        Err(Failure::Vanishes)
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    // A pipe would block here until somebody reads it.
    if std::fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
        return Err(Failure::NotAFile);
    }
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(|e| Failure::Io("opening the file", e))?;
    if !looks_like_letters(&mut file).map_err(|e| Failure::Io("reading the file", e))? {
        return Err(Failure::Foreign);
    }
    // The name of a new file is in its directory, which the system writes whenever it likes. Whether the file was new is
    // not known: another process may have made it just now, and may die before it gets here.
    sync_directory(path).map_err(|e| Failure::Io("writing the directory to the disk", e))?;
    Ok(file)
}

/// Only its first byte is looked at: a file of something else must not be spoiled by a wrong path, while one of ours that
/// a crash left damaged is still ours. After a crash of the machine there may be zeros where lines were not yet written.
fn looks_like_letters(file: &mut File) -> io::Result<bool> {
    let mut first = [0];
    let is_empty = file.read(&mut first)? == 0;
    Ok(is_empty || matches!(first[0], b'{' | b'\n' | 0))
}

/// With one write, and on the disk when this returns. After an error the file is as long as it was, so that a disk that
/// is full does not fill with parts of lines.
fn append_to(file: &mut File, lines: &[u8]) -> Result<(), Failure> {
    let length = metadata(file)?.len();
    let torn = ends_within_a_line(file, length).map_err(|e| Failure::Io("reading the file", e))?;
    let bytes = if torn { Cow::Owned([b"\n", lines].concat()) } else { Cow::Borrowed(lines) };
    let written = file.write_all(&bytes).map_err(|e| Failure::Io("writing the file", e));
    let written = written.and_then(|()| file.sync_data().map_err(|e| Failure::Io("writing the file to the disk", e)));
    if written.is_err() {
        // Where this fails too, the next to append begins a new line.
        let _ = file.set_len(length);
    }
    written
}

/// Whether a process died while it wrote the last line.
fn ends_within_a_line(file: &mut File, length: u64) -> io::Result<bool> {
    if length == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut last)?;
    Ok(last[0] != b'\n')
}

fn metadata(file: &File) -> Result<Metadata, Failure> {
    file.metadata().map_err(|e| Failure::Io("looking at the file", e))
}

/// Whether an open file is still what is at the path.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> Result<bool, Failure> {
    use std::os::unix::fs::MetadataExt;
    let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
    match std::fs::metadata(path) {
        Ok(there) => Ok(identity(&there) == identity(&metadata(file)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::Io("looking at the file", error)),
    }
}

/// Elsewhere an open file cannot be moved or deleted.
#[cfg(not(unix))]
fn is_at(_file: &File, _path: &Path) -> Result<bool, Failure> {
    Ok(true)
}

#[cfg(unix)]
fn has_a_name(file: &Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(file) > 0
}

#[cfg(not(unix))]
fn has_a_name(_file: &Metadata) -> bool {
    true
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// Elsewhere directories cannot be opened.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Deleted in the one moment that the look before the write cannot see.
    #[test]
    fn a_file_that_is_deleted_while_it_is_written_is_written_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("letters");
        let mut appender = Appender::new(path.clone(), Duration::from_secs(10));
        let mut times = 0;
        let written = appender.write(|file| {
            times += 1;
            if times < ATTEMPTS {
                std::fs::remove_file(&path).expect("deleted");
            }
            append_to(file, b"{}\n")
        });
        written.expect("in the end");
        assert_eq!((times, std::fs::read_to_string(&path).expect("read").as_str()), (ATTEMPTS, "{}\n"));

        let hopeless = appender.write(|_| {
            std::fs::remove_file(&path).expect("deleted");
            Ok(())
        });
        assert!(matches!(hopeless, Err(Failure::Vanishes)));
    }

    #[test]
    fn an_error_leaves_no_lock() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("letters");
        let mut appender = Appender::new(path.clone(), Duration::from_secs(10));
        let failed = appender.with_locked(|_| Err::<(), _>(Failure::Vanishes));
        assert!(matches!(failed, Err(Failure::Vanishes)));
        File::open(&path).expect("opened").try_lock().expect("not locked");
        appender.append(b"{}\n").expect("written");
    }

    #[test]
    fn a_lock_is_given_back_after_each_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("letters");
        let mut appender = Appender::new(path.clone(), Duration::from_secs(10));
        appender.append(b"{}\n").expect("written");
        File::open(&path).expect("opened").try_lock().expect("not locked");
    }
}
