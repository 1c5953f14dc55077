//! The seam to time, tasks and randomness. All that could make two runs differ goes through here.

mod system;
mod task;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, pending, select};

use crate::{Monotonic, Timestamp};

pub use system::SystemEnv;
pub use task::{Task, TaskError};

/// One worker's clocks, tasks and randomness.
///
/// # Contract
/// - [`now`](Self::now) never goes back, and goes on while the process is stopped.
/// - A sleep ends at or after its deadline on that clock.
/// - A spawned task runs until it ends or is aborted through its [`Task`]. Tasks at different [`Place`]s do not keep each
///   other from running, whatever they do to the thread they are on.
///
/// # Conformance
/// `testing::env` holds the suite that every implementation runs (feature `testing`).
pub trait Env: fmt::Debug + Send + Sync + 'static {
    /// The monotonic clock. Its origin means nothing to anybody else.
    fn now(&self) -> Monotonic;

    /// The wall clock.
    fn timestamp(&self) -> Timestamp;

    /// Ends at `deadline`, at once if that has passed.
    fn sleep_until(&self, deadline: Monotonic) -> BoxFuture<'static, ()>;

    /// Runs a task in the background. Use [`EnvExt::spawn`], which gives a handle on it.
    fn spawn_detached(&self, place: Place, task: BoxFuture<'static, ()>);

    /// 64 random bits.
    fn random(&self) -> u64;

    /// How busy the machine was so far; `None` where it cannot be read. Reads a file or two at most.
    fn cpu_time(&self) -> Option<CpuTime>;
}

/// What the processors of a machine, or of the part of it that this process may use, have done since some time in the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// The time that they were busy.
    pub busy: Duration,
    /// The time that they could have been.
    pub total: Duration,
}

impl CpuTime {
    /// The share of the time since `earlier` that they were busy, in percent; `None` if no time has passed.
    pub fn percent_since(&self, earlier: &Self) -> Option<f64> {
        let total = self.total.checked_sub(earlier.total)?.as_secs_f64();
        let busy = self.busy.checked_sub(earlier.busy)?.as_secs_f64();
        (total > 0.0).then(|| (busy / total * 100.0).clamp(0.0, 100.0))
    }
}

/// Where a task runs: what it must never be kept from by another place's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Leases: few, small tasks that must run on time.
    Coordination,
    /// Records between the stream and the processors: tasks that never block.
    Pipeline,
    /// The user's code: each task may block its thread for as long as it likes.
    Processor,
}

/// A deadline that passed before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the deadline passed")]
pub struct Elapsed;

/// What every [`Env`] can do on top of the seam.
pub trait EnvExt: Env {
    /// Ends after a duration.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.sleep_until(self.now().plus(duration))
    }

    /// Ends at a time; where there is none, never.
    fn sleep_until_if_any(&self, time: Option<Monotonic>) -> BoxFuture<'static, ()> {
        time.map_or_else(|| pending().boxed(), |time| self.sleep_until(time))
    }

    /// Bounds a future by a deadline. The future is polled first, so one that is ready wins.
    ///
    /// # Cancel safety
    /// As cancel safe as the future itself.
    fn deadline<F: Future + Send>(
        &self,
        deadline: Monotonic,
        future: F,
    ) -> impl Future<Output = Result<F::Output, Elapsed>> + Send {
        let sleep = self.sleep_until(deadline);
        async move {
            match select(std::pin::pin!(future), sleep).await {
                Either::Left((output, _)) => Ok(output),
                Either::Right(((), _)) => Err(Elapsed),
            }
        }
    }

    /// Runs a future in the background, until it ends or the handle is dropped.
    fn spawn<T: Send + 'static>(&self, place: Place, future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let (task, run) = Task::new(future);
        self.spawn_detached(place, run);
        task
    }
}

impl<E: Env + ?Sized> EnvExt for E {}
