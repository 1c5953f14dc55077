//! What goes over the wire, against what a Java KCL 3.5 writes and accepts.

use aws_sdk_dynamodb::Client;
use aws_smithy_async::time::StaticTimeSource;
use futures_util::StreamExt;
use serde_json::{Value, json};
use shardwell_core::{
    Assignment, Checkpoint, CheckpointWrite, Conditional, Created, Eviction, ExtendedSequenceNumber, HandoffStart,
    HashKeyRange, Lease, LeaseStore, RenewOutcome, Renewal, Reset, StoreErrorKind, Timestamp, WorkerMetrics,
    WriteToken,
};

use super::{Billing, DynamoLeaseStore, TableSettings};
use crate::scripted::{Answer, Script};

const NUMBER: &str = "49590338271490256608559692538361571095921575989136588898";

fn store(script: &Script) -> DynamoLeaseStore {
    DynamoLeaseStore::new(&Client::from_conf(script.dynamodb().build()), "delays")
}

/// A lease of a Java worker, as a table of the KCL 3.5 holds it.
fn java_lease() -> Value {
    json!({
        "leaseKey": {"S": "shardId-000000000003"},
        "entityType": {"S": "LEASE"},
        "leaseOwner": {"S": "java-1"},
        "leaseCounter": {"N": "41"},
        "ownerSwitchesSinceCheckpoint": {"N": "2"},
        "checkpoint": {"S": NUMBER},
        "checkpointSubSequenceNumber": {"N": "7"},
        "parentShardId": {"SS": ["shardId-000000000001"]},
        "startingHashKey": {"S": "0"},
        "endingHashKey": {"S": "170141183460469231731687303715884105727"},
        "throughputKBps": {"N": "12.345678"},
    })
}

fn as_seen() -> Lease {
    let position = ExtendedSequenceNumber::new(NUMBER.parse().expect("a number"), 7);
    let mut lease = Lease::new("shardId-000000000003".into(), Checkpoint::At(position));
    lease.owner = Some("java-1".into());
    (lease.counter, lease.owner_switches_since_checkpoint) = (41, 2);
    lease.parents = ["shardId-000000000001".into()].into();
    lease.hash_key_range = HashKeyRange::new(0, (1 << 127) - 1).ok();
    lease.throughput_kbps = Some(12.345678);
    lease
}

/// A request with its placeholders filled in: what is set, what must hold.
fn filled(request: &Value, field: &str) -> String {
    let mut text = request[field].as_str().unwrap_or_default().to_owned();
    let replace = |text: String, map: &str, show: fn(&Value) -> String| {
        let empty = serde_json::Map::new();
        let mut pairs: Vec<_> = request[map].as_object().unwrap_or(&empty).iter().collect();
        pairs.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        pairs.into_iter().fold(text, |text, (name, value)| text.replace(name.as_str(), &show(value)))
    };
    text = replace(text, "ExpressionAttributeNames", |value| value.as_str().unwrap_or_default().to_owned());
    replace(text, "ExpressionAttributeValues", |value| {
        let (kind, value) = value.as_object().and_then(|value| value.iter().next()).expect("a value");
        format!("{kind}:{}", value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
    })
}

fn only(script: &Script) -> (String, Value) {
    let mut seen = script.seen();
    assert_eq!(seen.len(), 1, "one request: {seen:?}");
    seen.remove(0)
}

#[tokio::test]
async fn a_lease_of_a_java_worker_is_read_whole() {
    let script = Script::new([Answer::Json(json!({"Item": java_lease()}))]);
    let lease = store(&script).lease(&"shardId-000000000003".into()).await.expect("scripted");
    assert_eq!(lease, Some(as_seen()));
    let (operation, request) = only(&script);
    assert_eq!((operation.as_str(), &request["ConsistentRead"]), ("GetItem", &json!(true)));
}

#[tokio::test]
async fn a_lease_of_an_older_kcl_and_of_one_of_several_streams_are_leases() {
    let old = json!({
        "leaseKey": {"S": "shardId-0"}, "leaseCounter": {"N": "0"}, "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": "TRIM_HORIZON"},
    });
    let mut several = old.clone();
    several["leaseKey"] = json!({"S": "123456789012:flights:1700000000:shardId-0"});
    several["streamName"] = json!({"S": "123456789012:flights:1700000000"});
    several["shardId"] = json!({"S": "shardId-0"});
    let script = Script::new([Answer::Json(json!({"Items": [several, old]}))]);
    let listing = store(&script).leases().await.expect("scripted");
    let stream = Some("123456789012:flights:1700000000");
    let lease = |stream| Lease::in_stream(stream, "shardId-0".into(), Checkpoint::TrimHorizon);
    assert_eq!(listing.leases, [lease(stream), lease(None)]);
}

