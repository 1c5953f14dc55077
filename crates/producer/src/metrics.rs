//! The names of all metrics of this crate. Units are the last part of a name. They are those of the KPL, by what they measure.
//!
//! Every metric has the label `stream`; those marked with a shard have the label `shard` too: the one that a record was meant for,
//! empty where that is not known.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use shardwell_core::ShardId;

use crate::failure::PutFailureKind;
use crate::pipeline::{Counts, Fate, Request, Settled, Verdict, WRONG_SHARD};
use crate::settings::cost;

/// Counter: user records taken (the KPL's `UserRecordsReceived`).
pub const RECEIVED: &str = "shardwell_put_user_records_received_total";
/// Gauge: user records whose fate is not known yet (`UserRecordsPending`), of all streams that share the budget.
pub const PENDING: &str = "shardwell_put_user_records_pending";
/// Gauge: what these count in the budget, in bytes.
pub const PENDING_BYTES: &str = "shardwell_put_pending_bytes";
/// Counter: user records by `result` (`landed`, `expired`, `denied`, `no_such_stream`, `invalid`) (`UserRecordsPut`,
/// `UserRecordExpired`).
pub const USER_RECORDS: &str = "shardwell_put_user_records_total";
/// Counter: payloads and partition keys of user records that landed (`UserRecordsDataPut`).
pub const USER_BYTES: &str = "shardwell_put_user_bytes_total";
/// Histogram: how often a user record that is settled was tried again (`RetriesPerRecord`).
pub const RETRIES: &str = "shardwell_put_retries_per_user_record";
/// Counter, with a shard: records for Kinesis by `result` (`landed`, `failed`), once per attempt (`KinesisRecordsPut`).
pub const RECORDS: &str = "shardwell_put_records_total";
/// Counter, with a shard: bytes of records that landed (`KinesisRecordsDataPut`).
pub const BYTES: &str = "shardwell_put_bytes_total";
/// Counter, with a shard: attempts that failed, by `code` (`ErrorsByCode`; all of them together: `AllErrors`). Those in which a record
/// got into a wrong shard count as landed too, have the code `WrongShard`, and no shard.
pub const ERRORS: &str = "shardwell_put_errors_total";
/// Histogram: user records in a record for Kinesis (`UserRecordsPerKinesisRecord`).
pub const USER_RECORDS_PER_RECORD: &str = "shardwell_put_user_records_per_record";
/// Histogram: records in a request (`KinesisRecordsPerPutRecordsRequest`).
pub const RECORDS_PER_REQUEST: &str = "shardwell_put_records_per_request";
/// Histogram: user records in a request (`UserRecordsPerPutRecordsRequest`).
pub const USER_RECORDS_PER_REQUEST: &str = "shardwell_put_user_records_per_request";
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
    describe_counter!(USER_BYTES, Unit::Bytes, "Payloads and partition keys of user records that landed");
    describe_histogram!(RETRIES, Unit::Count, "How often a user record that is settled was tried again");
    describe_counter!(RECORDS, Unit::Count, "Records for Kinesis by result of the attempt");
    describe_counter!(BYTES, Unit::Bytes, "Bytes of records that landed");
    describe_counter!(ERRORS, Unit::Count, "Attempts that failed by error code");
    describe_histogram!(USER_RECORDS_PER_RECORD, Unit::Count, "User records in a record for Kinesis");
    describe_histogram!(RECORDS_PER_REQUEST, Unit::Count, "Records in a request");
    describe_histogram!(USER_RECORDS_PER_REQUEST, Unit::Count, "User records in a request");
    describe_histogram!(REQUEST_TIME, Unit::Seconds, "Time that a request took");
    describe_histogram!(BUFFERING_TIME, Unit::Seconds, "Time that a record waited before an attempt");
    describe_counter!(LISTINGS, Unit::Count, "Listings of the shards by result");
}

/// What the labels of all metrics of a stream begin with.
fn of_stream(stream: &Arc<str>) -> Vec<Label> {
    vec![Label::new("stream", stream.clone())]
}

fn with(mut labels: Vec<Label>, name: &'static str, value: &str) -> Vec<Label> {
    labels.push(Label::new(name, value.to_owned()));
    labels
}

/// What was answered for the records of one shard. Labels are made once for them all.
#[derive(Default)]
struct Answers<'a> {
    landed: u64,
    bytes: u64,
    failed: BTreeMap<&'a str, u64>,
}

