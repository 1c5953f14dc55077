//! Each operation over HTTP, by name and by ARN.

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Client, Json, ids, instant, payloads, shard, text};
use serde_json::json;

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/flights";
const MIDDLE: &str = "170141183460469231731687303715884105728";

#[tokio::test]
async fn streams_are_created_described_listed_and_deleted() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    for name in ["c", "a", "b"] {
        client.create(name, 2).await;
    }
    assert_eq!(
        client.refusal("CreateStream", json!({ "StreamName": "a", "ShardCount": 1 })).await,
        "ResourceInUseException"
    );
    let page = client.call("ListStreams", json!({ "Limit": 2 })).await;
    assert_eq!((&page["StreamNames"], &page["HasMoreStreams"]), (&json!(["a", "b"]), &json!(true)));
    let rest = client.call("ListStreams", json!({ "Limit": 2, "NextToken": page["NextToken"] })).await;
    assert_eq!((&rest["StreamNames"], &rest["HasMoreStreams"]), (&json!(["c"]), &json!(false)));
    assert_eq!(rest["StreamSummaries"][0]["StreamModeDetails"]["StreamMode"], "PROVISIONED");
    let after = client.call("ListStreams", json!({ "ExclusiveStartStreamName": "a" })).await;
    assert_eq!(after["StreamNames"], json!(["b", "c"]));
    client.call("DeleteStream", json!({ "StreamName": "b", "EnforceConsumerDeletion": true })).await;
    assert_eq!(client.call("ListStreams", json!({})).await["StreamNames"], json!(["a", "c"]));
}

#[tokio::test]
async fn the_settings_of_a_stream_are_kept() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    let mode = json!({ "StreamMode": "ON_DEMAND" });
    let request = json!({ "StreamName": "flights", "StreamModeDetails": mode, "Tags": { "team": "ops" }, "MaxRecordSizeInKiB": 2048 });
    client.call("CreateStream", request).await;
    let summary = &client.call("DescribeStreamSummary", json!({ "StreamARN": ARN })).await["StreamDescriptionSummary"];
    assert_eq!(summary["StreamModeDetails"], mode);
    assert_eq!((&summary["OpenShardCount"], &summary["MaxRecordSizeInKiB"]), (&json!(4), &json!(2048)));
    assert_eq!((&summary["RetentionPeriodHours"], &summary["EncryptionType"]), (&json!(24), &json!("NONE")));
    assert_eq!(engine.kinesis().lock().describe("flights", engine.now()).expect("there").tags["team"], "ops");
    client.put("flights", "key", &"x".repeat(1_500_000)).await;
    let split = json!({ "StreamName": "flights", "ShardToSplit": shard(0), "NewStartingHashKey": "5" });
    assert_eq!(client.refusal("SplitShard", split).await, "ValidationException");
    for (operation, hours) in [("IncreaseStreamRetentionPeriod", 48), ("DecreaseStreamRetentionPeriod", 36)] {
        client.call(operation, json!({ "StreamARN": ARN, "RetentionPeriodHours": hours })).await;
        let description = client.call("DescribeStream", json!({ "StreamName": "flights" })).await;
        assert_eq!(description["StreamDescription"]["RetentionPeriodHours"], hours);
    }
}

#[tokio::test]
async fn records_are_put_and_read_back_as_they_were() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 2).await;
    let keys = ["a", "clé \"quoted\" \\ \u{1}", "N14228"];
    let bytes: Vec<Vec<u8>> = vec![vec![], (0..=255).collect(), vec![7; 700_001]];
    let records: Vec<Json> = keys
        .iter()
        .zip(&bytes)
        .map(|(key, data)| json!({ "PartitionKey": key, "Data": STANDARD.encode(data), "ExplicitHashKey": "0" }))
        .collect();
    let answer = client.call("PutRecords", json!({ "StreamARN": ARN, "Records": records })).await;
    assert_eq!(answer["FailedRecordCount"], 0);
    let iterator = client.iterator("flights", &shard(0), "TRIM_HORIZON").await;
    let got = client.call("GetRecords", json!({ "ShardIterator": iterator, "StreamARN": ARN })).await;
    assert_eq!(got["Records"].as_array().expect("records").len(), 3);
    for (place, (key, data)) in keys.iter().zip(&bytes).enumerate() {
        let record = &got["Records"][place];
        assert_eq!(record["PartitionKey"], *key);
        assert_eq!(&STANDARD.decode(text(&record["Data"])).expect("base64"), data);
        assert_eq!(record["SequenceNumber"], answer["Records"][place]["SequenceNumber"]);
        assert_eq!(answer["Records"][place]["ShardId"], shard(0));
        assert!(record["ApproximateArrivalTimestamp"].as_f64().is_some_and(|seconds| seconds > 1.6e9));
    }
    assert_eq!(got["MillisBehindLatest"], 0);
    assert!(got.get("ChildShards").is_none());
    let ordered = json!({ "StreamName": "flights", "PartitionKey": "a", "Data": "", "SequenceNumberForOrdering": answer["Records"][2]["SequenceNumber"] });
    let next = text(&client.call("PutRecord", ordered).await["SequenceNumber"]);
    assert!(next > text(&answer["Records"][2]["SequenceNumber"]), "as long, so text compares");
}

