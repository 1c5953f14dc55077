//! A process's way to the lease table.
//!
//! A request that was sent is on its way, whatever becomes of the process: it is carried out in the world, and only the answer
//! is the process's.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use shardwell_core::memory::MemoryLeaseStore;
use shardwell_core::{
    Assignment, Conditional, Created, Env, EnvExt, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseKey,
    LeaseListing, LeaseMeta, LeaseStore, MetricsWrite, Place, RenewOutcome, Renewal, Renewed, Reset, StoreError,
    StoreErrorKind, StreamIdentity, WorkerId, WorkerMetrics,
};
use tokio::sync::{mpsc, oneshot};

use super::super::lies;
use super::lag::Sees;
use crate::fleet::checks::Write;
use crate::fleet::kind::Kind;
use crate::fleet::weather::{Call, End, Fate, ProcessId};
use crate::fleet::world::World;

/// The lease table as one process sees it.
#[derive(Clone)]
pub(crate) struct SimStore {
    pub(crate) world: Arc<World>,
    pub(crate) process: ProcessId,
}

/// How far what lags may lag.
const LAG: Duration = Duration::from_millis(1500);

impl SimStore {
    fn fate(&self, call: Call) -> Fate {
        let mut state = self.world.state();
        let state = &mut *state;
        state.weather.store(call, self.process, state.now, &mut state.random)
    }

    /// Sends a request, and waits for its answer.
    async fn send<T: Send + 'static>(
        &self,
        call: Call,
        request: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let Fate { there, back, end } = self.fate(call);
        let env = self.world.env.clone();
        let (answer, answered) = oneshot::channel();
        let carry_out = {
            let env = env.clone();
            async move {
                env.sleep(there).await;
                let result = match refusal(end) {
                    Some(error) => Err(error),
                    None => request.await,
                };
                env.sleep(back).await;
                // The process may have died meanwhile.
                let _ = answer.send(result);
            }
        };
        env.spawn_detached(Place::Coordination, Box::pin(carry_out));
        let result = answered.await.unwrap_or_else(|_| Err(lost()));
        if end == End::ReplyLost { Err(lost()) } else { result }
    }

    /// Sends a conditional write, and has an eye on it.
    async fn write(
        &self,
        key: &LeaseKey,
        write: Write,
        request: impl Future<Output = Result<Conditional, StoreError>> + Send + 'static,
    ) -> Result<Conditional, StoreError> {
        let (world, process, key) = (self.world.clone(), self.process, key.clone());
        self.send(Call::Write, async move {
            let before = world.lease(&key);
            let answer = request.await?;
            if let (Some(before), Conditional::Applied(after)) = (before, &answer) {
                world.state().wrote(process, write, &before, after);
            }
            Ok(answer)
        })
        .await
    }

    fn table(&self) -> MemoryLeaseStore {
        self.world.table.clone()
    }

    /// What a read of many rows sees now.
    fn sees(&self) -> Sees {
        let (lags, torn) = {
            let mut state = self.world.state();
            let state = &mut *state;
            let lags = state.weather.strikes(Kind::StaleReads, self.process, state.now, &mut state.random);
            (lags, lags.then(|| state.random.fork()).filter(|_| state.random.bool()))
        };
        match torn {
            _ if !lags => Sees::Now,
            None => Sees::Then(self.world.stale(LAG)),
            Some(random) => Sees::Torn(self.world.stale(LAG), random),
        }
    }
}

fn refusal(end: End) -> Option<StoreError> {
    match end {
        End::Well | End::ReplyLost => None,
        End::Throttled => Some(StoreError::new(StoreErrorKind::Throttled, "throttled, as the weather is")),
        End::Failed => Some(StoreError::new(StoreErrorKind::Unavailable, "failed, as the weather is")),
    }
}

fn lost() -> StoreError {
    StoreError::new(StoreErrorKind::Timeout, "the reply was lost, as the weather is")
}

impl fmt::Debug for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStore").field("process", &self.process).finish_non_exhaustive()
    }
}

impl fmt::Display for SimStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated lease table")
    }
}

