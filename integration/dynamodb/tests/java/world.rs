//! A stream with a steady flow of records, a lease table, and who works on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use shardwell_aws::{DynamoLeaseStore, KinesisStream};
use shardwell_core::{Lease, LeaseStore, PutEntry, Shard, ShardFilter, Stream, StreamStatus, StreamWriter};
use shardwell_integration_dynamodb::Engine;
use shardwell_local::LocalEngine;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::log::Log;
use crate::member::{Java, Ours};

pub(crate) const STREAM: &str = "flights";
pub(crate) const APPLICATION: &str = "delays";

/// Different partition keys.
const KEYS: u64 = 40;

/// Whether the tests run at full length: with the KCL's default timings, and more kills.
pub(crate) fn is_long() -> bool {
    std::env::var_os("SHARDWELL_LONG").is_some_and(|value| value == "1")
}

/// How patient the KCL's workers are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timing {
    /// As they come.
    Defaults,
    /// So that a test need not wait for minutes; the lease duration remains.
    Short,
}

impl Timing {
    pub(crate) fn of_this_run() -> Self {
        if is_long() { Self::Defaults } else { Self::Short }
    }

    pub(crate) const fn java_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Defaults => &[],
            Self::Short => &[
                "--assignment-millis",
                "4000",
                "--balance-every",
                "1",
                "--report-millis",
                "10000",
                "--lock-millis",
                "12000",
                "--heartbeat-millis",
                "3000",
                "--parent-poll-millis",
                "1000",
            ],
        }
    }

    /// Nothing that a test waits for takes longer.
    const fn patience(self) -> Duration {
        match self {
            Self::Defaults => Duration::from_secs(400),
            Self::Short => Duration::from_secs(90),
        }
    }
}

pub(crate) struct World {
    classpath: String,
    timing: Timing,
    dynamodb: Engine,
    kinesis: LocalEngine,
    client: aws_sdk_kinesis::Client,
    pub(crate) stream: KinesisStream,
    pub(crate) store: DynamoLeaseStore,
    pub(crate) log: Log,
    puts: Arc<Puts>,
    producer: JoinHandle<()>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Puts {
    count: AtomicU64,
    is_over: AtomicBool,
}

impl World {
    /// Starts one, in which records flow.
    pub(crate) async fn start(classpath: String, shards: i32) -> Self {
        let dynamodb = Engine::start().await.expect("an engine");
        let kinesis = LocalEngine::builder().state_delay(Duration::from_millis(100)).start().await.expect("an engine");
        let client = client(&kinesis);
        client.create_stream().stream_name(STREAM).shard_count(shards).send().await.expect("a new stream");
        let stream = KinesisStream::new(&client, STREAM);
        until_active(&stream).await;
        let puts = Arc::new(Puts::default());
        let producer = tokio::spawn(produce(stream.clone(), puts.clone()));
        let store = DynamoLeaseStore::new(&dynamodb.client(), APPLICATION);
        let (timing, log, started) = (Timing::of_this_run(), Log::default(), Instant::now());
        Self { classpath, timing, dynamodb, kinesis, client, stream, store, log, puts, producer, started }
    }

    pub(crate) fn ours(&self, id: &str) -> Ours {
        self.say(&format!("{id} starts"));
        let leases = DynamoLeaseStore::new(&self.dynamodb.client(), APPLICATION);
        Ours::start(id, &self.stream, leases, &self.log)
    }

    pub(crate) fn java(&self, id: &str) -> Java {
        self.say(&format!("{id} starts"));
        let (kinesis, dynamodb) = (self.kinesis.endpoint(), self.dynamodb.endpoint());
        Java::start(id, &self.classpath, &kinesis, dynamodb, self.timing, &self.log)
    }

    pub(crate) fn say(&self, what: &str) {
        println!("{:>7.1} s: {what}", self.started.elapsed().as_secs_f64());
    }

    /// How many leases that are to be read each worker has; whose lease is on its way to another one counts for nobody.
    pub(crate) async fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for lease in self.leases().await.iter().filter(|lease| !lease.is_finished()) {
            let owner = lease.owner.as_ref().filter(|_| lease.checkpoint_owner.is_none());
            *counts.entry(owner.map_or_else(|| "-".to_owned(), ToString::to_string)).or_default() += 1;
        }
        counts
    }

    pub(crate) async fn leases(&self) -> Vec<Lease> {
        self.store.leases().await.map(|listing| listing.leases).unwrap_or_default()
    }

    /// Who leads, if the lock tells.
    pub(crate) async fn leader(&self) -> Option<String> {
        let lock = self.store.leader_lock().await.ok().flatten();
        lock.filter(|lock| !lock.released).map(|lock| lock.owner.to_string())
    }

