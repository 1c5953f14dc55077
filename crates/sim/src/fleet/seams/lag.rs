//! Reads that lag behind, as DynamoDB's scans and indexes do.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use shardwell_core::{Lease, LeaseKey, LeaseListing, LeaseStore, StoreError, WorkerId, WorkerMetrics};

use crate::fleet::world::{Stale, World};

/// What a read of many rows sees.
pub(super) enum Sees {
    /// What is there.
    Now,
    /// What was there a while ago.
    Then(Arc<Stale>),
    /// Of each row, what is there or what was there.
    Torn(Arc<Stale>, Rng),
}

impl Sees {
    pub(super) async fn listing(self, world: &World) -> Result<LeaseListing, StoreError> {
        let (stale, mut random) = match self {
            Self::Now => return world.table.leases().await,
            Self::Then(stale) => return Ok(stale.listing.clone()),
            Self::Torn(stale, random) => (stale, random),
        };
        let LeaseListing { leases, unreadable } = world.table.leases().await?;
        let key = |lease: &Lease| lease.key.clone();
        Ok(LeaseListing { leases: tear(&stale.listing.leases, leases, key, &mut random), unreadable })
    }

    pub(super) async fn leases_of(self, world: &World, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        if let Self::Now = self {
            return world.table.leases_of(worker).await;
        }
        let listing = self.listing(world).await?;
        let owned = listing.leases.into_iter().filter(|lease| lease.owner.as_ref() == Some(worker));
        Ok(owned.map(|lease| lease.key).collect())
    }

    pub(super) async fn workers(self, world: &World) -> Result<Vec<WorkerMetrics>, StoreError> {
        let now = world.table.worker_metrics();
        match self {
            Self::Now => now.await,
            Self::Then(stale) => Ok(stale.workers.clone()),
            Self::Torn(stale, mut random) => {
                Ok(tear(&stale.workers, now.await?, |item| item.worker.clone(), &mut random))
            }
        }
    }
}

/// Each row as it was or as it is, ordered by key.
fn tear<T: Clone, K: Ord>(then: &[T], now: Vec<T>, key: impl Fn(&T) -> K, random: &mut Rng) -> Vec<T> {
    let mut rows: BTreeMap<K, [Option<T>; 2]> = BTreeMap::new();
    for row in then {
        rows.entry(key(row)).or_default()[0] = Some(row.clone());
    }
    for row in now {
        let place = rows.entry(key(&row)).or_default();
        place[1] = Some(row);
    }
    rows.into_values().filter_map(|[then, now]| if random.bool() { then } else { now }).collect()
}
