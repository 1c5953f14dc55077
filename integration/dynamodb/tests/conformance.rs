//! The lease table on a DynamoDB engine: the suite that every implementation runs, on this crate's engine in process, or on
//! the one that `SHARDWELL_DYNAMODB` names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shardwell_aws::DynamoLeaseStore;
use shardwell_core::LeaseStore;
use shardwell_core::testing::lease_store::exercise;
use shardwell_integration_dynamodb::{Engine, client};

/// An engine, and stores on a table of their own each.
struct Tables {
    endpoint: String,
    _engine: Option<Engine>,
    made: AtomicU32,
}

impl Tables {
    async fn new() -> Self {
        let made = AtomicU32::new(0);
        match std::env::var("SHARDWELL_DYNAMODB") {
            Ok(endpoint) => Self { endpoint, _engine: None, made },
            Err(_) => {
                let engine = Engine::start().await.expect("an engine");
                Self { endpoint: engine.endpoint().to_owned(), _engine: Some(engine), made }
            }
        }
    }

    async fn store(&self) -> DynamoLeaseStore {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let name = format!("application-{}-{number}", std::process::id());
        let store = DynamoLeaseStore::new(&client(&self.endpoint), name);
        store.prepare().await.expect("a new table");
        store
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_keeps_its_contract() {
    let tables = Tables::new().await;
    exercise(|| async { Arc::new(tables.store().await) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_behind_a_pointer() {
    let tables = Tables::new().await;
    exercise(|| async { Arc::new(tables.store().await) as Arc<dyn LeaseStore> }).await;
}