#[tokio::test]
async fn every_iterator_type_starts_where_it_says() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 1).await;
    let mut numbers = Vec::new();
    for data in ["0", "1", "2"] {
        numbers.push(text(&client.put("flights", "key", data).await["SequenceNumber"]));
        engine.advance_clock(std::time::Duration::from_secs(10));
    }
    let first = client.iterator("flights", &shard(0), "TRIM_HORIZON").await;
    let all = client.call("GetRecords", json!({ "ShardIterator": first })).await;
    let second_arrival = all["Records"][1]["ApproximateArrivalTimestamp"].clone();
    for (kind, extra, expected) in [
        ("LATEST", json!({}), vec![]),
        ("AT_SEQUENCE_NUMBER", json!({ "StartingSequenceNumber": numbers[1] }), vec!["1", "2"]),
        ("AFTER_SEQUENCE_NUMBER", json!({ "StartingSequenceNumber": numbers[1] }), vec!["2"]),
        ("AT_TIMESTAMP", json!({ "Timestamp": second_arrival }), vec!["1", "2"]),
        ("AT_TIMESTAMP", json!({ "Timestamp": 0 }), vec!["0", "1", "2"]),
    ] {
        let mut request = json!({ "StreamARN": ARN, "ShardId": shard(0), "ShardIteratorType": kind });
        request.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        let iterator = text(&client.call("GetShardIterator", request).await["ShardIterator"]);
        let answer = client.call("GetRecords", json!({ "ShardIterator": iterator })).await;
        assert_eq!(payloads(&answer), expected, "{kind}");
    }
    let behind = client.call("GetRecords", json!({ "ShardIterator": first, "Limit": 1 })).await;
    let millis = behind["MillisBehindLatest"].as_i64().expect("a number");
    assert!((20_000..30_000).contains(&millis), "the second record is 20 s old: {millis}");
}

#[tokio::test]
async fn a_closed_shard_ends_with_its_last_records_and_its_children() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 1).await;
    client.put("flights", "key", "last").await;
    client
        .call("SplitShard", json!({ "StreamARN": ARN, "ShardToSplit": shard(0), "NewStartingHashKey": MIDDLE }))
        .await;
    let iterator = client.iterator("flights", &shard(0), "TRIM_HORIZON").await;
    let end = client.call("GetRecords", json!({ "ShardIterator": iterator })).await;
    assert_eq!(payloads(&end), ["last"]);
    assert!(end.get("NextShardIterator").is_none());
    let below = (MIDDLE.parse::<u128>().expect("a number") - 1).to_string();
    assert_eq!(
        end["ChildShards"],
        json!([
            { "ShardId": shard(1), "ParentShards": [shard(0)], "HashKeyRange": { "StartingHashKey": "0", "EndingHashKey": below } },
            { "ShardId": shard(2), "ParentShards": [shard(0)], "HashKeyRange": { "StartingHashKey": MIDDLE, "EndingHashKey": u128::MAX.to_string() } },
        ])
    );
    client
        .call(
            "MergeShards",
            json!({ "StreamName": "flights", "ShardToMerge": shard(1), "AdjacentShardToMerge": shard(2) }),
        )
        .await;
    let iterator = client.iterator("flights", &shard(2), "LATEST").await;
    let end = client.call("GetRecords", json!({ "ShardIterator": iterator })).await;
    assert_eq!(end["ChildShards"][0]["ParentShards"], json!([shard(1), shard(2)]));
    let request = json!({ "StreamARN": ARN, "TargetShardCount": 2, "ScalingType": "UNIFORM_SCALING" });
    let update = client.call("UpdateShardCount", request).await;
    assert_eq!((&update["CurrentShardCount"], &update["TargetShardCount"]), (&json!(1), &json!(2)));
    let description = client.call("DescribeStream", json!({ "StreamName": "flights", "Limit": 2 })).await;
    let description = &description["StreamDescription"];
    assert_eq!((ids(&description["Shards"]), &description["HasMoreShards"]), (vec![shard(0), shard(1)], &json!(true)));
    assert!(description["Shards"][0]["SequenceNumberRange"]["EndingSequenceNumber"].is_string());
    let request = json!({ "StreamName": "flights", "ExclusiveStartShardId": shard(1) });
    let description = client.call("DescribeStream", request).await;
    let description = &description["StreamDescription"];
    assert_eq!(ids(&description["Shards"]), (2..6).map(shard).collect::<Vec<_>>());
    assert_eq!(description["HasMoreShards"], false);
    assert_eq!(description["Shards"][1]["AdjacentParentShardId"], shard(2));
    assert!(description["Shards"][3]["SequenceNumberRange"].get("EndingSequenceNumber").is_none());
}

