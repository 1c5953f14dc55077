use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_sdk_kinesis::config::ProvideCredentials;
use serde_json::{Value, json};
use shardwell_core::{Bytes, ChildShard, HashKeyRange, PutErrorKind, Read, StreamStatus};

use super::*;
use crate::scripted::{Answer, Script};

const ARN: &str = "arn:aws:kinesis:eu-west-1:111122223333:stream/flights";
const SHARD: &str = "shardId-000000000003";

fn client(script: &Script) -> Client {
    Client::from_conf(script.kinesis().build())
}

fn stream(script: &Script) -> KinesisStream {
    KinesisStream::new(&client(script), "flights")
}

fn iterator(token: &str) -> Answer {
    Answer::Json(json!({"ShardIterator": token}))
}

/// An answer of `GetRecords` with one record for each number.
fn records(numbers: &[u64], next: Option<&str>) -> Value {
    let record = |number: &u64| {
        json!({
            "SequenceNumber": number.to_string(),
            "Data": "aGVsbG8=",
            "PartitionKey": "N12345",
            "ApproximateArrivalTimestamp": 1_357_017_300.25,
        })
    };
    let records: Vec<_> = numbers.iter().map(record).collect();
    json!({"Records": records, "NextShardIterator": next, "MillisBehindLatest": 1500})
}

fn numbers(read: &Read) -> Vec<String> {
    read.records.iter().map(|record| record.sequence_number.to_string()).collect()
}

async fn open(script: &Script, position: StartPosition) -> Box<dyn ShardReader> {
    stream(script).open(&SHARD.into(), position).await.expect("scripted")
}

fn operations(script: &Script) -> Vec<String> {
    script.seen().into_iter().map(|(operation, _)| operation).collect()
}

#[tokio::test]
async fn records_keep_their_place_key_time_and_payload() {
    let script = Script::new([iterator("i1"), Answer::Json(records(&[41, 42], Some("i2")))]);
    let read = open(&script, StartPosition::TrimHorizon).await.read(50_000).await.expect("scripted");
    assert_eq!(numbers(&read), ["41", "42"]);
    assert_eq!(read.behind_latest, Some(Duration::from_millis(1500)));
    assert_eq!(read.end, None);
    let record = &read.records[0];
    assert_eq!(record.data, Bytes::from_static(b"hello"));
    assert_eq!(record.partition_key, Some("N12345".into()));
    assert_eq!(record.arrival, Timestamp::from_millis(1_357_017_300_250));
    let (_, asked) = &script.seen()[1];
    assert_eq!(asked, &json!({"ShardIterator": "i1", "Limit": 10_000}), "the limit is the service's");
}

