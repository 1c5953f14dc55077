//! What the tasks of a worker share.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardwell_core::leasing::{LeaseTiming, Strain};
use shardwell_core::{Env, EnvExt, LeaseListing, LeaseStore, Monotonic, StoreError, StoreErrorKind, WorkerId};
use tokio::sync::{Notify, Semaphore, mpsc};
use tracing::warn;

use super::WorkerError;
use super::consumed::{ConsumedStream, ConsumedStreams};
use super::settings::Settings;
use super::status::{WorkerPhase, WorkerStatus, shard_statuses};
use crate::dead_letters::DeadLetters;
use crate::leases::{Flush, HeldLease, HeldLeases, Roster, Stop};
use crate::lock::lock;
use crate::processor::ProcessorFactory;
use crate::records::Filter;
use crate::records::fetch::SharedBudget;
use crate::watch::Watched;

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Running,
    /// Running batches have until the deadline.
    Stopping {
        deadline: Monotonic,
    },
    Stopped,
}

/// What the tasks of a worker share.
pub(crate) struct Shared {
    pub(crate) application: String,
    pub(crate) worker: WorkerId,
    pub(crate) settings: Settings,
    pub(crate) timing: LeaseTiming,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) streams: ConsumedStreams,
    /// The table as the coordination uses it, with connections of its own.
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) factory: ProcessorFactory,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) filter: Option<Filter>,

    pub(crate) held: HeldLeases,
    pub(crate) roster: Roster,
    pub(crate) budget: Arc<SharedBudget>,
    /// A permit for each processor call that may run at the same time; first come, first served.
    pub(crate) pool: Arc<Semaphore>,

    pub(crate) phase: Watched<Phase>,
    pub(crate) paused: Watched<bool>,
    /// The renewer waits here for a lease that was taken or let go.
    pub(crate) leases_changed: Notify,
    /// The discoverer waits here for a lease that this worker was given.
    pub(crate) discover_now: Notify,
    /// The leader waits here for a change that is worth a plan.
    pub(crate) plan_now: Notify,
    /// The syncer waits here for a reason to compare shards and leases.
    pub(crate) sync_now: Notify,
    /// Whether this worker leads.
    pub(crate) leads: Watched<bool>,
    /// Whether this worker's item is gone from the table, so that nobody gives it anything more.
    pub(crate) left_plan: Watched<bool>,
    /// Whether everything that this worker had is handed over.
    pub(crate) handed_over: Watched<bool>,
    /// Wakes those who wait for readiness.
    pub(crate) readiness: Watched<()>,
    pub(crate) flush: mpsc::UnboundedSender<Flush>,

    /// Until when nobody else can have taken this worker's id over.
    id_is_ours_until: Mutex<Monotonic>,
    /// Whether somebody plans for this worker.
    in_plan: AtomicBool,
    /// Whether it was looked for leases since somebody plans for this worker.
    discovered: AtomicBool,
    /// Whether the leases are nothing of this worker's any more, so that none is handed over.
    failed_without_release: AtomicBool,
    /// Why the worker paused by itself.
    paused_because: Mutex<Option<String>>,
    strain: Mutex<Strain>,
    listing: Mutex<LeaseListing>,
    failure: Mutex<Option<WorkerError>>,
}

/// What a worker is made of.
pub(crate) struct Parts {
    pub(crate) application: String,
    pub(crate) worker: WorkerId,
    pub(crate) settings: Settings,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) streams: ConsumedStreams,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) factory: ProcessorFactory,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) filter: Option<Filter>,
}

/// A call to the lease table that has no answer after this long is given up; renewals have deadlines of their own.
const STORE_CALL_DEADLINE: Duration = Duration::from_secs(10);

