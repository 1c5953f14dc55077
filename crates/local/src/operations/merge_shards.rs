//! `MergeShards`: UPDATING for a while; then the two shards are closed and their child is open.
//!
//! Not modelled: the limit on calls a second.

use std::borrow::Cow;

use serde::Deserialize;

use crate::state::State;
use crate::wire::{ApiError, parse, required, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    #[serde(borrow)]
    shard_to_merge: Option<Cow<'a, str>>,
    #[serde(borrow)]
    adjacent_shard_to_merge: Option<Cow<'a, str>>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let shard = required(request.shard_to_merge, "ShardToMerge")?;
    let adjacent = required(request.adjacent_shard_to_merge, "AdjacentShardToMerge")?;
    state.kinesis.lock().merge_shards(&name, &(*shard).into(), &(*adjacent).into(), state.now())?;
    Ok(Vec::new())
}
