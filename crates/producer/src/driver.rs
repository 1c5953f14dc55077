//! The effects around the pipeline: it asks the clock, sends what is to be sent, and lists the shards.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use shardwell_core::{
    Env, EnvExt, Place, RetryPolicy, ShardFilter, Stream, StreamError, StreamErrorKind, StreamWriter,
};
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use crate::budget::Budget;
use crate::hooks::{AnsweredRecord, Hooks};
use crate::lock::lock;
use crate::metrics;
use crate::pipeline::{Listing, Pipeline, Request, Step, Verdict, verdicts, with_causes};
use crate::tell::Teller;

/// A stream that can be written and described.
pub(crate) trait Target: Stream + StreamWriter {}

impl<T: Stream + StreamWriter> Target for T {}

/// The shards are not listed more often than this, whatever suggests that they have changed.
const LISTING_INTERVAL: Duration = Duration::from_secs(1);

/// The longest wait after a listing that failed.
const LISTING_BACKOFF: Duration = Duration::from_secs(30);

/// A call to the stream that has no answer after this long is given up. Streams have shorter time-outs of their own, if they are as they
/// should be; here it is what makes sure that every ticket is resolved.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A stream and what is under way to it.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) name: Arc<str>,
    pub(crate) target: Arc<dyn Target>,
    pub(crate) env: Arc<dyn Env>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) hooks: Hooks,
    pub(crate) pipeline: Mutex<Pipeline>,
    /// Something has changed that cannot wait.
    pub(crate) wake: Notify,
    list: Notify,
    /// Nothing more is taken.
    is_closed: AtomicBool,
}

impl Driver {
    /// Starts the tasks for a stream. They end when it is closed and everything is settled.
    pub(crate) fn start(
        target: Arc<dyn Target>,
        env: Arc<dyn Env>,
        budget: Arc<Budget>,
        hooks: Hooks,
        pipeline: Pipeline,
    ) -> Arc<Self> {
        let driver = Arc::new(Self {
            name: stream_name(&*target).into(),
            target,
            env,
            budget,
            hooks,
            pipeline: Mutex::new(pipeline),
            wake: Notify::new(),
            list: Notify::new(),
            is_closed: AtomicBool::new(false),
        });
        driver.env.spawn_detached(Place::Pipeline, Box::pin(run(driver.clone())));
        driver.env.spawn_detached(Place::Pipeline, Box::pin(list(driver.clone())));
        driver
    }

    /// Nothing more is taken; what was is still settled.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Does something to the pipeline, and tells whoever waits for what comes of it.
    fn act<T>(&self, act: impl FnOnce(&mut Pipeline) -> T) -> T {
        let (outcome, settled, counts) = {
            let mut pipeline = lock(&self.pipeline);
            let outcome = act(&mut pipeline);
            (outcome, pipeline.take_settled(), pipeline.take_counts())
        };
        metrics::counted(&self.name, counts);
        if !settled.is_empty() {
            let teller = Teller { stream: &self.name, budget: &self.budget, hooks: &self.hooks };
            let told = teller.tell(settled);
            // Only now: a flush is over when the tickets are resolved.
            lock(&self.pipeline).told(told);
            self.wake.notify_one();
        }
        outcome
    }

    /// Whether there is nothing to be done any more, and nothing can come.
    fn is_over(&self) -> bool {
        // Both are asked under the lock under which records are added: whoever comes later finds it closed.
        let pipeline = lock(&self.pipeline);
        self.is_closed() && pipeline.is_empty()
    }

    /// What was answered, told to whoever keeps accounts.
    fn account(&self, request: &Request, verdicts: &[Verdict], took: Duration) {
        metrics::answered(&self.name, request, verdicts, took);
        if !self.hooks.are_set() {
            return;
        }
        for ((unit, bytes, shard), verdict) in request.iter().zip(verdicts) {
            let answered = AnsweredRecord {
                stream: &self.name,
                shard,
                bytes,
                user_records: unit.members().len(),
                waited: unit.waiting(request.sent),
                took,
                result: verdict.result(),
            };
            self.hooks.call(|hooks| hooks.record_answered(&answered));
        }
    }
}

fn stream_name(target: &dyn Target) -> String {
    let stream: &dyn Stream = target;
    stream.to_string()
}