#[tokio::test]
async fn shards_are_listed_by_every_filter_and_in_pages() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 2).await;
    let seconds = |engine: &shardwell_local::LocalEngine| engine.now().as_millis() as f64 / 1000.0;
    let before = seconds(&engine);
    engine.advance_clock(std::time::Duration::from_secs(60));
    client
        .call("SplitShard", json!({ "StreamName": "flights", "ShardToSplit": shard(0), "NewStartingHashKey": "5" }))
        .await;
    engine.advance_clock(std::time::Duration::from_secs(60));
    let after = seconds(&engine);
    let (all, oldest, open) = (vec![0, 1, 2, 3], vec![0, 1], vec![1, 2, 3]);
    for (filter, expected) in [
        (json!({ "Type": "AT_LATEST" }), &open),
        (json!({ "Type": "AT_TRIM_HORIZON" }), &oldest),
        (json!({ "Type": "FROM_TRIM_HORIZON" }), &all),
        (json!({ "Type": "AT_TIMESTAMP", "Timestamp": before }), &oldest),
        (json!({ "Type": "AT_TIMESTAMP", "Timestamp": after }), &open),
        (json!({ "Type": "FROM_TIMESTAMP", "Timestamp": before }), &all),
        (json!({ "Type": "FROM_TIMESTAMP", "Timestamp": after }), &open),
        (json!({ "Type": "AFTER_SHARD_ID", "ShardId": shard(1) }), &vec![2, 3]),
    ] {
        let expected: Vec<_> = expected.iter().copied().map(shard).collect();
        assert_eq!(client.shard_ids(json!({ "StreamARN": ARN, "ShardFilter": filter })).await, expected, "{filter}");
        // The same in pages of one, with the name beside the token as the AWS CLI has it.
        let mut request = json!({ "StreamName": "flights", "ShardFilter": filter, "MaxResults": 1 });
        let mut paged = Vec::new();
        loop {
            let page = client.call("ListShards", request.clone()).await;
            paged.extend(ids(&page["Shards"]));
            let Some(token) = page.get("NextToken") else { break };
            request["NextToken"] = token.clone();
        }
        assert_eq!(paged, expected, "{filter}");
    }
    let page = client.call("ListShards", json!({ "StreamName": "flights", "MaxResults": 2 })).await;
    let token = &page["NextToken"];
    assert_eq!(client.shard_ids(json!({ "NextToken": token })).await, [shard(2), shard(3)], "the token alone");
    let invalid = "InvalidArgumentException";
    assert_eq!(client.refusal("ListShards", json!({ "NextToken": token, "StreamName": "other" })).await, invalid);
    let other = json!({ "NextToken": token, "ShardFilter": { "Type": "AT_LATEST" } });
    assert_eq!(client.refusal("ListShards", other).await, invalid);
    let start = json!({ "StreamName": "flights", "ExclusiveStartShardId": shard(2) });
    assert_eq!(client.shard_ids(start).await, [shard(3)]);
    engine.advance_clock(std::time::Duration::from_secs(302));
    assert_eq!(client.refusal("ListShards", json!({ "NextToken": token })).await, "ExpiredNextTokenException");
}

#[tokio::test]
async fn a_listing_tells_a_stream_from_its_namesake() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 2).await;
    let summary = client.call("DescribeStreamSummary", json!({ "StreamName": "flights" })).await;
    let created = summary["StreamDescriptionSummary"]["StreamCreationTimestamp"].as_f64().expect("a time");
    for created in [json!(created), json!(created as i64)] {
        let request = json!({ "StreamName": "flights", "StreamCreationTimestamp": created });
        assert_eq!(client.shard_ids(request).await.len(), 2);
    }
    let token =
        client.call("ListShards", json!({ "StreamName": "flights", "MaxResults": 1 })).await["NextToken"].clone();
    client.call("DeleteStream", json!({ "StreamARN": ARN })).await;
    engine.advance_clock(std::time::Duration::from_secs(2));
    client.create("flights", 2).await;
    let not_found = "ResourceNotFoundException";
    assert_eq!(client.refusal("ListShards", json!({ "NextToken": token })).await, not_found);
    let request = json!({ "StreamName": "flights", "StreamCreationTimestamp": created });
    assert_eq!(client.refusal("ListShards", request).await, not_found);
}

#[tokio::test]
async fn the_largest_request_and_answer_pass() {
    let engine = instant().start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 1).await;
    // 500 records of 20,971 bytes with a key of one: 10 MiB less 240 bytes.
    let record = json!({ "PartitionKey": "k", "Data": STANDARD.encode(vec![1u8; 20_970]) });
    let answer = client.call("PutRecords", json!({ "StreamName": "flights", "Records": vec![record; 500] })).await;
    assert_eq!(answer["Records"].as_array().expect("results").len(), 500);
    let iterator = client.iterator("flights", &shard(0), "TRIM_HORIZON").await;
    let got = client.call("GetRecords", json!({ "ShardIterator": iterator })).await;
    assert_eq!(got["Records"].as_array().expect("records").len(), 500);
    assert_eq!(got["MillisBehindLatest"], 0);
}
