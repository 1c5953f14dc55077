//! Puts records without a pause, in an order that is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shardwell_aws::KinesisStream;
use shardwell_core::{Env, EnvExt, Place, PutEntry, SequenceNumber, ShardId, StreamWriter, Task};
use shardwell_integration::Flight;

/// A record that the stream has taken.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    /// Counts from 0. The order in which records of the same key were put.
    pub(crate) number: u64,
    pub(crate) shard: ShardId,
    pub(crate) sequence_number: SequenceNumber,
}

const KEYS: u64 = 50;

/// Fewer than there are keys, so that no two records of a key go into the same call: the order within a call is not
/// promised.
const RECORDS_PER_CALL: u64 = 20;

/// 500 records a second.
const PAUSE: Duration = Duration::from_millis(40);

/// The only writer of the stream.
pub(crate) struct Producer {
    stop: Arc<AtomicBool>,
    task: Task<Vec<Put>>,
}

impl Producer {
    pub(crate) fn start(env: &Arc<dyn Env>, stream: KinesisStream) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = env.spawn(Place::Pipeline, put(env.clone(), stream, stop.clone()));
        Self { stop, task }
    }

    /// Stops, and gives everything that was put.
    pub(crate) async fn stop(&mut self) -> Vec<Put> {
        self.stop.store(true, Ordering::Release);
        (&mut self.task).await.expect("every record is taken")
    }
}

async fn put(env: Arc<dyn Env>, stream: KinesisStream, stop: Arc<AtomicBool>) -> Vec<Put> {
    let mut puts = Vec::new();
    let mut next = 0;
    while !stop.load(Ordering::Acquire) {
        let numbers = next..next + RECORDS_PER_CALL;
        let entries: Vec<PutEntry> =
            numbers.clone().map(|number| PutEntry::new(key_of(number), payload_of(number))).collect();
        let results = stream.put(&entries).await.expect("the engine answers");
        for (number, result) in numbers.zip(results) {
            let placed = result.expect("the engine refuses nothing");
            puts.push(Put { number, shard: placed.shard, sequence_number: placed.sequence_number });
        }
        next += RECORDS_PER_CALL;
        env.sleep(PAUSE).await;
    }
    puts
}

/// A flight of which nothing is known but its number.
fn payload_of(number: u64) -> String {
    Flight { number, trouble: None }.with_flight("{}").expect("an object")
}

/// The partition key of a record.
pub(crate) fn key_of(number: u64) -> String {
    format!("key-{}", number % KEYS)
}
