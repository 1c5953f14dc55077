//! The SDK's types to core's, and back.

use std::time::Duration;

use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types as sdk;
use shardwell_core::{
    ChildShard, HashKeyRange, PartitionKey, Placed, PutEntry, PutError, PutErrorKind, PutResult, Record,
    SequenceNumber, Shard, ShardFilter, ShardId, StartPosition, StreamDescription, StreamIdentity, StreamStatus,
    Timestamp,
};

/// An answer that does not say what the API promises.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

fn missing(field: &str) -> Malformed {
    Malformed(format!("`{field}` is missing"))
}

pub(super) fn timestamp(time: &DateTime) -> Result<Timestamp, Malformed> {
    time.to_millis().map(Timestamp::from_millis).map_err(|error| Malformed(format!("a time is out of range: {error}")))
}

pub(super) fn date_time(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_millis())
}

fn sequence_number(text: &str) -> Result<SequenceNumber, Malformed> {
    text.parse().map_err(|error| Malformed(format!("{error}")))
}

/// Takes the payload and the key over without copying them.
pub(super) fn record(record: sdk::Record) -> Result<Record, Malformed> {
    let arrival = record.approximate_arrival_timestamp.ok_or_else(|| missing("ApproximateArrivalTimestamp"))?;
    Ok(Record {
        sequence_number: sequence_number(&record.sequence_number)?,
        partition_key: record.partition_key.map(PartitionKey::from),
        arrival: timestamp(&arrival)?,
        data: record.data.into_bytes(),
    })
}

fn hash_key_range(range: Option<sdk::HashKeyRange>) -> Result<HashKeyRange, Malformed> {
    let range = range.ok_or_else(|| missing("HashKeyRange"))?;
    let key = |text: &str| text.parse::<u128>().map_err(|_| Malformed(format!("`{text}` is not a hash key")));
    HashKeyRange::new(key(&range.starting_hash_key)?, key(&range.ending_hash_key)?)
        .map_err(|error| Malformed(error.to_string()))
}

pub(super) fn shard(shard: sdk::Shard) -> Result<Shard, Malformed> {
    let numbers = shard.sequence_number_range.ok_or_else(|| missing("SequenceNumberRange"))?;
    Ok(Shard {
        id: shard.shard_id.into(),
        parent: shard.parent_shard_id.map(ShardId::from),
        adjacent_parent: shard.adjacent_parent_shard_id.map(ShardId::from),
        hash_key_range: hash_key_range(shard.hash_key_range)?,
        starting_sequence_number: sequence_number(&numbers.starting_sequence_number)?,
        ending_sequence_number: numbers.ending_sequence_number.as_deref().map(sequence_number).transpose()?,
    })
}

pub(super) fn child_shard(child: sdk::ChildShard) -> Result<ChildShard, Malformed> {
    Ok(ChildShard {
        id: child.shard_id.into(),
        parents: child.parent_shards.into_iter().map(ShardId::from).collect(),
        hash_key_range: hash_key_range(child.hash_key_range)?,
    })
}

/// `None` where the service needs no filter.
pub(super) fn shard_filter(filter: &ShardFilter) -> Option<sdk::ShardFilter> {
    let blank = sdk::ShardFilter::builder();
    let filled = match filter {
        ShardFilter::All => return None,
        ShardFilter::AfterShardId(id) => blank.r#type(sdk::ShardFilterType::AfterShardId).shard_id(id.as_str()),
        ShardFilter::AtLatest => blank.r#type(sdk::ShardFilterType::AtLatest),
        ShardFilter::AtTrimHorizon => blank.r#type(sdk::ShardFilterType::AtTrimHorizon),
        ShardFilter::FromTrimHorizon => blank.r#type(sdk::ShardFilterType::FromTrimHorizon),
        ShardFilter::AtTimestamp(time) => blank.r#type(sdk::ShardFilterType::AtTimestamp).timestamp(date_time(*time)),
        ShardFilter::FromTimestamp(time) => {
            blank.r#type(sdk::ShardFilterType::FromTimestamp).timestamp(date_time(*time))
        }
    };
    // The builder refuses only a filter without a type, and each arm above sets one.
    filled.build().ok()
}

/// The three fields of `GetShardIterator` that say where to start.
pub(super) fn start(position: StartPosition) -> (sdk::ShardIteratorType, Option<String>, Option<DateTime>) {
    match position {
        StartPosition::TrimHorizon => (sdk::ShardIteratorType::TrimHorizon, None, None),
        StartPosition::Latest => (sdk::ShardIteratorType::Latest, None, None),
        StartPosition::AtTimestamp(time) => (sdk::ShardIteratorType::AtTimestamp, None, Some(date_time(time))),
        StartPosition::AtSequenceNumber(number) => {
            (sdk::ShardIteratorType::AtSequenceNumber, Some(number.to_string()), None)
        }
        StartPosition::AfterSequenceNumber(number) => {
            (sdk::ShardIteratorType::AfterSequenceNumber, Some(number.to_string()), None)
        }
    }
}

