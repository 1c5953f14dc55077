//! The worker: one process's share of an application.

mod builder;
mod consumed;
mod error;
mod handle;
mod settings;
mod shared;
pub(crate) mod status;
mod streams;

use std::future::Future;
use std::sync::Arc;

use shardwell_core::{EnvExt, Place, RetryPolicy, Task, TaskError};
use tokio::sync::mpsc;
use tracing::{Instrument, error, info, info_span, warn};

use crate::causes::with_causes;
use crate::dead_letters;
use crate::leases::{self, Flush, Registration};

pub use builder::WorkerBuilder;
pub use consumed::ConsumedStreamStatus;
pub(crate) use consumed::{ConsumedStream, ConsumedStreams, Entry};
pub use error::{BuildError, DataLoss, WorkerError};
pub use handle::WorkerHandle;
pub use settings::OnDataLoss;
pub(crate) use shared::{Phase, Shared};
pub use status::{ShardState, ShardStatus, WorkerPhase, WorkerStatus};
pub use streams::Streams;

/// A consumer of one stream, or of several, for one application. Run as many, in as many processes, as there is work for; they
/// share the shards through their lease table.
///
/// Made by [`Worker::builder`], or [`Worker::builder_for_streams`].
#[must_use = "a worker does nothing until it is run"]
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    flushes: mpsc::UnboundedReceiver<Flush>,
}

impl Worker {
    /// A handle for looking at the worker and for stopping it. Cheap to clone.
    pub fn handle(&self) -> WorkerHandle {
        WorkerHandle::new(self.shared.clone())
    }

    /// Runs until [`WorkerHandle::shutdown`] is called or the worker cannot go on. Then running batches finish, what is
    /// done is checkpointed, and the leases are released.
    ///
    /// # Errors
    /// Why the worker could not start or go on; see [`WorkerError`]. What passes by itself (a throttled table, a broken
    /// connection) is retried and never ends a running worker.
    ///
    /// # Cancel safety
    /// When the future is dropped, everything stops at once: nothing more is checkpointed, and the leases are left to
    /// expire. Records since the last checkpoint are delivered again. Use a shutdown instead.
    pub async fn run(self) -> Result<(), WorkerError> {
        let Self { shared, flushes } = self;
        let span = info_span!("worker", application = %shared.application, worker = %shared.worker);
        let work = coordinate(shared.clone(), flushes).instrument(span);
        let result = match shared.env.spawn(Place::Coordination, work).await {
            Ok(result) => result,
            Err(task) => Err(WorkerError::Broken(task.to_string())),
        };
        shared.stopped();
        result
    }

    /// Runs until `stop` is ready, then shuts down gracefully: [`run`](Self::run) with, say, a signal.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send) -> Result<(), WorkerError> {
        let handle = self.handle();
        let run = self.run();
        tokio::pin!(run);
        tokio::select! {
            biased;
            result = &mut run => return result,
            () = stop => handle.request_shutdown(),
        }
        run.await
    }
}

