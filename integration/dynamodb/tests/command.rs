//! The `shardwell` command on a table in DynamoDB. `SHARDWELL_COMMAND` names the command; `integration/run` sets it.

use std::process::{Command, Output};

use serde_json::Value;
use shardwell_aws::DynamoLeaseStore;
use shardwell_core::{Assignment, Checkpoint, Lease, LeaseStore};
use shardwell_integration_dynamodb::Engine;

const TABLE: &str = "delays";

/// A table with two leases, of which a worker has one.
async fn table(engine: &Engine) -> DynamoLeaseStore {
    let store = DynamoLeaseStore::new(&engine.client(), TABLE);
    store.prepare().await.expect("a new table");
    for shard in ["shardId-000000000000", "shardId-000000000001"] {
        store.create_lease(&Lease::new(shard.into(), Checkpoint::TrimHorizon)).await.expect("created");
    }
    let lease = store.lease(&"shardId-000000000000".into()).await.expect("read").expect("there");
    store.assign(&Assignment::of(&lease, "w".into())).await.expect("written").applied().expect("as seen");
    store
}

/// Runs the command; nothing where there is none.
fn run(engine: &Engine, arguments: &[&str]) -> Option<Output> {
    let Ok(command) = std::env::var("SHARDWELL_COMMAND") else {
        eprintln!("SKIPPED: SHARDWELL_COMMAND does not name the command");
        return None;
    };
    let mut command = Command::new(command);
    for name in ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_REGION", "HTTP_PROXY", "http_proxy"] {
        command.env_remove(name);
    }
    command.args(arguments).args(["--dynamodb", TABLE, "--endpoint", engine.endpoint()]);
    Some(command.output().expect("the command starts"))
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_listed_and_moved() {
    let engine = Engine::start().await.expect("an engine");
    let store = table(&engine).await;
    let Some(list) = run(&engine, &["leases", "list", "--json"]) else { return };
    let list: Value = serde_json::from_str(&stdout(&list)).expect("JSON");
    assert_eq!(list[0]["application"], TABLE);
    assert_eq!((&list[0]["leases"][0]["owner"], &list[0]["leases"][1]["owner"]), (&"w".into(), &Value::Null));

    let lease = async || store.lease(&"shardId-000000000000".into()).await.expect("read").expect("there");
    let before = lease().await;
    let moved = ["leases", "reset", "--yes", "--force", "--to", "latest", "--shard", "shardId-000000000000"];
    let moved = run(&engine, &moved).expect("a command");
    assert!(stdout(&moved).contains("Moved 1 lease of application `delays`"));
    let after = lease().await;
    assert_eq!((after.checkpoint, after.owner, after.counter), (Checkpoint::Latest, None, before.counter + 1));

    let reset = run(&engine, &["leases", "reset", "--yes"]).expect("a command");
    assert!(stdout(&reset).contains("Removed 2 leases"));
    assert!(store.leases().await.expect("read").leases.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_shown_and_a_worker_drained() {
    let engine = Engine::start().await.expect("an engine");
    let _store = table(&engine).await;
    let Some(status) = run(&engine, &["fleet", "status"]) else { return };
    assert!(stdout(&status).contains("shardId-000000000000"));
    // Nobody has agreed on settings yet, so there is nothing that says who is drained.
    let drained = run(&engine, &["fleet", "drain", "w"]).expect("a command");
    let words = String::from_utf8_lossy(&drained.stderr).into_owned();
    assert!(!drained.status.success() && words.contains("delays"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_not_there_is_named() {
    let engine = Engine::start().await.expect("an engine");
    let Some(list) = run(&engine, &["leases", "list"]) else { return };
    let words = String::from_utf8_lossy(&list.stderr).into_owned();
    assert!(!list.status.success() && words.contains("table `delays`") && words.contains("no such table"), "{words}");
}
