//! `SplitShard`: UPDATING for a while; then the shard is closed and its two children are open.
//!
//! Not modelled: the account's limit on shards, the limit on calls a second.

use std::borrow::Cow;

use serde::Deserialize;

use crate::state::State;
use crate::wire::{ApiError, hash_key, parse, required, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    #[serde(borrow)]
    shard_to_split: Option<Cow<'a, str>>,
    #[serde(borrow)]
    new_starting_hash_key: Option<Cow<'a, str>>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let shard = required(request.shard_to_split, "ShardToSplit")?;
    let new_start = hash_key(&required(request.new_starting_hash_key, "NewStartingHashKey")?, "NewStartingHashKey")?;
    state.kinesis.lock().split_shard(&name, &(*shard).into(), new_start, state.now())?;
    Ok(Vec::new())
}
