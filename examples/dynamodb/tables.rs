//! The tables that they write to.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use shardwell::aws::aws_sdk_dynamodb::Client;
use shardwell::aws::aws_sdk_dynamodb::client::Waiters;
use shardwell::aws::aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use shardwell::aws::sink::IdempotentTable;

/// The key of every table here.
pub const ID: &str = "id";

/// Where an aircraft is.
pub const AIRPORT: &str = "airport";

/// How many flights there were.
pub const FLIGHTS: &str = "flights";

/// The tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Where each aircraft is, by tail number.
    pub planes: IdempotentTable,
    /// How many flights each carrier had, by carrier; an item for each shard where that is needed: `UA#shardId-000000000000`.
    pub carriers: IdempotentTable,
    /// How far each shard is done.
    pub positions: IdempotentTable,
}

const NAMES: [&str; 3] = ["planes", "carriers", "positions"];

impl Tables {
    /// Those with this in their names.
    ///
    /// # Errors
    /// Where one of them is not there.
    pub async fn open(client: &Client, name: &str) -> Result<Self> {
        let open = async |table| IdempotentTable::open(client, format!("{name}-{table}")).await;
        let [planes, carriers, positions] = NAMES;
        let (planes, carriers, positions) = (open(planes).await?, open(carriers).await?, open(positions).await?);
        Ok(Self { planes, carriers, positions })
    }

    /// The aircraft and where they are.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub async fn planes(&self, client: &Client) -> Result<BTreeMap<String, String>> {
        let read = |item: &Item| Some((id(item)?.to_owned(), item.get(AIRPORT)?.as_s().ok()?.clone()));
        Ok(scan(client, self.planes.name()).await?.iter().filter_map(read).collect())
    }

    /// The carriers and how many flights they had, all shards together.
    ///
    /// # Errors
    /// Where the table cannot be read.
    pub async fn carriers(&self, client: &Client) -> Result<BTreeMap<String, u64>> {
        let read = |item: &Item| {
            Some((id(item)?.split('#').next()?.to_owned(), item.get(FLIGHTS)?.as_n().ok()?.parse().ok()?))
        };
        let mut carriers = BTreeMap::new();
        for (carrier, flights) in scan(client, self.carriers.name()).await?.iter().filter_map(read) {
            let flights: u64 = flights;
            *carriers.entry(carrier).or_default() += flights;
        }
        Ok(carriers)
    }

    /// Deletes them, and the lease table.
    ///
    /// # Errors
    /// Where one cannot be deleted.
    pub async fn delete(&self, client: &Client, name: &str) -> Result<()> {
        for table in NAMES.into_iter().chain(["leases"]) {
            client
                .delete_table()
                .table_name(format!("{name}-{table}"))
                .send()
                .await
                .context("cannot delete a table")?;
        }
        Ok(())
    }
}

type Item = BTreeMap<String, AttributeValue>;

fn id(item: &Item) -> Option<&str> {
    item.get(ID)?.as_s().ok().map(String::as_str)
}

async fn scan(client: &Client, table: &str) -> Result<Vec<Item>> {
    let items = client.scan().table_name(table).consistent_read(true).into_paginator().items().send();
    let items = items.collect::<Result<Vec<_>, _>>().await.with_context(|| format!("cannot read {table}"))?;
    Ok(items.into_iter().map(|item| item.into_iter().collect()).collect())
}

/// Creates them, and waits until they can be used.
///
/// # Errors
/// Where the engine refuses, or cannot be reached.
pub async fn create(client: &Client, name: &str) -> Result<Tables> {
    for table in NAMES {
        let table = format!("{name}-{table}");
        let key = AttributeDefinition::builder().attribute_name(ID).attribute_type(ScalarAttributeType::S).build()?;
        let schema = KeySchemaElement::builder().attribute_name(ID).key_type(KeyType::Hash).build()?;
        let request = client.create_table().table_name(&table).attribute_definitions(key).key_schema(schema);
        let created = request.billing_mode(BillingMode::PayPerRequest).send().await;
        created.with_context(|| format!("cannot create the table {table}; does the endpoint answer?"))?;
        client.wait_until_table_exists().table_name(&table).wait(Duration::from_secs(30)).await?;
    }
    Tables::open(client, name).await
}
