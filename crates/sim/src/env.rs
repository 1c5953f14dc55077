//! One worker's process.
#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is the simulated clock and scheduler")]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shardwell_core::{CpuTime, Env, Monotonic, Place, Timestamp};
use tokio::time::Instant;

/// A simulated process. Cheap to clone; all clones are the same process.
#[derive(Clone)]
pub struct SimEnv {
    process: Arc<Process>,
}

struct Process {
    /// Where virtual time stood when the process started.
    start: Instant,
    /// The wall clock at that moment.
    wall_start: Timestamp,
    /// How much faster than virtual time the monotonic clock runs.
    rate: f64,
    random: Mutex<fastrand::Rng>,
    gate: Mutex<Gate>,
}

/// Whether the tasks of a process may run.
enum Gate {
    Open,
    /// Nobody runs; these want to be polled when it opens.
    Frozen(Vec<Waker>),
    /// Every task is dropped when it is polled next.
    Crashed,
}

impl SimEnv {
    /// A process that starts now, with its wall clock at `wall_start` and all its randomness drawn from `seed`.
    ///
    /// # Panics
    /// Outside a tokio runtime whose clock is paused: only there is time virtual.
    pub fn new(seed: u64, wall_start: Timestamp) -> Self {
        Self::with_clock_rate(seed, wall_start, 1.0)
    }

    /// As [`new`](Self::new), with a monotonic clock that runs `rate` times as fast as virtual time.
    ///
    /// # Panics
    /// As [`new`](Self::new), and when `rate` is not positive.
    pub fn with_clock_rate(seed: u64, wall_start: Timestamp, rate: f64) -> Self {
        assert!(rate > 0.0, "a clock that stands still or runs backwards is not monotonic");
        let process = Process {
            start: Instant::now(),
            wall_start,
            rate,
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
            gate: Mutex::new(Gate::Open),
        };
        Self { process: Arc::new(process) }
    }

    /// Stops every task where it is. Clocks go on.
    pub fn freeze(&self) {
        let mut gate = self.process.gate();
        if let Gate::Open = *gate {
            *gate = Gate::Frozen(Vec::new());
        }
    }

    /// Lets the tasks of a frozen process go on.
    pub fn thaw(&self) {
        let mut gate = self.process.gate();
        if let Gate::Frozen(waiting) = &mut *gate {
            let waiting = std::mem::take(waiting);
            *gate = Gate::Open;
            drop(gate);
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    /// Drops every task without another step. For ever.
    pub fn crash(&self) {
        let before = std::mem::replace(&mut *self.process.gate(), Gate::Crashed);
        if let Gate::Frozen(waiting) = before {
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Process {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Env for SimEnv {
    fn now(&self) -> Monotonic {
        Monotonic::from_origin(self.process.start.elapsed().mul_f64(self.process.rate))
    }

    fn timestamp(&self) -> Timestamp {
        self.process.wall_start.plus(self.process.start.elapsed())
    }

    fn sleep_until(&self, deadline: Monotonic) -> BoxFuture<'static, ()> {
        if self.now() >= deadline {
            return std::future::ready(()).boxed();
        }
        // Rounded up to the timer's millisecond, so that the deadline has passed on this clock when the sleep ends.
        let virtual_time = deadline.since_origin().div_f64(self.process.rate) + Duration::from_millis(1);
        let deadline = self.process.start + virtual_time;
        async move { tokio::time::sleep_until(deadline).await }.boxed()
    }

    fn spawn_detached(&self, _place: Place, task: BoxFuture<'static, ()>) {
        tokio::spawn(Gated { process: self.process.clone(), task: Some(task) });
    }

    fn random(&self) -> u64 {
        self.process.random.lock().unwrap_or_else(PoisonError::into_inner).u64(..)
    }

    fn cpu_time(&self) -> Option<CpuTime> {
        None
    }
}

impl fmt::Debug for SimEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimEnv").field("rate", &self.process.rate).finish_non_exhaustive()
    }
}

/// A task that runs only while its process does.
struct Gated {
    process: Arc<Process>,
    task: Option<BoxFuture<'static, ()>>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let crashed = match &mut *self.process.gate() {
            Gate::Open => false,
            Gate::Frozen(waiting) => {
                waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            Gate::Crashed => true,
        };
        if crashed {
            self.task = None;
        }
        match &mut self.task {
            Some(task) => task.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}