#[async_trait]
impl LeaseStore for SimStore {
    fn dedicated(&self) -> Arc<dyn LeaseStore> {
        Arc::new(self.clone())
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        let table = self.table();
        self.send(Call::Read, async move { table.prepare().await }).await
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError> {
        let (world, process, lease) = (self.world.clone(), self.process, lease.clone());
        self.send(Call::Write, async move {
            let created = lies::create(&world, &lease).await?;
            if created == Created::New {
                let mut state = world.state();
                state.log(format_args!("p{process} created {}", lease.key));
                state.change();
            }
            Ok(created)
        })
        .await
    }

    async fn leases(&self) -> Result<LeaseListing, StoreError> {
        let (world, process, sees) = (self.world.clone(), self.process, self.sees());
        self.send(Call::Read, async move {
            let listing = sees.listing(&world).await?;
            Ok(lies::listing(&world, process, listing))
        })
        .await
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let (world, process, key) = (self.world.clone(), self.process, key.clone());
        self.send(Call::Read, async move {
            let row = world.table.lease(&key).await?;
            if let Some(row) = &row {
                world.state().looked_up(process, row);
            }
            Ok(row.map(|row| lies::row(&world, row)))
        })
        .await
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        let (world, process, worker, sees) = (self.world.clone(), self.process, worker.clone(), self.sees());
        self.send(Call::Read, async move {
            if lies::hides_leases(&world, process) {
                return Ok(Vec::new());
            }
            sees.leases_of(&world, &worker).await
        })
        .await
    }

    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed> {
        let (answer, answers) = mpsc::unbounded_channel();
        for renewal in renewals {
            let (world, process, worker, answer) = (self.world.clone(), self.process, worker.clone(), answer.clone());
            let Fate { there, back, end } = self.fate(Call::Write);
            let key = renewal.key.clone();
            let carry_out = async move {
                world.env.sleep(there).await;
                let outcome = match refusal(end) {
                    Some(error) => RenewOutcome::Unknown(error),
                    None => lies::renew(&world, process, &worker, renewal).await,
                };
                world.env.sleep(back).await;
                let outcome = if end == End::ReplyLost { RenewOutcome::Unknown(lost()) } else { outcome };
                let _ = answer.send(Renewed { key, outcome });
            };
            self.world.env.spawn_detached(Place::Coordination, Box::pin(carry_out));
        }
        stream::unfold(answers, |mut answers| async { answers.recv().await.map(|renewed| (renewed, answers)) }).boxed()
    }

    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError> {
        let (world, process, assignment) = (self.world.clone(), self.process, assignment.clone());
        let key = assignment.key.clone();
        self.write(&key, Write::Assignment, async move { lies::assign(&world, process, &assignment).await }).await
    }

    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
        let (world, handoff) = (self.world.clone(), handoff.clone());
        let key = handoff.key.clone();
        self.write(&key, Write::HandoffStart, async move { lies::start_handoff(&world, &handoff).await }).await
    }

    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError> {
        let (table, eviction) = (self.table(), eviction.clone());
        let key = eviction.key.clone();
        self.write(&key, Write::Eviction, async move { table.evict(&eviction).await }).await
    }

    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError> {
        let (table, reset) = (self.table(), reset.clone());
        self.send(Call::Write, async move { table.reset(&reset).await }).await
    }

    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError> {
        let (table, key, meta) = (self.table(), key.clone(), meta.clone());
        self.send(Call::Write, async move { table.update_meta(&key, &meta).await }).await
    }

    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError> {
        let (table, key) = (self.table(), key.clone());
        self.send(Call::Write, async move { table.delete_lease(&key).await }).await
    }

    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError> {
        let (world, metrics) = (self.world.clone(), metrics.clone());
        self.send(Call::Write, async move {
            let is_first = metrics.heartbeat.is_some_and(|heartbeat| heartbeat.beat <= 1);
            let written = lies::put_metrics(&world, metrics.clone()).await?;
            if is_first {
                let mut state = world.state();
                state.log(format_args!("{} registers: {written:?}", metrics.worker));
                state.change();
            }
            Ok(written)
        })
        .await
    }

    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError> {
        let (world, sees) = (self.world.clone(), self.sees());
        self.send(Call::Read, async move { sees.workers(&world).await }).await
    }

    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError> {
        let (world, process, seen) = (self.world.clone(), self.process, seen.clone());
        self.send(Call::Write, async move {
            let deleted = lies::delete_metrics(&world, process, &seen).await?;
            if deleted {
                let mut state = world.state();
                state.log(format_args!("p{process} removes the item of {}", seen.worker));
                state.change();
            }
            Ok(deleted)
        })
        .await
    }

    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError> {
        let table = self.table();
        self.send(Call::Read, async move { table.leader_lock().await }).await
    }

    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError> {
        let (world, process, seen, lock) = (self.world.clone(), self.process, seen.map(str::to_owned), lock.cloned());
        self.send(Call::Write, async move {
            let before = world.table.leader_lock().await?;
            let swapped = world.table.swap_leader_lock(seen.as_deref(), lock.as_ref()).await?;
            if swapped {
                world.state().lock_written(process, before.as_ref(), lock.as_ref());
            }
            Ok(swapped)
        })
        .await
    }

    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError> {
        let table = self.table();
        self.send(Call::Read, async move { table.fleet_settings().await }).await
    }

    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError> {
        let (table, seen, settings) = (self.table(), seen.cloned(), settings.clone());
        self.send(Call::Write, async move { table.swap_fleet_settings(seen.as_ref(), &settings).await }).await
    }

    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError> {
        let (table, name) = (self.table(), name.to_owned());
        self.send(Call::Read, async move { table.stream_identity(&name).await }).await
    }

    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError> {
        let table = self.table();
        self.send(Call::Read, async move { table.stream_identities().await }).await
    }

    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError> {
        let (table, identity) = (self.table(), identity.clone());
        self.send(Call::Write, async move { table.record_stream_identity(&identity).await }).await
    }

    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError> {
        let (table, name) = (self.table(), name.to_owned());
        self.send(Call::Write, async move { table.delete_stream_identity(&name).await }).await
    }
}
