//! What the processes of the integration tests share: how they reach the stream, and what a consumer writes down.

#![warn(missing_docs)]

mod event_log;
mod flight;
mod logged_leases;
mod process;

use std::io::Read;
use std::sync::Arc;

use anyhow::Result;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use shardwell_aws::KinesisStream;
use shardwell_consumer::Worker;
use shardwell_core::{Env, EnvExt, Place, SystemEnv, Task};
use tokio::signal::unix::{SignalKind, signal};

pub use event_log::{Event, EventKind, EventLog, LogTail, MalformedEvent};
pub use flight::{Flight, Trouble};
pub use logged_leases::LoggedLeaseStore;
pub use process::{EngineProcess, Paused, cpu_seconds, peak_rss_mb, serve_engine};

/// The application that the tests' workers belong to.
pub const APPLICATION: &str = "integration";

/// The stream of a local engine, through the SDK and over HTTP.
pub fn stream_of(endpoint: &str, name: &str) -> KinesisStream {
    KinesisStream::new(&client_of(endpoint), name)
}

/// The SDK's client of a local engine.
pub fn client_of(endpoint: &str) -> Client {
    let config = aws_sdk_kinesis::Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "tests"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// What a service's process does: logs to its standard error, and runs a worker until it is told to stop (SIGTERM), or until
/// whoever started it is gone.
///
/// # Errors
/// Why the worker could not be made, or had to stop.
pub async fn serve(worker: impl FnOnce(&Arc<dyn Env>) -> Result<Worker>) -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async {
        terminated.recv().await;
    };
    let env: Arc<dyn Env> = Arc::new(SystemEnv::new()?);
    let _parent = end_with_parent(&*env);
    Ok(worker(&env)?.run_until(stop).await?)
}

/// Ends this process, with exit code 1, when its standard input ends: whoever holds the other end of that pipe is gone, even
/// if it was killed.
#[must_use = "nothing is waited for once the task is dropped"]
pub fn end_with_parent(env: &dyn Env) -> Task<()> {
    env.spawn(Place::Processor, async {
        let mut stdin = std::io::stdin().lock();
        // What is written there says nothing; an error is the end too.
        while stdin.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
        std::process::exit(1);
    })
}
