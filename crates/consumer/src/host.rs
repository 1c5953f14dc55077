//! The user's processor at its place, and calls to it within their limits.
//!
//! Calls run at `Place::Processor`: the processor travels there and comes back with the answer. One that panics or takes
//! too long does not come back, and the factory makes another.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::{Env, EnvExt, Monotonic, Place};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::processor::{LaneContext, ProcessError, ProcessorFactory, RecordProcessor};

/// A lane's processor, or the place for one.
pub(crate) struct Host {
    env: Arc<dyn Env>,
    factory: ProcessorFactory,
    lane: LaneContext,
    /// `None` before it is made, and after a panic or a time-out.
    processor: Option<Box<dyn RecordProcessor>>,
}

/// A call to the processor that gives it back with the answer.
pub(crate) type Call<T> = Pin<Box<dyn Future<Output = (Box<dyn RecordProcessor>, Result<T, ProcessError>)> + Send>>;

/// How long a call may take.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) at: Monotonic,
    pub(crate) timeout: Duration,
    /// Told when it is over.
    pub(crate) cancel: CancellationToken,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Reason {
    Failed(ProcessError),
    Panicked(String),
    TimedOut(Duration),
}

impl Host {
    pub(crate) const fn new(env: Arc<dyn Env>, factory: ProcessorFactory, lane: LaneContext) -> Self {
        Self { env, factory, lane, processor: None }
    }

    pub(crate) const fn lane(&self) -> &LaneContext {
        &self.lane
    }

    /// Whether there is a processor now.
    pub(crate) const fn is_made(&self) -> bool {
        self.processor.is_some()
    }

    /// Makes a call, within its limit if it has one.
    pub(crate) async fn call<T: Send + 'static>(
        &mut self,
        limit: Option<Limit>,
        call: impl FnOnce(Box<dyn RecordProcessor>) -> Call<T>,
    ) -> Result<T, Reason> {
        let processor = match self.processor.take() {
            Some(processor) => processor,
            None => self.make()?,
        };
        let mut task = self.env.spawn(Place::Processor, call(processor).in_current_span());
        let ended = match &limit {
            Some(limit) => self.env.deadline(limit.at, &mut task).await,
            None => Ok((&mut task).await),
        };
        match (ended, limit) {
            (Ok(Ok((processor, answer))), _) => {
                self.processor = Some(processor);
                answer.map_err(Reason::Failed)
            }
            (Ok(Err(task)), _) => Err(Reason::Panicked(task.to_string())),
            (Err(_), limit) => {
                // A lane makes one call at a time, so this one must end before the next; code that blocks its thread ends
                // when it likes.
                let timeout = limit.map(|limit| {
                    limit.cancel.cancel();
                    limit.timeout
                });
                task.abort();
                let _ = task.await;
                Err(Reason::TimedOut(timeout.unwrap_or_default()))
            }
        }
    }

    fn make(&self) -> Result<Box<dyn RecordProcessor>, Reason> {
        let make = std::panic::AssertUnwindSafe(|| (self.factory)(&self.lane));
        std::panic::catch_unwind(make).map_err(|_| Reason::Panicked("the processor factory panicked".into()))
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error}"),
            Self::Panicked(message) => f.write_str(message),
            Self::TimedOut(timeout) => write!(f, "the processor took longer than {timeout:?}"),
        }
    }
}
