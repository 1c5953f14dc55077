//! A producer, those who put, and what befalls the stream meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use shardwell_core::memory::MemoryStream;
use shardwell_core::{EnvExt, Place, PutEntry, ShardFilter, Task, Timestamp};
use shardwell_producer::{Landed, Ordering, Producer, ProducerHooks, PutFailure, SettledRecord, TryPutError};
use shardwell_sim::SimEnv;

use crate::between::Between;
use crate::check::{Counts, check};
use crate::faults::{FaultyStream, Rates};

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A user record that was put, and what its ticket said.
pub(crate) struct Put {
    pub(crate) entry: PutEntry,
    pub(crate) answer: Result<Landed, PutFailure>,
}

/// What the hooks were told of each user record, by its payload.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<BTreeMap<Bytes, Vec<Settled>>>>);

/// A user record, and whether it landed.
type Settled = (PutEntry, bool);

impl ProducerHooks for Told {
    fn user_record_settled(&self, settled: &SettledRecord<'_>) {
        let mut told = self.0.lock().expect("no test panics while it holds this");
        let SettledRecord { record, result, .. } = settled;
        told.entry(record.data.clone()).or_default().push(((*record).clone(), result.is_ok()));
    }
}

impl Told {
    /// Each once, and the same as its ticket.
    fn check(&self, seed: u64, puts: &[Put]) {
        let told = self.0.lock().expect("no test panics while it holds this");
        assert_eq!(told.len(), puts.len(), "seed {seed}");
        for Put { entry, answer } in puts {
            let expected = vec![(entry.clone(), answer.is_ok())];
            assert_eq!(told.get(&entry.data), Some(&expected), "seed {seed}");
        }
    }
}

/// The bounds of a producer's budget.
const MAX_BYTES: usize = 300_000;
const MAX_RECORDS: usize = 400;

pub(crate) async fn live(seed: u64, ordering: Ordering) -> Counts {
    let mut random = fastrand::Rng::with_seed(seed);
    let env = SimEnv::new(random.u64(..), START);
    let stream = MemoryStream::create(Arc::new(env.clone()), "flights", random.u32(1..=4)).expect("a new stream");
    let faulty = FaultyStream::new(stream.clone(), env.clone(), random.u64(..));
    let ttl = if random.bool() { None } else { Some(Duration::from_millis(random.u64(1_000..30_000))) };
    let told = Told::default();
    let producer = Producer::builder(Between(faulty.clone()))
        .ordering(ordering)
        .aggregation(random.u8(0..5) > 0)
        .linger(Duration::from_millis(random.u64(0..200)))
        .record_ttl(ttl)
        .max_aggregate_bytes(random.usize(500..8_000))
        .max_record_bytes(20_000)
        .max_request_records(random.usize(1..=40))
        .max_requests_in_flight(random.usize(1..=8))
        .max_buffered_bytes(MAX_BYTES)
        .max_buffered_records(MAX_RECORDS)
        .hooks(told.clone())
        .env(Arc::new(env.clone()))
        .build()
        .expect("good settings");

    let putters: Vec<Task<Vec<Put>>> = (0..random.u64(1..=4))
        .map(|putter| env.spawn(Place::Pipeline, put(producer.clone(), env.clone(), putter, random.u64(..))))
        .collect();
    let troubles = env.spawn(Place::Pipeline, trouble(stream.clone(), faulty.clone(), env.clone(), random.fork()));
    troubles.await.expect("it does not panic");
    // Whoever puts may take a while; but without trouble nothing takes long.
    let mut puts = Vec::new();
    for putter in putters {
        let Ok(done) = env.deadline(env.now_plus(600), putter).await else {
            panic!("seed {seed}: somebody waits for ever: {:?}, {:?}", producer.status(), producer)
        };
        puts.extend(done.expect("it does not panic"));
    }
    let closed = env.deadline(env.now_plus(60), producer.close()).await;
    assert!(closed.is_ok(), "seed {seed}: not all is settled a minute later");
    told.check(seed, &puts);
    check(seed, &stream, &puts, ordering).await
}

