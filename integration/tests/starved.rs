//! Processors that block their threads for ten lease durations, more of them than the runtime has threads: nothing but
//! their own shards waits, and no lease is lost, also while another worker joins and is given its share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardwell_consumer::{
    Batch, DeliveryPolicy, InitialPosition, Outcome, ProcessError, RecordProcessor, Start, Worker, WorkerBuilder,
    WorkerError, WorkerHandle, async_trait,
};
use shardwell_core::memory::{MemoryLeaseStore, MemoryStream};
use shardwell_core::{
    Checkpoint, Env, EnvExt, HashKeyRange, LeaseStore, Place, ShardFilter, ShardId, SystemEnv, Task, hash_key,
};
use shardwell_sqlite::SqliteLeaseStore;

const LEASE_DURATION: Duration = Duration::from_millis(300);
const BLOCKED_FOR: Duration = LEASE_DURATION.saturating_mul(10);
const SHARDS: usize = 8;
/// Three times the runtime's threads.
const BLOCKED: usize = 6;
const RUNTIME_THREADS: usize = 2;

/// The worker under test.
const OURS: &str = "sleepy";

/// One that joins it, and to which a lease that was not renewed in time would go too.
const RIVAL: &str = "rival";

/// Records that each shard is given in one go.
const RECORDS: usize = 300;

/// Nothing that a test waits for takes nearly as long, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the processors of all workers did.
#[derive(Default)]
struct Seen {
    /// Workers and shards, in order.
    initialized: Vec<(&'static str, ShardId)>,
    lost: Vec<(&'static str, ShardId)>,
    /// Shards whose processor is asleep right now.
    asleep: Vec<ShardId>,
    /// The sleeps that are over.
    slept: usize,
    /// By shard, in order.
    records: BTreeMap<ShardId, Vec<String>>,
}

#[derive(Clone, Default)]
struct Observer(Arc<Mutex<Seen>>);

impl Observer {
    fn note<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.0.lock().expect("nobody panics while it holds this"))
    }

    fn count_of(&self, shard: &ShardId) -> usize {
        self.note(|seen| seen.records.get(shard).map_or(0, Vec::len))
    }
}

struct Sleeper {
    worker: &'static str,
    shard: ShardId,
    observer: Observer,
    /// Whether to block the thread at the next batch.
    sleepy: bool,
}

#[async_trait]
impl RecordProcessor for Sleeper {
    async fn initialize(&mut self, _: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        self.observer.note(|seen| seen.initialized.push((self.worker, self.shard.clone())));
        Ok(None)
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        if std::mem::take(&mut self.sleepy) {
            self.observer.note(|seen| seen.asleep.push(self.shard.clone()));
            block();
            self.observer.note(|seen| {
                seen.asleep.retain(|shard| *shard != self.shard);
                seen.slept += 1;
            });
        }
        for record in batch {
            let payload = std::str::from_utf8(&record.data)?.to_owned();
            self.observer.note(|seen| seen.records.entry(self.shard.clone()).or_default().push(payload));
        }
        Ok(Outcome::Done)
    }

    async fn lease_lost(&mut self) {
        self.observer.note(|seen| seen.lost.push((self.worker, self.shard.clone())));
    }
}

#[expect(clippy::disallowed_methods, reason = "a processor that blocks its thread is what is tested")]
fn block() {
    std::thread::sleep(BLOCKED_FOR);
}

/// A stream in memory, whose shards are written one by one.
struct World {
    env: Arc<dyn Env>,
    observer: Observer,
    stream: MemoryStream,
    shards: Vec<(ShardId, HashKeyRange)>,
    /// How many of them have a processor that blocks, at the worker under test.
    blocked: usize,
    /// What was put, by shard, in order.
    put: BTreeMap<ShardId, Vec<String>>,
}

impl World {
    fn new(blocked: usize) -> Self {
        let env: Arc<dyn Env> = Arc::new(SystemEnv::new().expect("threads"));
        let stream = MemoryStream::create(env.clone(), "events", SHARDS as u32).expect("a new stream");
        let shards = stream.shards(&ShardFilter::All).expect("listed");
        let shards = shards.into_iter().map(|shard| (shard.id, shard.hash_key_range)).collect();
        Self { env, observer: Observer::default(), stream, shards, blocked, put: BTreeMap::new() }
    }

    fn put_everywhere(&mut self) {
        for (shard, range) in &self.shards {
            let key = (0..).map(|n| format!("key-{n}")).find(|key| range.contains(hash_key(key.as_bytes())));
            let key = key.expect("some key hashes into every shard");
            let put = self.put.entry(shard.clone()).or_default();
            for _ in 0..RECORDS {
                let payload = put.len().to_string();
                let placed = self.stream.append(key.as_str(), payload.clone()).expect("the stream takes it");
                assert_eq!(placed.shard, *shard);
                put.push(payload);
            }
        }
    }

    fn blocked(&self) -> impl Iterator<Item = &ShardId> {
        self.shards[..self.blocked].iter().map(|(shard, _)| shard)
    }

    fn others(&self) -> impl Iterator<Item = &ShardId> {
        self.shards[self.blocked..].iter().map(|(shard, _)| shard)
    }

