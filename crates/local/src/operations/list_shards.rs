//! `ListShards`: every filter, and pages. A token goes on with the filter that it was made for. Refused while the stream
//! is CREATING.
//!
//! The service refuses a token together with the name of a stream; the AWS CLI sends both when it pages. So they are
//! taken together here, as long as they agree.
//!
//! Not modelled: the limit on calls a second.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use shardwell_core::memory::kinesis::{KinesisError, KinesisErrorKind, StreamSummary};
use shardwell_core::{Shard, ShardFilter, StreamStatus, Timestamp};

use crate::state::State;
use crate::wire::{ApiError, EpochSeconds, ListShardsToken, ShardView, parse, required, stream_name, to_json, within};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    #[serde(borrow)]
    next_token: Option<Cow<'a, str>>,
    #[serde(borrow)]
    exclusive_start_shard_id: Option<Cow<'a, str>>,
    max_results: Option<i64>,
    stream_creation_timestamp: Option<EpochSeconds>,
    shard_filter: Option<FilterRequest<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct FilterRequest<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    shard_id: Option<Cow<'a, str>>,
    timestamp: Option<EpochSeconds>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    shards: Vec<ShardView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// What is to be listed, once a token and the other fields have been brought together.
struct Listing {
    stream: String,
    /// From a token: the very stream that it was made for.
    created: Option<Timestamp>,
    filter: ShardFilter,
    after: String,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let limit = within(request.max_results.unwrap_or(1000), &(1..=10_000), "MaxResults")?;
    let creation_second = request.stream_creation_timestamp.map(|EpochSeconds(time)| time.as_millis().div_euclid(1000));
    let now = state.now();
    let listing = listing(state, request, now)?;
    let (summary, mut shards) = {
        let mut kinesis = state.kinesis.lock();
        (kinesis.describe(&listing.stream, now)?, kinesis.list_shards(&listing.stream, &listing.filter, now)?)
    };
    check_stream(&summary, &listing, creation_second)?;
    shards.retain(|shard| *shard.id.as_str() > *listing.after);
    let more = shards.len() > limit as usize;
    shards.truncate(limit as usize);
    let token = |last: &Shard| {
        ListShardsToken::new(&listing.stream, summary.created_at, &listing.filter, last.id.as_str(), now).encode()
    };
    let next_token = shards.last().filter(|_| more).map(token);
    to_json(&Answer { shards: shards.iter().map(ShardView::from).collect(), next_token })
}

fn listing(state: &State, request: Request<'_>, now: Timestamp) -> Result<Listing, ApiError> {
    let filter = request.shard_filter.as_ref().map(filter).transpose()?;
    let after = request.exclusive_start_shard_id.map(Cow::into_owned);
    let Some(token) = request.next_token else {
        let stream = stream_name(state, request.stream_name, request.stream_arn.as_deref())?.into_owned();
        let (filter, after) = (filter.unwrap_or(ShardFilter::All), after.unwrap_or_default());
        return Ok(Listing { stream, created: None, filter, after });
    };
    let token = ListShardsToken::decode(&token, now)?;
    let named = match (&request.stream_name, &request.stream_arn) {
        (None, None) => None,
        _ => Some(stream_name(state, request.stream_name, request.stream_arn.as_deref())?),
    };
    let agrees = named.is_none_or(|name| name == token.stream)
        && filter.is_none_or(|filter| filter == token.filter())
        && after.is_none_or(|after| after <= token.after);
    if !agrees {
        return Err(ApiError::invalid("NextToken was made for another stream, filter or start than the request names"));
    }
    let (created, filter) = (Some(Timestamp::from_millis(token.created)), token.filter());
    Ok(Listing { stream: token.stream, created, filter, after: token.after })
}

fn filter(request: &FilterRequest<'_>) -> Result<ShardFilter, ApiError> {
    let time = || required(request.timestamp, "ShardFilter.Timestamp").map(|EpochSeconds(time)| time);
    let name = required(request.r#type.as_deref(), "ShardFilter.Type")?;
    let takes_shard = name == "AFTER_SHARD_ID";
    let takes_time = matches!(name, "AT_TIMESTAMP" | "FROM_TIMESTAMP");
    let filter = match name {
        "AFTER_SHARD_ID" => {
            ShardFilter::AfterShardId(required(request.shard_id.as_deref(), "ShardFilter.ShardId")?.into())
        }
        "AT_LATEST" => ShardFilter::AtLatest,
        "AT_TRIM_HORIZON" => ShardFilter::AtTrimHorizon,
        "FROM_TRIM_HORIZON" => ShardFilter::FromTrimHorizon,
        "AT_TIMESTAMP" => ShardFilter::AtTimestamp(time()?),
        "FROM_TIMESTAMP" => ShardFilter::FromTimestamp(time()?),
        _ => return Err(ApiError::validation(format!("ShardFilter.Type is `{name}`, which is none"))),
    };
    if (request.shard_id.is_some() && !takes_shard) || (request.timestamp.is_some() && !takes_time) {
        return Err(ApiError::invalid(format!("the filter {name} does not take what was given beside it")));
    }
    Ok(filter)
}

fn check_stream(summary: &StreamSummary, listing: &Listing, creation_second: Option<i64>) -> Result<(), ApiError> {
    let refuse = |kind, message: String| Err(KinesisError::new(kind, message).into());
    let created = summary.created_at;
    // Some SDKs send whole seconds.
    let other = listing.created.is_some_and(|wanted| wanted != created)
        || creation_second.is_some_and(|second| second != created.as_millis().div_euclid(1000));
    if other {
        let message = format!("stream `{}` was created at {created}, not when the request says", summary.name);
        return refuse(KinesisErrorKind::ResourceNotFound, message);
    }
    match summary.status {
        StreamStatus::Creating => refuse(
            KinesisErrorKind::ResourceInUse,
            format!("stream `{}` is CREATING: wait until it is ACTIVE", summary.name),
        ),
        StreamStatus::Active | StreamStatus::Updating | StreamStatus::Deleting => Ok(()),
    }
}
