//! The seam to where dead letters go.

use std::fmt;

use async_trait::async_trait;

use super::{DeadLetter, DeadLetterArchive, SinkError};

/// Keeps dead letters.
///
/// # Contract
/// - **Durable before it returns**: after [`put`](Self::put) answered `Ok`, the letters survive a crash of the process
///   and, to the degree that the sink documents, of the machine. Only then does the worker go past the records.
/// - **Idempotent**: a letter whose [identity](super::LetterId) is there already takes its place, and is not a second one. A
///   worker that crashes between writing a letter and storing its checkpoint writes it again.
/// - **All or nothing is not needed**: after an error any part of the letters may have been kept; all are put again.
/// - Sinks do not retry; the worker does, and tries the next sink if there is one.
/// - **No call hangs**: a sink bounds every request by a time-out of its own.
///
/// # Cancel safety
/// When the future of `put` is dropped it is not known what was kept; the letters are put again.
///
/// # Conformance
/// `testing::dead_letters` holds the suite that every implementation runs (feature `testing`).
#[async_trait]
pub trait DeadLetterSink: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// Makes the sink ready: creates or migrates what it needs. Called when a worker starts; safe to call again and from
    /// many processes at once.
    ///
    /// # Errors
    /// [`SinkErrorKind::Unusable`](super::SinkErrorKind::Unusable) where nothing can be kept: the worker does not start.
    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Keeps letters, at least one. Those of one call were one batch, and were given up on together.
    ///
    /// # Errors
    /// See [`SinkErrorKind`](super::SinkErrorKind).
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), SinkError>;

    /// The same place for reading letters back and redriving them; `None` where it cannot.
    fn archive(&self) -> Option<&dyn DeadLetterArchive> {
        None
    }
}
