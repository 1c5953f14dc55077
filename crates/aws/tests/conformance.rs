//! The conformance suite of the stream seams, through the AWS SDK and over HTTP, against the local engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryError;
use aws_sdk_kinesis::types::StreamStatus;
use aws_sdk_kinesis::{Client, Config};
use shardwell_aws::{KinesisStream, StreamRef};
use shardwell_core::testing::stream::{Fixture, PATIENCE, StreamHooks, conforms};
use shardwell_core::{Env, EnvExt, PutEntry, ShardFilter, ShardId, StartPosition, Stream, StreamErrorKind, SystemEnv};
use shardwell_local::LocalEngine;

fn client(engine: &LocalEngine) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("id", "secret", None, None, "tests"))
        .endpoint_url(engine.endpoint());
    Client::from_conf(config.build())
}

/// Streams of one local engine, by name or by ARN.
#[derive(Debug)]
struct Hooks {
    engine: LocalEngine,
    client: Client,
    env: Arc<dyn Env>,
    by_arn: bool,
}

impl Hooks {
    async fn start(by_arn: bool) -> Self {
        let engine = LocalEngine::builder().state_delay(Duration::from_millis(10)).start().await.expect("started");
        let client = client(&engine);
        let env = Arc::new(SystemEnv::new().expect("threads"));
        Self { engine, client, env, by_arn }
    }

