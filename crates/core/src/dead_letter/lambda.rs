//! Lambda's document for what a stream's trigger gave up on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{DeadLetter, DeadReason};

/// The document that Lambda sends to an on-failure destination, for the letters of one burial: for whoever has tools for
/// that. `None` where there are no letters.
///
/// It tells less than the letters do: neither errors nor keys. With `payload` it has a field of that name as Lambda's S3
/// objects do, an event with all records as **a JSON text in a string**.
///
/// | field | from |
/// |---|---|
/// | `requestContext.requestId` | made from worker, shard and batch: the same whenever the batch is buried again |
/// | `requestContext.functionArn` | the application |
/// | `requestContext.condition` | [`DeadReason::as_str`]: Lambda's names for Lambda's two reasons |
/// | `requestContext.approximateInvokeCount` | the batch's invocations, at least 1 |
/// | `responseContext` | absent where no invocation failed: too old, or never invoked |
/// | `responseContext.functionError` | `null` where the processor said which records failed |
/// | `KinesisBatchInfo` | the letters, which may be fewer than the batch had records |
/// | `KinesisBatchInfo.streamArn` | the stream as the worker names it |
///
/// In the event `invokeIdentityArn` is the worker, `awsRegion` is empty where the stream is not named by its ARN, a record
/// without a partition key has no such field, and one from within an aggregated record has a `subSequenceNumber`.
///
/// Source: the AWS Lambda developer guide, "Retain discarded batch records", and documents that Lambda has sent.
pub fn lambda_document(letters: &[DeadLetter], payload: bool) -> Option<Value> {
    let first = letters.iter().min_by_key(|letter| letter.record.position)?;
    let last = letters.iter().max_by_key(|letter| letter.record.position)?;
    let mut document = json!({
        "requestContext": {
            "requestId": request_id(first),
            "functionArn": first.application,
            "condition": first.reason.as_str(),
            "approximateInvokeCount": first.batch.invocations.max(1),
        },
        "version": "1.0",
        "timestamp": first.died_at.to_string(),
        "KinesisBatchInfo": {
            "shardId": first.shard.as_str(),
            "startSequenceNumber": first.record.position.sequence_number.to_string(),
            "endSequenceNumber": last.record.position.sequence_number.to_string(),
            "approximateArrivalOfFirstRecord": first.record.arrival.to_string(),
            "approximateArrivalOfLastRecord": last.record.arrival.to_string(),
            "batchSize": letters.len(),
            "streamArn": first.stream,
        },
    });
    if first.reason != DeadReason::RecordAgeExceeded && first.batch.invocations > 0 {
        document["responseContext"] = response_context(first);
    }
    if payload {
        document["payload"] = event(letters).to_string().into();
    }
    Some(document)
}

fn response_context(letter: &DeadLetter) -> Value {
    let function_error = if letter.batch.partial { Value::Null } else { "Unhandled".into() };
    json!({ "statusCode": 200, "executedVersion": "$LATEST", "functionError": function_error })
}

