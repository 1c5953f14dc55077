//! Puts flights at a steady rate, some of them aggregated, in an order that is known, and reshards in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use shardwell_aws::KinesisStream;
use shardwell_core::aggregation::{Aggregator, Limits};
use shardwell_core::{
    Env, EnvExt, ExtendedSequenceNumber, HashKeyRange, Place, PutEntry, ShardFilter, ShardId, StreamWriter, Task,
    hash_key,
};
use shardwell_integration::stream_of;
use shardwell_local::LocalEngine;

use super::{PlannedFlight, STREAM};
use crate::common::is_active;
use crate::common::resharding::reshard;

/// Where a flight landed.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) number: u64,
    pub(crate) shard: ShardId,
    pub(crate) position: ExtendedSequenceNumber,
}

/// Where the last flight of each shard landed.
pub(crate) fn newest_by_shard(puts: &[Put]) -> BTreeMap<ShardId, ExtendedSequenceNumber> {
    let mut newest: BTreeMap<ShardId, ExtendedSequenceNumber> = BTreeMap::new();
    for put in puts {
        let position = newest.entry(put.shard.clone()).or_insert(put.position);
        *position = put.position.max(*position);
    }
    newest
}

/// How much is put where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How many shards the stream keeps about.
    pub(crate) shards: u32,
    /// Flights that are put each second.
    pub(crate) per_second: f64,
}

/// At most so many flights in a call.
const FLIGHTS_PER_CALL: usize = 300;

/// The only writer of the stream, and the only one to change its shards: so what is aggregated always belongs to the shard
/// that it is put into. Where others reshard, no order of keys survives aggregation.
pub(crate) struct Producer {
    orders: Arc<Orders>,
    task: Task<Vec<Put>>,
    /// What the task gave, once it has ended.
    puts: Option<Vec<Put>>,
}

#[derive(Default)]
struct Orders {
    reshard: AtomicBool,
    reshards: AtomicU32,
    finished: AtomicBool,
}

struct Putting {
    env: Arc<dyn Env>,
    engine: Arc<LocalEngine>,
    stream: KinesisStream,
    flights: Arc<[PlannedFlight]>,
    pace: Pace,
    random: fastrand::Rng,
    orders: Arc<Orders>,
}

/// One call: entries, and by their indices the flights in each.
#[derive(Default)]
struct Call {
    entries: Vec<(PutEntry, Vec<usize>)>,
    flights: usize,
}

impl Producer {
    pub(crate) fn start(
        env: &Arc<dyn Env>,
        engine: &Arc<LocalEngine>,
        flights: &Arc<[PlannedFlight]>,
        pace: Pace,
        seed: u64,
    ) -> Self {
        let orders = Arc::new(Orders::default());
        let putting = Putting {
            env: env.clone(),
            engine: engine.clone(),
            stream: stream_of(&engine.endpoint(), STREAM),
            flights: flights.clone(),
            pace,
            random: fastrand::Rng::with_seed(seed),
            orders: orders.clone(),
        };
        Self { orders, task: env.spawn(Place::Pipeline, putting.put_all()), puts: None }
    }

    /// Has shards split or merged soon.
    pub(crate) fn order_reshard(&self) {
        self.orders.reshard.store(true, Ordering::Release);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.orders.finished.load(Ordering::Acquire)
    }

    /// Waits until everything is put, and gives where, and how often shards were split or merged.
    pub(crate) async fn finish(&mut self) -> (&[Put], u32) {
        if self.puts.is_none() {
            self.puts = Some((&mut self.task).await.expect("every record is taken"));
        }
        (self.puts.as_deref().unwrap_or_default(), self.orders.reshards.load(Ordering::Acquire))
    }
}

impl Putting {
    async fn put_all(mut self) -> Vec<Put> {
        let started = self.env.now();
        let mut puts = Vec::with_capacity(self.flights.len());
        let mut next = 0;
        while next < self.flights.len() {
            self.reshard_if_ordered();
            let Call { entries, flights } = self.next_call(next);
            let (entries, members): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
            let results = self.stream.put(&entries).await.expect("the engine answers");
            for (members, result) in members.into_iter().zip(results) {
                let placed = result.expect("the engine refuses nothing");
                for (sub_sequence_number, index) in (0..).zip(members) {
                    let number = self.flights[index].flight.number;
                    let position = ExtendedSequenceNumber::new(placed.sequence_number, sub_sequence_number);
                    puts.push(Put { number, shard: placed.shard.clone(), position });
                }
            }
            next += flights;
            self.env.sleep_until(started.plus(Duration::from_secs_f64(next as f64 / self.pace.per_second))).await;
        }
        self.orders.finished.store(true, Ordering::Release);
        puts
    }

    fn reshard_if_ordered(&mut self) {
        if is_active(&self.engine, STREAM) && self.orders.reshard.swap(false, Ordering::AcqRel) {
            reshard(&self.engine, STREAM, self.pace.shards, &mut self.random);
            self.orders.reshards.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// The hash keys of open shards of which everything in the next call is aggregated, half of them. None while shards
    /// change.
    fn aggregated_shards(&mut self) -> Vec<HashKeyRange> {
        if !is_active(&self.engine, STREAM) {
            return Vec::new();
        }
        let now = self.engine.now();
        let open = self.engine.kinesis().lock().list_shards(STREAM, &ShardFilter::AtLatest, now).expect("listed");
        open.into_iter().map(|shard| shard.hash_key_range).filter(|_| self.random.bool()).collect()
    }

    /// The flights from `first` on, up to one whose key is in an entry already: the order within a call is not promised.
    fn next_call(&mut self, first: usize) -> Call {
        let ranges = self.aggregated_shards();
        let limits = Limits::new(Limits::DEFAULT_RECORD_BYTES).expect("the service's own");
        let mut aggregates: BTreeMap<usize, (Aggregator, Vec<usize>)> = BTreeMap::new();
        let mut keys = BTreeSet::new();
        let mut call = Call::default();
        for (index, planned) in self.flights.iter().enumerate().skip(first).take(FLIGHTS_PER_CALL) {
            let hash_key = hash_key(planned.key.as_bytes());
            if let Some(range) = ranges.iter().position(|range| range.contains(hash_key)) {
                let (aggregator, members) =
                    aggregates.entry(range).or_insert_with(|| (Aggregator::new(limits), Vec::new()));
                aggregator.try_add(&planned.key, None, &planned.payload).expect("there is room");
                members.push(index);
            } else if keys.insert(&planned.key) {
                call.entries.push((PutEntry::new(planned.key.as_str(), planned.payload.clone()), vec![index]));
            } else {
                break;
            }
            call.flights += 1;
        }
        call.entries.extend(aggregates.into_values().filter_map(|(mut aggregator, members)| {
            let record = aggregator.finish()?;
            let mut entry = PutEntry::new(record.partition_key, record.data);
            entry.explicit_hash_key = Some(record.explicit_hash_key);
            Some((entry, members))
        }));
        call
    }
}
