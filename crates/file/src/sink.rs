//! The sink: encoding letters, on a thread that may block.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::async_trait;
use shardwell_core::dead_letter::{DeadLetter, DeadLetterSink, SinkError, lambda_document};
use tokio::sync::Mutex;

use crate::MAX_LINE_BYTES;
use crate::append::Appender;
use crate::failure::Failure;

/// How long a call may take, unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a line holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// A letter, with everything that is known of it ([`DeadLetter::to_json`]); [`read`](crate::read) reads it back.
    #[default]
    Full,
    /// Lambda's document for all letters of a burial ([`lambda_document`]): for tools that know it. It cannot be read
    /// back as letters.
    Lambda {
        /// Whether the document holds the records too, as Lambda's S3 objects do.
        payload: bool,
    },
}

/// Dead letters in a file, a line of JSON each, for any number of processes on one machine.
///
/// Clones share the open file. Letters are read back with [`read`](crate::read); they cannot be redriven from here.
///
/// # Identity
/// A letter that is put again is another line; [`read`](crate::read) takes the last one of each record.
///
/// # The file
/// It is only ever appended to, by a write for each call, under an advisory lock (`flock`) that all writers take. A line that
/// a crash cut off stays as it is, and the next letter begins a new line. A file that was moved away or deleted is noticed
/// before the next write, and a new one is begun in its place; so log rotation by renaming needs no signal. Rotation by
/// copying and truncating loses what is written in between: do not use it.
///
/// # Durability
/// When a call returns, its lines are on the disk (`fdatasync`), and so is the name of a new file (`fsync` on its
/// directory): they survive a crash of the machine as far as the disk keeps its word. The file should be on a local disk.
///
/// # Time
/// One call writes at a time, on a thread that may block; the others wait. Each gives up after twice the time-out. A call
/// needs a tokio runtime with its timer.
///
/// # Cancel safety
/// As [`DeadLetterSink`] demands: a dropped call has written its lines, or will, or never does.
#[derive(Clone)]
pub struct FileDeadLetters {
    path: Arc<Path>,
    format: Format,
    timeout: Duration,
    /// Goes along to the thread that writes: a call that was given up on still has it until that thread is done.
    appender: Arc<Mutex<Appender>>,
}

impl FileDeadLetters {
    /// Dead letters in a file, which is created when it is first used. Made without I/O. A relative path is taken from the
    /// current directory at this moment.
    pub fn new(path: impl AsRef<Path>) -> Self {
        // Fails only where the current directory is gone or the path is empty; then opening fails too, and says so.
        let path = std::path::absolute(path.as_ref()).unwrap_or_else(|_| path.as_ref().to_owned());
        Self::on(path.into(), Format::default(), DEFAULT_TIMEOUT)
    }

    fn on(path: Arc<Path>, format: Format, timeout: Duration) -> Self {
        let appender = Arc::new(Mutex::new(Appender::new(path.to_path_buf(), timeout)));
        Self { path, format, timeout, appender }
    }

    /// What a line holds. Default: [`Format::Full`].
    #[must_use]
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// How long a call waits for other processes; in all it may take twice that. Default: 10 s. Too small turns a busy disk
    /// into errors, after which a worker waits and puts the letters again.
    ///
    /// The result opens the file for itself.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self::on(Arc::clone(&self.path), self.format, timeout)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What a line holds.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Runs what may block on a thread for that, bounded in time.
    #[expect(clippy::disallowed_methods, reason = "files live on real threads and a real disk, outside of any `Env`")]
    async fn call(
        &self,
        what: &str,
        run: impl FnOnce(&mut Appender) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), SinkError> {
        let call = async {
            let mut appender = Arc::clone(&self.appender).lock_owned().await;
            let answer = tokio::task::spawn_blocking(move || run(&mut appender)).await;
            answer.unwrap_or(Err(Failure::NoAnswer))
        };
        // The wait for a lock is bounded by itself: this bounds the wait behind other calls, and a disk that hangs.
        let limit = self.timeout.saturating_mul(2);
        let outcome = tokio::time::timeout(limit, call).await.unwrap_or(Err(Failure::TimedOut(limit)));
        outcome.map_err(|failure| failure.into_sink_error(what, &self.path))
    }
}

/// All lines of a burial in one buffer.
fn encode(letters: &[DeadLetter], format: Format) -> Result<Vec<u8>, Failure> {
    let mut lines = String::new();
    match format {
        Format::Full => {
            for letter in letters {
                push_line(&mut lines, &letter.to_json(), letter)?;
            }
        }
        Format::Lambda { payload } => {
            if let (Some(document), Some(first)) = (lambda_document(letters, payload), letters.first()) {
                push_line(&mut lines, &document.to_string(), first)?;
            }
        }
    }
    Ok(lines.into_bytes())
}

/// JSON without its white space has no line feed.
fn push_line(lines: &mut String, json: &str, letter: &DeadLetter) -> Result<(), Failure> {
    if json.len() > MAX_LINE_BYTES {
        return Err(Failure::TooLong(Box::new(letter.id()), json.len()));
    }
    lines.push_str(json);
    lines.push('\n');
    Ok(())
}

impl fmt::Debug for FileDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileDeadLetters")
            .field("path", &self.path)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for FileDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dead letters in {}", self.path.display())
    }
}

#[async_trait]
impl DeadLetterSink for FileDeadLetters {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.call("opening the dead letters", Appender::prepare).await
    }

    async fn put(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let (letters, format) = (letters.to_vec(), self.format);
        let append = move |appender: &mut Appender| appender.append(&encode(&letters, format)?);
        self.call("putting dead letters", append).await
    }
}
