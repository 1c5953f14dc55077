//! `PutRecords`: up to 500 records and 10 MiB, each into the shard that owns its hash key, with a result each. All of a
//! call is numbered and appended in one step; a call over a limit is refused whole.
//!
//! Not modelled: the limits of 1 MiB and 1,000 records a second for each shard, and so failures of single records;
//! encryption; `DryRun` (refused); records without a partition key.

use std::borrow::Cow;
use std::io::Write as _;

use serde::Deserialize;
use shardwell_core::memory::kinesis::RoutedEntry;
use shardwell_core::{Placed, PutEntry, PutResult};

use crate::state::State;
use crate::wire::{ApiError, Blob, hash_key, parse, push_number_field, required, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    #[serde(borrow)]
    records: Option<Vec<Entry<'a>>>,
    dry_run: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    data: Option<Blob>,
    #[serde(borrow)]
    partition_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Cow<'a, str>>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    if request.dry_run == Some(true) {
        return Err(ApiError::not_modelled("DryRun"));
    }
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let records = required(request.records, "Records")?;
    // Hashed here, outside the lock.
    let entries: Result<Vec<RoutedEntry>, ApiError> = records
        .into_iter()
        .map(|record| entry(record.data, record.partition_key, record.explicit_hash_key.as_deref()))
        .collect();
    let results = state.kinesis.lock().put_records(&name, entries?, state.now())?;
    Ok(render(&results))
}

/// A record of a request, with its hash key.
pub(super) fn entry(
    data: Option<Blob>,
    partition_key: Option<Cow<'_, str>>,
    explicit_hash_key: Option<&str>,
) -> Result<RoutedEntry, ApiError> {
    let Blob(data) = required(data, "Data")?;
    let key = required(partition_key, "PartitionKey")?;
    let explicit_hash_key = explicit_hash_key.map(|key| hash_key(key, "ExplicitHashKey")).transpose()?;
    Ok(PutEntry { explicit_hash_key, ..PutEntry::new(&*key, data) }.into())
}

fn render(results: &[PutResult]) -> Vec<u8> {
    let failed = results.iter().filter(|result| result.is_err()).count();
    let mut out = Vec::with_capacity(64 + results.len() * 128);
    let _ = write!(out, "{{\"FailedRecordCount\":{failed},\"Records\":[");
    for (place, result) in results.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        match result {
            Ok(placed) => push_placed(&mut out, placed),
            Err(error) => {
                let failure = serde_json::json!({ "ErrorCode": error.code, "ErrorMessage": error.message });
                let _ = write!(out, "{failure}");
            }
        }
    }
    out.extend_from_slice(b"]}");
    out
}

/// Appends where a record landed.
pub(super) fn push_placed(out: &mut Vec<u8>, placed: &Placed) {
    let _ = write!(out, "{{\"ShardId\":\"{}\",", placed.shard);
    push_number_field(out, "SequenceNumber", placed.sequence_number);
    out.push(b'}');
}
