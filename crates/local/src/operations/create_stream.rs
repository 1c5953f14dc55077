//! `CreateStream`: a stream that is CREATING for a while and then ACTIVE; provisioned with a number of shards, or
//! on-demand with four; tags and the largest record size are kept.
//!
//! Not modelled: the account's limits on shards and streams, the rate limit of this call, `WarmThroughputMiBps`
//! (refused). An on-demand stream never reshards by itself.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use shardwell_core::memory::kinesis::{DEFAULT_MAX_RECORD_SIZE, MAX_SHARDS, StreamMode, StreamSettings};

use crate::state::State;
use crate::wire::{ApiError, number, parse, required, stream_name, within};

/// Open shards of a new on-demand stream (Kinesis developer guide).
const ON_DEMAND_SHARDS: u32 = 4;
/// The bounds of `MaxRecordSizeInKiB` (Kinesis API).
const RECORD_SIZE_KIB: std::ops::RangeInclusive<u32> = 1024..=10_240;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    shard_count: Option<i64>,
    stream_mode_details: Option<StreamModeDetails<'a>>,
    tags: Option<BTreeMap<String, String>>,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: Option<i64>,
    #[serde(rename = "WarmThroughputMiBps")]
    warm_throughput: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StreamModeDetails<'a> {
    #[serde(borrow)]
    stream_mode: Option<Cow<'a, str>>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name.clone(), None)?;
    let settings = settings(request)?;
    state.kinesis.lock().create_stream(&name, settings, state.now())?;
    Ok(Vec::new())
}

fn settings(request: Request<'_>) -> Result<StreamSettings, ApiError> {
    if request.warm_throughput.is_some() {
        return Err(ApiError::not_modelled("WarmThroughputMiBps"));
    }
    let mode = match request.stream_mode_details {
        Some(details) => mode(&required(details.stream_mode, "StreamModeDetails.StreamMode")?)?,
        None => StreamMode::Provisioned,
    };
    let shards = match (mode, request.shard_count) {
        (StreamMode::OnDemand, None) => ON_DEMAND_SHARDS,
        (StreamMode::OnDemand, Some(_)) => {
            return Err(ApiError::validation("ShardCount cannot be set for an on-demand stream"));
        }
        (StreamMode::Provisioned, count) => number(count, &(1..=MAX_SHARDS), "ShardCount")?,
    };
    let max_record_size = match request.max_record_size_in_kib {
        Some(kib) => within(kib, &RECORD_SIZE_KIB, "MaxRecordSizeInKiB")? as usize * 1024,
        None => DEFAULT_MAX_RECORD_SIZE,
    };
    Ok(StreamSettings { mode, max_record_size, tags: request.tags.unwrap_or_default(), ..StreamSettings::new(shards) })
}

fn mode(name: &str) -> Result<StreamMode, ApiError> {
    match name {
        "PROVISIONED" => Ok(StreamMode::Provisioned),
        "ON_DEMAND" => Ok(StreamMode::OnDemand),
        _ => Err(ApiError::validation(format!("StreamMode is `{name}`: PROVISIONED or ON_DEMAND may be"))),
    }
}
