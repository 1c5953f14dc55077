//! What is done to the stream while records flow: a shard is split, and two are merged.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_kinesis::Client;
use shardwell::aws::KinesisStream;
use shardwell::{Shard, ShardFilter, ShardId, Stream};
use shardwell_examples::stream::until_active;

pub(crate) const NAME: &str = "flights";

/// The shards that are to be changed while records flow: one to split, two neighbours to merge.
#[derive(Debug)]
pub(crate) struct Reshards {
    split: Shard,
    merge: [ShardId; 2],
}

impl Reshards {
    /// Chooses the first shard and the last two, by hash key.
    pub(crate) async fn choose(stream: &KinesisStream) -> Result<Self> {
        let mut open = stream.list_shards(ShardFilter::AtLatest).await?;
        open.sort_by_key(|shard| shard.hash_key_range.start());
        ensure!(open.len() >= 3, "one shard to split and two to merge are needed, and there are {}", open.len());
        let mut open = VecDeque::from(open);
        match (open.pop_front(), open.pop_back(), open.pop_back()) {
            (Some(split), Some(last), Some(before)) => Ok(Self { split, merge: [before.id, last.id] }),
            _ => bail!("the stream lost shards while they were counted"),
        }
    }

    pub(crate) fn to_split(&self) -> &ShardId {
        &self.split.id
    }

    pub(crate) const fn to_merge(&self) -> &[ShardId; 2] {
        &self.merge
    }

    /// Splits in the middle, and waits until that is done.
    pub(crate) async fn split(&self, client: &Client, stream: &KinesisStream) -> Result<()> {
        let range = self.split.hash_key_range;
        let middle = range.start() + (range.end() - range.start()) / 2 + 1;
        let request = client.split_shard().stream_name(NAME).shard_to_split(self.split.id.as_str());
        request.new_starting_hash_key(middle.to_string()).send().await.context("cannot split a shard")?;
        until_active(stream).await
    }

    /// Merges, and waits until that is done.
    pub(crate) async fn merge(&self, client: &Client, stream: &KinesisStream) -> Result<()> {
        let [shard, adjacent] = &self.merge;
        let request = client.merge_shards().stream_name(NAME).shard_to_merge(shard.as_str());
        request.adjacent_shard_to_merge(adjacent.as_str()).send().await.context("cannot merge two shards")?;
        until_active(stream).await
    }
}