/// A request was answered after `took`.
pub(crate) fn answered(stream: &Arc<str>, request: &Request, verdicts: &[Verdict], took: Duration) {
    let labels = of_stream(stream);
    let user_records = histogram!(USER_RECORDS_PER_RECORD, labels.clone());
    let waited = histogram!(BUFFERING_TIME, labels.clone());
    let mut shards: BTreeMap<Option<&ShardId>, Answers<'_>> = BTreeMap::new();
    let mut all_user_records = 0;
    for ((unit, bytes, shard), verdict) in request.iter().zip(verdicts) {
        user_records.record(unit.members().len() as f64);
        waited.record(unit.waiting(request.sent));
        all_user_records += unit.members().len();
        let answers = shards.entry(shard).or_default();
        match verdict.result() {
            Ok(_) => (answers.landed, answers.bytes) = (answers.landed + 1, answers.bytes + bytes as u64),
            Err(error) => *answers.failed.entry(&error.code).or_default() += 1,
        }
    }
    histogram!(RECORDS_PER_REQUEST, labels.clone()).record(request.records() as f64);
    histogram!(USER_RECORDS_PER_REQUEST, labels.clone()).record(all_user_records as f64);
    histogram!(REQUEST_TIME, labels.clone()).record(took);
    for (shard, answers) in shards {
        answers.count(with(labels.clone(), "shard", shard.map(ShardId::as_str).unwrap_or_default()));
    }
}

impl Answers<'_> {
    fn count(self, labels: Vec<Label>) {
        let failed: u64 = self.failed.values().sum();
        for (result, count) in [("landed", self.landed), ("failed", failed)] {
            if count > 0 {
                counter!(RECORDS, with(labels.clone(), "result", result)).increment(count);
            }
        }
        for (code, count) in self.failed {
            counter!(ERRORS, with(labels.clone(), "code", code)).increment(count);
        }
        if self.bytes > 0 {
            counter!(BYTES, labels).increment(self.bytes);
        }
    }
}

/// What happened in the pipeline.
pub(crate) fn counted(stream: &Arc<str>, counts: Counts) {
    if counts.received > 0 {
        counter!(RECEIVED, of_stream(stream)).increment(counts.received);
    }
    if counts.wrong_shard > 0 {
        let labels = with(with(of_stream(stream), "shard", ""), "code", WRONG_SHARD);
        counter!(ERRORS, labels).increment(counts.wrong_shard);
    }
}

/// The fate of records was decided; their room is not given back yet.
pub(crate) fn settled(stream: &Arc<str>, settled: &[Settled]) {
    let retries = histogram!(RETRIES, of_stream(stream));
    let mut results: BTreeMap<&str, u64> = BTreeMap::new();
    let mut bytes = 0;
    for Settled { record, fate } in settled {
        let members = record.unit.members();
        retries.record_many(record.unit.attempts().saturating_sub(1) as f64, members.len());
        *results.entry(fate.name()).or_default() += members.len() as u64;
        if matches!(fate, Fate::Landed(_)) {
            bytes += members.iter().map(|member| (member.permit.bytes() - cost(0)) as u64).sum::<u64>();
        }
    }
    for (result, count) in results {
        counter!(USER_RECORDS, with(of_stream(stream), "result", result)).increment(count);
    }
    if bytes > 0 {
        counter!(USER_BYTES, of_stream(stream)).increment(bytes);
    }
}

impl Fate {
    const fn name(&self) -> &'static str {
        match self {
            Self::Landed(_) => "landed",
            Self::Failed(PutFailureKind::Expired) => "expired",
            Self::Failed(PutFailureKind::Denied) => "denied",
            Self::Failed(PutFailureKind::NoSuchStream) => "no_such_stream",
            Self::Failed(PutFailureKind::Invalid) => "invalid",
            Self::Failed(PutFailureKind::Abandoned) => "abandoned",
        }
    }
}

/// How much of the budget is taken.
pub(crate) fn pending(stream: &Arc<str>, (bytes, records): (usize, usize)) {
    gauge!(PENDING, of_stream(stream)).set(records as f64);
    gauge!(PENDING_BYTES, of_stream(stream)).set(bytes as f64);
}

/// The shards were listed, or could not be.
pub(crate) fn listed(stream: &Arc<str>, result: &'static str) {
    counter!(LISTINGS, with(of_stream(stream), "result", result)).increment(1);
}