impl Shared {
    pub(crate) fn new(parts: Parts) -> (Arc<Self>, mpsc::UnboundedReceiver<Flush>) {
        let Parts { application, worker, settings, env, streams, store, factory, dead_letters, filter } = parts;
        let (flush, flushes) = mpsc::unbounded_channel();
        let shared = Self {
            timing: settings.timing(),
            streams,
            store: store.dedicated(),
            held: HeldLeases::default(),
            roster: Roster::default(),
            budget: Arc::new(SharedBudget::new(settings.max_buffered_bytes, application.clone())),
            pool: Arc::new(Semaphore::new(settings.max_concurrent_batches)),
            phase: Watched::new(Phase::Starting),
            paused: Watched::new(false),
            leases_changed: Notify::new(),
            discover_now: Notify::new(),
            plan_now: Notify::new(),
            sync_now: Notify::new(),
            leads: Watched::new(false),
            left_plan: Watched::new(false),
            handed_over: Watched::new(false),
            readiness: Watched::new(()),
            flush,
            id_is_ours_until: Mutex::new(Monotonic::ZERO),
            in_plan: AtomicBool::new(false),
            discovered: AtomicBool::new(false),
            failed_without_release: AtomicBool::new(false),
            strain: Mutex::new(Strain::default()),
            listing: Mutex::new(LeaseListing::default()),
            failure: Mutex::new(None),
            application,
            worker,
            settings,
            env,
            factory,
            dead_letters,
            filter,
            paused_because: Mutex::new(None),
        };
        (Arc::new(shared), flushes)
    }

    /// Bounds a call to the lease table.
    pub(crate) async fn bounded<T>(
        &self,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let deadline = self.env.now().plus(STORE_CALL_DEADLINE);
        let answer = self.env.deadline(deadline, call).await.unwrap_or_else(|_| {
            let message = format!("the lease table did not answer within {STORE_CALL_DEADLINE:?}");
            Err(StoreError::new(StoreErrorKind::Timeout, message))
        });
        answer.inspect_err(|error| self.heed(error))
    }

    /// A table that throttles is asked less often by whoever can wait.
    pub(crate) fn heed(&self, error: &StoreError) {
        if error.kind() == StoreErrorKind::Throttled && lock(&self.strain).throttled(self.env.now()) {
            warn!(%error, "the lease table throttles; leases are planned and looked for less often, so that renewals get through");
        }
    }

    /// How long to wait where one would wait for `interval` if the table kept up.
    pub(crate) fn stretched(&self, interval: Duration) -> Duration {
        lock(&self.strain).stretch(interval, self.env.now())
    }

