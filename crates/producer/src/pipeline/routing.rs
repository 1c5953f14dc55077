//! Which shard a record goes to, as far as it is known.

use std::collections::BTreeMap;

use shardwell_core::aggregation::{HashKeyRange, ShardMap};
use shardwell_core::{Shard, ShardId};

/// What is known of where records go.
#[derive(Clone, Debug)]
pub(crate) enum Routing {
    /// Nothing yet: records wait for the first listing.
    Awaited,
    /// The shards cannot be listed. Records go one by one, and the service routes them.
    Unknown,
    /// The service spreads records over the shards as it likes (`RecordDistributionStrategy` = `AUTO`).
    Automatic,
    /// Each hash key has its lane.
    Shards(ShardMap<usize>),
}

/// What a listing says.
#[derive(Clone, Debug)]
pub(crate) enum Listing {
    /// The stream routes by hash key, to the open shards.
    Shards {
        open: Vec<(HashKeyRange, ShardId)>,
        /// Closed ones, as far as they were listed.
        closed: Vec<(HashKeyRange, ShardId)>,
    },
    /// It does not.
    Automatic,
    /// It cannot be had.
    Unknown,
}

impl Listing {
    /// What these shards say; nothing if the listing raced a reshard: there are hash keys without an open shard, or with two.
    pub(crate) fn of(shards: Vec<Shard>) -> Option<Self> {
        let (open, closed): (Vec<Shard>, Vec<Shard>) = shards.into_iter().partition(Shard::is_open);
        let ranges = |shards: Vec<Shard>| shards.into_iter().map(|shard| (shard.hash_key_range, shard.id)).collect();
        let (open, closed): (Vec<_>, Vec<_>) = (ranges(open), ranges(closed));
        let map = ShardMap::new(open.iter().map(|(range, _)| (*range, ()))).ok()?;
        map.is_complete().then_some(Self::Shards { open, closed })
    }
}

/// The hash keys of every shard that was ever listed, the closed ones too: a record may have landed there just before.
#[derive(Debug, Default)]
pub(crate) struct KnownShards(BTreeMap<ShardId, HashKeyRange>);

/// Closed shards beyond this number are forgotten, the oldest first; nothing is lost by that but a look at the stream.
const REMEMBERED: usize = 20_000;

impl KnownShards {
    pub(crate) fn learn(&mut self, shards: &[(HashKeyRange, ShardId)]) {
        self.0.extend(shards.iter().map(|(range, shard)| (shard.clone(), *range)));
        while self.0.len() > REMEMBERED.max(shards.len()) {
            self.0.pop_first();
        }
    }

    pub(crate) fn range(&self, shard: &ShardId) -> Option<HashKeyRange> {
        self.0.get(shard).copied()
    }
}