#[tokio::test]
async fn what_is_no_lease_is_not_listed_and_what_cannot_be_read_is_named() {
    let worker = json!({"leaseKey": {"S": "java-1"}, "entityType": {"S": "WORKER_METRIC_STATS"}, "lut": {"N": "1"}});
    let lock = json!({"leaseKey": {"S": "Leader"}, "entityType": {"S": "LEADER"}, "ownerName": {"S": "java-1"}});
    let damaged = json!({"leaseKey": {"S": "shardId-9"}, "leaseCounter": {"S": "many"}});
    let script = Script::new([Answer::Json(json!({"Items": [worker, damaged, lock, java_lease()]}))]);
    let listing = store(&script).leases().await.expect("scripted");
    assert_eq!(listing.leases, [as_seen()]);
    assert_eq!(listing.unreadable, ["shardId-9".into()]);
}

#[tokio::test]
async fn a_new_lease_has_the_attributes_that_a_java_worker_expects() {
    let script = Script::new([Answer::Json(json!({}))]);
    let mut lease = Lease::new("shardId-000000000003".into(), Checkpoint::Latest);
    lease.parents = ["shardId-000000000001".into()].into();
    lease.hash_key_range = HashKeyRange::new(0, 9).ok();
    assert_eq!(store(&script).create_lease(&lease).await.expect("scripted"), Created::New);
    let (operation, request) = only(&script);
    assert_eq!(operation, "PutItem");
    assert_eq!(filled(&request, "ConditionExpression"), "attribute_not_exists(leaseKey)");
    let expected = json!({
        "leaseKey": {"S": "shardId-000000000003"},
        "entityType": {"S": "LEASE"},
        "leaseCounter": {"N": "0"},
        "ownerSwitchesSinceCheckpoint": {"N": "0"},
        "checkpoint": {"S": "LATEST"},
        "checkpointSubSequenceNumber": {"N": "0"},
        "parentShardId": {"SS": ["shardId-000000000001"]},
        "startingHashKey": {"S": "0"},
        "endingHashKey": {"S": "9"},
    });
    assert_eq!(request["Item"], expected);
}

fn renewal(checkpoint: Option<CheckpointWrite>) -> Renewal {
    Renewal {
        key: "shardId-000000000003".into(),
        counter: 41,
        token: WriteToken::new(0xab),
        throughput_kbps: Some(0.25),
        checkpoint,
    }
}

async fn renew(script: &Script, renewal: Renewal) -> RenewOutcome {
    let worker = "w".into();
    let store = store(script);
    let mut answers = store.renew(&worker, vec![renewal]);
    answers.next().await.expect("an answer").outcome
}

#[tokio::test]
async fn a_renewal_is_conditional_on_the_counter_and_on_still_being_the_owner() {
    let script = Script::new([Answer::Json(json!({"Attributes": java_lease()}))]);
    assert!(matches!(renew(&script, renewal(None)).await, RenewOutcome::Renewed(row) if row == as_seen()));
    let (operation, request) = only(&script);
    assert_eq!(operation, "UpdateItem");
    assert_eq!(
        filled(&request, "UpdateExpression"),
        "SET leaseCounter = N:42, shardwellToken = S:00000000000000ab, throughputKBps = N:0.250000"
    );
    assert_eq!(
        filled(&request, "ConditionExpression"),
        "(leaseCounter = N:41 AND (leaseOwner = S:w OR checkpointOwner = S:w))"
    );
    assert_eq!(request["ReturnValues"], "ALL_NEW");
    assert_eq!(request["ReturnValuesOnConditionCheckFailure"], "ALL_OLD");
}

