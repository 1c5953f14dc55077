//! A stream on the local engine, and records in it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_kinesis::Client;
use shardwell::aws::KinesisStream;
use shardwell::core::SequenceNumber;
use shardwell::{PutEntry, RetryPolicy, ShardId, Stream, StreamStatus, StreamWriter};

use crate::pause;

/// Records in one request; the service takes up to 500.
const RECORDS_PER_REQUEST: usize = 500;

/// Creates a stream, and waits until it can be used.
///
/// # Errors
/// Where the engine refuses, or cannot be reached.
pub async fn create(client: &Client, name: &str, shards: i32) -> Result<KinesisStream> {
    let created = client.create_stream().stream_name(name).shard_count(shards).send().await;
    created.with_context(|| format!("cannot create the stream{}", proxy_hint()))?;
    let stream = KinesisStream::new(client, name);
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

/// Waits until the stream can be used.
///
/// # Errors
/// Where it cannot be described.
pub async fn until_active(stream: &KinesisStream) -> Result<()> {
    while stream.describe().await?.status != StreamStatus::Active {
        pause(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Puts all entries; gives the last record of each shard. Kinesis may take a part of a request and refuse the rest, most often because
/// a shard is over its limit; what it refused is put again after a while.
///
/// # Errors
/// A request that fails as a whole ends the example: its records may have been taken all the same, and putting them
/// again would count flights twice.
pub async fn put(stream: &KinesisStream, entries: &[PutEntry]) -> Result<BTreeMap<ShardId, SequenceNumber>> {
    let retry = RetryPolicy::default().with_cap(Duration::from_secs(2)).with_max_retries(Some(20));
    let mut last = BTreeMap::new();
    for chunk in entries.chunks(RECORDS_PER_REQUEST) {
        let mut left = refused(stream, chunk, &mut last).await?;
        let mut failures = 1;
        while !left.is_empty() {
            let Some(delay) = retry.longest_delay(failures) else {
                bail!("the stream refused {} records {failures} times in a row", left.len())
            };
            pause(delay).await;
            let put = refused(stream, &left, &mut last).await?;
            failures = if put.len() < left.len() { 1 } else { failures + 1 };
            left = put;
        }
    }
    Ok(last)
}

/// Puts entries with one request, notes where they landed, and returns those that were not taken.
async fn refused(
    stream: &KinesisStream,
    entries: &[PutEntry],
    last: &mut BTreeMap<ShardId, SequenceNumber>,
) -> Result<Vec<PutEntry>> {
    let mut refused = Vec::new();
    for (entry, result) in entries.iter().zip(stream.put(entries).await?) {
        match result {
            Ok(placed) => {
                let newest = last.entry(placed.shard).or_insert(placed.sequence_number);
                *newest = placed.sequence_number.max(*newest);
            }
            Err(_) => refused.push(entry.clone()),
        }
    }
    Ok(refused)
}