    /// Goes from starting to running, unless it was told to stop.
    pub(crate) fn started(&self) {
        self.phase.change(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Running;
            }
            starting
        });
    }

    /// Tells everything to stop; the first deadline counts.
    pub(crate) fn stop(&self) {
        let deadline = self.env.now().plus(self.settings.shutdown_deadline);
        self.phase.change(|phase| {
            let running = matches!(*phase, Phase::Starting | Phase::Running);
            if running {
                *phase = Phase::Stopping { deadline };
            }
            running
        });
    }

    /// When this worker was told to stop; the origin of time if it was not.
    pub(crate) fn stopping_since(&self) -> Monotonic {
        match *self.phase.look() {
            Phase::Stopping { deadline } => deadline.minus(self.settings.shutdown_deadline),
            Phase::Starting | Phase::Running | Phase::Stopped => Monotonic::ZERO,
        }
    }

    pub(crate) fn stopped(&self) {
        self.phase.set(Phase::Stopped);
        self.readiness.set(());
    }

    /// Stops the worker because of an error; the first one counts.
    pub(crate) fn fail(&self, error: WorkerError) {
        tracing::error!(error = %crate::causes::with_causes(&error), "the worker cannot go on");
        lock(&self.failure).get_or_insert(error);
        self.stop();
    }

    /// An error that concerns a stream. A worker of several goes on without one that is gone; nothing else is forgiven.
    pub(crate) fn fail_at(&self, stream: &Arc<ConsumedStream>, error: WorkerError) {
        match error {
            WorkerError::StreamDeleted { .. } if self.streams.are_several() => {
                let error = crate::causes::with_causes(&error);
                if self.streams.lost(stream, error.clone()) {
                    tracing::error!(stream = %stream.name(), error, "a stream is gone; the worker goes on without it");
                }
            }
            error => self.fail(error),
        }
    }

    /// Stops the worker because its leases are another process's: none is written any more.
    pub(crate) fn fail_without_release(&self, error: WorkerError) {
        self.failed_without_release.store(true, Ordering::Release);
        for lease in self.held.all() {
            lease.tell(Stop::Lost);
        }
        self.fail(error);
    }

    pub(crate) fn is_failed_without_release(&self) -> bool {
        self.failed_without_release.load(Ordering::Acquire)
    }

    /// Pauses by itself, until somebody resumes.
    pub(crate) fn pause_because(&self, reason: String) {
        tracing::error!(%reason, "the worker pauses; it goes on when it is resumed");
        *lock(&self.paused_because) = Some(reason);
        self.paused.set(true);
    }

    /// Stops because the fuse has blown. It pauses too, so that nothing more is tried on the way.
    pub(crate) fn blow(&self, last_error: String) {
        self.paused.set(true);
        self.fail(WorkerError::FuseBlown { last_error });
    }

    /// Ends a pause, whoever began it.
    pub(crate) fn resume(&self) {
        self.dead_letters.reset_fuse();
        *lock(&self.paused_because) = None;
        self.paused.set(false);
    }

    pub(crate) fn take_failure(&self) -> Option<WorkerError> {
        lock(&self.failure).take()
    }

    /// This worker's item was written, by a write that began then: a sign of life.
    pub(crate) fn shown_alive(&self, attempt: Monotonic) {
        *lock(&self.id_is_ours_until) = self.timing.trusted_until(attempt);
    }

    /// Whether this process is still the one with this worker's id. Another one may have taken it over if there was no sign of life for
    /// a lease duration; what that one is given is none of this one's business, until it knows more.
    pub(crate) fn has_its_id(&self) -> bool {
        self.env.now() < *lock(&self.id_is_ours_until)
    }

    /// Somebody plans for this worker now.
    pub(crate) fn enter_plan(&self) {
        if !self.in_plan.swap(true, Ordering::AcqRel) {
            self.discover_now.notify_one();
        }
    }

    /// Whether somebody plans for this worker.
    pub(crate) fn is_in_plan(&self) -> bool {
        self.in_plan.load(Ordering::Acquire)
    }

    /// It was looked for leases since somebody plans for this worker.
    pub(crate) fn discovered(&self) {
        if !self.discovered.swap(true, Ordering::AcqRel) {
            self.readiness.set(());
        }
    }

    /// Whether this worker is in the plan, and has opened every lease that it was given.
    pub(crate) fn is_ready(&self) -> bool {
        self.discovered.load(Ordering::Acquire)
            && matches!(*self.phase.look(), Phase::Running)
            && self.held.all().iter().all(|lease| lease.activity().get().opened)
    }

    /// The labels of a metric with a shard. Its stream is one where there are several.
    pub(crate) fn labels(&self, lease: &HeldLease) -> Vec<(&'static str, String)> {
        let mut labels = vec![("application", self.application.clone()), ("shard", lease.shard().to_string())];
        if self.streams.are_several() {
            labels.push(("stream", lease.stream().name()));
        }
        labels
    }

    /// The labels of a metric with a shard, and one more.
    pub(crate) fn labels_and(
        &self,
        lease: &HeldLease,
        name: &'static str,
        value: &'static str,
    ) -> Vec<(&'static str, String)> {
        let mut labels = self.labels(lease);
        labels.push((name, value.to_owned()));
        labels
    }

    /// Keeps the newest listing for the status.
    pub(crate) fn listed(&self, listing: LeaseListing) {
        *lock(&self.listing) = listing;
    }

    pub(crate) fn status(&self) -> WorkerStatus {
        let listing = lock(&self.listing).clone();
        let phase = match *self.phase.look() {
            Phase::Starting => WorkerPhase::Starting,
            Phase::Running if *self.paused.look() => WorkerPhase::Paused,
            Phase::Running => WorkerPhase::Running,
            Phase::Stopping { .. } => WorkerPhase::Stopping,
            Phase::Stopped => WorkerPhase::Stopped,
        };
        let (buffered_bytes, peak_buffered_bytes) = self.budget.held_and_peak();
        WorkerStatus {
            worker: self.worker.clone(),
            phase,
            leads: *self.leads.look(),
            shards: shard_statuses(&listing, &self.held, &self.streams, self.env.now()),
            streams: self.streams.status(),
            buffered_bytes,
            peak_buffered_bytes,
            paused_because: lock(&self.paused_because).clone(),
            unreadable_leases: listing.unreadable.len(),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("application", &self.application)
            .field("worker", &self.worker)
            .field("streams", &self.streams.status())
            .field("phase", &*self.phase.look())
            .finish_non_exhaustive()
    }
}
