//! What a producer puts, through a split and a merge, is what a worker gets: every user record, byte for byte, once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shardwell_consumer::{Batch, InitialPosition, Outcome, ProcessError, RecordProcessor, Worker};
use shardwell_core::aggregation::RangePolicy;
use shardwell_core::memory::{MemoryLeaseStore, MemoryStream};
use shardwell_core::{Bytes, Env, EnvExt, PartitionKey, Place, PutEntry, ShardFilter, Timestamp};
use shardwell_producer::{AttemptErrorKind, Ordering, Producer, Ticket};
use shardwell_sim::SimEnv;

const RECORDS: usize = 4_000;

/// Partition key and payload of each user record.
type Got = Arc<Mutex<Vec<(PartitionKey, Bytes)>>>;

struct Collector(Got);

#[async_trait]
impl RecordProcessor for Collector {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        let mut got = self.0.lock().expect("no test panics while it holds this");
        for record in batch {
            got.push((record.partition_key.clone().ok_or("no partition key")?, record.data.clone()));
        }
        Ok(Outcome::Done)
    }
}

/// Any bytes, of any size up to some, with their number in front; some go elsewhere than their key says.
fn entries(random: &mut fastrand::Rng) -> Vec<PutEntry> {
    let mut entry = |number: usize| {
        let mut data = (number as u64).to_be_bytes().to_vec();
        let size = random.usize(0..400);
        data.extend(std::iter::repeat_with(|| random.u8(..)).take(size));
        let mut entry = PutEntry::new(format!("k\u{e4}se-{}", random.u8(0..40)), data);
        entry.explicit_hash_key = (random.u8(0..10) == 0).then(|| random.u128(..));
        entry
    };
    (0..RECORDS).map(&mut entry).collect()
}

async fn put(producer: &Producer, entries: &[PutEntry]) -> Vec<Ticket> {
    let mut tickets = Vec::new();
    for entry in entries {
        tickets.push(producer.put(entry.clone()).await.expect("it is taken"));
    }
    tickets
}

/// Puts everything, splits the first shard with records on their way to it, and merges the last two in the same way.
async fn put_through_reshards(stream: &MemoryStream, producer: &Producer, entries: &[PutEntry]) -> usize {
    let mut open = stream.shards(&ShardFilter::AtLatest).expect("the stream is there");
    open.sort_by_key(|shard| shard.hash_key_range);
    let mut quarters = entries.chunks(RECORDS / 4);
    let mut quarter = || quarters.next().expect("there are four");
    let mut tickets = put(producer, quarter()).await;
    // It knows the shards now.
    producer.flush().await;
    tickets.extend(put(producer, quarter()).await);
    let range = open[0].hash_key_range;
    stream.split(&open[0].id, range.start() + (range.end() - range.start()) / 2).expect("it splits");
    tickets.extend(put(producer, quarter()).await);
    stream.merge(&open[1].id, &open[2].id).expect("they merge");
    tickets.extend(put(producer, quarter()).await);
    producer.flush().await;
    let mut misplaced = 0;
    for ticket in tickets {
        let landed = ticket.await.expect("landed");
        let is_wrong = |error: &shardwell_producer::AttemptError| error.kind == AttemptErrorKind::WrongShard;
        misplaced += usize::from(landed.attempts.iter().any(|attempt| attempt.error.as_ref().is_some_and(is_wrong)));
    }
    misplaced
}

#[tokio::test(start_paused = true)]
async fn a_worker_gets_every_user_record_as_it_was_put() {
    for ordering in [Ordering::Unordered, Ordering::PerKey] {
        let env = SimEnv::new(1, Timestamp::from_millis(1_700_000_000_000));
        let stream = MemoryStream::create(Arc::new(env.clone()), "flights", 3).expect("a new stream");
        let got = Got::default();
        let collected = got.clone();
        let leases = MemoryLeaseStore::new();
        let worker = Worker::builder("test", stream.clone(), leases, move |_| Collector(collected.clone()))
            .env(Arc::new(env.clone()))
            .initial_position(InitialPosition::TrimHorizon)
            .range_policy(RangePolicy::AllOrNothing)
            .build()
            .expect("good settings");
        let handle = worker.handle();
        let running = env.spawn(Place::Coordination, worker.run());

        let entries = entries(&mut fastrand::Rng::with_seed(7));
        let producer = Producer::builder(stream.clone()).ordering(ordering).env(Arc::new(env.clone()));
        let producer = producer.build().expect("good settings");
        let misplaced = put_through_reshards(&stream, &producer, &entries).await;
        assert!(misplaced > 0, "nothing was on its way to the shard that was split");

        let count = || got.lock().expect("no test panics while it holds this").len();
        let deadline = env.now().plus(Duration::from_secs(120));
        while count() < RECORDS {
            assert!(env.now() < deadline, "{} of {RECORDS}", count());
            env.sleep(Duration::from_millis(100)).await;
        }
        // What came twice would come by now.
        env.sleep(Duration::from_secs(10)).await;
        handle.request_shutdown();
        running.await.expect("it does not panic").expect("a clean stop");

        let mut got = got.lock().expect("no test panics while it holds this").clone();
        if ordering == Ordering::PerKey {
            assert_in_order(&got, &entries);
        }
        let mut put: Vec<_> = entries.into_iter().map(|entry| (entry.partition_key, entry.data)).collect();
        got.sort();
        put.sort();
        assert!(got == put, "{ordering:?}");
    }
}

/// Of each key, without those that have an explicit hash key and so another shard.
fn assert_in_order(got: &[(PartitionKey, Bytes)], entries: &[PutEntry]) {
    let explicit: Vec<&Bytes> =
        entries.iter().filter(|entry| entry.explicit_hash_key.is_some()).map(|entry| &entry.data).collect();
    let mut newest = std::collections::BTreeMap::new();
    for (key, data) in got.iter().filter(|(_, data)| !explicit.contains(&data)) {
        let number = data.slice(..8);
        let before = newest.insert(key, number.clone());
        assert!(before.is_none_or(|before| before < number), "{key} is out of order");
    }
}