    /// A worker as a process of its own would have it: clocks and threads of its own, but for the pipeline's.
    fn worker(&self, name: &'static str, store: impl LeaseStore) -> WorkerBuilder {
        let (blocked, observer): (Vec<_>, _) = (self.blocked().cloned().collect(), self.observer.clone());
        Worker::builder("starved", self.stream.clone(), store, move |lane| Sleeper {
            worker: name,
            shard: lane.shard.clone(),
            observer: observer.clone(),
            sleepy: name == OURS && blocked.contains(&lane.shard),
        })
        .worker_id(name)
        .initial_position(InitialPosition::TrimHorizon)
        .lease_duration(LEASE_DURATION)
        .planning_interval(Duration::from_millis(50))
        .discovery_interval(Duration::from_millis(20))
        .delivery(DeliveryPolicy::default().with_batch_records(50))
    }

    /// Whether so many records of each of these shards were handled.
    fn have<'a>(&self, mut shards: impl Iterator<Item = &'a ShardId>, records: usize) -> bool {
        shards.all(|shard| self.observer.count_of(shard) == records)
    }

    /// How many processors are asleep.
    fn asleep(&self) -> usize {
        self.observer.note(|seen| seen.asleep.len())
    }

    /// How often a worker began to work on a shard.
    fn terms(&self, worker: &str) -> usize {
        self.observer.note(|seen| seen.initialized.iter().filter(|(by, _)| *by == worker).count())
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = self.env.now().plus(PATIENCE);
        while !condition() {
            assert!(self.env.now() < deadline, "not within {PATIENCE:?}: {what}");
            self.env.sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A worker that runs.
struct Running {
    handle: WorkerHandle,
    run: Task<Result<(), WorkerError>>,
}

impl Running {
    fn start(world: &World, worker: WorkerBuilder) -> Self {
        let worker = worker.build().expect("valid settings");
        Self { handle: worker.handle(), run: world.env.spawn(Place::Pipeline, worker.run()) }
    }

    async fn stop(self) {
        self.handle.request_shutdown();
        self.run.await.expect("no panic").expect("a clean stop");
    }
}

/// Asserts that no lease was lost, however long threads were blocked, and that what moved was handed over.
fn assert_undisturbed(world: &World) {
    assert_eq!(world.terms(OURS), SHARDS, "none was lost and taken again");
    assert_eq!(world.terms(RIVAL), SHARDS / 2, "each that moved did so once");
    world.observer.note(|seen| {
        assert_eq!(seen.records, world.put, "nothing is lost, repeated or out of order");
        assert_eq!(seen.lost, []);
    });
}

/// `store` gives each caller a handle of its own on the same table.
async fn blocked_processors_starve_nobody<S: LeaseStore>(store: impl Fn() -> S) {
    let mut world = World::new(BLOCKED);
    world.put_everywhere();
    let worker = Running::start(&world, world.worker(OURS, store()));
    world.until("six processors are asleep", || world.asleep() == BLOCKED).await;
    world.until("the other shards are read", || world.have(world.others(), RECORDS)).await;
    let rival = Running::start(&world, world.worker(RIVAL, store()));

    // Records that were there, and records that arrive now.
    world.put_everywhere();
    world.until("the other shards go on", || world.have(world.others(), 2 * RECORDS)).await;
    assert_eq!(world.asleep(), BLOCKED, "all that while the six were asleep");

    world.until("the sleepers wake up and catch up", || world.have(world.blocked(), 2 * RECORDS)).await;
    assert_eq!(world.observer.note(|seen| seen.slept), BLOCKED);
    world.until("the rival has its share", || world.terms(RIVAL) == SHARDS / 2).await;
    assert_undisturbed(&world);
    rival.stop().await;
    worker.stop().await;
}

/// Other code of the same program blocks the very threads that read and deliver.
async fn a_blocked_runtime_loses_no_lease<S: LeaseStore>(store: impl Fn() -> S) {
    let mut world = World::new(0);
    world.put_everywhere();
    let worker = Running::start(&world, world.worker(OURS, store()));
    world.until("all shards are read", || world.have(world.others(), RECORDS)).await;
    let rival = Running::start(&world, world.worker(RIVAL, store()));
    assert!(rival.handle.ready().await, "it is in the plan");

    // Each waits for the other, so they are on two threads.
    let both = Arc::new(std::sync::Barrier::new(RUNTIME_THREADS));
    let blocked: Vec<Task<()>> = (0..RUNTIME_THREADS)
        .map(|_| {
            let both = both.clone();
            world.env.spawn(Place::Pipeline, async move {
                both.wait();
                block();
            })
        })
        .collect();
    for task in blocked {
        task.await.expect("no panic");
    }

    world.put_everywhere();
    world.until("all shards go on", || world.have(world.others(), 2 * RECORDS)).await;
    world.until("the rival has its share", || world.terms(RIVAL) == SHARDS / 2).await;
    assert_undisturbed(&world);
    rival.stop().await;
    worker.stop().await;
}

/// Not `#[tokio::test]`, whose number of threads must be a literal.
fn on_a_small_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build();
    runtime.expect("threads").block_on(test);
}

#[test]
fn blocked_processors_with_leases_in_memory() {
    let store = MemoryLeaseStore::new();
    on_a_small_runtime(blocked_processors_starve_nobody(|| store.clone()));
}

#[test]
fn blocked_processors_with_leases_in_sqlite() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("leases.sqlite");
    on_a_small_runtime(blocked_processors_starve_nobody(|| SqliteLeaseStore::new(&file, "starved")));
}

#[test]
fn a_blocked_runtime_with_leases_in_memory() {
    let store = MemoryLeaseStore::new();
    on_a_small_runtime(a_blocked_runtime_loses_no_lease(|| store.clone()));
}

#[test]
fn a_blocked_runtime_with_leases_in_sqlite() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("leases.sqlite");
    on_a_small_runtime(a_blocked_runtime_loses_no_lease(|| SqliteLeaseStore::new(&file, "starved")));
}