/// The life of a worker, on the coordination's thread.
async fn coordinate(shared: Arc<Shared>, flushes: mpsc::UnboundedReceiver<Flush>) -> Result<(), WorkerError> {
    let mut registration = Registration::new(&shared);
    start(&shared, &mut registration).await?;
    if !registration.is_ours() {
        // Told to stop before it had the id: what belongs to that may be another process's.
        let end = shared.env.now().plus(shared.timing.duration());
        if shared.env.deadline(end, leases::leave_plan(&shared, &registration)).await.is_err() {
            warn!("the worker's item may be left in the table; the leader removes it");
        }
        return Ok(());
    }
    // If it was told to stop meanwhile, all that follows is in order, and ends at once.
    shared.started();
    info!(streams = ?shared.streams.status(), leases = %shared.store, "worker started");
    let renewer = shared.env.spawn(Place::Coordination, leases::renew(shared.clone(), flushes).in_current_span());
    let redriver = shared.env.spawn(Place::Pipeline, dead_letters::redrive(shared.clone()).in_current_span());
    let syncer = shared.env.spawn(Place::Coordination, leases::sync(shared.clone()).in_current_span());
    let follower = shared.env.spawn(Place::Coordination, leases::follow(shared.clone()).in_current_span());
    let registrar =
        shared.env.spawn(Place::Coordination, leases::register(shared.clone(), registration).in_current_span());
    let mut leader = shared.env.spawn(Place::Coordination, leases::lead(shared.clone()).in_current_span());
    tokio::select! {
        biased;
        () = leases::discover(shared.clone()) => finish_redriving(&shared, redriver).await,
        error = broken(renewer, "the task that renews leases") => return Err(error),
        error = broken(syncer, "the task that syncs shards and leases") => return Err(error),
        error = broken(follower, "the task that follows streams") => return Err(error),
        error = broken(registrar, "the task that registers the worker") => return Err(error),
        error = broken(&mut leader, "the task that leads") => return Err(error),
    }
    shared.handed_over.set(true);
    let deadline = shared.env.now().plus(shared.timing.duration());
    if !shared.is_failed_without_release()
        && let Err(error) = leases::undrain(&shared).await
    {
        warn!(%error, "this worker may be told to be drained although it is gone; the leader forgets that");
    }
    if shared.env.deadline(deadline, leader).await.is_err() {
        warn!("the lead could not be given up in time; it will expire");
    }
    info!("worker stopped");
    shared.take_failure().map_or(Ok(()), Err)
}

/// Lets the letters at hand be resolved, until the deadline of the stop at the latest: then they wait until their claims are
/// over.
async fn finish_redriving(shared: &Shared, redriver: Task<()>) {
    let phase = *shared.phase.look();
    if let Phase::Stopping { deadline } = phase
        && shared.env.deadline(deadline, redriver).await.is_err()
    {
        warn!("dead letters were still being tried at the deadline; they are tried again in some minutes");
    }
}

/// Ready when a task broke down; never, if it just ended.
async fn broken(task: impl Future<Output = Result<(), TaskError>> + Send, what: &str) -> WorkerError {
    match task.await {
        Ok(()) => std::future::pending().await,
        Err(error) => {
            error!(%error, "{what} broke down");
            WorkerError::Broken(format!("{what} broke down: {error}"))
        }
    }
}

/// Makes everything ready and registers, and tries again while that may help; until it is told to stop.
async fn start(shared: &Arc<Shared>, registration: &mut Registration) -> Result<(), WorkerError> {
    let deadline = shared.env.now().plus(shared.settings.startup_deadline);
    let retry = RetryPolicy::default().with_cap(std::time::Duration::from_secs(5));
    let mut stopping = shared.phase.watch();
    let mut last_error = "no answer from the lease table or the stream".to_owned();
    for failures in 1.. {
        let attempt = async {
            shared.dead_letters.prepare().await.map_err(WorkerError::DeadLetters)?;
            leases::prepare(shared).await?;
            leases::register_first(shared, registration).await
        };
        let attempt_and_pause = async {
            let result = shared.env.deadline(deadline, attempt).await;
            if let Ok(Err(error)) = &result
                && leases::may_pass(error)
            {
                warn!(error = %with_causes(error), "cannot start yet; trying again");
                shared.env.sleep(retry.delay(failures, shared.env.random()).unwrap_or_default()).await;
            }
            result
        };
        let result = tokio::select! {
            biased;
            _ = stopping.until(|phase| matches!(phase, Phase::Stopping { .. })) => return Ok(()),
            result = attempt_and_pause => result,
        };
        match result {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if !leases::may_pass(&error) => return Err(error),
            Ok(Err(error)) => last_error = with_causes(&error),
            Err(_) => break,
        }
        if shared.env.now() >= deadline {
            break;
        }
    }
    Err(WorkerError::NotStarted { deadline: shared.settings.startup_deadline, last_error })
}
