//! What is refused, and that nothing breaks the engine.

mod common;

use common::{Client, instant, shard};
use serde_json::json;

#[tokio::test]
async fn malformed_bodies_are_serialization_errors() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 1).await;
    let put = "{\"StreamName\":\"flights\",\"PartitionKey\":\"a\",\"Data\":";
    for (operation, body) in [
        ("PutRecord", String::new()),
        ("PutRecord", "{".to_owned()),
        ("PutRecord", "[]".to_owned()),
        ("PutRecord", "[\"flights\"]".to_owned()),
        ("PutRecord", "null".to_owned()),
        ("PutRecord", format!("{put}\"not base64!\"}}")),
        ("PutRecord", format!("{put}5}}")),
        ("PutRecord", format!("{put}\"\"}} and more")),
        ("PutRecords", "{\"StreamName\":\"flights\",\"Records\":{}}".to_owned()),
        ("GetRecords", "{\"ShardIterator\":\"x\",\"Limit\":\"10\"}".to_owned()),
        ("GetRecords", "{\"ShardIterator\":\"x\",\"Limit\":1.5}".to_owned()),
        ("CreateStream", "{\"StreamName\":7,\"ShardCount\":1}".to_owned()),
        ("CreateStream", "{\"StreamName\":\"x\",\"ShardCount\":99999999999999999999}".to_owned()),
        ("ListShards", "[".repeat(10_000)),
        ("ListShards", format!("{{\"x\":{}", "[".repeat(100_000))),
    ] {
        let refusal = client.refusal_of(operation, body.as_bytes()).await;
        assert_eq!(refusal, "SerializationException", "{operation} {}", &body[..body.len().min(80)]);
    }
    assert_eq!(client.refusal_of("PutRecord", b"{\"StreamName\":\"\xff\"}").await, "SerializationException");
}