pub(super) fn description(summary: &sdk::StreamDescriptionSummary) -> Result<StreamDescription, Malformed> {
    let mut description = StreamDescription::new(StreamIdentity {
        name: summary.stream_name.clone(),
        arn: summary.stream_arn.clone(),
        created_at: timestamp(&summary.stream_creation_timestamp)?,
    });
    description.status = status(&summary.stream_status);
    let hours = u64::try_from(summary.retention_period_hours)
        .map_err(|_| Malformed(format!("the retention is {} hours", summary.retention_period_hours)))?;
    description.retention = Duration::from_secs(hours * 60 * 60);
    description.automatic_distribution =
        summary.record_distribution_strategy == Some(sdk::RecordDistributionStrategy::Auto);
    Ok(description)
}

fn status(status: &sdk::StreamStatus) -> StreamStatus {
    match status {
        sdk::StreamStatus::Creating => StreamStatus::Creating,
        sdk::StreamStatus::Active => StreamStatus::Active,
        sdk::StreamStatus::Deleting => StreamStatus::Deleting,
        // A state that this version of the SDK does not know is some change in progress; were the stream not readable,
        // reading would say so.
        _ => StreamStatus::Updating,
    }
}

pub(super) fn put_entry(entry: &PutEntry) -> Result<sdk::PutRecordsRequestEntry, Malformed> {
    sdk::PutRecordsRequestEntry::builder()
        .data(Blob::from_maybe_shared(entry.data.clone()))
        .partition_key(entry.partition_key.as_str())
        .set_explicit_hash_key(entry.explicit_hash_key.map(|key| key.to_string()))
        .build()
        .map_err(|error| Malformed(error.to_string()))
}

pub(super) fn put_result(entry: sdk::PutRecordsResultEntry) -> Result<PutResult, Malformed> {
    if let Some(code) = entry.error_code {
        let throttled = matches!(code.as_str(), "ProvisionedThroughputExceededException" | "KMSThrottlingException");
        let kind = if throttled { PutErrorKind::Throttled } else { PutErrorKind::Internal };
        return Ok(Err(PutError { kind, code, message: entry.error_message.unwrap_or_default() }));
    }
    let shard = entry.shard_id.ok_or_else(|| missing("ShardId"))?.into();
    let number = entry.sequence_number.ok_or_else(|| missing("SequenceNumber"))?;
    Ok(Ok(Placed { shard, sequence_number: sequence_number(&number)? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_moved_and_not_copied() {
        let bytes = shardwell_core::Bytes::from(vec![7u8; 1024]);
        let address = bytes.as_ptr();
        let sent = put_entry(&PutEntry::new("key", bytes)).expect("complete");
        assert_eq!(sent.data.as_ref().as_ptr(), address);

        let received = sdk::Record::builder()
            .sequence_number("49")
            .data(sent.data)
            .approximate_arrival_timestamp(DateTime::from_millis(1_357_017_300_007))
            .build()
            .expect("complete");
        let record = record(received).expect("well formed");
        assert_eq!(record.data.as_ptr(), address);
        assert_eq!(record.arrival, Timestamp::from_millis(1_357_017_300_007));
        assert_eq!(record.partition_key, None, "streams with AUTO distribution have records without one");
    }

    #[test]
    fn what_is_malformed_is_said() {
        let record_without_time = sdk::Record::builder().sequence_number("1").data(Blob::new("x")).build();
        assert_eq!(
            record(record_without_time.expect("complete")),
            Err(Malformed("`ApproximateArrivalTimestamp` is missing".to_owned()))
        );
        let range = sdk::HashKeyRange::builder().starting_hash_key("9").ending_hash_key("1").build().expect("complete");
        assert!(hash_key_range(Some(range)).is_err());
        let range = sdk::HashKeyRange::builder().starting_hash_key("x").ending_hash_key("1").build().expect("complete");
        assert!(hash_key_range(Some(range)).is_err());
    }

    #[test]
    fn results_are_sorted_by_what_to_do() {
        let failed = |code: &str| sdk::PutRecordsResultEntry::builder().error_code(code).error_message("why").build();
        let kind = |code: &str| put_result(failed(code)).expect("well formed").expect_err("failed").kind;
        assert_eq!(kind("ProvisionedThroughputExceededException"), PutErrorKind::Throttled);
        assert_eq!(kind("InternalFailure"), PutErrorKind::Internal);
        let placed =
            sdk::PutRecordsResultEntry::builder().shard_id("shardId-000000000001").sequence_number("5").build();
        let placed = put_result(placed).expect("well formed").expect("placed");
        assert_eq!((placed.shard.as_str(), placed.sequence_number), ("shardId-000000000001", 5u64.into()));
        assert!(put_result(sdk::PutRecordsResultEntry::builder().build()).is_err());
    }
}
