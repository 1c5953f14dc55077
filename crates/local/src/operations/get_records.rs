//! `GetRecords`: the next records of a shard, at most 10,000 and 10 MiB; how far behind the tip they are; the children
//! and no next iterator at the end of a closed shard, together with its last records.
//!
//! Not modelled: the limits of 5 calls and 2 MiB a second for each shard, encryption.

use std::borrow::Cow;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use shardwell_core::memory::kinesis::{MAX_GET_RECORDS, RecordBatch};
use shardwell_core::{ChildShard, Record};

use crate::state::State;
use crate::wire::{
    ApiError, decode_iterator, encode_iterator, parse, push_number_field, push_seconds, required, stream_name, within,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    shard_iterator: Option<Cow<'a, str>>,
    limit: Option<i64>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let iterator = decode_iterator(&required(request.shard_iterator, "ShardIterator")?)?;
    if let Some(arn) = request.stream_arn {
        stream_name(state, Some(Cow::Borrowed(&iterator.stream)), Some(&arn))?;
    }
    let limit = within(request.limit.unwrap_or(MAX_GET_RECORDS as i64), &(1..=MAX_GET_RECORDS as u32), "Limit")?;
    let batch = state.kinesis.lock().get_records(&iterator, limit as usize, state.now())?;
    Ok(render(&batch))
}

/// Text that a record needs beside its payload and key.
const RECORD_TEXT: usize = 200;

/// Written by hand: one buffer of the right size, and no intermediate text for payloads.
fn render(batch: &RecordBatch) -> Vec<u8> {
    let payloads: usize =
        batch.records.iter().map(|record| RECORD_TEXT + record.weight() + record.data.len() / 3).sum();
    let mut out = Vec::with_capacity(payloads + 1024);
    let _ = write!(out, "{{\"MillisBehindLatest\":{}", batch.behind_latest.as_millis());
    match &batch.next {
        Some(next) => {
            let _ = write!(out, ",\"NextShardIterator\":\"{}\"", encode_iterator(next));
        }
        None => list(&mut out, "ChildShards", &batch.children, push_child),
    }
    list(&mut out, "Records", &batch.records, push_record);
    out.push(b'}');
    out
}

fn list<T>(out: &mut Vec<u8>, name: &str, items: &[T], push: impl Fn(&mut Vec<u8>, &T)) {
    let _ = write!(out, ",\"{name}\":[");
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}

fn push_record(out: &mut Vec<u8>, record: &Record) {
    out.push(b'{');
    push_number_field(out, "SequenceNumber", record.sequence_number);
    out.extend_from_slice(b",\"ApproximateArrivalTimestamp\":");
    push_seconds(out, record.arrival);
    if let Some(key) = &record.partition_key {
        out.extend_from_slice(b",\"PartitionKey\":");
        // A string always serializes, and writing to a vector cannot fail.
        let _ = serde_json::to_writer(&mut *out, key.as_str());
    }
    out.extend_from_slice(b",\"Data\":\"");
    let start = out.len();
    out.resize(start + record.data.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(&record.data, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.extend_from_slice(b"\"}");
}

fn push_child(out: &mut Vec<u8>, child: &ChildShard) {
    let _ = write!(out, "{{\"ShardId\":\"{}\",\"ParentShards\":[", child.id);
    for (place, parent) in child.parents.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let _ = write!(out, "{comma}\"{parent}\"");
    }
    let (start, end) = (child.hash_key_range.start(), child.hash_key_range.end());
    let _ = write!(out, "],\"HashKeyRange\":{{\"StartingHashKey\":\"{start}\",\"EndingHashKey\":\"{end}\"}}}}");
}