#[tokio::test]
async fn a_checkpoint_rides_on_the_renewal_and_clears_what_was_pending() {
    let script = Script::new([Answer::Json(json!({"Attributes": java_lease()}))]);
    let at = Checkpoint::At(ExtendedSequenceNumber::new(NUMBER.parse().expect("a number"), 7));
    let write = CheckpointWrite { state: Some((2, "x".into())), ..CheckpointWrite::new(at) };
    assert!(matches!(renew(&script, renewal(Some(write))).await, RenewOutcome::Renewed(_)));
    let update = filled(&only(&script).1, "UpdateExpression");
    for part in [
        format!("checkpoint = S:{NUMBER}, checkpointSubSequenceNumber = N:7, ownerSwitchesSinceCheckpoint = N:0"),
        "REMOVE pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState".to_owned(),
    ] {
        assert!(update.contains(&part), "{part} is not in {update}");
    }
}

fn refused(item: &Option<Value>) -> Answer {
    Answer::RefusalWith(
        400,
        json!({
            "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
            "message": "The conditional request failed",
            "Item": item,
        }),
    )
}

#[tokio::test]
async fn a_lost_reply_is_told_from_a_lost_lease_by_its_token() {
    let mut applied = java_lease();
    applied["leaseCounter"] = json!({"N": "42"});
    applied["shardwellToken"] = json!({"S": "00000000000000ab"});
    let outcome = renew(&Script::new([refused(&Some(applied.clone()))]), renewal(None)).await;
    assert!(matches!(outcome, RenewOutcome::Renewed(row) if row.counter == 42));
    applied["shardwellToken"] = json!({"S": "00000000000000ac"});
    let outcome = renew(&Script::new([refused(&Some(applied))]), renewal(None)).await;
    assert!(matches!(outcome, RenewOutcome::Lost(Some(row)) if row.owner == Some("java-1".into())));
    assert!(matches!(renew(&Script::new([refused(&None)]), renewal(None)).await, RenewOutcome::Lost(None)));
}

#[tokio::test]
async fn a_renewal_is_tried_once_and_tells_what_it_does_not_know() {
    let script = Script::new([Answer::Refusal(400, "ProvisionedThroughputExceededException", "slow down")]);
    let RenewOutcome::Unknown(error) = renew(&script, renewal(None)).await else { panic!("it is not known") };
    assert_eq!(error.kind(), StoreErrorKind::Throttled);
    assert!(error.to_string().contains("`delays`"), "{error}");
    assert_eq!(script.seen().len(), 1, "the worker decides what is tried again");
}

#[tokio::test]
async fn a_renewal_hears_of_a_handoff_whatever_it_carries() {
    let mut asked = java_lease();
    asked["checkpointOwner"] = json!({"S": "w"});
    let script = Script::new([Answer::Json(json!({"Attributes": asked}))]);
    let write = CheckpointWrite::new(Checkpoint::ShardEnd);
    assert!(matches!(renew(&script, renewal(Some(write))).await, RenewOutcome::HandoffRequested(_)));
}

#[tokio::test]
async fn a_lease_is_given_away_as_the_kcl_does_it() {
    let script = Script::new([Answer::Json(json!({"Attributes": java_lease()}))]);
    let answer = store(&script).assign(&Assignment::of(&as_seen(), "w".into())).await.expect("scripted");
    assert!(matches!(answer, Conditional::Applied(_)));
    let request = only(&script).1;
    assert_eq!(
        filled(&request, "UpdateExpression"),
        "SET leaseOwner = S:w REMOVE checkpointOwner, shardwellToken ADD leaseCounter N:1, ownerSwitchesSinceCheckpoint N:1"
    );
    assert_eq!(
        filled(&request, "ConditionExpression"),
        "((attribute_exists(leaseKey) AND (attribute_not_exists(entityType) OR entityType = S:LEASE)) AND leaseOwner = \
         S:java-1 AND attribute_not_exists(checkpointOwner) AND leaseCounter = N:41)"
    );
}

