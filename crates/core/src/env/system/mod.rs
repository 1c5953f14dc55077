//! The system's clocks and threads.
#![expect(clippy::disallowed_methods, reason = "this module is where they are allowed")]

mod cpu;

use std::fmt;
use std::time::{Instant, SystemTime};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::{Builder, Handle, Runtime};

use super::{Env, Place};
use crate::{CpuTime, Monotonic, Timestamp};

/// The real world: the system's clocks and random numbers, and three places for tasks.
///
/// | place | runs on |
/// |---|---|
/// | [`Place::Pipeline`] | the tokio runtime that was current when this was made |
/// | [`Place::Coordination`] | a runtime of its own with one thread, `shardwell-coordination` |
/// | [`Place::Processor`] | a thread each, `shardwell-processor`, reused; timers and I/O in there belong to the tokio runtime that was current when this was made |
pub struct SystemEnv {
    origin: Instant,
    pipeline: Handle,
    /// `Some` until the drop: a runtime must not be dropped plainly inside another one.
    coordination: Option<Runtime>,
    /// Never driven: only its pool of threads for blocking calls is used.
    processors: Option<Runtime>,
}

/// Threads for user code at most. Far above any sensible `max_concurrent_batches`, since a processor that was given up
/// on keeps its thread until it returns.
const MAX_PROCESSOR_THREADS: usize = 8192;

impl SystemEnv {
    /// An environment around the current tokio runtime.
    ///
    /// # Errors
    /// Outside a tokio runtime, and when the system refuses a thread.
    pub fn new() -> std::io::Result<Self> {
        let pipeline = Handle::try_current().map_err(std::io::Error::other)?;
        let coordination =
            Builder::new_multi_thread().worker_threads(1).thread_name("shardwell-coordination").enable_all().build()?;
        let processors = Builder::new_current_thread()
            .thread_name("shardwell-processor")
            .max_blocking_threads(MAX_PROCESSOR_THREADS)
            .build()?;
        Ok(Self { origin: Instant::now(), pipeline, coordination: Some(coordination), processors: Some(processors) })
    }
}

impl Env for SystemEnv {
    fn now(&self) -> Monotonic {
        Monotonic::from_origin(self.origin.elapsed())
    }

    fn timestamp(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn sleep_until(&self, deadline: Monotonic) -> BoxFuture<'static, ()> {
        let deadline = self.origin + deadline.since_origin();
        // Made inside the future: a timer belongs to the runtime on which it is first polled.
        async move { tokio::time::sleep_until(deadline.into()).await }.boxed()
    }

    fn spawn_detached(&self, place: Place, task: BoxFuture<'static, ()>) {
        match (place, &self.coordination, &self.processors) {
            (Place::Coordination, Some(runtime), _) => {
                runtime.spawn(task);
            }
            (Place::Processor, _, Some(runtime)) => {
                let pipeline = self.pipeline.clone();
                runtime.spawn_blocking(move || pipeline.block_on(task));
            }
            // The runtimes are there until the drop, and nobody calls a method after that.
            (Place::Pipeline | Place::Coordination | Place::Processor, _, _) => {
                self.pipeline.spawn(task);
            }
        }
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn cpu_time(&self) -> Option<CpuTime> {
        cpu::cpu_time(self.origin.elapsed())
    }
}

impl Drop for SystemEnv {
    fn drop(&mut self) {
        // In the background: a processor that never returns must not keep the process from ending.
        for runtime in [self.coordination.take(), self.processors.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for SystemEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemEnv").field("origin", &self.origin).finish_non_exhaustive()
    }
}
