//! Registering: the worker's item in the table, which puts it into the plan, and its sign of life while it has no leases.
//!
//! One that has leases shows by their renewals that it lives, and writes its item all the same with every other renewal: a lease duration
//! after the last one it could not know whether the id is still its own. If it was taken for dead, that is how soon it is in the
//! plan again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::leasing::plan::CPU;
use shardwell_core::{Env, EnvExt, Heartbeat, MetricsWrite, Monotonic, StoreError, WorkerMetrics};
use tracing::{debug, warn};

use super::Stop;
use super::liveness::living;
use crate::watch::Watcher;
use crate::worker::{Entry, Phase, Shared, WorkerError};

/// How often a worker reports its load (the KCL's).
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

/// How many measurements a report holds (the KCL's).
const MAX_SAMPLES: usize = 10;

/// A worker's item, and when it is to be written.
#[derive(Debug)]
pub(crate) struct Registration {
    item: WorkerMetrics,
    /// Whether it is known to have been written: this process has the worker's id.
    is_ours: bool,
    /// Whether the last write failed.
    has_failed: bool,
    next_report: Monotonic,
    /// When it is to be written although it has leases and nothing is new.
    next_repetition: Monotonic,
    cpu: CpuMeter,
    /// Sees when the worker's streams change.
    streams: Watcher<BTreeMap<String, Entry>>,
    /// The streams that the item in the table tells.
    told: Option<BTreeSet<String>>,
}

/// Writes the worker's item for the first time.
///
/// If another process has the id, it is watched for a lease duration: the one that lives keeps the id.
pub(crate) async fn first(shared: &Shared, registration: &mut Registration) -> Result<(), WorkerError> {
    // Asked before anybody can see this process: what was said then was said of an earlier one.
    let settings = shared.bounded(shared.store.fleet_settings()).await.map_err(WorkerError::Store)?;
    let was_drained = settings.is_some_and(|settings| settings.draining.contains(&shared.worker));
    while let MetricsWrite::Foreign(theirs) = registration.write(shared).await.map_err(WorkerError::Store)? {
        take_over(shared, &theirs).await?;
    }
    if was_drained {
        undrain(shared).await.map_err(WorkerError::Store)?;
    }
    Ok(())
}

/// Keeps the item fresh for as long as the worker runs, and removes it when the worker is to stop.
pub(crate) async fn run(shared: Arc<Shared>, mut registration: Registration) {
    let mut phase = shared.phase.watch();
    loop {
        let is_written = registration.is_told(&shared) && !registration.has_failed;
        let pause = if is_written { shared.timing.renew_interval() } else { shared.timing.renew_retry() };
        let next = shared.env.now().plus(pause);
        tokio::select! {
            biased;
            _ = phase.until(|phase| matches!(phase, Phase::Stopping { .. })) => break,
            () = registration.streams.changed() => {}
            () = shared.env.sleep_until(next) => {}
        }
        if registration.is_due(&shared) {
            let told = registration.told.clone();
            if shared.env.now() >= registration.next_report {
                registration.report(&shared);
            }
            match registration.write(&shared).await {
                Ok(MetricsWrite::Written) if registration.told == told => {}
                Ok(MetricsWrite::Written) => {
                    shared.sync_now.notify_one();
                    shared.plan_now.notify_one();
                }
                Ok(MetricsWrite::Foreign(_)) => return shared.fail_without_release(duplicate(&shared)),
                Err(error) => warn!(%error, "cannot write the worker's metrics; trying again"),
            }
        }
        if registration.is_told(&shared) {
            let_go_of_dropped(&shared);
        }
    }
    leave(&shared, &registration).await;
    shared.left_plan.set(true);
}

/// Lets go of what is held of streams that are not consumed any more. Everybody can see that they are not, so nobody gives it
/// back.
fn let_go_of_dropped(shared: &Shared) {
    let deadline = shared.env.now().plus(shared.settings.handoff_deadline);
    for lease in shared.held.all() {
        if !shared.streams.has(lease.stream()) {
            lease.tell(Stop::Drain { deadline });
        }
    }
}

/// Waits until it is known whether the other process lives, and removes its item if it does not.
async fn take_over(shared: &Shared, theirs: &WorkerMetrics) -> Result<(), WorkerError> {
    warn!("another process had this worker's id; watching whether it is alive");
    let living = living(shared, shared.timing.duration()).await.map_err(WorkerError::Store)?;
    if living.contains(&shared.worker) {
        return Err(duplicate(shared));
    }
    shared.bounded(shared.store.delete_worker_metrics(theirs)).await.map_err(WorkerError::Store)?;
    Ok(())
}

fn duplicate(shared: &Shared) -> WorkerError {
    WorkerError::DuplicateWorkerId { worker: shared.worker.clone(), application: shared.application.clone() }
}

