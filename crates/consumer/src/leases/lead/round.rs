//! One round of planning: look, plan, carry out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use shardwell_core::leasing::plan::{Fleet, PlannedWorker, plan};
use shardwell_core::leasing::{leave_a_hole, planning_interval};
use shardwell_core::{FleetSettings, LeaseListing, Monotonic, StoreError, StoreErrorKind, WorkerId, WorkerMetrics};
use tracing::{info, warn};

use super::{Lead, STANDBYS, moves};
use crate::metrics::{SPILLOVER, WORKERS};
use crate::worker::{ConsumedStream, Shared};

/// What a round looks at.
pub(super) struct Seen {
    asked: Monotonic,
    listing: LeaseListing,
    workers: Vec<WorkerMetrics>,
    settings: FleetSettings,
}

/// For how long a drained worker that is not there stays drained.
const DRAINED_FOR: Duration = Duration::from_secs(60 * 60);

/// A worker that is not ours is gone when its item is this old (the KCL's).
const STALE_JAVA_ITEM: Duration = Duration::from_secs(24 * 60 * 60);

impl Lead {
    /// Looks at the whole table, and takes note.
    pub(super) async fn look(&mut self) -> Result<Seen, StoreError> {
        let shared = &self.shared;
        let (asked, wall) = (shared.env.now(), shared.env.timestamp());
        let ((listing, workers), settings) = futures_util::try_join!(
            shared.bounded(shared.store.look()),
            shared.bounded(shared.store.fleet_settings()),
        )?;
        self.observations.observe(&listing.leases, asked);
        self.observations.observe_workers(&workers, asked, wall);
        let settings = settings.unwrap_or_else(|| FleetSettings::new(shared.timing.duration()));
        Ok(Seen { asked, listing, workers, settings })
    }

    /// One round. Gives the time until the next.
    pub(super) async fn plan_once(&mut self) -> Result<Duration, StoreError> {
        let seen = self.look().await?;
        let shared = self.shared.clone();
        let fleet = Fleet { leases: &seen.listing.leases, workers: &seen.workers, draining: &seen.settings.draining };
        let (leases, workers) = fleet.snapshot(&self.observations, &shared.settings.patience(), shared.env.now());
        let plan = plan(&leases, &workers, &shared.settings.plan);
        let labels = [("application", shared.application.clone())];
        gauge!(SPILLOVER, &labels).set(plan.spillover as f64);
        gauge!(WORKERS, &labels).set(workers.len() as f64);
        moves::carry_out(&shared, plan, &seen.listing.leases, self.lock.held_until()).await?;
        self.name_standbys(&workers);
        self.mend_hole(&seen.listing);
        bury(&shared, self, &seen).await?;
        self.forget_drained(&seen).await?;
        let leases = seen.listing.leases.len();
        shared.listed(seen.listing);
        Ok(planning_interval(shared.settings.planning_interval, leases, shared.settings.planning_read_units))
    }

    /// The first of those that are alive, so that they stay the same.
    fn name_standbys(&mut self, workers: &[PlannedWorker]) {
        let others = workers.iter().map(|worker| &worker.id).filter(|id| **id != self.shared.worker);
        let standbys: Vec<_> = others.take(STANDBYS).cloned().collect();
        if standbys != self.standbys {
            self.standbys = standbys;
            self.lock.hurry();
        }
    }

    /// Forgets workers that an operator has drained, long after they were there last. One that stood still may come back, and is still
    /// to be given nothing.
    async fn forget_drained(&mut self, seen: &Seen) -> Result<(), StoreError> {
        let is_there = |id: &WorkerId| {
            seen.workers.iter().any(|metrics| metrics.worker == *id)
                || seen.listing.leases.iter().any(|lease| lease.actual_owner() == Some(id))
        };
        let absent: Vec<&WorkerId> = seen.settings.draining.iter().filter(|id| !is_there(id)).collect();
        self.absent.retain(|id, _| absent.contains(&id));
        for id in absent {
            self.absent.entry(id.clone()).or_insert(seen.asked);
        }
        let mut settings = seen.settings.clone();
        let is_long_gone =
            |id: &WorkerId| self.absent.get(id).is_some_and(|since| seen.asked.since(*since) >= DRAINED_FOR);
        settings.draining.retain(|id| !is_long_gone(id));
        if settings != seen.settings {
            let shared = &self.shared;
            shared.bounded(shared.store.swap_fleet_settings(Some(&seen.settings), &settings)).await?;
        }
        Ok(())
    }

    /// Hash keys of a stream that no lease covers are evidence of a missing lease. One that a sync did not mend will be mended by
    /// the end of a shard, or by one of the syncs that come anyway.
    fn mend_hole(&mut self, listing: &LeaseListing) {
        let has_hole = |stream: &Arc<ConsumedStream>| {
            let of_it = || listing.leases.iter().filter(|lease| lease.stream.as_deref() == stream.identifier());
            of_it().next().is_none() || leave_a_hole(of_it())
        };
        let holes: BTreeSet<String> = self
            .shared
            .streams
            .consumed()
            .iter()
            .filter(|stream| has_hole(stream))
            .map(|stream| stream.name())
            .collect();
        if !holes.is_subset(&self.holes) {
            info!(?holes, "some hash keys have no lease; comparing the stream's shards with the leases");
            self.shared.sync_now.notify_one();
        }
        self.holes = holes;
    }
}

/// Removes what dead workers left behind, so that nobody gives them anything. Who is dead was seen when the round began: a round
/// that was stopped in the middle has not seen who lived meanwhile, and whoever leads no more buries nobody.
async fn bury(shared: &Shared, lead: &mut Lead, seen: &Seen) -> Result<(), StoreError> {
    let wall = shared.env.timestamp();
    let is_gone = |metrics: &&WorkerMetrics| match metrics.heartbeat {
        Some(_) => lead.observations.is_dead(&metrics.worker, shared.timing.duration(), seen.asked),
        None => wall.since(metrics.last_update) > STALE_JAVA_ITEM,
    };
    let dead: Vec<&WorkerMetrics> = seen.workers.iter().filter(is_gone).collect();
    for metrics in dead.into_iter().filter(|_| lead.lock.is_held(shared.env.now())) {
        lead.observations.bury(&metrics.worker);
        if shared.bounded(shared.store.delete_worker_metrics(metrics)).await? {
            warn!(worker = %metrics.worker, last_update = %metrics.last_update, "a worker is dead");
        }
    }
    Ok(())
}

/// The error of a round that took longer than the lock holds.
pub(super) fn too_slow() -> StoreError {
    StoreError::new(StoreErrorKind::Timeout, "the lease table was too slow for a round of planning")
}