/// Puts records of its own keys, and waits for what becomes of them.
async fn put(producer: Producer, env: SimEnv, putter: u64, seed: u64) -> Vec<Put> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut waiting = Vec::new();
    for number in 0..random.u64(50..500) {
        let key = format!("key-{putter}-{}", random.u64(0..6));
        let size = if random.u8(0..40) == 0 { random.usize(0..15_000) } else { random.usize(0..300) };
        let mut data = format!("{putter}/{number}/").into_bytes();
        data.resize(data.len() + size, b'x');
        let mut entry = PutEntry::new(key, data);
        if random.u8(0..10) == 0 {
            entry.explicit_hash_key = Some(random.u128(..));
        }
        let ticket = match random.u8(0..3) {
            0 => {
                let bytes = entry.data.len() + entry.partition_key.as_str().len();
                producer.reserve(bytes).await.and_then(|reservation| reservation.put(entry.clone()))
            }
            1 => match producer.try_put(entry.clone()) {
                Ok(ticket) => Ok(ticket),
                Err(TryPutError::Full(same)) => producer.put(same).await,
                Err(error) => panic!("{error}"),
            },
            _ => producer.put(entry.clone()).await,
        };
        let status = producer.status();
        assert!(status.pending_bytes <= MAX_BYTES && status.pending_records <= MAX_RECORDS, "{status:?}");
        waiting.push((entry, ticket.expect("it is open, and the record is small enough")));
        match random.u16(0..400) {
            0 => producer.flush().await,
            1..100 => env.sleep(Duration::from_millis(random.u64(0..400))).await,
            _ => {}
        }
    }
    let mut puts = Vec::new();
    for (entry, ticket) in waiting {
        puts.push(Put { entry, answer: ticket.await });
    }
    puts
}

/// What befalls the stream for a while; then all is well.
async fn trouble(stream: MemoryStream, faulty: FaultyStream, env: SimEnv, mut random: fastrand::Rng) {
    for _ in 0..random.u32(2..12) {
        faulty.set(rates(&mut random));
        if random.bool() {
            faulty.remember_shards();
        }
        env.sleep(Duration::from_millis(random.u64(50..4_000))).await;
        reshard(&stream, &mut random);
    }
    faulty.set(Rates::default());
}

fn rates(random: &mut fastrand::Rng) -> Rates {
    let mut rate = |most: f64| if random.u8(0..3) == 0 { random.f64() * most } else { 0.0 };
    Rates {
        throttled_entry: rate(0.5),
        throttled_half: rate(0.9),
        failed_entry: rate(0.3),
        throttled_call: rate(0.3),
        timeout_before: rate(0.3),
        timeout_after: rate(0.4),
        unavailable: rate(0.3),
        failed_listing: rate(1.0),
        stale_listing: rate(1.0),
        slowest: Duration::from_millis((rate(1.0) * 3_000.0) as u64),
    }
}

fn reshard(stream: &MemoryStream, random: &mut fastrand::Rng) {
    let mut open = stream.shards(&ShardFilter::AtLatest).expect("the stream is there");
    open.sort_by_key(|shard| shard.hash_key_range);
    match random.u8(0..4) {
        0 | 1 if open.len() < 8 => {
            let shard = &open[random.usize(0..open.len())];
            let (start, end) = (shard.hash_key_range.start(), shard.hash_key_range.end());
            stream.split(&shard.id, start + (end - start) / 2).expect("it splits");
        }
        2 if open.len() > 1 => {
            let left = random.usize(0..open.len() - 1);
            stream.merge(&open[left].id, &open[left + 1].id).expect("they merge");
        }
        _ => {}
    }
}

trait Later {
    fn now_plus(&self, seconds: u64) -> shardwell_core::Monotonic;
}

impl Later for SimEnv {
    fn now_plus(&self, seconds: u64) -> shardwell_core::Monotonic {
        use shardwell_core::Env;
        self.now().plus(Duration::from_secs(seconds))
    }
}
