//! `UpdateShardCount`: UPDATING for a while; then the stream has the wanted number of open shards of equal width, made by
//! splits and merges with their parents. At most double, at least half, never the same number.
//!
//! Not modelled: the limit of ten calls a day; all shards change at one moment, not one after the other.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use shardwell_core::memory::kinesis::MAX_SHARDS;

use crate::state::State;
use crate::wire::{ApiError, number, parse, required, stream_name, to_json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    target_shard_count: Option<i64>,
    #[serde(borrow)]
    scaling_type: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    current_shard_count: usize,
    target_shard_count: u32,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let target = number(request.target_shard_count, &(1..=MAX_SHARDS), "TargetShardCount")?;
    let scaling = required(request.scaling_type, "ScalingType")?;
    if scaling != "UNIFORM_SCALING" {
        return Err(ApiError::validation(format!("ScalingType is `{scaling}`: UNIFORM_SCALING may be")));
    }
    let summary = {
        let (mut kinesis, now) = (state.kinesis.lock(), state.now());
        let summary = kinesis.describe(&name, now)?;
        kinesis.update_shard_count(&name, target, now)?;
        summary
    };
    to_json(&Answer {
        stream_name: summary.name,
        stream_arn: summary.arn,
        current_shard_count: summary.open_shards,
        target_shard_count: target,
    })
}
