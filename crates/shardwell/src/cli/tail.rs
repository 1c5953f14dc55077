//! `shardwell tail`: what is in a stream, as it comes, without leases and without disturbing anybody who has some.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;
use shardwell::aws::KinesisStream;
use shardwell::core::aggregation::{Deaggregated, Outer, deaggregate};
use shardwell::core::{Place, Record};
use shardwell::{
    Bytes, Env, EnvExt, InitialPosition, PartitionKey, ShardId, StartPosition, Stream, StreamError, SystemEnv,
};
use tokio::sync::mpsc;

use super::aws;
use super::position::Position;
use super::signals::Stop;

/// Between two reads of a shard that has nothing new. A shard takes five reads a second from all who poll it.
const PAUSE: Duration = Duration::from_secs(1);

/// After a read that failed.
const BACKOFF: Duration = Duration::from_secs(2);

/// Reads that wait to be printed, at most.
const READ_AHEAD: usize = 16;

#[derive(Args, Debug)]
pub(super) struct TailArgs {
    #[command(flatten)]
    stream: aws::StreamArgs,
    /// Where to start: latest, trim-horizon, or a time such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "POSITION", default_value = "latest")]
    from: Position,
    /// Only this shard and what it becomes; may be given more than once
    #[arg(long = "shard", value_name = "ID")]
    shards: Vec<String>,
    /// Stop at what is the newest record of each shard when it is read
    #[arg(long)]
    no_follow: bool,
    /// Print lines of JSON, payloads in base64, and not the payloads alone
    #[arg(long)]
    json: bool,
}

/// What a shard has to say.
enum News {
    Records(ShardId, Vec<Record>),
    /// It has ended, with these children.
    Ended(ShardId, Vec<(ShardId, Vec<ShardId>)>),
    /// Nothing newer is in it.
    AtTip(ShardId),
    Failed(ShardId, StreamError),
}

#[derive(Serialize)]
struct RecordLine<'a> {
    shard: &'a str,
    sequence_number: String,
    sub_sequence_number: u64,
    partition_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explicit_hash_key: Option<String>,
    arrival: String,
    data: String,
}

pub(super) async fn run(args: &TailArgs) -> Result<()> {
    let mut stop = Stop::install()?;
    let stream = KinesisStream::new(&aws::kinesis(args.stream.endpoint()).await, args.stream.name());
    let env = Arc::new(SystemEnv::new().context("the system refuses a thread")?);
    let (position, initial) = match args.from {
        Position::TrimHorizon => (StartPosition::TrimHorizon, InitialPosition::TrimHorizon),
        Position::Latest => (StartPosition::Latest, InitialPosition::Latest),
        Position::Time(time) => (StartPosition::AtTimestamp(time), InitialPosition::AtTimestamp(time)),
        Position::After(_) => bail!("a sequence number is of one shard; give a time, latest or trim-horizon"),
    };
    let (news, mut heard) = mpsc::channel(READ_AHEAD);
    let mut tail =
        Tail { stream, env, news, follows: !args.no_follow, reading: BTreeSet::new(), waiting: BTreeMap::new() };
    let listed = tail.stream.list_shards(initial.shard_filter()).await?;
    let is_wanted = |id: &str| args.shards.is_empty() || args.shards.iter().any(|wanted| wanted == id);
    if let Some(missing) = args.shards.iter().find(|id| !listed.iter().any(|shard| shard.id.as_str() == **id)) {
        bail!("the stream {} has no shard {missing} there", args.stream.name());
    }
    for shard in listed.into_iter().filter(|shard| is_wanted(shard.id.as_str())) {
        tail.read(shard.id, position);
    }
    while !tail.reading.is_empty() {
        let next = tokio::select! {
            biased;
            stopped = stop.requested() => return stopped,
            next = heard.recv() => next,
        };
        match next {
            Some(News::Records(shard, records)) => print_all(&shard, records, args.json)?,
            Some(News::Ended(shard, children)) => tail.ended(&shard, children),
            Some(News::AtTip(shard)) => tail.done(&shard),
            Some(News::Failed(shard, error)) => {
                return Err(error).with_context(|| format!("cannot read {shard} of {}", args.stream.name()));
            }
            None => break,
        }
    }
    Ok(())
}

/// The shards that are being read, and those that wait for their parents.
struct Tail {
    stream: KinesisStream,
    env: Arc<SystemEnv>,
    news: mpsc::Sender<News>,
    follows: bool,
    reading: BTreeSet<ShardId>,
    /// The parents that a child waits for.
    waiting: BTreeMap<ShardId, BTreeSet<ShardId>>,
}

