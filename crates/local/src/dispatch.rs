//! From the name of an operation to its file. Every request passes here.

use crate::operations;
use crate::state::State;
use crate::wire::ApiError;

/// Carries out one request and gives the body of its answer.
pub(crate) fn dispatch(state: &State, operation: &str, body: &[u8]) -> Result<Vec<u8>, ApiError> {
    let run = match operation {
        "CreateStream" => operations::create_stream::run,
        "DecreaseStreamRetentionPeriod" => operations::decrease_stream_retention_period::run,
        "DeleteStream" => operations::delete_stream::run,
        "DescribeStream" => operations::describe_stream::run,
        "DescribeStreamSummary" => operations::describe_stream_summary::run,
        "GetRecords" => operations::get_records::run,
        "GetShardIterator" => operations::get_shard_iterator::run,
        "IncreaseStreamRetentionPeriod" => operations::increase_stream_retention_period::run,
        "ListShards" => operations::list_shards::run,
        "ListStreams" => operations::list_streams::run,
        "MergeShards" => operations::merge_shards::run,
        "PutRecord" => operations::put_record::run,
        "PutRecords" => operations::put_records::run,
        "SplitShard" => operations::split_shard::run,
        "UpdateShardCount" => operations::update_shard_count::run,
        unknown => return Err(ApiError::unknown_operation(unknown)),
    };
    run(state, body)
}
