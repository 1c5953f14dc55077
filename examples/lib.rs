//! What the examples share: the flights, a stream on the local engine, and the signals that ask a program to end.

#![warn(missing_docs)]

pub mod dynamodb;
pub mod flights;
pub mod stream;

use std::io;
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_kinesis::{Client, Config};
use shardwell::{ShardState, Timestamp, WorkerStatus};

/// An SDK client of a local engine, which takes any credentials.
///
/// For the real service, load the configuration with the crate `aws-config`; nothing else in the examples changes.
pub fn local_client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "local engine"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// Waits. An example is a program of its own, at the edge of everything, so it may use the plain clock.
#[expect(clippy::disallowed_methods, reason = "an example has no `Env` to go through")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// The time by the clock on the wall.
#[expect(clippy::disallowed_methods, reason = "an example has no `Env` to go through")]
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The first week of 2013, from New York City.
pub const A_WEEK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/flights-2013-01-01to07.ndjson");

/// Whether nothing is left to be read: every shard is at its tip or done.
pub fn caught_up(status: &WorkerStatus) -> bool {
    status.shards.iter().all(|shard| match shard.state {
        ShardState::Finished => true,
        ShardState::Processing => shard.behind_latest == Some(Duration::ZERO),
        _ => false,
    })
}

/// Ctrl-C, and the system's request to terminate. Listens from the moment it is made.
#[derive(Debug)]
pub struct Stop {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Stop {
    /// Starts to listen. From here on the signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Ends when one of them has arrived.
    ///
    /// # Cancel safety
    /// Cancel safe: no signal is lost.
    pub async fn requested(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Stop {
    /// Starts to listen.
    ///
    /// # Errors
    /// Never here.
    pub fn install() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Ends when Ctrl-C was pressed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn requested(&mut self) {
        // An error means that no Ctrl-C can ever arrive.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
