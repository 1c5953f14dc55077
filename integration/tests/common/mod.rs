//! What the tests that kill processes share.

pub(crate) mod process;
pub(crate) mod resharding;

use std::io::Write;
use std::time::Duration;

use shardwell_core::{Env, EnvExt, StreamStatus};
use shardwell_local::LocalEngine;

/// Nothing that a test waits for takes nearly as long, on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whether the tests run at full length.
pub(crate) fn long() -> bool {
    std::env::var_os("SHARDWELL_LONG").is_some_and(|value| value == "1")
}

/// What the random choices of a test come from: that of an earlier run, or a new one.
pub(crate) fn seed(what: &str) -> u64 {
    let seed = match std::env::var("SHARDWELL_SEED") {
        Ok(seed) => seed.parse().expect("SHARDWELL_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    say(&format!("{what}: SHARDWELL_SEED={seed}"));
    seed
}

/// In a long run the figures are shown even though the tests pass: they do not go through what the test harness captures.
pub(crate) fn say(text: &str) {
    if long() {
        writeln!(std::io::stdout(), "{text}").expect("somebody reads it");
    } else {
        println!("{text}");
    }
}

pub(crate) async fn until(env: &dyn Env, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = env.now().plus(PATIENCE);
    while !condition() {
        assert!(env.now() < deadline, "not within {PATIENCE:?}: {what}");
        env.sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn is_active(engine: &LocalEngine, stream: &str) -> bool {
    engine.kinesis().lock().describe(stream, engine.now()).expect("there").status == StreamStatus::Active
}

pub(crate) async fn until_active(engine: &LocalEngine, stream: &str, env: &dyn Env) {
    until(env, "the stream is active", || is_active(engine, stream)).await;
}
