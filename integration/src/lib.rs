//! What the processes of the integration tests share: how they reach the stream, and what a consumer writes down.

#![warn(missing_docs)]

mod event_log;
mod flight;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use shardwell_aws::KinesisStream;

pub use event_log::{Event, EventKind, EventLog, LogTail, MalformedEvent};
pub use flight::{Flight, Trouble};

/// The application that the tests' workers belong to.
pub const APPLICATION: &str = "integration";

/// The stream of a local engine, through the SDK and over HTTP.
pub fn stream_of(endpoint: &str, name: &str) -> KinesisStream {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "tests"))
        .endpoint_url(endpoint);
    KinesisStream::new(&Client::from_conf(config.build()), name)
}
