//! Making sure that this worker may work on this stream with this table.

use std::sync::Arc;

use shardwell_core::dead_letter::SinkErrorKind;
use shardwell_core::{Created, EnvExt, FleetSettings, StreamDescription, StreamError, StreamIdentity, StreamStatus};
use tracing::{info, warn};

use super::liveness::living;
use crate::worker::{Shared, WorkerError};

/// Makes the table ready, agrees with the fleet, and checks who the stream is.
pub(crate) async fn prepare(shared: &Arc<Shared>) -> Result<(), WorkerError> {
    shared.store.prepare().await.map_err(WorkerError::Store)?;
    agree(shared).await?;
    let description = active_stream(shared).await?;
    recognize(shared, &description).await
}

/// The stream's description, once it can be read.
async fn active_stream(shared: &Shared) -> Result<StreamDescription, WorkerError> {
    loop {
        let description = shared.stream.control.describe().await.map_err(WorkerError::Stream)?;
        match description.status {
            StreamStatus::Active | StreamStatus::Updating => return Ok(description),
            StreamStatus::Creating => {
                info!(stream = %shared.stream.name(), "the stream is being created; waiting for it");
                shared.env.sleep(shared.settings.discovery_interval).await;
            }
            StreamStatus::Deleting => {
                return Err(WorkerError::StreamDeleted { stream: description.identity.name });
            }
        }
    }
}

/// Checks that the stream is the one that the leases belong to, and remembers what it promises.
pub(crate) async fn recognize(shared: &Shared, description: &StreamDescription) -> Result<(), WorkerError> {
    shared.stream.set_promises(description);
    let present = &description.identity;
    let known = shared.bounded(shared.store.stream_identity(&present.name)).await.map_err(WorkerError::Store)?;
    let known = match known {
        Some(known) => known,
        None => match shared.bounded(shared.store.record_stream_identity(present)).await {
            Ok(Created::New) => return Ok(()),
            // Somebody else was faster; the next look tells who it was to them.
            Ok(Created::Existed) => {
                let identity = shared.bounded(shared.store.stream_identity(&present.name)).await;
                identity.map_err(WorkerError::Store)?.unwrap_or_else(|| present.clone())
            }
            Err(error) => return Err(WorkerError::Store(error)),
        },
    };
    same_stream(shared, &known, present)
}

fn same_stream(shared: &Shared, known: &StreamIdentity, present: &StreamIdentity) -> Result<(), WorkerError> {
    if known.created_at == present.created_at && known.arn == present.arn {
        return Ok(());
    }
    Err(WorkerError::StreamRecreated {
        stream: present.name.clone(),
        application: shared.application.clone(),
        leases_from: known.created_at,
        created_at: present.created_at,
    })
}

/// Agrees with the fleet on the lease duration: writes ours if there is none, and refuses another one while any worker
/// that goes by it is alive.
async fn agree(shared: &Shared) -> Result<(), WorkerError> {
    let ours = FleetSettings::new(shared.timing.duration());
    loop {
        let theirs = match shared.bounded(shared.store.fleet_settings()).await.map_err(WorkerError::Store)? {
            Some(theirs) if theirs.lease_duration == ours.lease_duration => return Ok(()),
            theirs => theirs,
        };
        if let Some(theirs) = &theirs {
            warn!(%theirs, %ours, "the table has other settings; looking whether a worker that uses them is alive");
            if !living(shared, theirs.lease_duration).await.map_err(WorkerError::Store)?.is_empty() {
                return Err(WorkerError::LeaseDurationMismatch {
                    application: shared.application.clone(),
                    ours: ours.lease_duration,
                    theirs: theirs.lease_duration,
                });
            }
        }
        let mut agreed = ours.clone();
        agreed.draining = theirs.as_ref().map(|theirs| theirs.draining.clone()).unwrap_or_default();
        let swapped = shared.bounded(shared.store.swap_fleet_settings(theirs.as_ref(), &agreed)).await;
        if swapped.map_err(WorkerError::Store)? {
            return Ok(());
        }
    }
}

/// Whether an error at start-up may pass by itself.
pub(crate) fn may_pass(error: &WorkerError) -> bool {
    match error {
        WorkerError::Store(error) => error.is_retryable(),
        WorkerError::Stream(error) => StreamError::is_retryable(error),
        WorkerError::DeadLetters(error) => error.kind() == SinkErrorKind::Unavailable,
        WorkerError::NotStarted { .. }
        | WorkerError::StreamRecreated { .. }
        | WorkerError::StreamDeleted { .. }
        | WorkerError::LeaseDurationMismatch { .. }
        | WorkerError::DuplicateWorkerId { .. }
        | WorkerError::DataLoss(_)
        | WorkerError::Undecodable { .. }
        | WorkerError::FuseBlown { .. }
        | WorkerError::Broken(_) => false,
    }
}
