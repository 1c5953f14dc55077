//! `DecreaseStreamRetentionPeriod`: keeps records shorter, 24 to 8760 hours, at once. The stream must be ACTIVE.
//!
//! Not modelled: the stream does not pass through UPDATING.

use std::borrow::Cow;

use serde::Deserialize;
use shardwell_core::memory::kinesis::RETENTION_HOURS;

use crate::state::State;
use crate::wire::{ApiError, number, parse, stream_name};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    retention_period_hours: Option<i64>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let hours = number(request.retention_period_hours, &RETENTION_HOURS, "RetentionPeriodHours")?;
    state.kinesis.lock().decrease_retention(&name, hours, state.now())?;
    Ok(Vec::new())
}