    async fn status(&self, name: &str) -> Option<StreamStatus> {
        let answer = self.client.describe_stream_summary().stream_name(name).send().await;
        match answer {
            Ok(answer) => Some(answer.stream_description_summary?.stream_status),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DescribeStreamSummaryError::is_resource_not_found_exception) =>
            {
                None
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Asks until the stream is in a state, or gone.
    async fn until(&self, name: &str, wanted: Option<StreamStatus>) {
        let deadline = self.env.now().plus(PATIENCE);
        while self.status(name).await != wanted {
            assert!(self.env.now() < deadline, "{name} does not come to {wanted:?}");
            self.env.sleep(Duration::from_millis(2)).await;
        }
    }

    fn stream(&self, stream: impl Into<StreamRef>) -> KinesisStream {
        KinesisStream::new(&self.client, stream).without_read_limits()
    }
}

#[async_trait]
impl StreamHooks for Hooks {
    async fn create(&self, name: &str, shards: u32) -> Fixture {
        let shards = i32::try_from(shards).expect("few");
        self.client.create_stream().stream_name(name).shard_count(shards).send().await.expect("created");
        self.until(name, Some(StreamStatus::Active)).await;
        let mut stream = self.stream(name);
        if self.by_arn {
            let arn = stream.describe().await.expect("described").identity.arn;
            stream = self.stream(arn);
        }
        Fixture { stream: Arc::new(stream.clone()), writer: Arc::new(stream) }
    }

    async fn split(&self, name: &str, shard: &ShardId, new_start: u128) {
        let request = self.client.split_shard().stream_name(name).shard_to_split(shard.as_str());
        request.new_starting_hash_key(new_start.to_string()).send().await.expect("split");
        self.until(name, Some(StreamStatus::Active)).await;
    }

    async fn merge(&self, name: &str, shard: &ShardId, adjacent: &ShardId) {
        let request = self.client.merge_shards().stream_name(name).shard_to_merge(shard.as_str());
        request.adjacent_shard_to_merge(adjacent.as_str()).send().await.expect("merged");
        self.until(name, Some(StreamStatus::Active)).await;
    }

    async fn delete(&self, name: &str) {
        self.client.delete_stream().stream_name(name).send().await.expect("deleted");
        self.until(name, None).await;
    }

    fn env(&self) -> Arc<dyn Env> {
        Arc::clone(&self.env)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_by_name() {
    conforms(&Hooks::start(false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_by_arn() {
    conforms(&Hooks::start(true).await).await;
}

/// Readers of every kind, left alone until their iterators have expired.
#[tokio::test(flavor = "multi_thread")]
async fn expired_iterators_are_recovered_from() {
    let hooks = Hooks::start(false).await;
    let Fixture { stream, writer } = hooks.create("expiry", 1).await;
    let put = async |text: &'static str| {
        let results = writer.put(&[PutEntry::new("key", text)]).await.expect("put");
        results[0].as_ref().expect("placed").clone()
    };
    let first = put("first").await;
    let shard = &first.shard;
    let positions = [
        StartPosition::TrimHorizon,
        StartPosition::AtSequenceNumber(first.sequence_number),
        StartPosition::AfterSequenceNumber(first.sequence_number),
    ];
    let mut readers = Vec::new();
    for position in positions {
        readers.push((position, stream.open(shard, position).await.expect("opened")));
    }
    let mut begun = stream.open(shard, StartPosition::TrimHorizon).await.expect("opened");
    assert_eq!(begun.read(10).await.expect("read").records.len(), 1);

    put("second").await;
    hooks.engine.advance_clock(Duration::from_secs(6 * 60));
    for (position, mut reader) in readers {
        let records = reader.read(10).await.expect("recovered inside").records;
        let expected: &[&[u8]] = if matches!(position, StartPosition::AfterSequenceNumber(_)) {
            &[b"second"]
        } else {
            &[b"first", b"second"]
        };
        assert_eq!(records.iter().map(|record| &record.data[..]).collect::<Vec<_>>(), expected, "{position:?}");
    }
    let records = begun.read(10).await.expect("recovered inside").records;
    assert_eq!(records.iter().map(|record| &record.data[..]).collect::<Vec<_>>(), [b"second"]);
}

/// Nothing that was put after the opening is skipped, though the reader returned nothing before its iterator expired.
#[tokio::test(flavor = "multi_thread")]
async fn latest_survives_an_expired_iterator() {
    let hooks = Hooks::start(false).await;
    let Fixture { stream, writer } = hooks.create("latest", 1).await;
    let shard = stream.list_shards(ShardFilter::All).await.expect("listed")[0].id.clone();
    let mut reader = stream.open(&shard, StartPosition::Latest).await.expect("opened");
    assert!(reader.read(10).await.expect("read").records.is_empty());
    let results = writer.put(&[PutEntry::new("key", "new")]).await.expect("put");
    hooks.engine.advance_clock(Duration::from_secs(6 * 60));
    let records = reader.read(10).await.expect("recovered inside").records;
    let placed = results[0].as_ref().expect("placed");
    assert_eq!(records.iter().map(|record| record.sequence_number).collect::<Vec<_>>(), [placed.sequence_number]);
}

/// A listing of more shards than one page holds.
#[tokio::test(flavor = "multi_thread")]
async fn long_listings_are_put_together() {
    let hooks = Hooks::start(false).await;
    let Fixture { stream, .. } = hooks.create("wide", 1_100).await;
    assert_eq!(stream.list_shards(ShardFilter::All).await.expect("listed").len(), 1_100);
}

/// A dedicated handle goes on while the runtime that drives the first one's connections is stuck.
#[test]
fn a_dedicated_handle_does_not_need_the_first_ones_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (first, second) = (runtime(), runtime());
    let (hooks, stream, shard) = first.block_on(async {
        let hooks = Hooks::start(false).await;
        let stream = hooks.create("dedicated", 1).await.stream;
        let shard = stream.list_shards(ShardFilter::All).await.expect("listed")[0].id.clone();
        stream.open(&shard, StartPosition::TrimHorizon).await.expect("connected");
        (hooks, stream, shard)
    });
    // Nothing polls the first runtime from here on, so a connection of its own would never answer. Opening a shard makes
    // one attempt, so nothing else could help either.
    let dedicated = stream.dedicated();
    second.block_on(dedicated.open(&shard, StartPosition::TrimHorizon)).expect("answered");
    first.block_on(async { drop(hooks) });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_gone_is_unavailable() {
    let hooks = Hooks::start(false).await;
    let Fixture { stream, writer } = hooks.create("gone", 1).await;
    let shard = stream.list_shards(ShardFilter::All).await.expect("listed")[0].id.clone();
    let mut reader = stream.open(&shard, StartPosition::TrimHorizon).await.expect("opened");
    let Hooks { engine, .. } = hooks;
    engine.stop().await;
    let read = reader.read(10).await.expect_err("nobody answers");
    let put = writer.put(&[PutEntry::new("key", "x")]).await.expect_err("nobody answers");
    for error in [read, put] {
        assert_eq!(error.kind(), StreamErrorKind::Unavailable, "{error}");
    }
}
