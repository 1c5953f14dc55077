//! Shards and their ancestry.

use shardwell_aggregation::HashKeyRange;

use crate::{SequenceNumber, ShardId};

/// A shard of a stream (Kinesis API, `Shard`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The id of the shard.
    pub id: ShardId,
    /// The shard it came from by a split or a merge. The stream may no longer list it.
    pub parent: Option<ShardId>,
    /// The second shard of a merge (`AdjacentParentShardId`).
    pub adjacent_parent: Option<ShardId>,
    /// The hash keys it owns.
    pub hash_key_range: HashKeyRange,
    /// Where its records begin.
    pub starting_sequence_number: SequenceNumber,
    /// Where its records end; `None` while it is open.
    pub ending_sequence_number: Option<SequenceNumber>,
}

impl Shard {
    /// All shards that it came from: none, one (split), or two (merge).
    pub fn parents(&self) -> impl Iterator<Item = &ShardId> {
        self.parent.iter().chain(&self.adjacent_parent)
    }

    /// Whether it still takes records.
    pub const fn is_open(&self) -> bool {
        self.ending_sequence_number.is_none()
    }
}

/// A shard that followed another, as the end of that other names it (Kinesis API, `ChildShard`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildShard {
    /// The id of the child.
    pub id: ShardId,
    /// All its parents: one after a split, two after a merge.
    pub parents: Vec<ShardId>,
    /// The hash keys that it owns.
    pub hash_key_range: HashKeyRange,
}
