//! The names of all metrics of this crate. Units are the last part of a name. They are those of the KPL, by what they measure.
//!
//! Every metric has the label `stream`; those marked with a shard have the label `shard` too: the one that a record was meant for,
//! empty where that is not known.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shardwell_core::ShardId;

use crate::pipeline::{Counts, Request};

/// Counter: user records taken (the KPL's `UserRecordsReceived`).
pub const RECEIVED: &str = "shardwell_put_user_records_received_total";
/// Gauge: user records whose fate is not known yet (`UserRecordsPending`), of all streams that share the budget.
pub const PENDING: &str = "shardwell_put_user_records_pending";
/// Gauge: what these count in the budget, in bytes.
pub const PENDING_BYTES: &str = "shardwell_put_pending_bytes";
/// Counter: user records by `result` (`landed`, `failed`) (`UserRecordsPut`).
pub const USER_RECORDS: &str = "shardwell_put_user_records_total";
/// Counter, with a shard: records for Kinesis by `result` (`landed`, `failed`), once per attempt (`KinesisRecordsPut`).
pub const RECORDS: &str = "shardwell_put_records_total";
/// Counter, with a shard: bytes of records that landed (`KinesisRecordsDataPut`).
pub const BYTES: &str = "shardwell_put_bytes_total";
/// Counter, with a shard: attempts that failed, by `code` (`ErrorsByCode`).
pub const ERRORS: &str = "shardwell_put_errors_total";
/// Histogram: user records in a record for Kinesis (`UserRecordsPerKinesisRecord`).
pub const USER_RECORDS_PER_RECORD: &str = "shardwell_put_user_records_per_record";
/// Histogram: records in a request (`KinesisRecordsPerPutRecordsRequest`).
pub const RECORDS_PER_REQUEST: &str = "shardwell_put_records_per_request";
/// Histogram: time that a request took (`RequestTime`).
pub const REQUEST_TIME: &str = "shardwell_put_request_seconds";
/// Histogram: time that a record waited before an attempt (`BufferingTime`).
pub const BUFFERING_TIME: &str = "shardwell_put_buffering_seconds";
/// Counter: listings of the shards, by `result` (`ok`, `failed`).
pub const LISTINGS: &str = "shardwell_put_shard_listings_total";

/// Registers unit and description of every metric with the recorder that is installed.
pub fn describe() {
    describe_counter!(RECEIVED, Unit::Count, "User records taken");
    describe_gauge!(PENDING, Unit::Count, "User records whose fate is not known yet");
    describe_gauge!(PENDING_BYTES, Unit::Bytes, "What they count in the budget");
    describe_counter!(USER_RECORDS, Unit::Count, "User records by result");
    describe_counter!(RECORDS, Unit::Count, "Records for Kinesis by result of the attempt");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of records that landed");
    describe_counter!(ERRORS, Unit::Count, "Attempts that failed by error code");
    describe_histogram!(USER_RECORDS_PER_RECORD, Unit::Count, "User records in a record for Kinesis");
    describe_histogram!(RECORDS_PER_REQUEST, Unit::Count, "Records in a request");
    describe_histogram!(REQUEST_TIME, Unit::Seconds, "Time that a request took");
    describe_histogram!(BUFFERING_TIME, Unit::Seconds, "Time that a record waited before an attempt");
    describe_counter!(LISTINGS, Unit::Count, "Listings of the shards by result");
}

/// A request was answered after `took`.
pub(crate) fn answered(stream: &str, request: &Request, took: Duration) {
    let labels = [("stream", stream.to_owned())];
    histogram!(RECORDS_PER_REQUEST, &labels).record(request.records() as f64);
    histogram!(REQUEST_TIME, &labels).record(took);
}

/// The answer for one record.
pub(crate) struct Answer {
    labels: [(&'static str, String); 2],
    bytes: u64,
}

impl Answer {
    /// `waited` is the time before the attempt.
    pub(crate) fn of(
        stream: &str,
        shard: Option<&ShardId>,
        user_records: usize,
        bytes: usize,
        waited: Duration,
    ) -> Self {
        let shard = shard.map(ToString::to_string).unwrap_or_default();
        let of_stream = [("stream", stream.to_owned())];
        histogram!(USER_RECORDS_PER_RECORD, &of_stream).record(user_records as f64);
        histogram!(BUFFERING_TIME, &of_stream).record(waited);
        Self { labels: [("stream", stream.to_owned()), ("shard", shard)], bytes: bytes as u64 }
    }

    pub(crate) fn landed(&self) {
        self.count("landed");
        counter!(BYTES, &self.labels).increment(self.bytes);
    }

    pub(crate) fn failed(&self, code: &str) {
        self.count("failed");
        let [stream, shard] = self.labels.clone();
        counter!(ERRORS, &[stream, shard, ("code", code.to_owned())]).increment(1);
    }

    fn count(&self, result: &str) {
        let [stream, shard] = self.labels.clone();
        counter!(RECORDS, &[stream, shard, ("result", result.to_owned())]).increment(1);
    }
}

/// User records were taken and settled.
pub(crate) fn counted(stream: &str, counts: Counts) {
    if counts.received > 0 {
        counter!(RECEIVED, &[("stream", stream.to_owned())]).increment(counts.received);
    }
    for (result, count) in [("landed", counts.landed), ("failed", counts.failed)] {
        if count > 0 {
            counter!(USER_RECORDS, &[("stream", stream.to_owned()), ("result", result.to_owned())]).increment(count);
        }
    }
}

/// How much of the budget is taken.
pub(crate) fn pending(stream: &str, (bytes, records): (usize, usize)) {
    let labels = [("stream", stream.to_owned())];
    gauge!(PENDING, &labels).set(records as f64);
    gauge!(PENDING_BYTES, &labels).set(bytes as f64);
}

/// The shards were listed, or could not be.
pub(crate) fn listed(stream: &str, result: &'static str) {
    counter!(LISTINGS, &[("stream", stream.to_owned()), ("result", result.to_owned())]).increment(1);
}