    /// Waits.
    pub(crate) async fn until(&self, what: &str, mut condition: impl AsyncFnMut(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self).await {
            if began.elapsed() > self.timing.patience() {
                let (counts, leader) = (self.counts().await, self.leader().await);
                panic!("not within {:?}: {what}; leases {counts:?}, leader {leader:?}", self.timing.patience());
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.say(&format!("{what}, after {:.1} s", began.elapsed().as_secs_f64()));
    }

    /// Waits until each of these workers has so many leases or more, and there are no others.
    pub(crate) async fn until_shared(&self, wanted: &[(&str, usize)]) {
        let names: BTreeSet<&str> = wanted.iter().map(|(name, _)| *name).collect();
        let mut before = BTreeMap::new();
        self.until(&format!("shared as {wanted:?}"), async |world| {
            let counts = world.counts().await;
            if counts != before {
                world.say(&format!("  {counts:?}"));
                before.clone_from(&counts);
            }
            counts.keys().map(String::as_str).collect::<BTreeSet<_>>() == names
                && wanted.iter().all(|(name, least)| counts[*name] >= *least)
        })
        .await;
    }

    pub(crate) async fn until_leads(&self, who: &str) {
        self.until(&format!("{who} leads"), async |world| world.leader().await.as_deref() == Some(who)).await;
    }

    /// Splits the first open shard, and waits until its children are being read.
    pub(crate) async fn split(&self) {
        let shard = self.open_shards().await.remove(0);
        let range = shard.hash_key_range;
        let middle = range.start() + (range.end() - range.start()) / 2;
        let split = self.client.split_shard().stream_name(STREAM).shard_to_split(shard.id.as_str());
        split.new_starting_hash_key(middle.to_string()).send().await.expect("it splits");
        self.until_children_are_read("split").await;
    }

    /// Merges the two last open shards that can be, and waits until their child is being read.
    pub(crate) async fn merge(&self) {
        let mut shards = self.open_shards().await;
        shards.sort_by_key(|shard| shard.hash_key_range);
        let [.., left, right] = &shards[..] else { panic!("there are two shards or more") };
        let merge = self.client.merge_shards().stream_name(STREAM).shard_to_merge(left.id.as_str());
        merge.adjacent_shard_to_merge(right.id.as_str()).send().await.expect("they merge");
        self.until_children_are_read("merge").await;
    }

    async fn until_children_are_read(&self, what: &str) {
        until_active(&self.stream).await;
        self.until(&format!("every open shard is read after a {what}"), async |world| {
            let (open, leases) = (world.open_shards().await, world.leases().await);
            let is_read = |lease: &Lease| lease.checkpoint.position().is_some();
            open.iter().all(|shard| leases.iter().any(|lease| lease.shard == shard.id && is_read(lease)))
        })
        .await;
    }

    async fn open_shards(&self) -> Vec<Shard> {
        self.stream.list_shards(ShardFilter::AtLatest).await.expect("the stream is there")
    }

    /// Ends the flow of records, and waits until all are handled. Panics if one was lost, or came out of order.
    pub(crate) async fn finish(&self) {
        self.puts.is_over.store(true, Ordering::Relaxed);
        while !self.producer.is_finished() {
            sleep(Duration::from_millis(10)).await;
        }
        let count = self.puts.count.load(Ordering::Relaxed);
        let all = async |world: &Self| world.log.times().len() as u64 >= count;
        self.until(&format!("all {count} records are handled"), all).await;
        self.log.assert_complete_and_in_order(count);
        self.say(&format!("handled by {:?}, {} again", self.log.by_worker(), self.log.repeated()));
    }
}

/// Puts records until it is over, so that those of a key land in their order.
async fn produce(stream: KinesisStream, puts: Arc<Puts>) {
    while !puts.is_over.load(Ordering::Relaxed) {
        let first = puts.count.load(Ordering::Relaxed);
        let entry = |number: u64| PutEntry::new(format!("key-{}", number % KEYS), number.to_string());
        // No key twice in a request: what is refused is put again before anything else.
        let mut left: Vec<PutEntry> = (first..first + KEYS).map(entry).collect();
        while !left.is_empty() {
            let results = stream.put(&left).await.expect("the engine answers");
            left =
                left.into_iter().zip(results).filter(|(_, result)| result.is_err()).map(|(entry, _)| entry).collect();
        }
        puts.count.store(first + KEYS, Ordering::Relaxed);
        sleep(Duration::from_millis(200)).await;
    }
}

fn client(engine: &LocalEngine) -> aws_sdk_kinesis::Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local engine"))
        .endpoint_url(engine.endpoint());
    aws_sdk_kinesis::Client::from_conf(config.build())
}

async fn until_active(stream: &KinesisStream) {
    while stream.describe().await.expect("the stream is there").status != StreamStatus::Active {
        sleep(Duration::from_millis(20)).await;
    }
}
