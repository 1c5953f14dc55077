//! Discovering: finding the leases that were given to this worker, and starting a consumer for each.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use metrics::gauge;
use shardwell_core::{EnvExt, Lease, LeaseKey, Place, RenewOutcome, Renewal, StoreError, Task, WriteToken};
use tracing::{Instrument, debug, info, warn};

use super::hand_over::pass_on;
use super::{HeldLease, Stop, hold, stop};
use crate::metrics::LEASES_HELD;
use crate::watch::Watcher;
use crate::worker::{Phase, Shared};

/// How many leases are looked at at the same time.
const CONCURRENT_READS: usize = 16;

/// Discovers for as long as the worker runs; returns when it was told to stop and every lease is handed over.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut holding: FuturesUnordered<Task<()>> = FuturesUnordered::new();
    let mut phase = shared.phase.watch();
    loop {
        let current = *phase.look();
        if let Phase::Stopping { deadline } = current {
            stop::run(&shared, deadline, holding).await;
            return;
        }
        let is_in_plan = shared.is_in_plan();
        match discover(&shared).await {
            Ok(taken_up) => {
                for lease in taken_up {
                    let hold = hold::hold(shared.clone(), lease).in_current_span();
                    holding.push(shared.env.spawn(Place::Coordination, hold));
                }
                if is_in_plan {
                    shared.discovered();
                }
            }
            Err(error) => warn!(%error, "cannot look for this worker's leases; trying again"),
        }
        gauge!(LEASES_HELD, "application" => shared.application.clone()).set(shared.held.len() as f64);
        wait(&shared, &mut holding, &mut phase).await;
    }
}

/// Until something changes that may have brought a lease, or a discovery interval has passed.
async fn wait(shared: &Shared, holding: &mut FuturesUnordered<Task<()>>, phase: &mut Watcher<Phase>) {
    let until = shared.env.now().plus(shared.settings.discovery_interval);
    let ended = async {
        match holding.next().await {
            Some(ended) => ended,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = phase.changed() => {}
        ended = ended => {
            if let Err(error) = ended {
                warn!(%error, "the task of a lease ended early; its lease will expire and be given away");
            }
        }
        () = shared.discover_now.notified() => {}
        () = shared.env.sleep_until(until) => {}
    }
}

/// Takes up every lease that was given to this worker and that it does not hold yet.
async fn discover(shared: &Arc<Shared>) -> Result<Vec<Arc<HeldLease>>, StoreError> {
    let (finished, ours): (Vec<Lease>, Vec<Lease>) =
        given(shared, |key| !shared.held.contains(key)).await?.into_iter().partition(Lease::is_finished);
    // A finished lease needs no owner. Its worker died after the end was stored, or somebody gave it away when it was
    // finished already.
    for lease in finished {
        if let Err(error) = pass_on(shared, &lease).await {
            debug!(lease = %lease.key, %error, "cannot let go of a finished lease; trying again");
        }
    }
    Ok(take_up(shared, ours).await)
}

/// Those of the wanted leases that are this worker's.
pub(super) async fn given(shared: &Shared, wanted: impl Fn(&LeaseKey) -> bool) -> Result<Vec<Lease>, StoreError> {
    let mut keys = shared.bounded(shared.store.leases_of(&shared.worker)).await?;
    keys.retain(wanted);
    let rows: Vec<Result<Option<Lease>, StoreError>> = stream::iter(keys)
        .map(|key| async move { shared.bounded(shared.store.lease(&key)).await })
        .buffered(CONCURRENT_READS)
        .collect()
        .await;
    let rows = rows.into_iter().collect::<Result<Vec<_>, _>>()?;
    // The index may be older than the row, and a lease in handoff is its old owner's.
    Ok(rows.into_iter().flatten().filter(|lease| lease.actual_owner() == Some(&shared.worker)).collect())
}

/// Renews leases for the first time. Whoever gave them may be counting since long before they were found here; from this write
/// on it is this worker's clock that counts.
async fn take_up(shared: &Arc<Shared>, leases: Vec<Lease>) -> Vec<Arc<HeldLease>> {
    let attempt = shared.env.now();
    let deadline = shared.timing.trusted_until(attempt).min(attempt.plus(shared.timing.renew_interval()));
    let renewal = |lease: Lease| Renewal {
        token: WriteToken::new(shared.env.random()),
        key: lease.key,
        counter: lease.counter,
        throughput_kbps: None,
        checkpoint: None,
    };
    let renewals: Vec<Renewal> = leases.into_iter().map(renewal).collect();
    let mut taken = Vec::new();
    if renewals.is_empty() {
        return taken;
    }
    let mut answers = shared.store.renew(&shared.worker, renewals);
    while let Ok(Some(renewed)) = shared.env.deadline(deadline, answers.next()).await {
        match renewed.outcome {
            RenewOutcome::Renewed(row) | RenewOutcome::HandoffRequested(row) => {
                info!(lease = %row.key, checkpoint = %row.checkpoint, "lease taken up");
                taken.push(held(shared, row, attempt));
            }
            RenewOutcome::Lost(_) => debug!(lease = %renewed.key, "a lease was given to somebody else meanwhile"),
            RenewOutcome::Unknown(error) => {
                warn!(lease = %renewed.key, %error, "cannot take up a lease; trying again");
            }
        }
    }
    taken
}

fn held(shared: &Arc<Shared>, row: Lease, attempt: shardwell_core::Monotonic) -> Arc<HeldLease> {
    let in_handoff = row.handoff_requested();
    let mode = shared.settings.checkpoints;
    let lease = HeldLease::new(shared.stream.clone(), row, attempt, shared.timing, mode, shared.env.now());
    let lease = Arc::new(lease);
    if in_handoff {
        lease.tell(Stop::Drain { deadline: shared.env.now() });
    }
    shared.held.insert(lease.clone());
    shared.leases_changed.notify_one();
    lease
}
