//! A fleet in virtual time: workers in simulated processes around one stream and one lease table.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use shardwell_consumer::{
    Batch, InitialPosition, LaneContext, Outcome, ProcessError, RecordProcessor, Worker, WorkerError, WorkerHandle,
    async_trait,
};
use shardwell_core::memory::{MemoryLeaseStore, MemoryStream};
use shardwell_core::{
    Env, EnvExt, FleetSettings, Lease, LeaseStore, Monotonic, Place, PutEntry, ReadLimits, ShardFilter, StreamWriter,
    Task, Timestamp, WorkerId,
};
use shardwell_sim::SimEnv;

use crate::log::Log;
use crate::metered::{Journal, MeteredLeaseStore};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// How often a record is put into each shard.
const PUT_INTERVAL: Duration = Duration::from_millis(100);

/// How often it is looked whether what was waited for has happened.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// No measurement waits longer than this for anything.
const PATIENCE: Duration = Duration::from_secs(300);

/// A stream, a lease table, and what is written down of them.
pub(crate) struct World {
    pub(crate) env: SimEnv,
    pub(crate) log: Log,
    pub(crate) journal: Journal,
    stream: MemoryStream,
    table: MemoryLeaseStore,
    /// How long a processor takes for a batch.
    work: Duration,
    put: Arc<AtomicU64>,
}

/// A worker that runs.
pub(crate) struct Member {
    pub(crate) id: WorkerId,
    pub(crate) handle: WorkerHandle,
    process: SimEnv,
    run: Task<Result<(), WorkerError>>,
}

/// Which worker of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Leader,
    Other,
}

impl World {
    /// A stream of so many shards that is read within Kinesis' limits, and an empty table.
    pub(crate) fn new(seed: u64, shards: u32) -> Self {
        let env = SimEnv::new(seed, START);
        let stream = MemoryStream::create(Arc::new(env.clone()), "flights", shards).expect("a new stream");
        Self {
            stream: stream.with_read_limits(ReadLimits::POLLING),
            env,
            log: Log::default(),
            journal: Journal::default(),
            table: MemoryLeaseStore::new(),
            work: Duration::ZERO,
            put: Arc::default(),
        }
    }

    /// The same with processors that take their time for each batch.
    pub(crate) fn with_work(self, work: Duration) -> Self {
        Self { work, ..self }
    }

    pub(crate) fn now(&self) -> Monotonic {
        self.env.now()
    }

