//! `shardwell put`: lines into a stream, each as a user record.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use shardwell::aws::KinesisStream;
use shardwell::core::hash_key;
use shardwell::producer::{Landed, Ordering, Producer, PutFailure, Ticket};
use shardwell::{PutEntry, SystemEnv};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;

use super::aws;
use super::signals::Stop;

#[derive(Args, Debug)]
pub(super) struct PutArgs {
    #[command(flatten)]
    stream: aws::StreamArgs,
    /// A file of lines; without it, standard input
    file: Option<PathBuf>,
    /// The partition key of all lines. Without a key, each line goes where its own hash says
    #[arg(long, value_name = "TEXT", conflicts_with = "key_field")]
    key: Option<String>,
    /// The field that holds the partition key, where lines are JSON objects
    #[arg(long, value_name = "NAME")]
    key_field: Option<String>,
    /// Keep the order of the lines of a partition key
    #[arg(long)]
    ordered: bool,
    /// Put each line as a record of its own, for readers that do not take aggregated records apart
    #[arg(long)]
    no_aggregation: bool,
    /// Tell of each line where it is, as a line of JSON
    #[arg(long)]
    json: bool,
}

/// A line on its way.
type Pending = (u64, Ticket);

#[derive(Serialize)]
struct LandedLine<'a> {
    line: u64,
    shard: &'a str,
    sequence_number: String,
    sub_sequence_number: u64,
    attempts: usize,
}

pub(super) async fn run(args: &PutArgs) -> Result<()> {
    let stop = Stop::install()?;
    let stream = KinesisStream::new(&aws::kinesis(args.stream.endpoint()).await, args.stream.name());
    let ordering = if args.ordered { Ordering::PerKey } else { Ordering::Unordered };
    let env = Arc::new(SystemEnv::new().context("the system refuses a thread")?);
    let producer = Producer::builder(stream).ordering(ordering).aggregation(!args.no_aggregation).env(env).build()?;
    let (pending, landing) = mpsc::unbounded_channel();
    let told = tell(landing, args.json);
    let read = async {
        let result = match &args.file {
            Some(path) => put_all(&producer, open(path).await?, args, stop, pending).await,
            None => put_all(&producer, tokio::io::stdin(), args, stop, pending).await,
        };
        // What was put is told of, also if a line could not be read.
        producer.close().await;
        result
    };
    let (read, told) = tokio::join!(read, told);
    let (landed, failed) = told?;
    eprintln!("{landed} records are in {}", args.stream.name());
    read?;
    if failed > 0 {
        bail!("{failed} records are not, as said above");
    }
    Ok(())
}

async fn open(path: &Path) -> Result<File> {
    File::open(path).await.with_context(|| format!("cannot read {}", path.display()))
}

/// Puts line after line, until there are no more or the user asks to stop.
async fn put_all(
    producer: &Producer,
    input: impl AsyncRead + Unpin,
    args: &PutArgs,
    mut stop: Stop,
    pending: mpsc::UnboundedSender<Pending>,
) -> Result<()> {
    let mut lines = BufReader::new(input).lines();
    for number in 1.. {
        let line = tokio::select! {
            biased;
            stopped = stop.requested() => return stopped,
            line = lines.next_line() => line.with_context(|| format!("cannot read line {number}"))?,
        };
        let Some(line) = line else { break };
        let key = key(args, &line).with_context(|| format!("line {number}"))?;
        let ticket = producer.put(PutEntry::new(key, line)).await.with_context(|| format!("line {number}"))?;
        pending.send((number, ticket)).context("nobody listens to what becomes of records")?;
    }
    Ok(())
}

/// The partition key of a line.
fn key(args: &PutArgs, line: &str) -> Result<String> {
    if let Some(key) = &args.key {
        return Ok(key.clone());
    }
    let Some(field) = &args.key_field else {
        return Ok(format!("{:032x}", hash_key(line.as_bytes())));
    };
    let object: serde_json::Value = serde_json::from_str(line).context("it is not JSON")?;
    match object.get(field) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        Some(serde_json::Value::Null) | None => bail!("it has no field `{field}`"),
        Some(value) => Ok(value.to_string()),
    }
}

/// Tells what becomes of each line, in their order. Gives how many landed and failed.
async fn tell(mut landing: mpsc::UnboundedReceiver<Pending>, json: bool) -> Result<(u64, u64)> {
    let (mut landed, mut failed) = (0, 0);
    while let Some((line, ticket)) = landing.recv().await {
        match ticket.await {
            Ok(place) => {
                landed += 1;
                if json {
                    tell_landed(line, &place)?;
                }
            }
            Err(failure) => {
                failed += 1;
                tell_failed(line, &failure);
            }
        }
    }
    Ok((landed, failed))
}

fn tell_landed(line: u64, place: &Landed) -> Result<()> {
    let told = LandedLine {
        line,
        shard: place.shard.as_str(),
        sequence_number: place.position.sequence_number.to_string(),
        sub_sequence_number: place.position.sub_sequence_number,
        attempts: place.attempts.count(),
    };
    let text = serde_json::to_string(&told).context("cannot write JSON")?;
    writeln!(io::stdout(), "{text}").context("cannot write to standard output")
}

fn tell_failed(line: u64, failure: &PutFailure) {
    let may_be_there = if failure.may_have_been_written() { "; it may be in the stream all the same" } else { "" };
    eprintln!("line {line} is not in the stream: {failure}{may_be_there}");
}
