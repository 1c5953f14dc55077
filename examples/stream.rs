//! A stream on the local engine, and records in it.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_kinesis::Client;
use shardwell::aws::KinesisStream;
use shardwell::producer::{Landed, Ordering};
use shardwell::{Producer, PutEntry, Stream, StreamStatus};

use crate::pause;

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

/// A producer that keeps the order of each partition key. The local engine has no limits, so it need not keep to any; for the real
/// service, leave `without_pacing` out.
///
/// # Errors
/// Where the system refuses threads.
pub fn producer(stream: &KinesisStream, paced: bool) -> Result<Producer> {
    let builder = Producer::builder(stream.clone()).ordering(Ordering::PerKey);
    let builder = if paced { builder } else { builder.without_pacing() };
    Ok(builder.build()?)
}

/// Puts all entries, and waits until they are in the stream. Tells where.
///
/// # Errors
/// A record that could not be put, with what was tried.
pub async fn put(producer: &Producer, entries: &[PutEntry]) -> Result<Vec<Landed>> {
    let mut tickets = Vec::with_capacity(entries.len());
    for entry in entries {
        // Waits where the producer is full.
        tickets.push(producer.put(entry.clone()).await?);
    }
    // Nothing follows that would be worth waiting for.
    producer.flush().await;
    let mut landed = Vec::with_capacity(tickets.len());
    for ticket in tickets {
        landed.push(ticket.await?);
    }
    Ok(landed)
}
