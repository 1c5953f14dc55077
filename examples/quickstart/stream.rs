//! What is done to the stream: create it, put records, split and merge shards.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_kinesis::Client;
use shardwell::aws::KinesisStream;
use shardwell::{PutEntry, RetryPolicy, Shard, ShardFilter, ShardId, Stream, StreamStatus, StreamWriter};
use shardwell_examples::pause;

pub(crate) const NAME: &str = "flights";

/// Records in one request; the service takes up to 500.
const RECORDS_PER_REQUEST: usize = 500;

/// Creates the stream, and waits until it can be used.
pub(crate) async fn create(client: &Client, shards: i32) -> Result<KinesisStream> {
    let created = client.create_stream().stream_name(NAME).shard_count(shards).send().await;
    created.with_context(|| format!("cannot create the stream{}", proxy_hint()))?;
    let stream = KinesisStream::new(client, NAME);
    until_active(&stream).await?;
    Ok(stream)
}

/// The SDK goes through the proxy that the environment names, even to this machine.
fn proxy_hint() -> &'static str {
    let names = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    if names.iter().any(|name| std::env::var_os(name).is_some()) {
        " (the environment names a proxy; exempt this machine from it with NO_PROXY=127.0.0.1)"
    } else {
        ""
    }
}

async fn until_active(stream: &KinesisStream) -> Result<()> {
    while stream.describe().await?.status != StreamStatus::Active {
        pause(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Puts all entries. Kinesis may take a part of a request and refuse the rest, most often because a shard is over its
/// limit; what it refused is put again after a while.
///
/// A request that fails as a whole ends the example: its records may have been taken all the same, and putting them
/// again would count flights twice.
pub(crate) async fn put(stream: &KinesisStream, entries: &[PutEntry]) -> Result<()> {
    let retry = RetryPolicy::default().with_cap(Duration::from_secs(2)).with_max_retries(Some(20));
    for chunk in entries.chunks(RECORDS_PER_REQUEST) {
        let mut left = refused(stream, chunk).await?;
        let mut failures = 1;
        while !left.is_empty() {
            let Some(delay) = retry.longest_delay(failures) else {
                bail!("the stream refused {} records {failures} times in a row", left.len())
            };
            pause(delay).await;
            let put = refused(stream, &left).await?;
            failures = if put.len() < left.len() { 1 } else { failures + 1 };
            left = put;
        }
    }
    Ok(())
}

/// Puts entries with one request, and returns those that were not taken.
async fn refused(stream: &KinesisStream, entries: &[PutEntry]) -> Result<Vec<PutEntry>> {
    let results = stream.put(entries).await?;
    let pairs = entries.iter().zip(&results);
    Ok(pairs.filter(|(_, result)| result.is_err()).map(|(entry, _)| entry.clone()).collect())
}

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
