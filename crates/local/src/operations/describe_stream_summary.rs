//! `DescribeStreamSummary`: settings and state, without the shards.
//!
//! Not modelled: encryption (always `NONE`), enhanced monitoring (always none), registered consumers (always 0), warm
//! throughput, the rate limit of this call.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use shardwell_core::Timestamp;
use shardwell_core::memory::kinesis::StreamMode;

use super::describe_stream::EnhancedMonitoring;
use crate::state::State;
use crate::wire::{ApiError, StreamModeView, mode_view, parse, seconds, status_name, stream_name, to_json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    #[serde(borrow)]
    stream_name: Option<Cow<'a, str>>,
    #[serde(rename = "StreamARN", borrow)]
    stream_arn: Option<Cow<'a, str>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    stream_description_summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Summary {
    stream_name: String,
    #[serde(rename = "StreamARN")]
    stream_arn: String,
    stream_status: &'static str,
    stream_mode_details: StreamModeView,
    retention_period_hours: u64,
    #[serde(serialize_with = "seconds")]
    stream_creation_timestamp: Timestamp,
    enhanced_monitoring: [EnhancedMonitoring; 1],
    encryption_type: &'static str,
    open_shard_count: usize,
    consumer_count: usize,
    #[serde(rename = "MaxRecordSizeInKiB")]
    max_record_size_in_kib: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_distribution_strategy: Option<&'static str>,
}

pub(crate) fn run(state: &State, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let request: Request<'_> = parse(body)?;
    let name = stream_name(state, request.stream_name, request.stream_arn.as_deref())?;
    let summary = state.kinesis.lock().describe(&name, state.now())?;
    // The service tells the strategy for on-demand streams alone; the model allows AUTO on any.
    let record_distribution_strategy = match (summary.automatic_distribution, summary.mode) {
        (true, _) => Some("AUTO"),
        (false, StreamMode::OnDemand) => Some("PARTITION_KEY"),
        (false, StreamMode::Provisioned) => None,
    };
    to_json(&Answer {
        stream_description_summary: Summary {
            stream_name: summary.name,
            stream_arn: summary.arn,
            stream_status: status_name(summary.status),
            stream_mode_details: mode_view(summary.mode),
            retention_period_hours: summary.retention.as_secs() / 3600,
            stream_creation_timestamp: summary.created_at,
            enhanced_monitoring: Default::default(),
            encryption_type: "NONE",
            open_shard_count: summary.open_shards,
            consumer_count: 0,
            max_record_size_in_kib: summary.max_record_size / 1024,
            record_distribution_strategy,
        },
    })
}
