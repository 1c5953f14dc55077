//! Handing over: the end of a lease's time at this worker, in order.

use std::future::Future;

use metrics::counter;
use shardwell_core::{Assignment, Conditional, EnvExt, Eviction, Lease, Monotonic, RetryPolicy, StoreError, WorkerId};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{Flush, HeldLease, LeaseGone};
use crate::metrics::HANDED_OVER;
use crate::worker::{Phase, Shared};

/// Stores what is done and gives the lease to whom it is promised, or to whoever takes over from a worker that stops, or to
/// nobody.
pub(super) async fn hand_over(shared: &Shared, lease: &HeldLease) -> Result<(), LeaseGone> {
    flush(shared, lease).await?;
    let row = lease.image();
    match insist(shared, lease, "hand the lease over", || pass_on(shared, &row)).await? {
        Passed::On(to) => {
            let to = to.map_or_else(|| "nobody".to_owned(), |to| to.to_string());
            info!(lease = %lease.key(), to, "lease handed over");
            counter!(HANDED_OVER, "application" => shared.application.clone()).increment(1);
            Ok(())
        }
        Passed::Gone => Err(LeaseGone),
    }
}

/// What became of a lease that was to be passed on.
#[derive(Debug)]
pub(super) enum Passed {
    /// It has another owner, or none.
    On(Option<WorkerId>),
    /// It was not this worker's any more, or not as it was.
    Gone,
}

/// Passes a lease on that is this worker's by `row`.
pub(super) async fn pass_on(shared: &Shared, row: &Lease) -> Result<Passed, StoreError> {
    let mut row = row.clone();
    // Many leases are handed over at once, and what was true a moment ago is looked at again afterwards.
    let mut known_since = shared.stopping_since().max(shared.env.now().minus(shared.settings.discovery_interval));
    loop {
        let to = receiver(shared, &row, known_since).await?;
        let answer = match &to {
            Some(to) => shared.bounded(shared.store.assign(&Assignment::of(&row, to.clone()))).await?,
            None => shared.bounded(shared.store.evict(&Eviction::of(&row))).await?,
        };
        match answer {
            // A renewal of this process was on its way. By another process with this worker's id it is not ours any more.
            Conditional::Refused(Some(newer)) if newer.actual_owner() == Some(&shared.worker) => {
                let held = shared.held.get(&newer.key);
                match held.and_then(|held| held.newest(newer)) {
                    Some(newest) => row = newest,
                    None => return Ok(Passed::Gone),
                }
            }
            // Refused as well where the answer was lost: then this is what was written.
            Conditional::Refused(Some(newer)) if to.is_none() || newer.owner != to => return Ok(Passed::Gone),
            // It was found already. Whoever has it passes it on itself if it stops.
            Conditional::Refused(Some(newer)) if newer.token.is_some() => return Ok(Passed::On(to)),
            Conditional::Applied(newer) | Conditional::Refused(Some(newer)) => {
                known_since = shared.env.now();
                if will_be_found(shared, to.as_ref(), &newer, known_since).await? {
                    return Ok(Passed::On(to));
                }
                warn!(lease = %newer.key, to = ?to, "the worker that a lease was given to has stopped, or does not consume its stream; choosing another");
                row = newer;
            }
            Conditional::Refused(None) => return Ok(Passed::Gone),
        }
    }
}

/// Who is to have a lease, as far as is known since `known_since`.
async fn receiver(shared: &Shared, row: &Lease, known_since: Monotonic) -> Result<Option<WorkerId>, StoreError> {
    if row.is_finished() {
        return Ok(None);
    }
    let promised_to = row.owner.as_ref().filter(|_| row.handoff_requested());
    if let Some(to) = promised_to
        && shared.roster.takes(shared, to, row, known_since).await?
    {
        return Ok(Some(to.clone()));
    }
    let is_stopping = matches!(*shared.phase.look(), Phase::Stopping { .. } | Phase::Stopped);
    match promised_to {
        _ if is_stopping => shared.roster.successor(shared, &row.key, known_since).await,
        Some(_) => Ok(Some(shared.worker.clone())),
        None => Ok(None),
    }
}

/// Whether whoever was given a lease is there to find it, and has a use for it. A worker that stops removes its item, and then looks what it was
/// given; so it either sees this lease, or is seen to be gone here.
async fn will_be_found(
    shared: &Shared,
    to: Option<&WorkerId>,
    row: &Lease,
    known_since: Monotonic,
) -> Result<bool, StoreError> {
    match to {
        Some(to) if *to != shared.worker => shared.roster.takes(shared, to, row, known_since).await,
        Some(_) | None => Ok(true),
    }
}

/// Has everything that is wanted stored.
pub(crate) async fn flush(shared: &Shared, lease: &HeldLease) -> Result<(), LeaseGone> {
    let (written, stored) = oneshot::channel();
    shared.flush.send(Flush { key: lease.key().clone(), written }).map_err(|_| LeaseGone)?;
    stored.await.unwrap_or(Err(LeaseGone))
}

/// Repeats a call until it has an answer, for as long as the lease is ours.
pub(super) async fn insist<T, E, F, Fut>(
    shared: &Shared,
    lease: &HeldLease,
    what: &str,
    mut call: F,
) -> Result<T, LeaseGone>
where
    E: std::error::Error,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let retry = RetryPolicy::default().with_initial(shared.timing.renew_retry()).with_cap(shared.timing.duration());
    for failures in 1.. {
        if !lease.may_process(shared.env.now()) {
            break;
        }
        let deadline: Monotonic = shared.env.now().plus(shared.timing.duration());
        match shared.env.deadline(deadline, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => warn!(lease = %lease.key(), %error, "cannot {what}; trying again"),
            Err(_) => warn!(lease = %lease.key(), "no answer to the attempt to {what}; trying again"),
        }
        shared.env.sleep(retry.delay(failures, shared.env.random()).unwrap_or_default()).await;
    }
    Err(LeaseGone)
}
