//! Building a worker from components and settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardwell_core::aggregation::RangePolicy;
use shardwell_core::dead_letter::DeadLetterSink;
use shardwell_core::delivery::DeliveryPolicy;
use shardwell_core::leasing::InitialPosition;
use shardwell_core::leasing::plan::PlanStrategy;
use shardwell_core::{Env, LeaseStore, Stream, SystemEnv, UserRecord, WorkerId};

use super::settings::Settings;
use super::shared::Parts;
use super::{BuildError, ConsumedStreams, OnDataLoss, Shared, Streams, Worker};
use crate::CheckpointMode;
use crate::dead_letters::DeadLetters;
use crate::processor::{LaneContext, ProcessorFactory, RecordProcessor};
use crate::records::Filter;

/// Collects what a worker is made of. Components are what it runs on (stream, lease table, processors, environment);
/// everything else is a setting with a default.
#[must_use = "a builder does nothing until `build`"]
pub struct WorkerBuilder {
    application: String,
    streams: ConsumedStreams,
    store: Arc<dyn LeaseStore>,
    factory: ProcessorFactory,
    worker: Option<WorkerId>,
    env: Option<Arc<dyn Env>>,
    sinks: Vec<Arc<dyn DeadLetterSink>>,
    filter: Option<Filter>,
    settings: Settings,
}

impl Worker {
    /// Starts building a worker.
    ///
    /// `application` names the group of workers that share the stream (the KCL's application name). `processors` makes a
    /// processor for each lane of each shard; it is called on the worker's threads and must not block for long.
    pub fn builder<P: RecordProcessor>(
        application: impl Into<String>,
        stream: impl Stream,
        leases: impl LeaseStore,
        processors: impl Fn(&LaneContext) -> P + Send + Sync + 'static,
    ) -> WorkerBuilder {
        Self::builder_with(application, Arc::new(stream), Arc::new(leases), processors)
    }

    /// As [`builder`](Self::builder), with components that were chosen at run time.
    pub fn builder_with<P: RecordProcessor>(
        application: impl Into<String>,
        stream: Arc<dyn Stream>,
        leases: Arc<dyn LeaseStore>,
        processors: impl Fn(&LaneContext) -> P + Send + Sync + 'static,
    ) -> WorkerBuilder {
        WorkerBuilder::new(application.into(), ConsumedStreams::single(stream), leases, processors)
    }

    /// Starts building a worker of several streams with one lease table, whose leases name their stream as the KCL's do. Streams
    /// may be added and removed while it runs. Such an application is another one than that of a single stream: neither finds
    /// the leases of the other.
    ///
    /// A stream that was deleted and created again is another stream: it is read from the initial position on, and the leases of
    /// the old one are removed. One that cannot be reached, or is gone, does not stop the worker; see
    /// [`WorkerStatus::streams`](crate::WorkerStatus::streams).
    pub fn builder_for_streams<P: RecordProcessor>(
        application: impl Into<String>,
        streams: Streams,
        leases: impl LeaseStore,
        processors: impl Fn(&LaneContext) -> P + Send + Sync + 'static,
    ) -> WorkerBuilder {
        let streams = ConsumedStreams::several(streams);
        WorkerBuilder::new(application.into(), streams, Arc::new(leases), processors)
    }
}

impl WorkerBuilder {
    fn new<P: RecordProcessor>(
        application: String,
        streams: ConsumedStreams,
        store: Arc<dyn LeaseStore>,
        processors: impl Fn(&LaneContext) -> P + Send + Sync + 'static,
    ) -> Self {
        Self {
            application,
            streams,
            store,
            factory: Arc::new(move |lane| Box::new(processors(lane))),
            worker: None,
            env: None,
            sinks: Vec::new(),
            filter: None,
            settings: Settings::default(),
        }
    }

    /// Where to start on a stream that the application has no leases for. Default: `LATEST`, as in the KCL.
    pub fn initial_position(mut self, position: InitialPosition) -> Self {
        self.settings.initial_position = position;
        self
    }

    /// Who decides what is checkpointed. Default: automatic, once per renewal.
    pub fn checkpoints(mut self, mode: CheckpointMode) -> Self {
        self.settings.checkpoints = mode;
        self
    }