/// Removes the item, if there may be one, so that nobody gives this worker anything more; as often as it takes.
pub(crate) async fn leave(shared: &Shared, registration: &Registration) {
    while registration.may_be_written() {
        match shared.bounded(shared.store.delete_worker_metrics(&registration.item)).await {
            Ok(true) => break,
            // A write of which it is not known whether it was applied may have left another time there.
            Ok(false) => match shared.bounded(shared.store.worker_metrics()).await {
                Ok(workers) => {
                    let item = workers
                        .into_iter()
                        .find(|item| item.worker == shared.worker && registration.item.may_replace(item));
                    let Some(item) = item else { break };
                    if let Ok(true) = shared.bounded(shared.store.delete_worker_metrics(&item)).await {
                        break;
                    }
                }
                Err(error) => warn!(%error, "cannot look for the worker's metrics; trying again"),
            },
            Err(error) => warn!(%error, "cannot remove the worker's metrics; trying again"),
        }
        shared.env.sleep(shared.timing.renew_retry()).await;
    }
    debug!("left the plan");
}

/// Whoever was drained under this worker's id was another process, or is gone now: the next one of the id is given leases again.
pub(crate) async fn undrain(shared: &Shared) -> Result<(), StoreError> {
    while let Some(seen) = shared.bounded(shared.store.fleet_settings()).await? {
        let mut settings = seen.clone();
        if !settings.draining.remove(&shared.worker)
            || shared.bounded(shared.store.swap_fleet_settings(Some(&seen), &settings)).await?
        {
            break;
        }
    }
    Ok(())
}

impl Registration {
    /// A registration that is to be written.
    pub(crate) fn new(shared: &Shared) -> Self {
        let mut item = WorkerMetrics::new(shared.worker.clone(), shared.env.timestamp());
        item.heartbeat = Some(Heartbeat { incarnation: shared.env.random(), beat: 0 });
        let now = shared.env.now();
        Self {
            item,
            is_ours: false,
            has_failed: false,
            next_report: now.plus(REPORT_INTERVAL),
            next_repetition: now,
            cpu: CpuMeter::new(&*shared.env),
            streams: shared.streams.watch(),
            told: None,
        }
    }

    fn is_due(&self, shared: &Shared) -> bool {
        let now = shared.env.now();
        let is_time = self.has_failed || now >= self.next_report.min(self.next_repetition);
        is_time || !self.is_told(shared) || shared.held.is_empty()
    }

    /// Whether the item tells the streams that are consumed.
    fn is_told(&self, shared: &Shared) -> bool {
        self.told == shared.streams.registered()
    }

    /// Whether this process is known to have the worker's id, and so what belongs to it.
    pub(crate) const fn is_ours(&self) -> bool {
        self.is_ours
    }

    fn may_be_written(&self) -> bool {
        self.item.heartbeat.is_some_and(|heartbeat| heartbeat.beat > 0)
    }

    /// Takes in the load since the last report.
    fn report(&mut self, shared: &Shared) {
        self.next_report = shared.env.now().plus(REPORT_INTERVAL);
        let Some(percent) = self.cpu.percent(&*shared.env) else { return };
        let samples = self.item.samples.entry(CPU.to_owned()).or_default();
        samples.push(percent);
        let surplus = samples.len().saturating_sub(MAX_SAMPLES);
        samples.drain(..surplus);
        self.item.operating_range.insert(CPU.to_owned(), vec![shared.settings.max_cpu_percent]);
    }

    async fn write(&mut self, shared: &Shared) -> Result<MetricsWrite, StoreError> {
        let (attempt, now) = (shared.env.now(), shared.env.timestamp());
        (self.item.last_update, self.item.support_heartbeat) = (now, now);
        if let Some(heartbeat) = &mut self.item.heartbeat {
            heartbeat.beat += 1;
        }
        drop(self.streams.look());
        self.item.streams = shared.streams.registered();
        self.has_failed = true;
        let answer = shared.bounded(shared.store.put_worker_metrics(&self.item)).await?;
        self.has_failed = false;
        if answer == MetricsWrite::Written {
            self.is_ours = true;
            shared.shown_alive(attempt);
            self.next_repetition = attempt.plus(shared.timing.renew_interval() * 2);
            self.told.clone_from(&self.item.streams);
        }
        Ok(answer)
    }
}

/// How busy the machine was between two looks.
#[derive(Debug)]
struct CpuMeter(Option<shardwell_core::CpuTime>);

impl CpuMeter {
    fn new(env: &dyn Env) -> Self {
        Self(env.cpu_time())
    }

    /// The share since the last look, in percent; `None` where it cannot be told.
    fn percent(&mut self, env: &dyn Env) -> Option<f64> {
        let (before, now) = (self.0, env.cpu_time());
        self.0 = now;
        now?.percent_since(&before?)
    }
}
