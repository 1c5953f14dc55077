//! A small world for whole workers: a stream and a lease table in memory, workers in simulated processes, and a log of
//! everything that their processors saw.
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    dead_code,
    reason = "every test uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardwell_consumer::{
    Batch, Checkpointer, InitialPosition, LaneContext, Outcome, ProcessError, ProcessResultExt, RecordFailure,
    RecordProcessor, Start, Streams, Worker, WorkerBuilder, WorkerError, WorkerHandle, async_trait,
};
use shardwell_core::aggregation::{Aggregator, Limits};
use shardwell_core::dead_letter::{ArchivedLetter, DeadLetterArchive, LetterQuery};
use shardwell_core::memory::{MemoryDeadLetters, MemoryLeaseStore, MemoryStream};
use shardwell_core::{Checkpoint, Env, EnvExt, Lease, LeaseStore, Place, Task, Timestamp, UserRecord};
use shardwell_sim::{Fault, FaultPlan, FaultyLeaseStore, SimEnv};

pub const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What processors saw, in order.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    events: Vec<Event>,
    /// The numbers of the records among them.
    distinct: BTreeSet<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Initialized { worker: String, shard: String, from: Checkpoint },
    Record { worker: String, shard: String, key: String, number: u64, attempt: u32 },
    LeaseLost { worker: String, shard: String },
    ShardEnded { shard: String },
    ShutdownRequested { shard: String },
}

impl Log {
    pub fn push(&self, event: Event) {
        let mut seen = self.0.lock().expect("no test panics while it holds this");
        if let Event::Record { number, .. } = event {
            seen.distinct.insert(number);
        }
        seen.events.push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.0.lock().expect("no test panics while it holds this").events.clone()
    }

    /// The numbers of all records seen, in order, repeated ones too.
    pub fn numbers(&self) -> Vec<u64> {
        self.events()
            .iter()
            .filter_map(|event| match event {
                Event::Record { number, .. } => Some(*number),
                _ => None,
            })
            .collect()
    }

    /// How many different records were seen.
    pub fn distinct(&self) -> usize {
        self.0.lock().expect("no test panics while it holds this").distinct.len()
    }

    /// Panics unless the first delivery of every record follows the first delivery of all earlier ones of its key.
    pub fn assert_key_order(&self) {
        let mut seen: BTreeMap<String, u64> = BTreeMap::new();
        let mut first = BTreeSet::new();
        for event in self.events() {
            if let Event::Record { key, number, .. } = event
                && first.insert(number)
            {
                let newest = seen.insert(key.clone(), number);
                assert!(newest < Some(number), "key {key}: {number} came after {newest:?}");
            }
        }
    }
}

/// A processor that logs, and does what its script says.
pub struct Recorder {
    pub lane: LaneContext,
    pub log: Log,
    pub script: Script,
    pub process: SimEnv,
}

/// What befalls a record: called before it is logged.
pub type Script = Arc<dyn Fn(&UserRecord, u64, u32) -> Reaction + Send + Sync>;

#[derive(Clone, Debug, PartialEq)]
pub enum Reaction {
    Fine,
    /// The whole batch fails.
    Fail,
    /// The batch fails from this record on.
    FailHere,
    /// This record failed; the others are done.
    Report,
    /// As `FailHere`, for good.
    Permanent,
    /// The whole batch fails, and no record is to blame.
    Outage,
    Panic,
    /// The process dies.
    Die,
    Take(Duration),
}

