//! A lease table in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream, StreamExt};

use crate::{
    Assignment, Conditional, Created, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseKey, LeaseListing,
    LeaseMeta, LeaseStore, MetricsWrite, RenewOutcome, Renewal, Renewed, Reset, StoreError, StreamIdentity, WorkerId,
    WorkerMetrics,
};

/// One application's lease table in memory: for tests, for the simulator, and for a service that may start over.
///
/// Clones and [`dedicated`](LeaseStore::dedicated) handles share the table. It is the pure functions of the conditional
/// writes under one mutex, so it is the reference that other stores are compared with: nothing lags, nothing fails but
/// a request that is wrong, and nothing outlives the process.
#[derive(Clone, Debug, Default)]
pub struct MemoryLeaseStore {
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    leases: BTreeMap<LeaseKey, Lease>,
    workers: BTreeMap<WorkerId, WorkerMetrics>,
    leader: Option<LeaderLock>,
    settings: Option<FleetSettings>,
    streams: BTreeMap<String, StreamIdentity>,
}

impl Table {
    /// Replaces a row by what a conditional write makes of it.
    fn write(&mut self, key: &LeaseKey, apply: impl FnOnce(&Lease) -> Option<Lease>) -> Conditional {
        let Some(row) = self.leases.get_mut(key) else { return Conditional::Refused(None) };
        match apply(row) {
            Some(after) => {
                row.clone_from(&after);
                Conditional::Applied(after)
            }
            None => Conditional::Refused(Some(row.clone())),
        }
    }
}

impl MemoryLeaseStore {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes a row as somebody may who does not go by the protocol: another program, an operator. For tests. Does nothing
    /// where there is no such row.
    pub fn edit(&self, key: &LeaseKey, change: impl FnOnce(&mut Lease)) {
        if let Some(row) = self.table().leases.get_mut(key) {
            change(row);
        }
    }

    /// No write leaves the table half done, so a panic elsewhere does not spoil it.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for MemoryLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lease table in memory")
    }
}

#[async_trait]
impl LeaseStore for MemoryLeaseStore {
    fn dedicated(&self) -> Arc<dyn LeaseStore> {
        Arc::new(self.clone())
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError> {
        lease.ensure_creatable()?;
        let mut table = self.table();
        if table.leases.contains_key(&lease.key) {
            return Ok(Created::Existed);
        }
        table.leases.insert(lease.key.clone(), lease.clone());
        Ok(Created::New)
    }

    async fn leases(&self) -> Result<LeaseListing, StoreError> {
        Ok(LeaseListing { leases: self.table().leases.values().cloned().collect(), unreadable: Vec::new() })
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        Ok(self.table().leases.get(key).cloned())
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        let table = self.table();
        let owned = table.leases.values().filter(|lease| lease.owner.as_ref() == Some(worker));
        Ok(owned.map(|lease| lease.key.clone()).collect())
    }

    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed> {
        let renew_one = move |renewal: Renewal| {
            let outcome = match self.table().write(&renewal.key, |row| renewal.apply(worker, row)) {
                Conditional::Applied(row) => RenewOutcome::applied(row),
                Conditional::Refused(row) => RenewOutcome::Lost(row),
            };
            Renewed { key: renewal.key, outcome }
        };
        stream::iter(renewals).map(renew_one).boxed()
    }

    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError> {
        Ok(self.table().write(&assignment.key, |row| assignment.apply(row)))
    }

    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
        Ok(self.table().write(&handoff.key, |row| handoff.apply(row)))
    }

    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError> {
        Ok(self.table().write(&eviction.key, |row| eviction.apply(row)))
    }

    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError> {
        Ok(self.table().write(&reset.key, |row| Some(reset.apply(row))))
    }

    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError> {
        Ok(self.table().write(key, |row| Some(meta.apply(row))))
    }

    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.table().leases.remove(key);
        Ok(())
    }

    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError> {
        let mut table = self.table();
        if let Some(stored) = table.workers.get(&metrics.worker)
            && !metrics.may_replace(stored)
        {
            return Ok(MetricsWrite::Foreign(stored.clone()));
        }
        table.workers.insert(metrics.worker.clone(), metrics.as_stored());
        Ok(MetricsWrite::Written)
    }

    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError> {
        Ok(self.table().workers.values().cloned().collect())
    }

    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError> {
        let mut table = self.table();
        let is_as_seen =
            |stored: &WorkerMetrics| stored.last_update == seen.as_stored().last_update && seen.may_replace(stored);
        let as_seen = table.workers.get(&seen.worker).is_some_and(is_as_seen);
        if as_seen {
            table.workers.remove(&seen.worker);
        }
        Ok(as_seen)
    }

    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError> {
        Ok(self.table().leader.clone())
    }

    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError> {
        let mut table = self.table();
        let as_seen = table.leader.as_ref().map(|lock| lock.version.as_str()) == seen;
        if as_seen {
            table.leader = lock.cloned();
        }
        Ok(as_seen)
    }

    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError> {
        Ok(self.table().settings.clone())
    }

    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError> {
        let mut table = self.table();
        let as_seen = table.settings.as_ref() == seen;
        if as_seen {
            table.settings = Some(settings.clone());
        }
        Ok(as_seen)
    }

    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError> {
        Ok(self.table().streams.get(name).cloned())
    }

    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError> {
        Ok(self.table().streams.values().cloned().collect())
    }

    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError> {
        let mut table = self.table();
        if table.streams.contains_key(&identity.name) {
            return Ok(Created::Existed);
        }
        table.streams.insert(identity.name.clone(), identity.clone());
        Ok(Created::New)
    }

    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError> {
        self.table().streams.remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lease_store::exercise;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn conforms_as_a_value() {
        exercise(|| async { Arc::new(MemoryLeaseStore::new()) }).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn conforms_as_an_object() {
        exercise(|| async { Arc::new(MemoryLeaseStore::new()) as Arc<dyn LeaseStore> }).await;
    }
}
