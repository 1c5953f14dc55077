//! Records are put into the streams.

use std::sync::Arc;

use shardwell_core::aggregation::{Aggregator, Limits};
use shardwell_core::{Env, EnvExt, ExtendedSequenceNumber, LeaseKey, Placed, ShardFilter};

use super::kind::Kind;
use super::processes::UNWANTED;
use super::truth::{Nature, Poison};
use super::world::{SimulatedStream, State, World};

/// Puts all records of a run, spread over its troubled time.
pub(crate) async fn produce(world: Arc<World>) {
    let scenario = world.state().scenario.clone();
    let mut left = scenario.records;
    let burst = scenario.records / 120 + 1;
    let pause = scenario.troubled / 120;
    while left > 0 {
        let count = world.state().random.usize(1..=burst * 2).min(left);
        let mut put = 0;
        while put < count {
            put += put_some(&world, count - put);
        }
        left -= count;
        world.env.sleep(pause).await;
    }
}

/// Puts one record, or a few of one key in an aggregated one. Tells how many.
fn put_some(world: &World, most: usize) -> usize {
    let mut state = world.state();
    let keys = state.scenario.keys;
    let (key, count) = (state.random.u32(..keys), state.random.usize(1..=3).min(most));
    let aggregated = count > 1 && state.random.bool();
    let first = state.truth.records.len();
    let natures: Vec<Nature> = (0..count).map(|_| nature(&mut state)).collect();
    let streams = world.streams.len();
    let stream = &world.streams[if streams > 1 { state.random.usize(..streams) } else { 0 }];
    drop(state);
    let name = format!("key-{key}");
    let payload = |index: usize| {
        let flag = if natures[index] == Nature::Unwanted { UNWANTED } else { b'.' };
        let mut payload = vec![flag];
        payload.extend((first + index).to_string().into_bytes());
        payload
    };
    if aggregated {
        let mut aggregator = Aggregator::new(Limits::default());
        for index in 0..count {
            if let Err(error) = aggregator.try_add(&name, None, &payload(index)) {
                unreachable!("it is small: {error}");
            }
        }
        let Some(record) = aggregator.finish() else { unreachable!("it holds two") };
        // Under the key itself, so that it lands where its user records belong.
        let placed = append(stream, &name, record.data.to_vec());
        for (sub, nature) in (0..).zip(&natures) {
            note(world, stream, key, &placed, sub, *nature);
        }
    } else {
        for (index, nature) in natures.iter().enumerate() {
            let placed = append(stream, &name, payload(index));
            note(world, stream, key, &placed, 0, *nature);
        }
    }
    count
}

fn append(stream: &SimulatedStream, key: &str, data: Vec<u8>) -> Placed {
    stream.memory.append(key, data).unwrap_or_else(|error| unreachable!("the stream takes it: {error}"))
}

fn note(world: &World, stream: &SimulatedStream, key: u32, placed: &Placed, sub: u64, nature: Nature) {
    let position = ExtendedSequenceNumber::new(placed.sequence_number, sub);
    let arrival = world.env.timestamp();
    let parents = || parents(stream, placed);
    let mut state = world.state();
    let shard = state.truth.shard(&stream.key(&placed.shard), parents);
    state.truth.put(shard, key, position, arrival, nature);
    state.tally.records += 1;
}

fn parents(stream: &SimulatedStream, placed: &Placed) -> Vec<LeaseKey> {
    let shards = stream.memory.shards(&ShardFilter::All).unwrap_or_default();
    let found = shards.iter().find(|listed| listed.id == placed.shard);
    found.map(|shard| shard.parents().map(|parent| stream.key(parent)).collect()).unwrap_or_default()
}

fn nature(state: &mut State) -> Nature {
    let has = |kind| state.scenario.acts.iter().any(|(_, act)| *act == kind);
    let poisoned = has(Kind::PoisonRecords) && state.scenario.max_retries.is_some();
    // One more failure than there are attempts would be poison.
    let flaky = state.scenario.max_retries.unwrap_or(3).min(2);
    let draw = state.random.f64();
    match draw {
        _ if state.scenario.filter && draw < 0.1 => Nature::Unwanted,
        _ if draw > 0.995 && flaky > 0 => Nature::Flaky(state.random.u32(1..=flaky)),
        _ if poisoned && draw > 0.98 => {
            let kinds = [Poison::Fails, Poison::FailsHere, Poison::Reported, Poison::Permanent, Poison::Panics];
            Nature::Poison(kinds[state.random.usize(..kinds.len())])
        }
        _ => Nature::Fine,
    }
}