    /// What to do when records were trimmed before they were read. Default: report it and go on.
    pub fn on_data_loss(mut self, choice: OnDataLoss) -> Self {
        self.settings.on_data_loss = choice;
        self
    }

    /// How long a lease holds after a renewal; a third of it is the time between renewals and so between checkpoints.
    /// Default: 10 s, as in the KCL; at least 100 ms. The same for all workers of an application.
    ///
    /// Too short, and a slow table or a paused process loses leases; too long, and the shards of a worker that crashed
    /// wait.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.settings.lease_duration = duration;
        self
    }

    /// How often to look for leases that this worker was given. Default: 1 s (the KCL's: 10 s). What this worker itself
    /// plans is seen at once. Too short costs reads of the table; too long delays every move of a lease.
    pub fn discovery_interval(mut self, interval: Duration) -> Self {
        self.settings.discovery_interval = interval;
        self
    }

    /// How often the leader plans who should have which lease. Default: 2 s (the KCL's: 20 s), and more seldom where that
    /// would cost more than [`planning_read_units`](Self::planning_read_units). Too short costs reads of the whole table;
    /// too long leaves the shards of a crashed worker waiting.
    pub fn planning_interval(mut self, interval: Duration) -> Self {
        self.settings.planning_interval = interval;
        self
    }

    /// How many DynamoDB read units a second planning may cost, each of the leader and its two standbys. Default: 50. Up to
    /// some 1,600 leases fit into that every 2 s; a larger table is planned more seldom, every 20 s at least.
    pub fn planning_read_units(mut self, units_per_second: f64) -> Self {
        self.settings.planning_read_units = units_per_second;
        self
    }

    /// What makes up a worker's load when leases are spread. Default: throughput and CPU. The leader's setting counts.
    pub fn plan_strategy(mut self, strategy: PlanStrategy) -> Self {
        self.settings.plan.strategy = strategy;
        self
    }

    /// How many leases a worker is given at most (the KCL's `maxLeasesForWorker`). Default: any number. The leader's setting
    /// counts; what nobody has room for waits, and is told by the metric `shardwell_leases_without_room`.
    pub fn max_leases_for_worker(mut self, leases: usize) -> Self {
        self.settings.plan.max_leases_for_worker = leases;
        self
    }

    /// From which CPU utilisation of its machine on, in percent, this worker is given no more leases while others have room.
    /// Default: 80. Where it cannot be read, it is ignored.
    pub fn max_cpu_percent(mut self, percent: f64) -> Self {
        self.settings.max_cpu_percent = percent;
        self
    }

    /// How long running batches may take to finish when a lease is handed over to another worker. Default: 30 s, as in the
    /// KCL. A batch that runs longer is abandoned and delivered again by the other worker. The same for all workers of an
    /// application: the leader takes a lease away that is not handed over a lease duration later.
    pub fn handoff_deadline(mut self, deadline: Duration) -> Self {
        self.settings.handoff_deadline = deadline;
        self
    }

    /// How often the leader compares the stream's shards with the leases. Default: 60 s; also when it begins to lead, at the
    /// end of its shards, and when hash keys are found that no lease covers. Too short costs calls to the stream; too long
    /// delays the removal of old leases and the notice that a stream was deleted.
    pub fn shard_sync_interval(mut self, interval: Duration) -> Self {
        self.settings.shard_sync_interval = interval;
        self
    }

    /// How long running batches may take to finish at a shutdown. Default: 30 s. A batch that runs longer is abandoned,
    /// and will be delivered again.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.settings.shutdown_deadline = deadline;
        self
    }

    /// How long to try to reach lease table and stream at start. Default: 60 s.
    pub fn startup_deadline(mut self, deadline: Duration) -> Self {
        self.settings.startup_deadline = deadline;
        self
    }

    /// How many bytes of records, overhead included, may be in memory between fetching and done, over all shards; one
    /// read more in the worst case. Default: 64 MiB. Each shard gets a fair share. Too small makes reads tiny and slow;
    /// the more, the more is read ahead.
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_buffered_bytes = bytes;
        self
    }

    /// How many processor calls may run at the same time, each on a thread. Default: 64. Too small makes shards wait for
    /// each other.
    pub fn max_concurrent_batches(mut self, batches: usize) -> Self {
        self.settings.max_concurrent_batches = batches;
        self
    }

    /// How records are delivered, and what happens when that fails: batches, lanes, retries, age, dead letters. Default:
    /// see [`DeliveryPolicy`].
    pub fn delivery(mut self, policy: DeliveryPolicy) -> Self {
        self.settings.delivery = policy;
        self
    }

    /// Where dead letters go. Called more than once: the next one is tried where the one before does not take a letter.
    /// Default: nowhere, and then no record is ever given up.
    pub fn dead_letters(mut self, sink: impl DeadLetterSink) -> Self {
        self.sinks.push(Arc::new(sink));
        self
    }

    /// Which user records are delivered: those for which the function says `true`. The others reach no processor, cost
    /// nothing, and are done with at once. It is called once for each user record, also for those that are delivered again
    /// after a restart, and must not block. Default: all.
    pub fn filter(mut self, wanted: impl Fn(&UserRecord) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Filter(Arc::new(wanted)));
        self
    }

    /// How often to look for dead letters that somebody asked to be tried again. Default: 5 s. Only where a sink's letters
    /// can be read back.
    pub fn redrive_interval(mut self, interval: Duration) -> Self {
        self.settings.redrive_interval = interval;
        self
    }

    /// Whether to keep to the stream's read limits. Default: true. Without it, reads follow each other as fast as they are
    /// answered, and throttling alone slows them down: for engines without limits.
    pub fn read_pacing(mut self, pacing: bool) -> Self {
        self.settings.read_pacing = pacing;
        self
    }

    /// What to do with user records of aggregated records that lie outside of the hash keys of the shard they came from, as
    /// a producer with an outdated view of the shards leaves them. Default: deliver all and count those outside, so nothing
    /// is lost, and after a reshard what such a producer put twice is seen twice. Not used on streams with `AUTO` record
    /// distribution, where hash keys say nothing.
    pub fn range_policy(mut self, policy: RangePolicy) -> Self {
        self.settings.range_policy = policy;
        self
    }

    /// The id of this worker. Default: host name, process id and a random number. Must differ between any two workers,
    /// also between a process and its restarted self.
    pub fn worker_id(mut self, id: impl Into<WorkerId>) -> Self {
        self.worker = Some(id.into());
        self
    }

    /// The clocks, tasks and randomness to run on. Default: the system's.
    pub fn env(mut self, env: Arc<dyn Env>) -> Self {
        self.env = Some(env);
        self
    }

    /// Builds the worker. Does no I/O. Must be called inside a tokio runtime, unless an environment was given.
    ///
    /// # Errors
    /// [`BuildError::Invalid`] for a setting that is out of its bounds, with a message that names it.
    pub fn build(mut self) -> Result<Worker, BuildError> {
        if self.application.is_empty() {
            return Err(BuildError::Invalid("the application name is empty".into()));
        }
        self.settings.validate().map_err(BuildError::Invalid)?;
        let policy = self.settings.delivery.clone().resolve(!self.sinks.is_empty()).map_err(BuildError::Invalid)?;
        let can_redrive = self.sinks.iter().any(|sink| sink.archive().is_some());
        if policy.quarantine() && !can_redrive {
            let sinks =
                "quarantine needs a sink whose letters can be read back and redriven: nothing else could end it";
            return Err(BuildError::Invalid(sinks.into()));
        }
        let dead_letters = DeadLetters::new(self.sinks, &policy);
        self.settings.delivery = policy;
        let env = match self.env {
            Some(env) => env,
            None => Arc::new(SystemEnv::new().map_err(BuildError::Environment)?),
        };
        let worker = self.worker.unwrap_or_else(|| unique_id(&*env));
        let parts = Parts {
            application: self.application,
            worker,
            settings: self.settings,
            env,
            streams: self.streams,
            store: self.store,
            factory: self.factory,
            dead_letters,
            filter: self.filter,
        };
        let (shared, flushes) = Shared::new(parts);
        Ok(Worker { shared, flushes })
    }
}

/// `host:pid:random`: unique per incarnation, and tells an operator where to look.
fn unique_id(env: &dyn Env) -> WorkerId {
    let host = gethostname::gethostname();
    format!("{}:{}:{:08x}", host.to_string_lossy(), std::process::id(), env.random() >> 32).into()
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("application", &self.application)
            .field("streams", &self.streams)
            .field("leases", &self.store.to_string())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