#[tokio::test]
async fn missing_and_impossible_fields_are_refused_by_name() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 2).await;
    let (validation, invalid, missing) =
        ("ValidationException", "InvalidArgumentException", "ResourceNotFoundException");
    let iterator = |kind: &str| json!({ "StreamName": "flights", "ShardId": shard(0), "ShardIteratorType": kind });
    let with = |mut request: common::Json, field: &str, value: common::Json| {
        request[field] = value;
        request
    };
    let put = json!({ "StreamName": "flights", "PartitionKey": "a", "Data": "" });
    let scale = json!({ "StreamName": "flights", "TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING" });
    let on_demand = json!({ "StreamName": "x", "StreamModeDetails": { "StreamMode": "ON_DEMAND" } });
    for (operation, request, expected) in [
        ("CreateStream", json!({}), validation),
        ("CreateStream", json!({ "StreamName": null, "ShardCount": 1 }), validation),
        ("CreateStream", json!({ "StreamName": "x" }), validation),
        ("CreateStream", json!({ "StreamName": "x y", "ShardCount": 1 }), validation),
        ("CreateStream", json!({ "StreamName": "x", "ShardCount": 0 }), validation),
        ("CreateStream", json!({ "StreamName": "x", "ShardCount": -1 }), validation),
        (
            "CreateStream",
            json!({ "StreamName": "x", "ShardCount": 1, "StreamModeDetails": { "StreamMode": "?" } }),
            validation,
        ),
        ("CreateStream", with(on_demand.clone(), "ShardCount", json!(3)), validation),
        ("CreateStream", with(on_demand, "WarmThroughputMiBps", json!(100)), invalid),
        ("CreateStream", json!({ "StreamName": "x", "ShardCount": 1, "MaxRecordSizeInKiB": 5 }), validation),
        ("DescribeStream", json!({}), validation),
        ("DescribeStream", json!({ "StreamName": "flights", "Limit": 0 }), validation),
        ("DescribeStream", json!({ "StreamARN": "flights" }), validation),
        ("DescribeStream", json!({ "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/other" }), missing),
        ("DescribeStream", json!({ "StreamARN": "arn:aws:kinesis:eu-west-1:000000000000:stream/flights" }), missing),
        (
            "DescribeStream",
            json!({ "StreamName": "flights", "StreamARN": "arn:aws:kinesis:us-east-1:000000000000:stream/x" }),
            invalid,
        ),
        ("ListStreams", json!({ "Limit": 10_001 }), validation),
        ("ListStreams", json!({ "NextToken": "made up" }), invalid),
        ("ListShards", json!({ "NextToken": "made up" }), invalid),
        ("ListShards", json!({ "StreamName": "flights", "MaxResults": 0 }), validation),
        ("ListShards", json!({ "StreamName": "flights", "ShardFilter": {} }), validation),
        ("ListShards", json!({ "StreamName": "flights", "ShardFilter": { "Type": "?" } }), validation),
        ("ListShards", json!({ "StreamName": "flights", "ShardFilter": { "Type": "AT_TIMESTAMP" } }), validation),
        (
            "ListShards",
            json!({ "StreamName": "flights", "ShardFilter": { "Type": "AT_LATEST", "ShardId": shard(0) } }),
            invalid,
        ),
        ("GetShardIterator", iterator("?"), validation),
        ("GetShardIterator", iterator("AT_TIMESTAMP"), invalid),
        ("GetShardIterator", iterator("AT_SEQUENCE_NUMBER"), invalid),
        ("GetShardIterator", with(iterator("LATEST"), "Timestamp", json!(1)), invalid),
        ("GetShardIterator", with(iterator("AT_TIMESTAMP"), "Timestamp", json!(9_999_999_999u64)), invalid),
        ("GetShardIterator", with(iterator("AT_SEQUENCE_NUMBER"), "StartingSequenceNumber", json!("x")), validation),
        ("GetShardIterator", with(iterator("AT_SEQUENCE_NUMBER"), "StartingSequenceNumber", json!("7")), invalid),
        ("GetShardIterator", with(iterator("LATEST"), "ShardId", json!("shardId-000000000009")), missing),
        ("GetRecords", json!({}), validation),
        ("GetRecords", json!({ "ShardIterator": "AAAA" }), invalid),
        ("PutRecord", with(put.clone(), "PartitionKey", json!("")), validation),
        ("PutRecord", with(put.clone(), "PartitionKey", json!(null)), validation),
        ("PutRecord", with(put.clone(), "Data", json!(null)), validation),
        ("PutRecord", with(put.clone(), "StreamName", json!("other")), missing),
        ("PutRecord", with(put.clone(), "ExplicitHashKey", json!("007")), validation),
        ("PutRecord", with(put.clone(), "ExplicitHashKey", json!("340282366920938463463374607431768211456")), invalid),
        ("PutRecord", with(put.clone(), "SequenceNumberForOrdering", json!("x")), validation),
        ("PutRecord", with(put, "DryRun", json!(true)), invalid),
        ("PutRecords", json!({ "StreamName": "flights" }), validation),
        ("PutRecords", json!({ "StreamName": "flights", "Records": [] }), validation),
        (
            "PutRecords",
            json!({ "StreamName": "flights", "Records": vec![json!({ "Data": "", "PartitionKey": "a" }); 501] }),
            validation,
        ),
        ("SplitShard", json!({ "StreamName": "flights", "ShardToSplit": shard(0) }), validation),
        (
            "SplitShard",
            json!({ "StreamName": "flights", "ShardToSplit": shard(0), "NewStartingHashKey": "0" }),
            invalid,
        ),
        (
            "MergeShards",
            json!({ "StreamName": "flights", "ShardToMerge": shard(0), "AdjacentShardToMerge": shard(0) }),
            invalid,
        ),
        ("UpdateShardCount", with(scale.clone(), "TargetShardCount", json!(5)), invalid),
        ("UpdateShardCount", with(scale.clone(), "TargetShardCount", json!(2)), invalid),
        ("UpdateShardCount", with(scale, "ScalingType", json!("OTHER")), validation),
        ("IncreaseStreamRetentionPeriod", json!({ "StreamName": "flights", "RetentionPeriodHours": 8761 }), validation),
        ("DecreaseStreamRetentionPeriod", json!({ "StreamName": "flights", "RetentionPeriodHours": 48 }), invalid),
    ] {
        assert_eq!(client.refusal(operation, request.clone()).await, expected, "{operation} {request}");
    }
    assert_eq!(client.shard_ids(json!({ "StreamName": "flights", "Unknown": [1] })).await.len(), 2, "nothing changed");
}

#[tokio::test]
async fn what_is_no_operation_is_said_to_be_unknown() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    assert_eq!(client.refusal("MakeCoffee", json!({})).await, "UnknownOperationException");
    for (method, headers) in [
        ("POST", ""),
        ("POST", "x-amz-target: DynamoDB_20120810.ListTables\r\n"),
        ("GET", "x-amz-target: Kinesis_20131202.ListStreams\r\n"),
    ] {
        let answer = client.send(method, headers, b"{}").await;
        assert_eq!(answer.status, 400);
        assert!(String::from_utf8_lossy(&answer.body).contains("UnknownOperationException"), "{method} {headers}");
        assert!(answer.head.contains("x-amzn-requestid: ") && answer.head.contains("application/x-amz-json-1.1"));
    }
    let cbor = "x-amz-target: Kinesis_20131202.ListStreams\r\ncontent-type: application/x-amz-cbor-1.1\r\n";
    let answer = client.send("POST", cbor, b"\xa0").await;
    assert!(String::from_utf8_lossy(&answer.body).contains("CBOR"), "what to do is said");
    let signed = "x-amz-target: Kinesis_20131202.ListStreams\r\nauthorization: AWS4-HMAC-SHA256 nonsense\r\n";
    assert_eq!(client.send("POST", signed, b"{}").await.status, 200, "signatures are not looked at");
}

#[tokio::test]
async fn a_body_beyond_any_limit_is_refused() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    let answer = client.operation("PutRecords", &vec![b' '; 21 * 1024 * 1024]).await;
    assert_eq!(answer.status, 413);
}
