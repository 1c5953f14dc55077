//! Claiming: taking what is free or expired, and starting a consumer for it.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use metrics::gauge;
use shardwell_core::leasing::{Observations, claimable};
use shardwell_core::{Assignment, Conditional, EnvExt, Lease, Place, StoreError, Task};
use tracing::{Instrument, info, warn};

use super::{HeldLease, Stop, hold};
use crate::metrics::LEASES_HELD;
use crate::worker::{Phase, Shared};

/// How many leases are taken at the same time.
const CONCURRENT_CLAIMS: usize = 16;

/// Claims for as long as the worker runs; returns when it was told to stop and every lease is let go.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut observations = Observations::default();
    let mut holding: FuturesUnordered<Task<()>> = FuturesUnordered::new();
    let mut phase = shared.phase.subscribe();
    loop {
        let current = *phase.borrow_and_update();
        if let Phase::Stopping { deadline } = current {
            drain(&shared, deadline, holding).await;
            return;
        }
        match claim(&shared, &mut observations).await {
            Ok(taken) => {
                for lease in taken {
                    holding.push(
                        shared.env.spawn(Place::Coordination, hold::hold(shared.clone(), lease).in_current_span()),
                    );
                }
                shared.claimed_once();
            }
            Err(error) => warn!(%error, "cannot list the leases; trying again"),
        }
        gauge!(LEASES_HELD, "application" => shared.application.clone()).set(shared.held.len() as f64);
        wait(&shared, &mut holding, &mut phase).await;
    }
}

/// Until something changes that may make a lease claimable, or a discovery interval has passed.
async fn wait(
    shared: &Shared,
    holding: &mut FuturesUnordered<Task<()>>,
    phase: &mut tokio::sync::watch::Receiver<Phase>,
) {
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
                warn!(%error, "the task of a lease ended early; its lease will expire and be taken again");
            }
        }
        () = shared.claim_now.notified() => {}
        () = shared.env.sleep_until(until) => {}
    }
}

/// Takes every lease that may be taken now.
async fn claim(shared: &Arc<Shared>, observations: &mut Observations) -> Result<Vec<Arc<HeldLease>>, StoreError> {
    let asked = shared.env.now();
    let listing = shared.bounded(shared.store.leases()).await?;
    observations.observe(&listing.leases, asked);
    let now = shared.env.now();
    let held = |key: &_| shared.held.contains(key);
    let free: Vec<Lease> =
        claimable(&listing.leases, observations, &shared.worker, held, shared.timing.duration(), now)
            .into_iter()
            .cloned()
            .collect();
    shared.listed(listing);
    let taken = stream::iter(free)
        .map(|lease| take(shared, lease))
        .buffer_unordered(CONCURRENT_CLAIMS)
        .filter_map(|taken| async move { taken })
        .collect::<Vec<_>>()
        .await;
    Ok(taken)
}

async fn take(shared: &Shared, lease: Lease) -> Option<Arc<HeldLease>> {
    let attempt = shared.env.now();
    match shared.bounded(shared.store.assign(&Assignment::of(&lease, shared.worker.clone()))).await {
        Ok(Conditional::Applied(image)) => {
            let from = lease.owner.as_ref().map(ToString::to_string);
            info!(lease = %lease.key, checkpoint = %image.checkpoint, from, "lease taken");
            let mode = shared.settings.checkpoints;
            let held = Arc::new(HeldLease::new(image, attempt, shared.timing, mode, shared.env.now()));
            shared.held.insert(held.clone());
            shared.leases_changed.notify_one();
            Some(held)
        }
        Ok(Conditional::Refused(_)) => None,
        Err(error) => {
            // If it was applied all the same, the next round finds the lease ours and not held.
            warn!(lease = %lease.key, %error, "cannot take a lease; trying again");
            None
        }
    }
}

/// Tells every consumer to finish, and waits until all leases are let go or the deadline has passed.
async fn drain(shared: &Shared, deadline: shardwell_core::Monotonic, mut holding: FuturesUnordered<Task<()>>) {
    for lease in shared.held.all() {
        lease.tell(Stop::Drain { deadline });
    }
    // Letting go takes a few writes after the consumers' deadline.
    let end = deadline.plus(shared.timing.duration());
    let all = async { while holding.next().await.is_some() {} };
    if shared.env.deadline(end, all).await.is_err() {
        warn!("not every lease could be released in time; the rest will expire");
    }
}
