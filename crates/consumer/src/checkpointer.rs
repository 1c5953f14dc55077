//! Manual checkpoints, by the KCL's rules.

use std::fmt;
use std::sync::Arc;

use shardwell_core::{Checkpoint, ExtendedSequenceNumber};
use tokio::sync::{mpsc, oneshot};

use crate::leases::{Flush, HeldLease};

/// Who decides what is checkpointed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointMode {
    /// The framework: everything up to the first record that is not done, once per renewal, in the write that renews the
    /// lease.
    #[default]
    Automatic,
    /// The processor, through its [`Checkpointer`]. What it does not checkpoint is delivered again after a restart.
    Manual,
}

/// A processor's way to checkpoint by hand.
#[derive(Clone)]
pub struct Checkpointer {
    mode: CheckpointMode,
    /// `None` where there is nothing to checkpoint.
    held: Option<(Arc<HeldLease>, mpsc::UnboundedSender<Flush>)>,
}

/// Why a manual checkpoint was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The worker checkpoints by itself. Build it with `CheckpointMode::Manual` to do it by hand.
    #[error("this worker checkpoints by itself; build it with manual checkpoints to do it by hand")]
    Automatic,
    /// The position is not between the last checkpoint and what was delivered.
    #[error("{0}")]
    OutOfRange(Box<OutOfRange>),
    /// The records are dead letters that are tried again, and lie behind the checkpoint.
    #[error("a dead letter that is tried again lies behind the checkpoint; there is nothing to checkpoint")]
    Redrive,
    /// The lease is gone: another worker has the shard. Stop quietly.
    #[error("the lease of the shard is lost, so nothing can be checkpointed")]
    LeaseLost,
}

/// A position that cannot be checkpointed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot checkpoint {wanted}: the last checkpoint is {last}, and records up to {delivered} were delivered")]
#[non_exhaustive]
pub struct OutOfRange {
    /// What was asked for.
    pub wanted: ExtendedSequenceNumber,
    /// The last checkpoint.
    pub last: Checkpoint,
    /// The largest position that was handed to the processor, or the checkpoint it started from.
    pub delivered: Checkpoint,
}

impl Checkpointer {
    pub(crate) fn new(mode: CheckpointMode, lease: Arc<HeldLease>, flush: mpsc::UnboundedSender<Flush>) -> Self {
        Self { mode, held: Some((lease, flush)) }
    }

    /// One that checkpoints nothing.
    pub(crate) const fn for_redrive() -> Self {
        Self { mode: CheckpointMode::Manual, held: None }
    }

    /// Stores that everything up to and including `position` is done. Accepted between the last checkpoint and the
    /// largest position that was delivered, both included. Returns when the checkpoint is stored.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    ///
    /// # Cancel safety
    /// When the future is dropped, the checkpoint is stored all the same, with the next renewal at the latest.
    pub async fn checkpoint(&self, position: impl Into<ExtendedSequenceNumber> + Send) -> Result<(), CheckpointError> {
        if self.mode == CheckpointMode::Automatic {
            return Err(CheckpointError::Automatic);
        }
        let (lease, flush) = self.held()?;
        lease.progress().checkpoint_by_hand(position.into())?;
        let (written, stored) = oneshot::channel();
        let request = Flush { key: lease.key().clone(), written };
        flush.send(request).map_err(|_| CheckpointError::LeaseLost)?;
        match stored.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(CheckpointError::LeaseLost),
        }
    }

    /// Stores that everything delivered so far is done, the batch at hand included.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    ///
    /// # Cancel safety
    /// As [`checkpoint`](Self::checkpoint).
    pub async fn checkpoint_all(&self) -> Result<(), CheckpointError> {
        match self.held()?.0.progress().delivered() {
            Checkpoint::At(position) => self.checkpoint(position).await,
            // Nothing was delivered, so there is nothing to store.
            Checkpoint::AtTimestamp | Checkpoint::TrimHorizon | Checkpoint::Latest | Checkpoint::ShardEnd => Ok(()),
        }
    }

    fn held(&self) -> Result<&(Arc<HeldLease>, mpsc::UnboundedSender<Flush>), CheckpointError> {
        self.held.as_ref().ok_or(CheckpointError::Redrive)
    }
}

impl fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer").field("mode", &self.mode).finish_non_exhaustive()
    }
}
