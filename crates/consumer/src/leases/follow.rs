//! Following: the streams that the user adds and removes while the worker runs, and those that come back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use shardwell_core::{EnvExt, RetryPolicy, StreamError, StreamErrorKind, StreamIdentifier, StreamStatus};
use tracing::{info, warn};

use super::prepare;
use crate::causes::with_causes;
use crate::worker::{ConsumedStream, Phase, Shared, WorkerError};

/// How many streams are tried at the same time.
const CONCURRENT_TRIES: usize = 8;

/// The longest wait between two tries to reach a stream.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// Follows for as long as the worker runs; has nothing to do where there is one stream only.
pub(crate) async fn run(shared: Arc<Shared>) {
    let Some(mut wanted) = shared.streams.watch_wanted() else { return };
    let mut set = shared.streams.watch();
    let mut phase = shared.phase.watch();
    let mut tries = FuturesUnordered::new();
    loop {
        // What changes from here on is followed in the next round.
        drop(wanted.look());
        drop(set.look());
        shared.streams.follow_wanted();
        let room = CONCURRENT_TRIES - tries.len();
        tries.extend(begin_tries(&shared, room));
        let next = shared.streams.next_try().filter(|_| tries.len() < CONCURRENT_TRIES);
        let next = shared.env.sleep_until_if_any(next);
        tokio::select! {
            biased;
            () = phase.until(|phase| matches!(phase, Phase::Stopping { .. })) => return,
            () = wanted.changed() => {}
            () = set.changed() => {}
            Some(()) = tries.next(), if !tries.is_empty() => {}
            () = next => {}
        }
    }
}

/// Takes in what the user wants, and tries every stream once.
pub(super) async fn try_all(shared: &Arc<Shared>) {
    shared.streams.follow_wanted();
    stream::iter(begin_tries(shared, usize::MAX)).for_each_concurrent(CONCURRENT_TRIES, |attempt| attempt).await;
}

/// Tries of streams whose turn it is, up to a number.
fn begin_tries(shared: &Arc<Shared>, limit: usize) -> impl Iterator<Item = impl Future<Output = ()> + Send> {
    let due = shared.streams.begin_tries(shared.env.now(), limit);
    due.into_iter().map(|(stream, failures)| attempt(shared.clone(), stream, failures))
}

async fn attempt(shared: Arc<Shared>, stream: Arc<ConsumedStream>, failures: u32) {
    match recognize(&shared, &stream).await {
        Ok(identifier) => {
            info!(stream = %identifier, "a stream is consumed from now on");
            shared.streams.recognized(&stream, &identifier);
        }
        Err(error) => {
            let retry = RetryPolicy::default().with_cap(MAX_BACKOFF);
            let delay = retry.delay(failures.saturating_add(1), shared.env.random()).unwrap_or_default();
            let error = with_causes(&error);
            warn!(stream = %stream.name(), error, "cannot consume a stream; trying again in {delay:?}");
            shared.streams.failed(&stream, error, shared.env.now().plus(delay));
        }
    }
}

/// Finds out which stream of its name it is.
async fn recognize(shared: &Shared, stream: &ConsumedStream) -> Result<StreamIdentifier, WorkerError> {
    let description = stream.control.describe().await.map_err(|error| prepare::cannot_describe(stream, error))?;
    match description.status {
        StreamStatus::Active | StreamStatus::Updating => {}
        StreamStatus::Creating => {
            let error = StreamError::new(StreamErrorKind::Unavailable, "the stream is being created");
            return Err(WorkerError::Stream(error));
        }
        StreamStatus::Deleting => return Err(WorkerError::StreamDeleted { stream: stream.name() }),
    }
    let identifier = description.identity.identifier().ok_or_else(|| {
        let identity = &description.identity;
        let message = format!(
            "the stream {} cannot be one of several: its ARN `{}` names no account, or it was created at {}",
            identity.name, identity.arn, identity.created_at
        );
        WorkerError::Stream(StreamError::new(StreamErrorKind::Invalid, message))
    })?;
    prepare::recognize(shared, stream, &description).await?;
    Ok(identifier)
}
