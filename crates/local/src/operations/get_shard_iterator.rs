//! `GetShardIterator`: every type; `LATEST` and `AT_TIMESTAMP` are resolved at once. A sequence number must be one that
//! the shard issued, a time must not lie in the future.
//!
//! Not modelled: the limit of 5 calls a second for each shard.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use shardwell_core::StartPosition;

use crate::state::State;
use crate::wire::{ApiError, EpochSeconds, encode_iterator, parse, required, sequence_number, stream_name, to_json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    #[serde(borrow)]
    shard_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    shard_iterator_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    starting_sequence_number: Option<Cow<'a, str>>,
    timestamp: Option<EpochSeconds>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    shard_iterator: String,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let position = position(&request)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let shard = required(request.shard_id, "ShardId")?;
    let iterator = state.kinesis.lock().shard_iterator(&name, &(*shard).into(), position, state.now())?;
    to_json(&Answer { shard_iterator: encode_iterator(&iterator) })
}

fn position(request: &Request<'_>) -> Result<StartPosition, ApiError> {
    let name = required(request.shard_iterator_type.as_deref(), "ShardIteratorType")?;
    let number = request.starting_sequence_number.as_deref();
    let number = number.map(|text| sequence_number(text, "StartingSequenceNumber")).transpose()?;
    let time = request.timestamp.map(|EpochSeconds(time)| time);
    match (name, number, time) {
        ("TRIM_HORIZON", None, None) => Ok(StartPosition::TrimHorizon),
        ("LATEST", None, None) => Ok(StartPosition::Latest),
        ("AT_SEQUENCE_NUMBER", Some(number), None) => Ok(StartPosition::AtSequenceNumber(number)),
        ("AFTER_SEQUENCE_NUMBER", Some(number), None) => Ok(StartPosition::AfterSequenceNumber(number)),
        ("AT_TIMESTAMP", None, Some(time)) => Ok(StartPosition::AtTimestamp(time)),
        ("TRIM_HORIZON" | "LATEST" | "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" | "AT_TIMESTAMP", ..) => {
            Err(ApiError::invalid(format!(
                "{name} takes {}",
                match name {
                    "AT_TIMESTAMP" => "a Timestamp and no StartingSequenceNumber",
                    "TRIM_HORIZON" | "LATEST" => "neither a StartingSequenceNumber nor a Timestamp",
                    _ => "a StartingSequenceNumber and no Timestamp",
                }
            )))
        }
        _ => Err(ApiError::validation(format!("ShardIteratorType is `{name}`, which is none"))),
    }
}