#[tokio::test]
async fn a_handoff_leaves_the_counter_to_the_old_owner() {
    let script = Script::new([refused(&Some(java_lease()))]);
    let handoff = HandoffStart { key: "shardId-000000000003".into(), from: "w".into(), to: "x".into() };
    let answer = store(&script).start_handoff(&handoff).await.expect("scripted");
    assert_eq!(answer, Conditional::Refused(Some(as_seen())));
    let request = only(&script).1;
    assert_eq!(filled(&request, "UpdateExpression"), "SET leaseOwner = S:x, checkpointOwner = S:w");
}

#[tokio::test]
async fn an_eviction_in_a_handoff_leaves_the_lease_with_its_new_owner() {
    let script = Script::new([Answer::Json(json!({"Attributes": java_lease()}))]);
    let mut seen = as_seen();
    seen.checkpoint_owner = Some("w".into());
    store(&script).evict(&Eviction::of(&seen)).await.expect("scripted");
    let update = filled(&only(&script).1, "UpdateExpression");
    assert_eq!(update, "REMOVE checkpointOwner, shardwellToken ADD leaseCounter N:1");
}

#[tokio::test]
async fn a_workers_item_is_what_a_java_leader_counts_with() {
    let script = Script::new([Answer::Json(json!({"Attributes": {}}))]);
    let mut metrics = WorkerMetrics::new("w".into(), Timestamp::from_millis(1_700_000_000_999));
    metrics.samples.insert("C".into(), vec![12.5, f64::NAN]);
    metrics.operating_range.insert("C".into(), vec![80.0]);
    store(&script).put_worker_metrics(&metrics).await.expect("scripted");
    let (_, request) = only(&script);
    assert_eq!(request["Key"], json!({"leaseKey": {"S": "w"}}));
    let update = filled(&request, "UpdateExpression");
    for part in [
        "entityType = S:WORKER_METRIC_STATS",
        "lut = N:1700000000",
        r#"sts = M:{"C":{"L":[{"N":"12.5"},{"N":"-1"}]}}"#,
        r#"opr = M:{"C":{"L":[{"N":"80"}]}}"#,
        "sup = N:1",
        "slu = N:1700000000",
    ] {
        assert!(update.contains(part), "{part} is not in {update}");
    }
}

