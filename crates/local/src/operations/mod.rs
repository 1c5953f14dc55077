//! One file per operation of the Kinesis API. Each says what it models and what it does not.

pub(crate) mod create_stream;
pub(crate) mod decrease_stream_retention_period;
pub(crate) mod delete_stream;
pub(crate) mod describe_stream;
pub(crate) mod describe_stream_summary;
pub(crate) mod get_records;
pub(crate) mod get_shard_iterator;
pub(crate) mod increase_stream_retention_period;
pub(crate) mod list_shards;
pub(crate) mod list_streams;
pub(crate) mod merge_shards;
pub(crate) mod put_record;
pub(crate) mod put_records;
pub(crate) mod split_shard;
pub(crate) mod update_shard_count;