    /// A random time up to `most`.
    pub(crate) fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64((self.env.random() >> 11) as f64 / (1u64 << 53) as f64)
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.env.sleep(time).await;
    }

    /// A time in which everything that is done again and again is done, and a random one more: so what follows meets it
    /// anywhere.
    pub(crate) async fn some_time(&self) {
        self.sleep(Duration::from_secs(6) + self.up_to(Duration::from_secs(4))).await;
    }

    /// A worker with default settings in a process of its own.
    pub(crate) fn start(&self) -> Member {
        let process = SimEnv::new(self.env.random(), self.env.timestamp());
        let id: WorkerId = format!("worker-{:08x}", self.env.random() >> 32).into();
        let (log, clock, work) = (self.log.clone(), self.env.clone(), self.work);
        let make =
            move |lane: &LaneContext| Watched { lane: lane.clone(), log: log.clone(), clock: clock.clone(), work };
        let table = Arc::new(self.table.clone());
        let table = MeteredLeaseStore::new(table, self.env.clone(), id.clone(), self.journal.clone());
        let worker = Worker::builder("bench", self.stream.clone(), table, make)
            .worker_id(id.clone())
            .env(Arc::new(process.clone()))
            .initial_position(InitialPosition::TrimHorizon)
            .build()
            .expect("valid settings");
        let handle = worker.handle();
        let run = self.env.spawn(Place::Pipeline, worker.run());
        Member { id, handle, process, run }
    }

    /// Workers that start within a second.
    pub(crate) async fn start_all(&self, workers: usize) -> Vec<Member> {
        let mut fleet = Vec::new();
        for _ in 0..workers {
            fleet.push(self.start());
            self.sleep(self.up_to(Duration::from_secs(1) / u32::try_from(workers).unwrap_or(u32::MAX))).await;
        }
        fleet
    }

    /// A fleet at rest.
    pub(crate) async fn fleet(&self, workers: usize) -> Vec<Member> {
        let fleet = self.start_all(workers).await;
        self.until("the load is even", || self.is_even(&fleet)).await;
        self.some_time().await;
        fleet
    }

    /// Puts records into every shard for as long as the task is kept.
    pub(crate) fn feed(&self) -> Task<()> {
        let (env, stream, put) = (self.env.clone(), self.stream.clone(), self.put.clone());
        let shards = stream.shards(&ShardFilter::All).expect("the stream is there");
        let keys: Vec<u128> = shards.iter().map(|shard| shard.hash_key_range.start()).collect();
        self.env.spawn(Place::Pipeline, async move {
            loop {
                let entry = |key: &u128| {
                    let number = put.fetch_add(1, Ordering::Relaxed);
                    let entry = PutEntry::new("key", number.to_be_bytes().to_vec());
                    PutEntry { explicit_hash_key: Some(*key), ..entry }
                };
                let entries: Vec<PutEntry> = keys.iter().map(entry).collect();
                stream.put(&entries).await.expect("the stream takes it");
                env.sleep(PUT_INTERVAL).await;
            }
        })
    }

    /// Stops putting records, and makes sure that every one is processed.
    pub(crate) async fn stop_feeding(&self, feeding: Task<()>) {
        drop(feeding);
        let put = self.put.load(Ordering::Relaxed);
        self.until("every record is processed", || self.log.distinct() == put).await;
    }

    /// Lets time pass until `condition` holds.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn() -> bool + Send) {
        let deadline = self.now().plus(PATIENCE);
        while !condition() {
            assert!(self.now() < deadline, "not within {PATIENCE:?}: {what}");
            self.sleep(LOOK_INTERVAL).await;
        }
    }

    /// Lets time pass until every shard has been processed after `since` by somebody who is not `gone`.
    pub(crate) async fn until_all_processed(&self, since: Monotonic, gone: &[WorkerId]) {
        let shards = self.shards();
        self.until("every shard is processed", || {
            let active = self.log.active_since(since);
            active.values().filter(|worker| !gone.contains(worker)).count() == shards
        })
        .await;
    }

    pub(crate) fn shards(&self) -> usize {
        self.stream.shards(&ShardFilter::All).expect("the stream is there").len()
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        answer(self.table.leases()).leases
    }

    /// How many leases each worker has.
    pub(crate) fn loads(&self) -> BTreeMap<WorkerId, usize> {
        let mut loads = BTreeMap::new();
        for owner in self.leases().iter().filter_map(Lease::actual_owner) {
            *loads.entry(owner.clone()).or_default() += 1;
        }
        loads
    }

    pub(crate) fn load(&self, worker: &WorkerId) -> usize {
        self.loads().get(worker).copied().unwrap_or(0)
    }

    /// Whether every worker has its share, and no lease is on its way.
    pub(crate) fn is_even(&self, fleet: &[Member]) -> bool {
        let leases = self.leases();
        let (least, most) = (leases.len() / fleet.len(), leases.len().div_ceil(fleet.len()));
        let loads = self.loads();
        let has_share = |member: &Member| loads.get(&member.id).is_some_and(|load| (least..=most).contains(load));
        leases.len() == self.shards()
            && leases.iter().all(|lease| lease.owner.is_some() && !lease.handoff_requested())
            && fleet.iter().all(|member| has_share(member) && member.handle.is_ready())
    }

    /// Asks the fleet to give nothing more to a worker and to take away what it has.
    pub(crate) fn drain(&self, worker: &WorkerId) {
        let settings: FleetSettings = answer(self.table.fleet_settings()).expect("the fleet has agreed");
        let mut draining = settings.clone();
        draining.draining.insert(worker.clone());
        assert!(answer(self.table.swap_fleet_settings(Some(&settings), &draining)), "nobody else writes them");
    }
}

impl Member {
    /// The process dies.
    pub(crate) fn crash(&self) {
        self.process.crash();
    }

    /// Stops gracefully.
    pub(crate) async fn stop(self) {
        self.handle.request_shutdown();
        self.run.await.expect("it does not panic").expect("a clean stop");
    }
}

/// Takes a worker out of a fleet.
pub(crate) fn take(fleet: &mut Vec<Member>, who: Who) -> Member {
    let leads = |member: &Member| member.handle.status().leads == (who == Who::Leader);
    let index = fleet.iter().position(leads).expect("one leads, and the others do not");
    fleet.remove(index)
}

/// What a table in memory answers, which it does at once.
fn answer<T>(call: impl Future<Output = Result<T, shardwell_core::StoreError>>) -> T {
    call.now_or_never().expect("it does not wait").expect("it does not fail")
}

/// A processor that writes down what it sees.
struct Watched {
    lane: LaneContext,
    log: Log,
    clock: SimEnv,
    work: Duration,
}

#[async_trait]
impl RecordProcessor for Watched {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        let began = self.clock.now();
        if !self.work.is_zero() {
            self.clock.sleep(self.work).await;
        }
        let number = |data: &[u8]| data.try_into().map(u64::from_be_bytes);
        let numbers: Vec<u64> = batch.into_iter().map(|record| number(&record.data)).collect::<Result<_, _>>()?;
        self.log.processed(&self.lane.shard, &self.lane.worker, began, self.clock.now(), &numbers);
        Ok(Outcome::Done)
    }
}
