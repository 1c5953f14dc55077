//! The simulated environment keeps the contract of environments, and can do to a process what a machine can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shardwell_core::testing::env;
use shardwell_core::{Env, EnvExt, Place, TaskError, Timestamp};
use shardwell_sim::SimEnv;

const SECOND: Duration = Duration::from_secs(1);

fn process(seed: u64) -> SimEnv {
    SimEnv::new(seed, Timestamp::default())
}

#[tokio::test(start_paused = true)]
async fn it_conforms() {
    env::exercise(Arc::new(process(1))).await;
}

#[tokio::test(start_paused = true)]
async fn a_frozen_process_stands_still_while_its_clock_goes_on() {
    let (world, process) = (process(1), process(2));
    let steps = Arc::new(AtomicU32::new(0));
    let (counted, inner) = (steps.clone(), process.clone());
    let _task = process.spawn(Place::Pipeline, async move {
        loop {
            inner.sleep(SECOND).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    world.sleep(SECOND * 5 / 2).await;
    assert_eq!(steps.load(Ordering::Relaxed), 2);
    process.freeze();
    world.sleep(SECOND * 100).await;
    assert_eq!(steps.load(Ordering::Relaxed), 2);
    assert!(process.now().since_origin() > SECOND * 100);
    process.thaw();
    world.sleep(SECOND * 2).await;
    assert_eq!(steps.load(Ordering::Relaxed), 4, "the sleep that was over at once, and another one");
}

#[tokio::test(start_paused = true)]
async fn a_crashed_process_never_takes_another_step() {
    let (world, process) = (process(1), process(2));
    let inner = process.clone();
    let task = process.spawn(Place::Pipeline, async move { inner.sleep(SECOND).await });
    process.freeze();
    process.crash();
    world.sleep(SECOND * 2).await;
    assert_eq!(task.await, Err(TaskError::Aborted));
    assert_eq!(process.spawn(Place::Pipeline, async {}).await, Err(TaskError::Aborted));
}

#[tokio::test(start_paused = true)]
async fn clocks_run_at_their_own_rate() {
    let (world, fast) = (process(1), SimEnv::with_clock_rate(2, Timestamp::default(), 2.0));
    world.sleep(SECOND * 10).await;
    assert!(fast.now().since_origin() >= SECOND * 20);
    let before = world.now();
    fast.sleep(SECOND * 10).await;
    let slept = world.now().since(before);
    assert!(slept >= SECOND * 5 && slept < SECOND * 6, "{slept:?}");
}

#[tokio::test(start_paused = true)]
async fn randomness_comes_from_the_seed() {
    let draw = |seed| [(); 4].map(|()| process(seed).random());
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}
