//! Splits and merges.

use shardwell_core::ShardFilter;
use shardwell_local::LocalEngine;

/// Starts to split a random shard of a stream, or to merge two if it has more than `shards`.
pub(crate) fn reshard(engine: &LocalEngine, stream: &str, shards: u32, random: &mut fastrand::Rng) {
    let (mut kinesis, now) = (engine.kinesis().lock(), engine.now());
    let mut open = kinesis.list_shards(stream, &ShardFilter::AtLatest, now).expect("listed");
    if open.len() <= shards as usize {
        let shard = &open[random.usize(0..open.len())];
        let range = shard.hash_key_range;
        let middle = range.start() + (range.end() - range.start()) / 2 + 1;
        kinesis.split_shard(stream, &shard.id, middle, now).expect("split");
    } else {
        // Open shards cover all hash keys, so in this order each touches the next.
        open.sort_by_key(|shard| shard.hash_key_range.start());
        let first = random.usize(0..open.len() - 1);
        kinesis.merge_shards(stream, &open[first].id, &open[first + 1].id, now).expect("merged");
    }
}
