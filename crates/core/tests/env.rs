//! The system's environment keeps the contract of environments.

use std::sync::Arc;

use shardwell_core::SystemEnv;
use shardwell_core::testing::env;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_systems_environment_conforms() {
    env::exercise(Arc::new(SystemEnv::new().expect("threads"))).await;
}

#[tokio::test]
async fn the_systems_environment_conforms_on_one_thread() {
    env::exercise(Arc::new(SystemEnv::new().expect("threads"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocked_processors_block_nobody_else() {
    env::blocked_processors_block_nobody_else(Arc::new(SystemEnv::new().expect("threads"))).await;
}

#[test]
fn outside_a_runtime_it_is_refused() {
    assert!(SystemEnv::new().is_err());
}