#[tokio::test]
async fn every_position_is_asked_for_as_it_is() {
    let positions = [
        (StartPosition::TrimHorizon, json!({"ShardIteratorType": "TRIM_HORIZON"})),
        (StartPosition::Latest, json!({"ShardIteratorType": "LATEST"})),
        (
            StartPosition::AtTimestamp(Timestamp::from_millis(1500)),
            json!({"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": 1.5}),
        ),
        (
            StartPosition::AtSequenceNumber(7u64.into()),
            json!({"ShardIteratorType": "AT_SEQUENCE_NUMBER", "StartingSequenceNumber": "7"}),
        ),
        (
            StartPosition::AfterSequenceNumber(7u64.into()),
            json!({"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "7"}),
        ),
    ];
    for (position, mut expected) in positions {
        let script = Script::new([iterator("i1")]);
        open(&script, position).await;
        expected["StreamName"] = "flights".into();
        expected["ShardId"] = SHARD.into();
        assert_eq!(script.seen(), [("GetShardIterator".to_owned(), expected)]);
    }
}

#[tokio::test]
async fn an_expired_iterator_is_replaced_after_the_last_record() {
    let script = Script::new([
        iterator("i1"),
        Answer::Json(records(&[41, 42], Some("i2"))),
        Answer::Refusal(400, "ExpiredIteratorException", "Iterator expired."),
        iterator("i3"),
        Answer::Json(records(&[43], Some("i4"))),
    ]);
    let mut reader = open(&script, StartPosition::TrimHorizon).await;
    assert_eq!(numbers(&reader.read(10).await.expect("scripted")), ["41", "42"]);
    assert_eq!(numbers(&reader.read(10).await.expect("recovered inside")), ["43"]);
    let (_, reopened) = &script.seen()[3];
    assert_eq!(reopened["ShardIteratorType"], "AFTER_SEQUENCE_NUMBER");
    assert_eq!(reopened["StartingSequenceNumber"], "42");
    assert_eq!(script.seen()[4].1["ShardIterator"], "i3");
}

#[tokio::test]
async fn before_its_first_record_a_reader_goes_back_to_where_it_was_opened() {
    let at = StartPosition::AtTimestamp(Timestamp::from_millis(1500));
    for (position, kind) in [(StartPosition::TrimHorizon, "TRIM_HORIZON"), (at, "AT_TIMESTAMP")] {
        let script = Script::new([
            iterator("i1"),
            Answer::Json(records(&[], Some("i2"))),
            Answer::Refusal(400, "ExpiredIteratorException", "Iterator expired."),
            iterator("i3"),
            Answer::Json(records(&[1], Some("i4"))),
        ]);
        let mut reader = open(&script, position).await;
        assert!(reader.read(10).await.expect("scripted").records.is_empty());
        assert_eq!(numbers(&reader.read(10).await.expect("recovered inside")), ["1"]);
        assert_eq!(script.seen()[3].1["ShardIteratorType"], kind);
    }
}

#[tokio::test]
async fn a_reader_at_latest_never_skips_what_was_put_after_it_was_opened() {
    let script = Script::new([
        Answer::Dated("Tue, 01 Jan 2013 05:15:00 GMT", json!({"ShardIterator": "i1"})),
        Answer::Refusal(400, "ExpiredIteratorException", "Iterator expired."),
        iterator("i2"),
        Answer::Json(records(&[9], Some("i3"))),
    ]);
    let mut reader = open(&script, StartPosition::Latest).await;
    assert_eq!(numbers(&reader.read(10).await.expect("recovered inside")), ["9"]);
    let (_, reopened) = &script.seen()[2];
    assert_eq!(reopened["ShardIteratorType"], "AT_TIMESTAMP");
    assert_eq!(reopened["Timestamp"].as_f64(), Some(1_357_017_298.0), "two seconds before the service opened it");
}

#[tokio::test]
async fn a_reader_that_failed_stays_where_it_was() {
    let script = Script::new([
        iterator("i1"),
        Answer::Refusal(400, "ProvisionedThroughputExceededException", "Rate exceeded for shard"),
        Answer::Broken,
        Answer::Json(records(&[1], Some("i2"))),
    ]);
    let mut reader = open(&script, StartPosition::TrimHorizon).await;
    assert_eq!(reader.read(10).await.expect_err("throttled").kind(), StreamErrorKind::Throttled);
    assert_eq!(reader.read(10).await.expect_err("broken").kind(), StreamErrorKind::Unavailable);
    assert_eq!(numbers(&reader.read(10).await.expect("scripted")), ["1"]);
    for (_, asked) in &script.seen()[1..] {
        assert_eq!(asked["ShardIterator"], "i1", "one attempt each, by the same iterator");
    }
}

#[tokio::test]
async fn the_end_of_a_shard_names_its_children() {
    let mut last = records(&[7], None);
    last["ChildShards"] = json!([{
        "ShardId": "shardId-000000000004",
        "ParentShards": [SHARD],
        "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "99"},
    }]);
    let script = Script::new([iterator("i1"), Answer::Json(last)]);
    let mut reader = open(&script, StartPosition::TrimHorizon).await;
    let read = reader.read(10).await.expect("scripted");
    let child = ChildShard {
        id: "shardId-000000000004".into(),
        parents: vec![SHARD.into()],
        hash_key_range: HashKeyRange::new(0, 99).expect("a range"),
    };
    assert_eq!((numbers(&read), read.end), (vec!["7".to_owned()], Some(vec![child.clone()])));
    let again = reader.read(10).await.expect("no further call");
    assert_eq!((again.records.len(), again.end), (0, Some(vec![child])));
}

#[tokio::test]
async fn an_end_without_children_counts_only_if_the_shard_is_gone() {
    let script = Script::new([
        iterator("i1"),
        Answer::Json(records(&[7], None)),
        iterator("i2"),
        Answer::Json(records(&[], None)),
        iterator("i3"),
        Answer::Json(records(&[], None)),
        Answer::Refusal(400, "ResourceNotFoundException", "Stream flights not found."),
    ]);
    let mut reader = open(&script, StartPosition::TrimHorizon).await;
    let read = reader.read(10).await.expect("its records count");
    assert_eq!((numbers(&read), read.end), (vec!["7".to_owned()], None));
    let doubted = reader.read(10).await.expect_err("the shard is still there");
    assert_eq!(doubted.kind(), StreamErrorKind::Unavailable);
    assert_eq!(reader.read(10).await.expect("gone").end, Some(Vec::new()));
    assert_eq!(script.seen()[4].1["StartingSequenceNumber"], "7");
}

#[tokio::test]
async fn later_pages_carry_the_token_alone() {
    let shard = |id: &str| {
        json!({
            "ShardId": id,
            "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "99"},
            "SequenceNumberRange": {"StartingSequenceNumber": "1"},
        })
    };
    let script = Script::new([
        Answer::Json(json!({"Shards": [shard("shardId-000000000002")], "NextToken": "more"})),
        Answer::Json(json!({"Shards": [shard("shardId-000000000001")]})),
    ]);
    let stream = KinesisStream::new(&client(&script), ARN);
    let shards = stream.list_shards(ShardFilter::AfterShardId("shardId-000000000000".into())).await.expect("scripted");
    let ids: Vec<_> = shards.iter().map(|shard| shard.id.as_str()).collect();
    assert_eq!(ids, ["shardId-000000000001", "shardId-000000000002"], "ordered by id");
    let filter = json!({"Type": "AFTER_SHARD_ID", "ShardId": "shardId-000000000000"});
    assert_eq!(
        script.seen(),
        [
            ("ListShards".to_owned(), json!({"StreamARN": ARN, "ShardFilter": filter})),
            ("ListShards".to_owned(), json!({"NextToken": "more"})),
        ]
    );
}

#[tokio::test]
async fn a_description_tells_who_the_stream_is() {
    let script = Script::new([Answer::Json(json!({"StreamDescriptionSummary": {
        "StreamName": "flights", "StreamARN": ARN, "StreamStatus": "UPDATING", "RetentionPeriodHours": 48,
        "StreamCreationTimestamp": 1_357_017_300.5, "EnhancedMonitoring": [], "OpenShardCount": 4,
        "RecordDistributionStrategy": "AUTO",
    }}))]);
    let description = stream(&script).describe().await.expect("scripted");
    assert_eq!(description.identity.arn, ARN);
    assert_eq!(description.identity.created_at, Timestamp::from_millis(1_357_017_300_500));
    assert_eq!(description.status, StreamStatus::Updating);
    assert_eq!(description.retention, Duration::from_secs(48 * 3600));
    assert!(description.automatic_distribution);
}

#[tokio::test]
async fn each_entry_has_its_own_result() {
    let script = Script::new([Answer::Json(json!({"FailedRecordCount": 1, "Records": [
        {"ShardId": SHARD, "SequenceNumber": "5"},
        {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded"},
    ]}))]);
    let mut second = PutEntry::new("b", Bytes::from_static(b"2"));
    second.explicit_hash_key = Some(u128::MAX);
    let entries = [PutEntry::new("a", Bytes::from_static(b"1")), second];
    let results = stream(&script).put(&entries).await.expect("scripted");
    assert_eq!(results[0].as_ref().expect("placed").shard.as_str(), SHARD);
    assert_eq!(results[1].as_ref().expect_err("throttled").kind, PutErrorKind::Throttled);
    let (_, sent) = &script.seen()[0];
    assert_eq!(sent["Records"][1]["ExplicitHashKey"], u128::MAX.to_string());
    assert_eq!(sent["Records"][0], json!({"Data": "MQ==", "PartitionKey": "a"}));
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_entries_leaves_a_write_unknown() {
    let script = Script::new([Answer::Json(json!({"FailedRecordCount": 0, "Records": []})), Answer::Garbage]);
    let stream = stream(&script);
    for _ in 0..2 {
        let error = stream.put(&[PutEntry::new("a", Bytes::new())]).await.expect_err("no result for the entry");
        assert!(error.may_have_applied() && error.kind() == StreamErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn data_calls_make_one_attempt_and_control_calls_up_to_three() {
    let fault = || Answer::Refusal(500, "InternalFailureException", "Oops");
    let script = Script::new([fault(), fault()]);
    let stream = stream(&script);
    let entry = [PutEntry::new("a", Bytes::new())];
    assert!(stream.put(&entry).await.expect_err("a fault").may_have_applied());
    assert!(stream.open(&SHARD.into(), StartPosition::Latest).await.is_err());
    assert_eq!(operations(&script), ["PutRecords", "GetShardIterator"]);
    let control = Script::new([fault()]);
    let clients = KinesisStream::new(&client(&control), "flights").inner.clients.clone();
    let retries = clients.control.config().retry_config().expect("set").clone();
    assert_eq!(retries.max_attempts(), 3);
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let short = Duration::from_millis(20);
    let timeouts = KinesisTimeouts::default().with_control(short, short).with_read(short).with_write(short);
    let script = Script::new([Answer::Silence, Answer::Silence, Answer::Silence]);
    let stream = stream(&script).with_timeouts(timeouts);
    let errors = [
        stream.describe().await.expect_err("silence"),
        stream.open(&SHARD.into(), StartPosition::Latest).await.expect_err("silence"),
        stream.put(&[PutEntry::new("a", Bytes::new())]).await.expect_err("silence"),
    ];
    for error in errors {
        assert_eq!(error.kind(), StreamErrorKind::Timeout, "{error}");
        assert!(error.may_have_applied());
    }
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    use StreamErrorKind::{Denied, Invalid, NotFound, Throttled, Unavailable};
    let cases = [
        (400, "ProvisionedThroughputExceededException", Throttled, "more shards"),
        (400, "LimitExceededException", Throttled, "slow down"),
        (400, "KMSThrottlingException", Throttled, "encryption key"),
        (400, "ResourceNotFoundException", NotFound, "`flights` in region eu-west-1"),
        (400, "AccessDeniedException", Denied, "`kinesis:GetRecords`"),
        (400, "KMSAccessDeniedException", Denied, "`kms:Decrypt`"),
        (400, "ExpiredTokenException", Denied, "renew"),
        (403, "InvalidSignatureException", Denied, "clock"),
        (400, "UnrecognizedClientException", Denied, "credentials"),
        (400, "KMSDisabledException", Invalid, "enable or restore"),
        (400, "KMSInvalidStateException", Invalid, "encryption key"),
        (400, "KMSNotFoundException", Invalid, "encryption key"),
        (400, "ValidationException", Invalid, "refuses"),
        (400, "SomethingNew", Invalid, "SomethingNew"),
        (429, "SomethingNew", Throttled, "slow down"),
        (503, "SomethingNew", Unavailable, "fault"),
        (400, "ResourceInUseException", Unavailable, "try again"),
        (500, "InternalFailureException", Unavailable, "fault"),
    ];
    for (status, code, kind, words) in cases {
        let script = Script::new([iterator("i1"), Answer::Refusal(status, code, "the service's words")]);
        let error = open(&script, StartPosition::TrimHorizon).await.read(1).await.expect_err("refused");
        let text = error.to_string();
        assert_eq!(error.kind(), kind, "{text}");
        for part in [words, code, "the service's words", "GetRecords on stream `flights` in region eu-west-1"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(std::error::Error::source(&error).is_some(), "{text}");
    }
}

#[tokio::test]
async fn writing_to_an_encrypted_stream_needs_another_action() {
    let script = Script::new([Answer::Refusal(400, "KMSAccessDeniedException", "no")]);
    let error = stream(&script).put(&[PutEntry::new("a", Bytes::new())]).await.expect_err("refused");
    assert!(error.to_string().contains("`kms:GenerateDataKey`"), "{error}");
}

#[tokio::test]
async fn an_iterator_that_is_refused_twice_is_the_callers_matter() {
    let refusal = || Answer::Refusal(400, "InvalidArgumentException", "Invalid ShardIterator.");
    let script = Script::new([iterator("i1"), refusal(), iterator("i2"), refusal()]);
    let error = open(&script, StartPosition::TrimHorizon).await.read(1).await.expect_err("refused");
    assert_eq!(error.kind(), StreamErrorKind::Invalid);
}

#[tokio::test]
async fn an_arn_of_another_region_is_pointed_out() {
    let script = Script::new([Answer::Refusal(400, "ResourceNotFoundException", "not found")]);
    let arn = ARN.replace("eu-west-1", "us-east-2");
    let error = KinesisStream::new(&client(&script), arn).describe().await.expect_err("refused");
    assert!(error.to_string().contains("the ARN is of region us-east-2"), "{error}");
}

/// A provider that never has credentials.
#[derive(Debug)]
struct Fails(fn() -> CredentialsError);

impl ProvideCredentials for Fails {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::ready(Err((self.0)()))
    }
}

#[tokio::test]
async fn what_keeps_credentials_from_loading_is_told_apart() {
    let cases: [(fn() -> CredentialsError, _, _); 4] = [
        (CredentialsError::not_loaded_no_source, StreamErrorKind::Denied, "no credentials"),
        (|| CredentialsError::invalid_configuration("loop"), StreamErrorKind::Invalid, "mend"),
        (|| CredentialsError::provider_error("503"), StreamErrorKind::Unavailable, "has a fault"),
        (|| CredentialsError::provider_timed_out(Duration::from_secs(1)), StreamErrorKind::Timeout, "in time"),
    ];
    for (fail, kind, words) in cases {
        let config = Script::default().kinesis().credentials_provider(Fails(fail)).build();
        let stream = KinesisStream::new(&Client::from_conf(config), "flights");
        let error = stream.open(&SHARD.into(), StartPosition::Latest).await.expect_err("no credentials");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_missing_region_is_a_matter_of_configuration() {
    let config = Script::default().kinesis().region(None).build();
    let stream = KinesisStream::new(&Client::from_conf(config), "flights");
    let error = stream.describe().await.expect_err("no endpoint");
    assert_eq!(error.kind(), StreamErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("(none is set)"), "{error}");
}

#[tokio::test]
async fn a_dedicated_handle_can_be_given_its_own_client() {
    let describe = || Answer::Refusal(400, "ResourceNotFoundException", "not found");
    let (first, second) = (Script::default(), Script::new([describe()]));
    let stream = stream(&first).with_dedicated_client(&client(&second)).without_read_limits();
    let dedicated = stream.dedicated();
    assert!(dedicated.describe().await.is_err());
    assert_eq!(dedicated.read_limits(), ReadLimits::NONE);
    assert_eq!((first.seen().len(), second.seen().len()), (0, 1));
}
