//! `PutRecord`: one record into the shard that owns its hash key, numbered and appended in one step.
//!
//! Numbers always rise within a shard, so `SequenceNumberForOrdering` asks for nothing more than is done anyway; it must
//! be a sequence number.
//!
//! Not modelled: the limits of 1 MiB and 1,000 records a second for each shard, encryption, `DryRun` (refused), records
//! without a partition key, a check that the number for ordering is of this stream.

use std::borrow::Cow;

use serde::Deserialize;

use super::put_records::{entry, push_placed};
use crate::state::State;
use crate::wire::{ApiError, Blob, parse, sequence_number, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    data: Option<Blob>,
    #[serde(borrow)]
    partition_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    sequence_number_for_ordering: Option<Cow<'a, str>>,
    dry_run: Option<bool>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    if request.dry_run == Some(true) {
        return Err(ApiError::not_modelled("DryRun"));
    }
    if let Some(number) = request.sequence_number_for_ordering {
        sequence_number(&number, "SequenceNumberForOrdering")?;
    }
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let entry = entry(request.data, request.partition_key, request.explicit_hash_key.as_deref())?;
    let results = state.kinesis.lock().put_records(&name, vec![entry], state.now())?;
    let mut out = Vec::with_capacity(256);
    for result in results {
        push_placed(&mut out, &result?);
    }
    Ok(out)
}
