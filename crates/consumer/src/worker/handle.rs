//! Looking at a worker, and steering it.

use std::sync::Arc;

use super::status::WorkerStatus;
use super::{Phase, Shared};

/// A handle on a worker. Cheap to clone; keeps nothing running.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    shared: Arc<Shared>,
}

impl WorkerHandle {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What the worker is doing, shard by shard, and why a shard is not being read. Costs no call to anything.
    pub fn status(&self) -> WorkerStatus {
        self.shared.status()
    }

    /// Whether the worker leads its fleet just now. Costs no call to anything.
    pub fn leads(&self) -> bool {
        *self.shared.leads.look()
    }

    /// Whether somebody plans for this worker, it has looked for what it was given, and it has opened all of that, so that
    /// records put from now on are read; false again once it stops. For readiness probes. In a fleet, other workers may not be
    /// there yet, and this one may be given more or less at any time.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Waits until the worker is ready; answers false if it stopped before that.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&self) -> bool {
        let mut changes = self.shared.readiness.watch();
        loop {
            changes.look();
            if self.shared.is_ready() {
                return true;
            }
            if *self.shared.phase.look() == Phase::Stopped {
                return false;
            }
            changes.changed().await;
        }
    }

    /// Reads nothing more and hands nothing more to processors, until [`resume`](Self::resume). Batches that are running
    /// finish; leases are kept and renewed.
    pub fn pause(&self) {
        self.shared.paused.set(true);
    }

    /// Ends a pause, also one that the worker began by itself because too many records died (see
    /// [`FusePolicy`](shardwell_core::delivery::FusePolicy)).
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Asks the worker to stop gracefully, and returns at once: running batches finish, what is done is checkpointed,
    /// leases are released. [`Worker::run`](super::Worker::run) returns when that is done.
    pub fn request_shutdown(&self) {
        self.shared.stop();
    }

    /// Asks the worker to stop gracefully, and waits until it has. Needs somebody to drive
    /// [`Worker::run`](super::Worker::run) meanwhile.
    ///
    /// # Cancel safety
    /// When the future is dropped, the worker stops all the same.
    pub async fn shutdown(&self) {
        self.shared.stop();
        let mut phase = self.shared.phase.watch();
        // An error means that the worker is gone, which is what was waited for.
        phase.until(|phase| *phase == Phase::Stopped).await;
    }
}
