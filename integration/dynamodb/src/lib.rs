//! A DynamoDB engine in process, and clients for it.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_dynamodb::client::Waiters;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
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

/// Creates a table whose items are told apart by one attribute that is text, and waits until it can be used.
///
/// # Errors
/// Where the engine refuses.
pub async fn create_table(client: &Client, name: &str, key: &str) -> Result<()> {
    let attribute =
        AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S).build()?;
    let schema = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build()?;
    let request = client.create_table().table_name(name).attribute_definitions(attribute).key_schema(schema);
    request
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .with_context(|| format!("cannot create table {name}"))?;
    client.wait_until_table_exists().table_name(name).wait(Duration::from_secs(30)).await?;
    Ok(())
}
