//! `DescribeStream`: settings and state, and a page of the shards, closed ones included until they have expired.
//!
//! Not modelled: encryption (always `NONE`), enhanced monitoring (always none), the rate limit of this call.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use shardwell_core::{ShardFilter, Timestamp};

use crate::state::State;
use crate::wire::{
    ApiError, ShardView, StreamModeView, mode_view, parse, seconds, status_name, stream_name, to_json, within,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
    limit: Option<i64>,
    #[serde(borrow)]
    exclusive_start_shard_id: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    stream_description: Description,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeView,
    shards: Vec<ShardView>,
    has_more_shards: bool,
    retention_period_hours: u64,
    #[serde(serialize_with = "seconds")]
    stream_creation_timestamp: Timestamp,
    enhanced_monitoring: [EnhancedMonitoring; 1],
    encryption_type: &'static str,
}

/// The shard-level metrics that are on: none.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EnhancedMonitoring {
    shard_level_metrics: [(); 0],
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let limit = within(request.limit.unwrap_or(100), &(1..=10_000), "Limit")?;
    let filter =
        request.exclusive_start_shard_id.map_or(ShardFilter::All, |id| ShardFilter::AfterShardId((*id).into()));
    let (summary, shards) = {
        let (mut kinesis, now) = (state.kinesis.lock(), state.now());
        (kinesis.describe(&name, now)?, kinesis.list_shards(&name, &filter, now)?)
    };
    to_json(&Answer {
        stream_description: Description {
            stream_name: summary.name,
            stream_arn: summary.arn,
            stream_status: status_name(summary.status),
            stream_mode_details: mode_view(summary.mode),
            has_more_shards: shards.len() > limit as usize,
            shards: shards.iter().take(limit as usize).map(ShardView::from).collect(),
            retention_period_hours: summary.retention.as_secs() / 3600,
            stream_creation_timestamp: summary.created_at,
            enhanced_monitoring: Default::default(),
            encryption_type: "NONE",
        },
    })
}