#[async_trait]
impl RecordProcessor for Recorder {
    async fn initialize(&mut self, start: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        let (worker, shard) = (self.lane.worker.to_string(), self.lane.shard.to_string());
        self.log.push(Event::Initialized { worker, shard, from: start.checkpoint });
        Ok(None)
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        let mut failed = Vec::new();
        for record in batch {
            let number: u64 = std::str::from_utf8(&record.data)?.parse()?;
            let error = format!("record {number} is not to my taste");
            match (self.script)(record, number, batch.attempt()) {
                Reaction::Fine => {}
                Reaction::Fail => return Err(error.into()),
                Reaction::FailHere => return Err(error).at(record),
                Reaction::Permanent => return Err(error).permanent().at(record),
                Reaction::Outage => return Err(error).transient(),
                Reaction::Report => {
                    failed.push(RecordFailure::new(record, error));
                    continue;
                }
                Reaction::Die => {
                    self.process.crash();
                    std::future::pending::<()>().await;
                }
                Reaction::Panic => panic!("record {number} upset me"),
                Reaction::Take(time) => {
                    tokio::select! {
                        biased;
                        () = batch.cancelled() => return Err("given up".into()),
                        () = self.process.sleep(time) => {}
                    }
                }
            }
            self.log.push(Event::Record {
                worker: self.lane.worker.to_string(),
                shard: self.lane.shard.to_string(),
                key: record.partition_key.as_ref().map(ToString::to_string).unwrap_or_default(),
                number,
                attempt: batch.attempt(),
            });
        }
        Ok(Outcome::Failed(failed))
    }

    async fn lease_lost(&mut self) {
        let (worker, shard) = (self.lane.worker.to_string(), self.lane.shard.to_string());
        self.log.push(Event::LeaseLost { worker, shard });
    }

    async fn shard_ended(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        self.log.push(Event::ShardEnded { shard: self.lane.shard.to_string() });
        Ok(())
    }

    async fn shutdown_requested(&mut self, _: &Checkpointer) -> Result<(), ProcessError> {
        self.log.push(Event::ShutdownRequested { shard: self.lane.shard.to_string() });
        Ok(())
    }
}

/// A stream, a lease table and a log. The world's own process never freezes.
pub struct World {
    pub env: SimEnv,
    pub stream: MemoryStream,
    pub store: MemoryLeaseStore,
    /// What happens to the workers' calls to the lease table. The world's own calls never fail.
    pub faults: FaultPlan,
    pub log: Log,
    pub script: Script,
    /// Where workers keep their dead, if they are told to.
    pub letters: MemoryDeadLetters,
    put: Mutex<u64>,
}

impl World {
    pub fn new(shards: u32) -> Self {
        let env = SimEnv::new(0, START);
        Self {
            stream: MemoryStream::create(Arc::new(env.clone()), "flights", shards).expect("a new stream"),
            env,
            store: MemoryLeaseStore::new(),
            faults: Arc::new(|_| Fault::None),
            log: Log::default(),
            script: Arc::new(|_, _, _| Reaction::Fine),
            letters: MemoryDeadLetters::new(),
            put: Mutex::new(0),
        }
    }

    pub fn with_script(mut self, script: impl Fn(&UserRecord, u64, u32) -> Reaction + Send + Sync + 'static) -> Self {
        self.script = Arc::new(script);
        self
    }

    /// Puts `count` records over `keys` keys; their payloads are running numbers.
    pub fn put(&self, count: u64, keys: u64) {
        self.put_into(&self.stream, count, keys);
    }

    /// As `put`, into another stream; numbers run over all streams.
    pub fn put_into(&self, stream: &MemoryStream, count: u64, keys: u64) {
        let mut next = self.put.lock().expect("no test panics while it holds this");
        for _ in 0..count {
            let key = format!("key-{}", *next % keys);
            stream.append(key.as_str(), next.to_string()).expect("the stream takes it");
            *next += 1;
        }
    }

    /// Puts `count` records over `keys` keys as the last, but aggregated, `each` in a record, without regard to shards.
    pub fn put_aggregated(&self, count: u64, keys: u64, each: u64) {
        let mut next = self.put.lock().expect("no test panics while it holds this");
        let mut aggregator = Aggregator::new(Limits::default());
        for n in 1..=count {
            let key = format!("key-{}", *next % keys);
            aggregator.try_add(&key, None, next.to_string().as_bytes()).expect("it fits");
            *next += 1;
            if n % each == 0 || n == count {
                let record = aggregator.finish().expect("not empty");
                self.stream.append(record.partition_key, record.data).expect("the stream takes it");
            }
        }
    }

    pub fn put_so_far(&self) -> u64 {
        *self.put.lock().expect("no test panics while it holds this")
    }

