//! `DeleteStream`: DELETING for a while, then gone with all its records. Refused while it is DELETING already. From then
//! on it takes and gives no records.
//!
//! Not modelled: `EnforceConsumerDeletion` has nothing to do, since consumers cannot be registered here.

use std::borrow::Cow;

use serde::Deserialize;

use crate::state::State;
use crate::wire::{ApiError, parse, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    state.kinesis.lock().delete_stream(&name, state.now())?;
    Ok(Vec::new())
}
