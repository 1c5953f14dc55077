//! What every [`Env`] must do.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::{Elapsed, Env, EnvExt, Monotonic, Place, TaskError};

const PLACES: [Place; 3] = [Place::Coordination, Place::Pipeline, Place::Processor];

/// Runs the whole suite. Takes some tens of milliseconds of the environment's time.
///
/// # Panics
/// When the environment breaks its contract.
pub async fn exercise(env: Arc<dyn Env>) {
    clocks_go_forward(&*env).await;
    a_sleep_ends_at_its_deadline(&*env).await;
    a_deadline_bounds_a_future(&*env).await;
    tasks_run_at_every_place(&env).await;
    a_dropped_task_stops(&env).await;
    a_panic_stays_in_its_task(&*env).await;
    assert_ne!(env.random(), env.random(), "two draws of 64 bits");
}

/// For environments with threads: a task that blocks at one place keeps nobody waiting elsewhere.
///
/// # Panics
/// When the environment breaks its contract.
pub async fn blocked_processors_block_nobody_else(env: Arc<dyn Env>) {
    let count = 16;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    let blocked: Vec<_> = (0..count)
        .map(|_| {
            let released = released.clone();
            env.spawn(Place::Processor, async move { released.lock().map(|released| released.recv().is_ok()).is_ok() })
        })
        .collect();
    for place in PLACES {
        assert_eq!(env.spawn(place, async { 7 }).await, Ok(7), "{place:?} goes on");
    }
    for _ in 0..count {
        release.send(()).expect("the receiver is there");
    }
    for task in blocked {
        assert_eq!(task.await, Ok(true));
    }
}

async fn clocks_go_forward(env: &dyn Env) {
    let (before, wall_before) = (env.now(), env.timestamp());
    env.sleep(Duration::from_millis(20)).await;
    assert!(env.now() > before);
    assert!(env.timestamp() >= wall_before);
}

async fn a_sleep_ends_at_its_deadline(env: &dyn Env) {
    let deadline = env.now().plus(Duration::from_millis(10));
    env.sleep_until(deadline).await;
    assert!(env.now() >= deadline);
    env.sleep_until(Monotonic::ZERO).await;
}

async fn a_deadline_bounds_a_future(env: &dyn Env) {
    let soon = env.now().plus(Duration::from_millis(5));
    assert_eq!(env.deadline(soon, pending::<()>()).await, Err(Elapsed));
    assert_eq!(env.deadline(Monotonic::ZERO, async { 1 }).await, Ok(1), "what is ready wins");
}

async fn tasks_run_at_every_place(env: &Arc<dyn Env>) {
    for place in PLACES {
        let inner = env.clone();
        let task = env.spawn(place, async move {
            inner.sleep(Duration::from_millis(1)).await;
            inner.spawn(place, async { 42 }).await
        });
        assert_eq!(task.await, Ok(Ok(42)), "{place:?}");
    }
}

async fn a_dropped_task_stops(env: &Arc<dyn Env>) {
    for place in PLACES {
        let (alive, dropped) = oneshot::channel::<()>();
        let (started, starts) = oneshot::channel();
        let task = env.spawn(place, async move {
            let _alive = alive;
            let _ = started.send(());
            pending::<()>().await;
        });
        starts.await.expect("it starts");
        drop(task);
        assert!(dropped.await.is_err(), "what the task held is dropped at {place:?}");
    }
}

async fn a_panic_stays_in_its_task(env: &dyn Env) {
    for place in PLACES {
        let task = env.spawn(place, async { panic!("as asked") });
        let outcome: Result<(), TaskError> = task.await;
        assert_eq!(outcome, Err(TaskError::Panicked("as asked".into())), "{place:?}");
    }
}