/// A UUID that a batch always gets again: of version 8 (RFC 9562), which leaves the contents to whoever makes it.
fn request_id(letter: &DeadLetter) -> String {
    let DeadLetter { application, stream, shard, batch, worker, .. } = letter;
    // Batches are counted within the term of a lease, so the first record tells apart what two terms counted alike.
    let name = format!("{worker}\n{application}\n{stream}\n{shard}\n{}\n{}", batch.id, batch.first);
    let hash = crate::hash_key(name.as_bytes());
    let versioned = (hash & !(0xf << 76) & !(0x3 << 62)) | (0x8 << 76) | (0x2 << 62);
    let hex = format!("{versioned:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// What Lambda would have invoked a function with.
fn event(letters: &[DeadLetter]) -> Value {
    let mut ordered: Vec<&DeadLetter> = letters.iter().collect();
    ordered.sort_by_key(|letter| letter.record.position);
    json!({ "Records": ordered.into_iter().map(event_record).collect::<Vec<_>>() })
}

fn event_record(letter: &DeadLetter) -> Value {
    let record = &letter.record;
    let sequence_number = record.position.sequence_number.to_string();
    let mut kinesis = Map::new();
    kinesis.insert("kinesisSchemaVersion".into(), "1.0".into());
    if let Some(key) = &record.partition_key {
        kinesis.insert("partitionKey".into(), key.as_str().into());
    }
    if record.position.sub_sequence_number > 0 {
        kinesis.insert("subSequenceNumber".into(), record.position.sub_sequence_number.into());
    }
    kinesis.insert("data".into(), STANDARD.encode(&record.data).into());
    kinesis.insert("approximateArrivalTimestamp".into(), (record.arrival.as_millis() as f64 / 1000.0).into());
    let event_id = format!("{}:{sequence_number}", letter.shard);
    kinesis.insert("sequenceNumber".into(), sequence_number.into());
    json!({
        "kinesis": kinesis,
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": event_id,
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": letter.worker.as_str(),
        "awsRegion": region(&letter.stream).unwrap_or_default(),
        "eventSourceARN": letter.stream,
    })
}

/// The region of an ARN.
fn region(stream: &str) -> Option<&str> {
    stream.starts_with("arn:").then(|| stream.split(':').nth(3))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letter::BatchInfo;
    use crate::{ExtendedSequenceNumber, Timestamp, UserRecord};

    const SHARD: &str = "shardId-000000000006";
    const ARN: &str = "arn:aws:kinesis:us-east-2:123456789012:stream/flights";
    const FIRST: &str = "49601189658422359378836298521827638475320189012309704722";
    const LAST: &str = "49601189658422359378836298522902373528957594348623495186";

    fn letter(sequence_number: &str, sub: u64, arrival: i64) -> DeadLetter {
        let at = |text: &str, sub| ExtendedSequenceNumber::new(text.parse().expect("a sequence number"), sub);
        DeadLetter {
            application: "delays".into(),
            stream: ARN.into(),
            shard: SHARD.into(),
            record: UserRecord {
                position: at(sequence_number, sub),
                partition_key: Some("N14228".into()),
                explicit_hash_key: None,
                arrival: Timestamp::from_millis(arrival),
                data: "EWR".into(),
            },
            reason: DeadReason::RetryAttemptsExhausted,
            error: vec!["no such airport".into()],
            attempts: Vec::new(),
            batch: BatchInfo {
                id: 12,
                invocations: 3,
                size: 500,
                first: at("1", 0),
                last: at("2", 0),
                first_arrival: Timestamp::from_millis(1),
                last_arrival: Timestamp::from_millis(2),
                partial: false,
            },
            lane: 0,
            worker: "host:1:2".into(),
            died_at: Timestamp::from_millis(1_573_697_991_000),
        }
    }

    /// Out of order, as a sink may be given them.
    fn burial() -> Vec<DeadLetter> {
        vec![letter(LAST, 0, 1_573_697_935_677), letter(FIRST, 0, 1_573_697_874_007)]
    }

    fn document(letters: &[DeadLetter]) -> Value {
        lambda_document(letters, false).expect("there are letters")
    }

    /// The whole of it, field by field, in the shape of the developer guide's example.
    #[test]
    fn a_burial_is_one_document() {
        let id = document(&burial())["requestContext"]["requestId"].clone();
        let expected = json!({
            "requestContext": {
                "requestId": id,
                "functionArn": "delays",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 3,
            },
            "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
            "version": "1.0",
            "timestamp": "2019-11-14T02:19:51.000Z",
            "KinesisBatchInfo": {
                "shardId": SHARD,
                "startSequenceNumber": FIRST,
                "endSequenceNumber": LAST,
                "approximateArrivalOfFirstRecord": "2019-11-14T02:17:54.007Z",
                "approximateArrivalOfLastRecord": "2019-11-14T02:18:55.677Z",
                "batchSize": 2,
                "streamArn": ARN,
            },
        });
        assert_eq!(document(&burial()), expected);
        assert_eq!(lambda_document(&[], true), None);
    }

    #[test]
    fn the_request_id_is_a_uuid_that_belongs_to_the_batch() {
        let id = |letter: &DeadLetter| {
            let document = document(std::slice::from_ref(letter));
            document["requestContext"]["requestId"].as_str().expect("text").to_owned()
        };
        let one = letter(FIRST, 0, 0);
        let text = id(&one);
        let lengths: Vec<usize> = text.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{text}");
        assert!(text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)));
        assert_eq!(text.as_bytes()[14], b'8', "the version: {text}");
        assert!(b"89ab".contains(&text.as_bytes()[19]), "the variant: {text}");

        assert_eq!(id(&letter(LAST, 0, 9)), text, "other records of the batch");
        let mut others = [one.clone(), one.clone(), one.clone(), one];
        others[0].batch.id += 1;
        others[1].worker = "host:1:3".into();
        others[2].shard = "shardId-000000000007".into();
        others[3].batch.first.sub_sequence_number += 1;
        let ids: std::collections::BTreeSet<String> = others.iter().map(id).chain([text]).collect();
        assert_eq!(ids.len(), 5, "other batches: {ids:?}");
    }

    #[test]
    fn records_that_were_too_old_have_no_response() {
        let mut expired = letter(FIRST, 0, 0);
        expired.reason = DeadReason::RecordAgeExceeded;
        expired.batch.invocations = 0;
        let never_read = document(&[expired.clone()]);
        assert_eq!(never_read["requestContext"]["condition"], "RecordAgeExceeded");
        assert_eq!(never_read["requestContext"]["approximateInvokeCount"], 1, "even if it never ran");
        assert_eq!(never_read.get("responseContext"), None);
        expired.batch.invocations = 4;
        let tried = document(&[expired]);
        assert_eq!(tried["requestContext"]["approximateInvokeCount"], 4);
        assert_eq!(tried.get("responseContext"), None);
    }

    #[test]
    fn a_partial_answer_is_no_error_of_the_function() {
        let mut partial = letter(FIRST, 0, 0);
        partial.batch.partial = true;
        let response = document(&[partial])["responseContext"].clone();
        assert_eq!(response, json!({ "statusCode": 200, "executedVersion": "$LATEST", "functionError": null }));
    }

    #[test]
    fn our_own_reasons_go_by_their_own_names() {
        for reason in DeadReason::ALL {
            let mut letter = letter(FIRST, 0, 0);
            letter.reason = reason;
            letter.batch.invocations = 0;
            let document = document(&[letter]);
            assert_eq!(document["requestContext"]["condition"], reason.as_str());
            assert_eq!(document.get("responseContext"), None, "it was never invoked");
        }
    }

    #[test]
    fn the_payload_is_an_event_in_a_string() {
        let mut letters = burial();
        letters.push(letter(LAST, 2, 1_573_697_935_677));
        letters[2].record.partition_key = None;
        let document = lambda_document(&letters, true).expect("there are letters");
        let payload: Value = serde_json::from_str(document["payload"].as_str().expect("a string")).expect("JSON");
        let record = |kinesis: Value, sequence_number: &str| {
            json!({
                "kinesis": kinesis,
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": format!("{SHARD}:{sequence_number}"),
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "host:1:2",
                "awsRegion": "us-east-2",
                "eventSourceARN": ARN,
            })
        };
        let kinesis = |sequence_number: &str, arrival: f64| {
            json!({
                "kinesisSchemaVersion": "1.0",
                "partitionKey": "N14228",
                "sequenceNumber": sequence_number,
                "data": "RVdS",
                "approximateArrivalTimestamp": arrival,
            })
        };
        let without_key = json!({
            "kinesisSchemaVersion": "1.0",
            "sequenceNumber": LAST,
            "subSequenceNumber": 2,
            "data": "RVdS",
            "approximateArrivalTimestamp": 1_573_697_935.677,
        });
        let records = [
            record(kinesis(FIRST, 1_573_697_874.007), FIRST),
            record(kinesis(LAST, 1_573_697_935.677), LAST),
            record(without_key, LAST),
        ];
        assert_eq!(payload, json!({ "Records": records }));
    }

    #[test]
    fn only_an_arn_names_a_region() {
        assert_eq!(region(ARN), Some("us-east-2"));
        for stream in ["flights", "", "arn:", "a:b:c:d"] {
            assert_eq!(region(stream), None, "{stream}");
        }
    }
}
