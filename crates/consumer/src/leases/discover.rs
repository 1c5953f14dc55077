//! Discovering: finding the leases that were given to this worker, and starting a consumer for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use metrics::gauge;
use shardwell_core::{EnvExt, Lease, LeaseKey, Monotonic, Place, RenewOutcome, Renewal, StoreError, Task, WriteToken};
use tracing::{Instrument, debug, info, warn};

use super::hand_over::pass_on;
use super::{HeldLease, Stop, hold, stop};
use crate::metrics::LEASES_HELD;
use crate::watch::Watcher;
use crate::worker::{ConsumedStream, Phase, Shared};

/// How many leases are looked at at the same time.
const CONCURRENT_READS: usize = 16;

/// How often it is told that leases of a stream are given to this worker that does not consume it.
const REFUSALS_TOLD_EVERY: Duration = Duration::from_secs(60);

/// When it was last told of each stream that its leases are refused.
#[derive(Default)]
struct Refusals(BTreeMap<Option<String>, Monotonic>);

/// Discovers for as long as the worker runs; returns when it was told to stop and every lease is handed over.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut holding: FuturesUnordered<Task<()>> = FuturesUnordered::new();
    let mut phase = shared.phase.watch();
    let mut refusals = Refusals::default();
    loop {
        let current = *phase.look();
        if let Phase::Stopping { deadline } = current {
            stop::run(&shared, deadline, holding).await;
            return;
        }
        let is_in_plan = shared.is_in_plan() && shared.has_its_id();
        match discover(&shared, &mut refusals).await {
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
    let until = shared.env.now().plus(shared.stretched(shared.settings.discovery_interval));
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
async fn discover(shared: &Arc<Shared>, refusals: &mut Refusals) -> Result<Vec<Arc<HeldLease>>, StoreError> {
    let given = given(shared, |key| !shared.held.contains(key)).await?;
    if !shared.has_its_id() {
        if !given.is_empty() {
            debug!(
                "leases are given to this worker's id, which may be another process's; waiting until its item is written"
            );
        }
        return Ok(Vec::new());
    }
    let mut ours = Vec::new();
    for lease in given {
        match shared.streams.of(&lease) {
            // It needs no owner. Its worker died after the end was stored, or somebody gave it away when it was finished already.
            _ if lease.is_finished() => give_back(shared, &lease).await,
            Some(stream) => ours.push((lease, stream)),
            None => {
                refusals.tell(shared, &lease);
                give_back(shared, &lease).await;
            }
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
async fn take_up(shared: &Arc<Shared>, leases: Vec<(Lease, Arc<ConsumedStream>)>) -> Vec<Arc<HeldLease>> {
    let attempt = shared.env.now();
    let deadline = shared.timing.trusted_until(attempt).min(attempt.plus(shared.timing.renew_interval()));
    let renewal = |lease: Lease| Renewal {
        token: WriteToken::new(shared.env.random()),
        key: lease.key,
        counter: lease.counter,
        throughput_kbps: None,
        checkpoint: None,
    };
    let streams: BTreeMap<_, _> = leases.iter().map(|(lease, stream)| (lease.key.clone(), stream.clone())).collect();
    let renewals: Vec<Renewal> = leases.into_iter().map(|(lease, _)| renewal(lease)).collect();
    let mut taken = Vec::new();
    if renewals.is_empty() {
        return taken;
    }
    let mut answers = shared.store.renew(&shared.worker, renewals);
    while let Ok(Some(renewed)) = shared.env.deadline(deadline, answers.next()).await {
        match renewed.outcome {
            RenewOutcome::Renewed(row) | RenewOutcome::HandoffRequested(row) => {
                info!(lease = %row.key, checkpoint = %row.checkpoint, "lease taken up");
                taken.extend(streams.get(&row.key).map(|stream| held(shared, stream, row, attempt)));
            }
            RenewOutcome::Lost(_) => debug!(lease = %renewed.key, "a lease was given to somebody else meanwhile"),
            RenewOutcome::Unknown(error) => {
                shared.heed(&error);
                warn!(lease = %renewed.key, %error, "cannot take up a lease; trying again");
            }
        }
    }
    taken
}

fn held(shared: &Arc<Shared>, stream: &Arc<ConsumedStream>, row: Lease, attempt: Monotonic) -> Arc<HeldLease> {
    // The stream may have been removed while the lease was taken up.
    let is_to_go = row.handoff_requested() || !shared.streams.has(stream);
    let mode = shared.settings.checkpoints;
    let lease = HeldLease::new(stream.clone(), row, attempt, shared.timing, mode, shared.env.now());
    let lease = Arc::new(lease);
    if is_to_go {
        lease.tell(Stop::Drain { deadline: shared.env.now() });
    }
    shared.held.insert(lease.clone());
    shared.leases_changed.notify_one();
    lease
}

/// Gives away a lease that this worker has no use for.
async fn give_back(shared: &Shared, lease: &Lease) {
    if let Err(error) = pass_on(shared, lease).await {
        debug!(lease = %lease.key, %error, "cannot give a lease back; trying again");
    }
}

impl Refusals {
    /// Tells that a lease is given back since its stream is not consumed, now and then.
    fn tell(&mut self, shared: &Shared, lease: &Lease) {
        let now = shared.env.now();
        if self.0.get(&lease.stream).is_none_or(|told| now.since(*told) >= REFUSALS_TOLD_EVERY) {
            self.0.insert(lease.stream.clone(), now);
            let stream = lease.stream.as_deref().unwrap_or("no name");
            warn!(lease = %lease.key, stream, "given a lease of a stream that this worker does not consume; giving it back");
        }
    }
}
