//! A DynamoDB engine in process, and clients for it.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::{Client, Config};
use dynoxide::Database;
use tokio::net::TcpListener;

/// An engine with nothing in it, on a free port of loopback. It ends with the value.
#[derive(Debug)]
pub struct Engine {
    endpoint: String,
    server: tokio::task::JoinHandle<()>,
}

impl Engine {
    /// Starts one.
    ///
    /// # Errors
    /// Where the system refuses a port, or memory.
    pub async fn start() -> Result<Self> {
        Self::start_on(0).await
    }

    /// Starts one on a port; 0 is a free one.
    ///
    /// # Errors
    /// As [`start`](Self::start); and if the port is taken.
    pub async fn start_on(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("cannot listen")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let database = Database::memory().context("cannot open a database in memory")?;
        let server = tokio::spawn(dynoxide::server::serve_on(listener, database));
        Ok(Self { endpoint, server })
    }

    /// Where it answers.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        client(&self.endpoint)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A client of an engine on this machine, which does not ask who comes.
pub fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("eu-west-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "local"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}
