//! Writers and a reader at the same time: a reader that goes from one iterator to the next sees every acknowledged record
//! once.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Client, instant, shard, text};
use serde_json::json;
use shardwell_core::{Env, EnvExt, Place, SystemEnv};

const WRITERS: usize = 3;
const BATCHES: usize = 40;
const BATCH: usize = 100;
const WATCHDOG: Duration = Duration::from_secs(60);

async fn write(mut client: Client, writer: usize, done: Arc<AtomicUsize>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for batch in 0..BATCHES {
        let record = |i| json!({ "PartitionKey": format!("{writer}/{batch}/{i}"), "Data": "AAAA" });
        let records: Vec<_> = (0..BATCH).map(record).collect();
        let answer = client.call("PutRecords", json!({ "StreamName": "flights", "Records": records })).await;
        acknowledged.extend(answer["Records"].as_array().expect("results").iter().map(|r| text(&r["SequenceNumber"])));
    }
    done.fetch_add(1, Ordering::SeqCst);
    acknowledged
}

async fn follow(mut client: Client, done: Arc<AtomicUsize>) -> Vec<String> {
    let mut iterator = client.iterator("flights", &shard(0), "TRIM_HORIZON").await;
    let mut seen = Vec::new();
    loop {
        // Looked at before the read: what was acknowledged before it must be in this answer or an earlier one.
        let all_written = done.load(Ordering::SeqCst) == WRITERS;
        let answer = client.call("GetRecords", json!({ "ShardIterator": iterator, "Limit": 173 })).await;
        seen.extend(answer["Records"].as_array().expect("records").iter().map(|r| text(&r["SequenceNumber"])));
        iterator = text(&answer["NextShardIterator"]);
        if all_written && answer["MillisBehindLatest"] == 0 {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_sees_every_acknowledged_record_once() {
    let env = SystemEnv::new().expect("threads");
    let engine = instant().start().await.expect("started");
    Client::connect(&engine).await.create("flights", 1).await;
    let done = Arc::new(AtomicUsize::new(0));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let client = Client::connect(&engine).await;
        writers.push(env.spawn(Place::Pipeline, write(client, writer, Arc::clone(&done))));
    }
    let reader = env.spawn(Place::Pipeline, follow(Client::connect(&engine).await, done));
    let deadline = env.now().plus(WATCHDOG);
    let mut acknowledged = BTreeSet::new();
    for writer in writers {
        let numbers = env.deadline(deadline, writer).await.expect("the engine hangs").expect("written");
        acknowledged.extend(numbers);
    }
    let seen = env.deadline(deadline, reader).await.expect("the engine hangs").expect("read");
    assert_eq!(acknowledged.len(), WRITERS * BATCHES * BATCH);
    assert!(seen.is_sorted_by(|a, b| a < b), "in order and none twice");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), acknowledged);
}
