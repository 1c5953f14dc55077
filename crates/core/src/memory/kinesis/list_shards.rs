//! Which shards a filter selects (Kinesis API, `ShardFilter`).

use super::shard::ShardState;
use super::stream::StreamState;
use crate::{Shard, ShardFilter, Timestamp};

impl StreamState {
    /// The shards that match, by shard id.
    pub(super) fn list_shards(&self, filter: &ShardFilter) -> Vec<Shard> {
        self.shards.values().filter(|shard| self.matches(shard, filter)).map(ShardState::listed).collect()
    }

    fn matches(&self, shard: &ShardState, filter: &ShardFilter) -> bool {
        match filter {
            ShardFilter::AfterShardId(id) => shard.id > *id,
            ShardFilter::AtLatest => shard.closed.is_none(),
            // A closed shard is listed until all that it ever held is behind the trim horizon.
            ShardFilter::All | ShardFilter::FromTrimHorizon => true,
            ShardFilter::AtTrimHorizon => self.is_oldest(shard),
            ShardFilter::AtTimestamp(time) => {
                (shard.opened_at <= *time || self.is_oldest(shard)) && was_open_from(shard, *time)
            }
            ShardFilter::FromTimestamp(time) => was_open_from(shard, *time),
        }
    }

    /// Whether the shard was open at the trim horizon: its parents, if it had any, ended before that.
    ///
    /// By ancestry rather than by time, so that shards which were opened and closed within one millisecond are told
    /// apart, and the answer always covers every hash key once.
    fn is_oldest(&self, shard: &ShardState) -> bool {
        !shard.parents.iter().any(|parent| self.shards.contains_key(parent))
    }
}

/// Whether the shard was open at a time or after it. It counts as open at the time of its end (as the service has it):
/// it may hold records that arrived in that very millisecond.
fn was_open_from(shard: &ShardState, time: Timestamp) -> bool {
    shard.closed.is_none_or(|closed| closed.at >= time)
}
