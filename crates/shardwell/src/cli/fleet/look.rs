//! One look at all that a lease table holds of a fleet.

use std::collections::BTreeSet;
use std::time::Duration;

use shardwell::core::leasing::LeaseTiming;
use shardwell::core::{FleetSettings, LeaderLock, Monotonic, StoreError, WorkerMetrics};
use shardwell::{Env, LeaseListing, LeaseStore, Timestamp, WorkerId};

use crate::cli::watch;

/// What a table held.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When it was asked for: what is here may be older than its arrival, never older than that.
    pub(super) asked: Monotonic,
    /// The same by the wall clock.
    pub(super) at: Timestamp,
    pub(super) listing: LeaseListing,
    pub(super) workers: Vec<WorkerMetrics>,
    pub(super) settings: Option<FleetSettings>,
    pub(super) leader: Option<LeaderLock>,
}

/// Looks.
pub(super) async fn look(env: &dyn Env, store: &dyn LeaseStore) -> Result<Look, StoreError> {
    let (asked, at) = (env.now(), env.timestamp());
    let (listing, workers) = store.look().await?;
    let settings = store.fleet_settings().await?;
    let leader = store.leader_lock().await?;
    Ok(Look { asked, at, listing, workers, settings, leader })
}

impl Look {
    pub(super) fn lease_duration(&self) -> Duration {
        watch::lease_duration(self.settings.as_ref())
    }

    /// When to look again, at the latest: as often as leases are renewed, or signs of life are missed.
    pub(super) fn again_at(&self) -> Monotonic {
        /// However short the leases are, the table is left alone for so long.
        const SHORTEST: Duration = Duration::from_millis(10);
        self.asked.plus(LeaseTiming::new(self.lease_duration()).renew_interval().max(SHORTEST))
    }

    /// The workers that are to hand over what they have.
    pub(super) fn draining(&self) -> BTreeSet<WorkerId> {
        self.settings.as_ref().map(|settings| settings.draining.clone()).unwrap_or_default()
    }

    /// Every worker that the table names: those that are registered, and those that have a lease or are to get one.
    pub(super) fn known_workers(&self) -> BTreeSet<WorkerId> {
        let owners = self.listing.leases.iter().flat_map(|lease| [&lease.owner, &lease.checkpoint_owner]);
        let registered = self.workers.iter().map(|metrics| &metrics.worker);
        registered.chain(owners.flatten()).cloned().collect()
    }

    pub(super) fn is_registered(&self, worker: &WorkerId) -> bool {
        self.workers.iter().any(|metrics| metrics.worker == *worker)
    }
}