/// Sends what is to be sent for as long as anybody may put something, and until all is settled.
async fn run(driver: Arc<Driver>) {
    loop {
        let woken = driver.wake.notified();
        let now = driver.env.now();
        let Step { requests, wake_at, wants_listing } = driver.act(|pipeline| pipeline.poll(now));
        for request in requests {
            driver.env.spawn_detached(Place::Pipeline, Box::pin(send(driver.clone(), request)));
        }
        metrics::pending(&driver.name, driver.budget.taken());
        if wants_listing {
            driver.list.notify_one();
        }
        if driver.is_over() {
            break;
        }
        tokio::select! {
            biased;
            () = woken => {}
            () = driver.env.sleep_until_if_any(wake_at) => {}
        }
    }
    debug!(stream = &*driver.name, "nothing is left to be put");
    // The other task has nothing to do any more either.
    driver.list.notify_one();
}

async fn send(driver: Arc<Driver>, request: Request) {
    let answer = answer(&*driver.env, driver.target.put(request.entries())).await;
    if let Err(error) = &answer {
        let (records, error) = (request.records(), with_causes(error));
        warn!(stream = &*driver.name, records, error, "cannot put records");
    }
    let verdicts = verdicts(request.records(), answer);
    let now = driver.env.now();
    driver.account(&request, &verdicts, now.since(request.sent));
    driver.act(|pipeline| pipeline.settle(now, request, verdicts, || driver.env.random()));
    driver.wake.notify_one();
}

/// Lists the shards at the start, and whenever there is a reason to.
async fn list(driver: Arc<Driver>) {
    let retry = RetryPolicy::default().with_initial(LISTING_INTERVAL).with_cap(LISTING_BACKOFF);
    let mut failures = 0;
    loop {
        driver.list.notified().await;
        if driver.is_over() {
            return;
        }
        let wants_closed = lock(&driver.pipeline).wants_closed_shards();
        let filter = if wants_closed { ShardFilter::All } else { ShardFilter::AtLatest };
        let (listing, pause) = match answer(&*driver.env, listing(&*driver.target, filter)).await {
            Ok(Some(listing)) => {
                failures = 0;
                metrics::listed(&driver.name, "ok");
                (Some(listing), LISTING_INTERVAL)
            }
            // Between the two halves of a reshard.
            Ok(None) => (None, LISTING_INTERVAL),
            Err(error) => {
                failures += 1;
                metrics::listed(&driver.name, "failed");
                let pause = retry.delay(failures, driver.env.random()).unwrap_or(LISTING_BACKOFF);
                let error = with_causes(&error);
                warn!(stream = &*driver.name, error, "cannot list the shards; trying again in {pause:?}");
                (Some(Listing::Unknown), pause)
            }
        };
        let failed = matches!(listing, Some(Listing::Unknown) | None);
        if let Some(listing) = listing {
            if matches!(listing, Listing::Automatic) {
                tell_of_automatic_distribution(&driver);
            }
            let now = driver.env.now();
            driver.act(|pipeline| pipeline.install(now, listing));
            driver.wake.notify_one();
        }
        driver.env.sleep(pause).await;
        if failed {
            driver.list.notify_one();
        }
    }
}

fn tell_of_automatic_distribution(driver: &Driver) {
    let stream = &*driver.name;
    if lock(&driver.pipeline).wants_order() {
        warn!(
            stream,
            "the stream distributes records by itself, whatever their keys are: no order can be kept, and nothing is aggregated"
        );
    } else {
        info!(stream, "the stream distributes records by itself; they are not aggregated");
    }
}

/// What a stream answers; and if it never does, or its code panics, that.
async fn answer<T>(env: &dyn Env, call: impl Future<Output = Result<T, StreamError>> + Send) -> Result<T, StreamError> {
    let deadline = env.now().plus(ANSWER_DEADLINE);
    match env.deadline(deadline, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(StreamError::new(StreamErrorKind::Unavailable, "the code of the stream has panicked")),
        Err(_) => Err(StreamError::new(StreamErrorKind::Timeout, format!("no answer within {ANSWER_DEADLINE:?}"))),
    }
}

/// What the stream says of where records go; nothing while it is being resharded.
async fn listing(target: &dyn Target, filter: ShardFilter) -> Result<Option<Listing>, StreamError> {
    let describe = target.describe().await;
    match describe {
        Ok(description) if description.automatic_distribution => {
            return Ok(Some(Listing::Automatic));
        }
        // Whoever may not describe it may be allowed to list its shards.
        Ok(_) => {}
        Err(error) if error.kind() == StreamErrorKind::Denied => {}
        Err(error) => return Err(error),
    }
    Ok(Listing::of(target.list_shards(filter).await?))
}
