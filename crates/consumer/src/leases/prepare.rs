//! Making sure that this worker may work on this stream with this table.

use std::sync::Arc;

use shardwell_core::dead_letter::SinkErrorKind;
use shardwell_core::{
    Created, EnvExt, FleetSettings, StreamDescription, StreamError, StreamErrorKind, StreamIdentity, StreamStatus,
};
use tracing::{info, warn};

use super::follow;
use super::liveness::living;
use crate::worker::{ConsumedStream, Shared, WorkerError};

/// Makes the table ready, agrees with the fleet, and checks who the stream is.
pub(crate) async fn prepare(shared: &Arc<Shared>) -> Result<(), WorkerError> {
    shared.store.prepare().await.map_err(WorkerError::Store)?;
    agree(shared).await?;
    same_mode(shared).await?;
    if shared.streams.are_several() {
        // Those that cannot be reached just now are no reason to let the others wait.
        follow::try_all(shared).await;
        return Ok(());
    }
    for stream in shared.streams.consumed() {
        let description = active_stream(shared, &stream).await?;
        recognize(shared, &stream, &description).await?;
    }
    Ok(())
}

/// Checks that the table's leases name their streams where this worker's do.
async fn same_mode(shared: &Shared) -> Result<(), WorkerError> {
    let leases = shared.bounded(shared.store.leases()).await.map_err(WorkerError::Store)?.leases;
    let several = !shared.streams.are_several();
    match leases.iter().any(|lease| lease.stream.is_some() == several) {
        true => Err(WorkerError::StreamModeMismatch { application: shared.application.clone(), several }),
        false => Ok(()),
    }
}

/// The stream's description, once it can be read.
async fn active_stream(shared: &Shared, stream: &ConsumedStream) -> Result<StreamDescription, WorkerError> {
    loop {
        let description = stream.control.describe().await.map_err(WorkerError::Stream)?;
        match description.status {
            StreamStatus::Active | StreamStatus::Updating => return Ok(description),
            StreamStatus::Creating => {
                info!(stream = %stream.name(), "the stream is being created; waiting for it");
                shared.env.sleep(shared.settings.discovery_interval).await;
            }
            StreamStatus::Deleting => {
                return Err(WorkerError::StreamDeleted { stream: description.identity.name });
            }
        }
    }
}

/// Why a stream cannot be described.
pub(super) fn cannot_describe(stream: &ConsumedStream, error: StreamError) -> WorkerError {
    match error.kind() {
        StreamErrorKind::NotFound => WorkerError::StreamDeleted { stream: stream.name() },
        StreamErrorKind::Throttled
        | StreamErrorKind::Timeout
        | StreamErrorKind::Unavailable
        | StreamErrorKind::Denied
        | StreamErrorKind::Invalid => WorkerError::Stream(error),
    }
}

/// Checks that the stream is the one that the leases belong to, and remembers what it promises. Where there are several, leases
/// name the one that they belong to, so one that was created again is just another one.
pub(crate) async fn recognize(
    shared: &Shared,
    stream: &ConsumedStream,
    description: &StreamDescription,
) -> Result<(), WorkerError> {
    stream.set_promises(description);
    let present = &description.identity;
    let known = known_identity(shared, present).await?;
    if shared.streams.are_several() {
        replace(shared, &known, present).await?;
    } else {
        same_stream(shared, &known, present)?;
    }
    stream.recognize_as(present);
    Ok(())
}

/// What the table says who the stream is; it is told what it does not know.
async fn known_identity(shared: &Shared, present: &StreamIdentity) -> Result<StreamIdentity, WorkerError> {
    let known = shared.bounded(shared.store.stream_identity(&present.name)).await.map_err(WorkerError::Store)?;
    if let Some(known) = known {
        return Ok(known);
    }
    match shared.bounded(shared.store.record_stream_identity(present)).await.map_err(WorkerError::Store)? {
        Created::New => Ok(present.clone()),
        // Somebody else was faster; the next look tells who it was to them.
        Created::Existed => {
            let identity = shared.bounded(shared.store.stream_identity(&present.name)).await;
            Ok(identity.map_err(WorkerError::Store)?.unwrap_or_else(|| present.clone()))
        }
    }
}

/// Records that the stream of a name is another one now. Two workers may do so at once, and record the same.
async fn replace(shared: &Shared, known: &StreamIdentity, present: &StreamIdentity) -> Result<(), WorkerError> {
    if known == present {
        return Ok(());
    }
    if known.created_at > present.created_at {
        let message = format!("the description of stream {} is older than what is known of it", present.name);
        return Err(WorkerError::Stream(StreamError::new(StreamErrorKind::Unavailable, message)));
    }
    // Its leases could not be told from those of the old one.
    if known.identifier() == present.identifier() {
        return same_stream(shared, known, present);
    }
    let (was, is) = (known.created_at, present.created_at);
    warn!(stream = %present.name, %was, %is, "the stream was deleted and created again; its records are read from anew");
    shared.bounded(shared.store.delete_stream_identity(&present.name)).await.map_err(WorkerError::Store)?;
    shared.bounded(shared.store.record_stream_identity(present)).await.map_err(WorkerError::Store)?;
    Ok(())
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
        | WorkerError::StreamModeMismatch { .. }
        | WorkerError::DuplicateWorkerId { .. }
        | WorkerError::DataLoss(_)
        | WorkerError::Undecodable { .. }
        | WorkerError::FuseBlown { .. }
        | WorkerError::Broken(_) => false,
    }
}