    /// A worker in a process of its own, from the oldest record on.
    pub fn builder(&self, name: &str, process: &SimEnv) -> WorkerBuilder {
        let worker = Worker::builder("test", self.stream.clone(), self.faulty_store(), self.recorders(process));
        worker.worker_id(name).env(Arc::new(process.clone())).initial_position(InitialPosition::TrimHorizon)
    }

    /// As `builder`, for several streams.
    pub fn builder_for(&self, streams: &Streams, name: &str, process: &SimEnv) -> WorkerBuilder {
        let (store, recorders) = (self.faulty_store(), self.recorders(process));
        let worker = Worker::builder_for_streams("test", streams.clone(), store, recorders);
        worker.worker_id(name).env(Arc::new(process.clone())).initial_position(InitialPosition::TrimHorizon)
    }

    fn faulty_store(&self) -> FaultyLeaseStore {
        let faults = self.faults.clone();
        FaultyLeaseStore::new(Arc::new(self.store.clone()), move |method| faults(method))
    }

    fn recorders(&self, process: &SimEnv) -> impl Fn(&LaneContext) -> Recorder + Send + Sync + 'static {
        let (log, script, process) = (self.log.clone(), self.script.clone(), process.clone());
        move |lane| Recorder { lane: lane.clone(), log: log.clone(), script: script.clone(), process: process.clone() }
    }

    /// Another stream beside the world's own. It need not exist yet.
    pub fn another(&self, name: &str) -> MemoryStream {
        MemoryStream::new(self.stream.kinesis().clone(), Arc::new(self.env.clone()), name)
    }

    pub fn start(&self, worker: WorkerBuilder) -> Running {
        let worker = worker.build().expect("valid settings");
        let handle = worker.handle();
        let run = self.env.spawn(Place::Pipeline, worker.run());
        Running { handle, run }
    }

    /// A worker with defaults, running.
    pub fn start_default(&self, name: &str) -> Running {
        self.start(self.builder(name, &SimEnv::new(1, START)))
    }

    /// Lets virtual time pass until `condition` holds; panics after `limit` of it.
    pub async fn until(&self, what: &str, limit: Duration, condition: impl Fn() -> bool) {
        let deadline = self.env.now().plus(limit);
        while !condition() {
            assert!(self.env.now() < deadline, "not within {limit:?}: {what}; log: {:#?}", self.log.events());
            self.env.sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_all_seen(&self, limit: Duration) {
        let all = usize::try_from(self.put_so_far()).expect("a small number");
        self.until("every record seen", limit, || self.log.distinct() == all).await;
    }

    pub async fn lease(&self, shard: &str) -> Option<Lease> {
        self.store.lease(&shard.into()).await.expect("the table answers")
    }

    /// A new process, whose wall clock is right.
    pub fn process(&self, seed: u64) -> SimEnv {
        SimEnv::new(seed, self.env.timestamp())
    }

    /// The dead letters in order, with the numbers of their records.
    pub async fn dead(&self) -> Vec<(u64, ArchivedLetter)> {
        let page = self.letters.letters(&LetterQuery::default(), None, 10_000).await.expect("it answers");
        let number = |letter: &ArchivedLetter| {
            std::str::from_utf8(&letter.letter.record.data).expect("text").parse().expect("a number")
        };
        page.letters.into_iter().map(|letter| (number(&letter), letter)).collect()
    }

    /// The numbers of the dead records, in order.
    pub async fn dead_numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.dead().await.into_iter().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers
    }

    pub async fn leases(&self) -> Vec<Lease> {
        self.store.leases().await.expect("the table answers").leases
    }
}

/// A worker that runs.
pub struct Running {
    pub handle: WorkerHandle,
    pub run: Task<Result<(), WorkerError>>,
}

impl Running {
    pub async fn stop(self) -> Result<(), WorkerError> {
        self.handle.request_shutdown();
        self.run.await.expect("the worker does not panic")
    }

    pub async fn ended(self) -> Result<(), WorkerError> {
        self.run.await.expect("the worker does not panic")
    }
}

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
