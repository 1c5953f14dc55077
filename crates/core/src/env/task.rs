//! A handle on a task that is never left behind.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use tokio::sync::oneshot;

/// A running task. Awaiting it gives its output; dropping it aborts it at its next await point.
#[derive(Debug)]
#[must_use = "dropping a task aborts it"]
pub struct Task<T> {
    output: oneshot::Receiver<Result<T, TaskError>>,
    abort: AbortHandle,
}

/// Why a task has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It panicked, with this message.
    #[error("the task panicked: {0}")]
    Panicked(String),
    /// It was aborted, or the runtime under it is gone.
    #[error("the task was aborted")]
    Aborted,
}

impl<T: Send + 'static> Task<T> {
    /// A task, and the future that somebody must run for it.
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> (Self, BoxFuture<'static, ()>) {
        let (send, output) = oneshot::channel();
        let (abort, registration) = AbortHandle::new_pair();
        let run = async move {
            let caught = AssertUnwindSafe(future)
                .catch_unwind()
                .map(|result| result.map_err(|panic| TaskError::Panicked(panic_message(&*panic))));
            if let Ok(result) = Abortable::new(caught, registration).await {
                // Nobody waits for the output: that is the caller's choice.
                let _ = send.send(result);
            }
        };
        (Self { output, abort }, run.boxed())
    }

    /// Stops the task at its next await point. Code that blocks its thread goes on until it returns.
    pub fn abort(&self) {
        self.abort.abort();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.output).poll(cx).map(|received| received.unwrap_or(Err(TaskError::Aborted)))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
