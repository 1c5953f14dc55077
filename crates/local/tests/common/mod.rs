//! An HTTP client that is just enough for the engine: one connection, one request after the other.
#![allow(dead_code, reason = "each test file uses its own part")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use shardwell_local::{LocalEngine, LocalEngineBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub(crate) type Json = Value;

/// An engine whose changes of state take no time.
pub(crate) fn instant() -> LocalEngineBuilder {
    LocalEngine::builder().state_delay(std::time::Duration::ZERO)
}

pub(crate) struct Client(BufReader<TcpStream>);

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(engine: &LocalEngine) -> Self {
        Self(BufReader::new(TcpStream::connect(engine.address()).await.expect("connected")))
    }

    /// Calls an operation, which must succeed.
    pub(crate) async fn call(&mut self, operation: &str, request: Json) -> Json {
        let answer = self.operation(operation, request.to_string().as_bytes()).await;
        let body = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{operation} {request}: {body}");
        if answer.body.is_empty() { Json::Null } else { serde_json::from_slice(&answer.body).expect("JSON") }
    }

    /// Calls an operation, which must be refused, and gives the name of the exception.
    pub(crate) async fn refusal(&mut self, operation: &str, request: Json) -> String {
        self.refusal_of(operation, request.to_string().as_bytes()).await
    }

    pub(crate) async fn refusal_of(&mut self, operation: &str, body: &[u8]) -> String {
        let answer = self.operation(operation, body).await;
        let body: Json = serde_json::from_slice(&answer.body).expect("an error in JSON");
        assert_eq!(answer.status, 400, "{operation}: {body}");
        assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        body["__type"].as_str().expect("a type").to_owned()
    }

    pub(crate) async fn operation(&mut self, operation: &str, body: &[u8]) -> Answer {
        let target =
            format!("x-amz-target: Kinesis_20131202.{operation}\r\ncontent-type: application/x-amz-json-1.1\r\n");
        self.send("POST", &target, body).await
    }

    /// Sends any request.
    pub(crate) async fn send(&mut self, method: &str, headers: &str, body: &[u8]) -> Answer {
        let head = format!("{method} / HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n", body.len());
        let connection = self.0.get_mut();
        connection.write_all(head.as_bytes()).await.expect("written");
        connection.write_all(body).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.expect("an answer"));
        }
        let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").parse().expect("a number")];
        self.0.read_exact(&mut body).await.expect("the body");
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        Answer { status, head, body }
    }

    pub(crate) async fn create(&mut self, name: &str, shards: u32) {
        self.call("CreateStream", json!({ "StreamName": name, "ShardCount": shards })).await;
    }

    pub(crate) async fn put(&mut self, stream: &str, key: &str, data: &str) -> Json {
        self.call("PutRecord", json!({ "StreamName": stream, "PartitionKey": key, "Data": STANDARD.encode(data) }))
            .await
    }

    pub(crate) async fn iterator(&mut self, stream: &str, shard: &str, kind: &str) -> String {
        let request = json!({ "StreamName": stream, "ShardId": shard, "ShardIteratorType": kind });
        text(&self.call("GetShardIterator", request).await["ShardIterator"])
    }

    pub(crate) async fn status(&mut self, stream: &str) -> String {
        let answer = self.call("DescribeStreamSummary", json!({ "StreamName": stream })).await;
        text(&answer["StreamDescriptionSummary"]["StreamStatus"])
    }

    pub(crate) async fn shard_ids(&mut self, request: Json) -> Vec<String> {
        ids(&self.call("ListShards", request).await["Shards"])
    }
}

pub(crate) fn ids(shards: &Json) -> Vec<String> {
    shards.as_array().expect("shards").iter().map(|shard| text(&shard["ShardId"])).collect()
}

pub(crate) fn shard(index: u32) -> String {
    format!("shardId-{index:012}")
}

pub(crate) fn text(value: &Json) -> String {
    value.as_str().expect("a string").to_owned()
}

pub(crate) fn payloads(answer: &Json) -> Vec<String> {
    let decode = |record: &Json| {
        let bytes = STANDARD.decode(record["Data"].as_str().expect("data")).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    answer["Records"].as_array().expect("records").iter().map(decode).collect()
}