#[tokio::test]
async fn a_table_is_created_with_its_index_and_paid_for_as_asked() {
    let active = json!({"Table": {
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [{"IndexName": "LeaseOwnerToLeaseKeyIndex", "IndexStatus": "ACTIVE"}],
    }});
    let missing = || Answer::Refusal(400, "ResourceNotFoundException", "no such table");
    let script = Script::new([
        missing(),
        Answer::Json(json!({"TableDescription": {}})),
        Answer::Json(active.clone()),
        Answer::Json(json!({})),
        Answer::Json(json!({})),
        missing(),
        Answer::Json(json!({})),
        Answer::Json(active),
    ]);
    let settings = TableSettings::default()
        .with_billing(Billing::Provisioned { read_units: 5, write_units: 6 })
        .with_deletion_protection(true)
        .with_tag("team", "delays");
    let config = script.dynamodb().time_source(StaticTimeSource::from_secs(7)).build();
    let store = DynamoLeaseStore::new(&Client::from_conf(config), "delays");
    store.with_table_settings(settings).prepare().await.expect("scripted");
    let (operation, created) = script.seen().remove(1);
    assert_eq!(operation, "CreateTable");
    let throughput = json!({"ReadCapacityUnits": 5, "WriteCapacityUnits": 6});
    let expected = json!({
        "TableName": "delays",
        "AttributeDefinitions": [
            {"AttributeName": "leaseKey", "AttributeType": "S"},
            {"AttributeName": "leaseOwner", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [{
            "IndexName": "LeaseOwnerToLeaseKeyIndex",
            "KeySchema": [
                {"AttributeName": "leaseOwner", "KeyType": "HASH"},
                {"AttributeName": "leaseKey", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
            "ProvisionedThroughput": throughput,
        }],
        "BillingMode": "PROVISIONED",
        "ProvisionedThroughput": throughput,
        "DeletionProtectionEnabled": true,
        "Tags": [{"Key": "team", "Value": "delays"}],
    });
    assert_eq!(created, expected);
    let asked: Vec<String> = script.seen().into_iter().map(|(operation, _)| operation).collect();
    let expected = "DescribeTable CreateTable DescribeTable GetItem GetItem DescribeTable PutItem DescribeTable";
    assert_eq!(asked.join(" "), expected);
    let (_, mut said) = script.seen().remove(6);
    let change = |version: &str| json!({"cv": {"S": version}, "mb": {"S": "shardwell"}, "mts": {"N": "7000"}});
    let mut item = change("CLIENT_VERSION_3X");
    item["leaseKey"] = json!({"S": "Migration3.0"});
    item["entityType"] = json!({"S": "CLIENT_VERSION_MIGRATION"});
    item["h"] = json!({"L": [{"M": change("CLIENT_VERSION_INIT")}]});
    assert_eq!((said["Item"].take(), &said["ConditionExpression"]), (item, &json!("attribute_not_exists(#leaseKey)")));
}

/// Two start at once, and the other one is of the manner of 2.x.
#[tokio::test]
async fn who_was_faster_says_how_the_fleet_runs() {
    let active = json!({"Table": {
        "TableStatus": "ACTIVE",
        "KeySchema": [{"AttributeName": "leaseKey", "KeyType": "HASH"}],
        "GlobalSecondaryIndexes": [{"IndexName": "LeaseOwnerToLeaseKeyIndex", "IndexStatus": "ACTIVE"}],
    }});
    let missing = || Answer::Refusal(400, "ResourceNotFoundException", "no such table");
    let nothing = || Answer::Json(json!({}));
    let theirs = json!({"Item": {"leaseKey": {"S": "Migration3.0"}, "cv": {"S": "CLIENT_VERSION_UPGRADE_FROM_2X"}}});
    let script = Script::new([
        Answer::Json(active),
        nothing(),
        nothing(),
        missing(),
        refused(&None),
        Answer::Json(theirs),
        nothing(),
        missing(),
    ]);
    let error = store(&script).prepare().await.expect_err("it cannot be joined");
    assert!(error.to_string().contains("CLIENT_VERSION_UPGRADE_FROM_2X"), "{error}");
}

#[tokio::test]
async fn a_table_of_another_shape_is_somebody_elses() {
    let found = json!({"Table": {"TableStatus": "ACTIVE", "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}});
    let error = store(&Script::new([Answer::Json(found)])).prepare().await.expect_err("it is not ours");
    assert_eq!(error.kind(), StoreErrorKind::Unusable);
    assert!(error.to_string().contains(r#"["id"]"#), "{error}");
}

#[tokio::test]
async fn a_reset_takes_the_lease_away_and_leaves_what_else_is_known() {
    let script = Script::new([Answer::Json(json!({"Attributes": java_lease()}))]);
    let reset = Reset { key: "shardId-000000000003".into(), to: CheckpointWrite::new(Checkpoint::TrimHorizon) };
    store(&script).reset(&reset).await.expect("scripted");
    let (operation, request) = only(&script);
    assert_eq!(operation, "UpdateItem");
    assert_eq!(
        filled(&request, "UpdateExpression"),
        "SET checkpoint = S:TRIM_HORIZON, checkpointSubSequenceNumber = N:0, ownerSwitchesSinceCheckpoint = N:0 \
         REMOVE shardwellState, pendingCheckpoint, pendingCheckpointSubSequenceNumber, pendingCheckpointState, leaseOwner, \
         checkpointOwner, shardwellToken ADD leaseCounter N:1"
    );
    let there = "(attribute_exists(leaseKey) AND (attribute_not_exists(entityType) OR entityType = S:LEASE))";
    assert_eq!(filled(&request, "ConditionExpression"), there);
}

#[tokio::test]
async fn a_look_at_leases_and_workers_is_one_scan() {
    let worker =
        json!({"leaseKey": {"S": "w"}, "entityType": {"S": "WORKER_METRIC_STATS"}, "lut": {"N": "1700000000"}});
    let script = Script::new([Answer::Json(json!({"Items": [java_lease(), worker]}))]);
    let (listing, workers) = store(&script).look().await.expect("scripted");
    assert_eq!(listing.leases, [as_seen()]);
    assert_eq!(workers.len(), 1, "{workers:?}");
    assert_eq!(only(&script).0, "Scan");
}
