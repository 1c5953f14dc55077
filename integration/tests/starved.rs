//! Processors that block their threads for ten lease durations, more of them than the runtime has threads: nothing but
//! their own shards waits.

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

/// Records that each shard is given in one go.
const RECORDS: usize = 300;

/// Nothing that a test waits for takes nearly as long, on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the processors of one worker did.
#[derive(Default)]
struct Seen {
    initialized: Vec<ShardId>,
    lost: Vec<ShardId>,
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
    shard: ShardId,
    observer: Observer,
    /// Whether to block the thread at the next batch.
    sleepy: bool,
}

#[async_trait]
impl RecordProcessor for Sleeper {
    async fn initialize(&mut self, _: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        self.observer.note(|seen| seen.initialized.push(self.shard.clone()));
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
        self.observer.note(|seen| seen.lost.push(self.shard.clone()));
    }
}

#[expect(clippy::disallowed_methods, reason = "a processor that blocks its thread is what is tested")]
fn block() {
    std::thread::sleep(BLOCKED_FOR);
}

/// A stream in memory, whose shards are written one by one.
struct World {
    env: Arc<dyn Env>,
    stream: MemoryStream,
    shards: Vec<(ShardId, HashKeyRange)>,
    /// How many of them have a processor that blocks.
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
        Self { env, stream, shards, blocked, put: BTreeMap::new() }
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
    fn worker(&self, name: &str, store: impl LeaseStore, observer: &Observer) -> WorkerBuilder {
        let (blocked, observer): (Vec<_>, _) = (self.blocked().cloned().collect(), observer.clone());
        Worker::builder("starved", self.stream.clone(), store, move |lane| Sleeper {
            shard: lane.shard.clone(),
            observer: observer.clone(),
            sleepy: blocked.contains(&lane.shard),
        })
        .worker_id(name)
        .initial_position(InitialPosition::TrimHorizon)
        .lease_duration(LEASE_DURATION)
        .discovery_interval(Duration::from_millis(20))
        .delivery(DeliveryPolicy::default().with_batch_records(50))
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

/// Starts a worker that takes whatever it finds expired.
async fn start_rival(world: &World, store: impl LeaseStore, observer: &Observer) -> Running {
    let rival = Running::start(world, world.worker("rival", store, observer));
    assert!(rival.handle.ready().await, "the rival looks for leases");
    rival
}

/// Asserts that all records were handled by one worker, which had all leases all the time.
async fn assert_undisturbed(world: &World, store: &impl LeaseStore, ours: &Observer, theirs: &Observer) {
    ours.note(|seen| {
        assert_eq!(seen.records, world.put, "nothing is lost, repeated or out of order");
        assert_eq!(seen.lost, []);
        assert_eq!(seen.initialized.len(), SHARDS, "no lease was lost and taken again: {:?}", seen.initialized);
    });
    assert_eq!(theirs.note(|seen| seen.initialized.clone()), [], "the rival found nothing expired");
    for lease in store.leases().await.expect("listed").leases {
        assert_eq!(lease.owner.as_ref().map(AsRef::as_ref), Some(OURS), "{lease:?}");
    }
}

/// `store` gives each caller a handle of its own on the same table.
async fn blocked_processors_starve_nobody<S: LeaseStore>(store: impl Fn() -> S) {
    let mut world = World::new(BLOCKED);
    world.put_everywhere();
    let (ours, theirs) = (Observer::default(), Observer::default());
    let worker = Running::start(&world, world.worker(OURS, store(), &ours));
    world.until("six processors are asleep", || ours.note(|seen| seen.asleep.len()) == BLOCKED).await;
    let rival = start_rival(&world, store(), &theirs).await;

    // Records that were there, and records that arrive now.
    world.put_everywhere();
    let done = |shard| ours.count_of(shard) == 2 * RECORDS;
    world.until("the other shards go on", || world.others().all(done)).await;
    assert_eq!(ours.note(|seen| seen.asleep.len()), BLOCKED, "all that while the six were asleep");

    world.until("the sleepers wake up and catch up", || world.blocked().all(done)).await;
    assert_eq!(ours.note(|seen| seen.slept), BLOCKED);
    assert_undisturbed(&world, &store(), &ours, &theirs).await;
    rival.stop().await;
    worker.stop().await;
}

/// Other code of the same program blocks the very threads that read and deliver.
async fn a_blocked_runtime_loses_no_lease<S: LeaseStore>(store: impl Fn() -> S) {
    let mut world = World::new(0);
    let (ours, theirs) = (Observer::default(), Observer::default());
    let worker = Running::start(&world, world.worker(OURS, store(), &ours));
    assert!(worker.handle.ready().await);
    let rival = start_rival(&world, store(), &theirs).await;

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
    let done = |shard| ours.count_of(shard) == RECORDS;
    world.until("all shards go on", || world.others().all(done)).await;
    assert_undisturbed(&world, &store(), &ours, &theirs).await;
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
