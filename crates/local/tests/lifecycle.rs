//! Starting, stopping, ports and clocks.

mod common;

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use common::{Client, instant};
use serde_json::json;
use shardwell_core::Timestamp;
use shardwell_local::{LocalEngine, StartError};

#[tokio::test]
async fn a_dropped_engine_frees_its_port_and_its_connections() {
    let engine = LocalEngine::start().await.expect("started");
    let address = engine.address();
    assert!(address.ip().is_loopback());
    assert_eq!(engine.endpoint(), format!("http://127.0.0.1:{}", address.port()));
    let mut client = Client::connect(&engine).await;
    client.call("ListStreams", json!({})).await;
    drop(engine);
    TcpListener::bind(address).expect("the port is free at once");
    let again = LocalEngine::builder().port(address.port()).start().await.expect("started there again");
    let mut client = Client::connect(&again).await;
    assert_eq!(client.call("ListStreams", json!({})).await["StreamNames"], json!([]), "nothing is kept");
    again.stop().await;
    TcpListener::bind(address).expect("stopping frees it too");
}

#[tokio::test]
async fn an_engine_ends_its_open_connections() {
    use tokio::io::AsyncReadExt;
    let engine = LocalEngine::start().await.expect("started");
    let mut connection = tokio::net::TcpStream::connect(engine.address()).await.expect("connected");
    engine.stop().await;
    let read = connection.read(&mut [0; 8]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_do() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let port = taken.local_addr().expect("an address").port();
    let error = LocalEngine::builder().port(port).start().await.expect_err("taken");
    assert!(matches!(error, StartError::PortTaken { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains(&port.to_string()) && message.contains("choose another port"), "{message}");
}

#[tokio::test]
async fn two_engines_are_two_worlds() {
    let (a, b) =
        (instant().start().await.expect("started"), instant().region("eu-west-1").start().await.expect("started"));
    Client::connect(&a).await.create("flights", 1).await;
    assert_eq!(a.kinesis().lock().list_streams(a.now()).len(), 1);
    let mut client = Client::connect(&b).await;
    assert_eq!(client.refusal("DescribeStream", json!({ "StreamName": "flights" })).await, "ResourceNotFoundException");
    client.create("flights", 1).await;
    let answer = client.call("DescribeStreamSummary", json!({ "StreamName": "flights" })).await;
    let arn = "arn:aws:kinesis:eu-west-1:000000000000:stream/flights";
    assert_eq!(answer["StreamDescriptionSummary"]["StreamARN"], arn);
}

#[tokio::test]
async fn states_and_times_follow_the_injected_clock() {
    let start = Timestamp::from_millis(1_357_017_300_007);
    let engine = LocalEngine::builder().clock(move || start).start().await.expect("started");
    let mut client = Client::connect(&engine).await;
    client.create("flights", 1).await;
    assert_eq!(client.status("flights").await, "CREATING");
    assert_eq!(client.refusal("ListShards", json!({ "StreamName": "flights" })).await, "ResourceInUseException");
    engine.advance_clock(Duration::from_millis(100));
    assert_eq!(client.status("flights").await, "ACTIVE");
    let answer = client.call("DescribeStreamSummary", json!({ "StreamName": "flights" })).await;
    assert_eq!(answer["StreamDescriptionSummary"]["StreamCreationTimestamp"], 1_357_017_300.007);
    client.put("flights", "N14228", "one").await;
    let iterator = client.iterator("flights", &common::shard(0), "TRIM_HORIZON").await;
    let answer = client.call("GetRecords", json!({ "ShardIterator": iterator })).await;
    assert_eq!(answer["Records"][0]["ApproximateArrivalTimestamp"], 1_357_017_300.107);
    engine.advance_clock(Duration::from_millis(300_001));
    assert_eq!(client.refusal("GetRecords", json!({ "ShardIterator": iterator })).await, "ExpiredIteratorException");
    client.call("DeleteStream", json!({ "StreamName": "flights" })).await;
    assert_eq!(client.status("flights").await, "DELETING");
    engine.advance_clock(Duration::from_millis(100));
    assert_eq!(client.refusal("DeleteStream", json!({ "StreamName": "flights" })).await, "ResourceNotFoundException");
}
