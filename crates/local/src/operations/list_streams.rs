//! `ListStreams`: every stream by name, in pages, from a name or a token on.
//!
//! Not modelled: the limit on calls a second.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use shardwell_core::Timestamp;
use shardwell_core::memory::kinesis::StreamSummary;

use crate::state::State;
use crate::wire::{
    ApiError, ListStreamsToken, StreamModeView, mode_view, parse, seconds, status_name, to_json, within,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    limit: Option<i64>,
    #[serde(borrow)]
    exclusive_start_stream_name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    next_token: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    stream_names: Vec<String>,
    has_more_streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
    stream_summaries: Vec<Summary>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeView,
    #[serde(serialize_with = "seconds")]
    stream_creation_timestamp: Timestamp,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let limit = within(request.limit.unwrap_or(100), &(1..=10_000), "Limit")?;
    let token = request.next_token.map(|token| ListStreamsToken::decode(&token)).transpose()?;
    // A client that pages may send the name that it started from along with the token: the later one counts.
    let after = token.map(|token| token.after_stream).unwrap_or_default();
    let after = after.max(request.exclusive_start_stream_name.map(Cow::into_owned).unwrap_or_default());
    let mut streams = state.kinesis.lock().list_streams(state.now());
    streams.retain(|stream| stream.name > after);
    let has_more_streams = streams.len() > limit as usize;
    streams.truncate(limit as usize);
    let token = |last: &StreamSummary| ListStreamsToken { after_stream: last.name.clone() }.encode();
    to_json(&Answer {
        stream_names: streams.iter().map(|stream| stream.name.clone()).collect(),
        has_more_streams,
        next_token: streams.last().filter(|_| has_more_streams).map(token),
        stream_summaries: streams.into_iter().map(Summary::from).collect(),
    })
}

impl From<StreamSummary> for Summary {
    fn from(stream: StreamSummary) -> Self {
        Self {
            stream_name: stream.name,
            stream_arn: stream.arn,
            stream_status: status_name(stream.status),
            stream_mode_details: mode_view(stream.mode),
            stream_creation_timestamp: stream.created_at,
        }
    }
}