impl Tail {
    fn read(&mut self, shard: ShardId, position: StartPosition) {
        if self.reading.insert(shard.clone()) {
            let (stream, env, news) = (self.stream.clone(), self.env.clone(), self.news.clone());
            let follows = self.follows;
            let task = async move { read(stream, env, shard, position, follows, news).await };
            self.env.spawn_detached(Place::Pipeline, Box::pin(task));
        }
    }

    /// A child is read when all its parents that are being read have ended.
    fn ended(&mut self, shard: &ShardId, children: Vec<(ShardId, Vec<ShardId>)>) {
        for (child, parents) in children {
            let reading = parents.into_iter().filter(|parent| self.reading.contains(parent)).collect();
            self.waiting.entry(child).or_insert(reading);
        }
        self.done(shard);
    }

    fn done(&mut self, shard: &ShardId) {
        self.reading.remove(shard);
        for parents in self.waiting.values_mut() {
            parents.remove(shard);
        }
        let ready: Vec<ShardId> =
            self.waiting.iter().filter(|(_, parents)| parents.is_empty()).map(|(child, _)| child.clone()).collect();
        for child in ready {
            self.waiting.remove(&child);
            self.read(child, StartPosition::TrimHorizon);
        }
    }
}

/// Reads a shard for as long as there is something to read, and somebody listens.
async fn read(
    stream: KinesisStream,
    env: Arc<SystemEnv>,
    shard: ShardId,
    position: StartPosition,
    follows: bool,
    news: mpsc::Sender<News>,
) {
    let mut reader = loop {
        match stream.open(&shard, position).await {
            Ok(reader) => break reader,
            Err(error) if error.is_retryable() => env.sleep(BACKOFF).await,
            Err(error) => return drop(news.send(News::Failed(shard, error)).await),
        }
    };
    let limit = stream.read_limits().records_per_read;
    loop {
        let read = match reader.read(limit).await {
            Ok(read) => read,
            Err(error) if error.is_retryable() => {
                env.sleep(BACKOFF).await;
                continue;
            }
            Err(error) => return drop(news.send(News::Failed(shard, error)).await),
        };
        let is_empty = read.records.is_empty();
        if !is_empty && news.send(News::Records(shard.clone(), read.records)).await.is_err() {
            return;
        }
        if let Some(children) = read.end {
            let children = children.into_iter().map(|child| (child.id, child.parents)).collect();
            return drop(news.send(News::Ended(shard, children)).await);
        }
        let is_at_tip = is_empty && read.behind_latest == Some(Duration::ZERO);
        if is_at_tip && !follows {
            return drop(news.send(News::AtTip(shard)).await);
        }
        // Five reads a second are for all who poll the shard.
        env.sleep(if is_at_tip { PAUSE } else { PAUSE / 4 }).await;
    }
}

fn print_all(shard: &ShardId, records: Vec<Record>, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    for record in records {
        print(&mut out, shard, record, json).context("cannot write to standard output")?;
    }
    out.flush().context("cannot write to standard output")
}

fn print(out: &mut impl Write, shard: &ShardId, record: Record, json: bool) -> io::Result<()> {
    let (sequence_number, arrival) = (record.sequence_number.to_string(), record.arrival.to_string());
    let outer = Outer { partition_key: record.partition_key.map(Into::into), explicit_hash_key: None };
    let mut line = |place: u64, key: Option<&PartitionKey>, hash_key: Option<u128>, data: &Bytes| {
        if !json {
            out.write_all(data)?;
            return out.write_all(b"\n");
        }
        let line = RecordLine {
            shard: shard.as_str(),
            sequence_number: sequence_number.clone(),
            sub_sequence_number: place,
            partition_key: key.map(PartitionKey::as_str),
            explicit_hash_key: hash_key.map(|key| key.to_string()),
            arrival: arrival.clone(),
            data: STANDARD.encode(data),
        };
        writeln!(out, "{}", serde_json::to_string(&line)?)
    };
    match deaggregate(record.data, outer) {
        Deaggregated::Aggregated(aggregate) => {
            for record in aggregate {
                let key = PartitionKey::from(record.partition_key);
                line(record.sub_sequence_number, Some(&key), record.explicit_hash_key, &record.data)?;
            }
            Ok(())
        }
        Deaggregated::NotAggregated { record, .. } | Deaggregated::Malformed { record, .. } => {
            let key = record.outer.partition_key.map(PartitionKey::from);
            line(0, key.as_ref(), None, &record.data)
        }
        _ => Ok(()),
    }
}
