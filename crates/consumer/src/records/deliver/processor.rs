//! The user's processor, and every call to it.
//!
//! Calls run at `Place::Processor`: the processor travels there and comes back with the answer. One that panics does not
//! come back, and the factory makes another.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use shardwell_core::delivery::{Batch, Verdict};
use shardwell_core::{Checkpoint, EnvExt, Place, Timestamp, UserRecord};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, error, warn};

use super::ConsumerEnd;
use crate::leases::{HeldLease, Stop};
use crate::metrics::{BATCHES, PROCESSOR_TIME};
use crate::processor::{LaneContext, Outcome, ProcessError, RecordProcessor, Start};
use crate::worker::Shared;
use crate::{Batch as UserBatch, Checkpointer};

/// A lane's processor.
pub(in crate::records) struct Processor {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    lane: LaneContext,
    checkpointer: Checkpointer,
    /// `None` before it is made, and after a panic.
    inner: Option<Box<dyn RecordProcessor>>,
    newest_arrival: Option<Timestamp>,
}

/// A call to the processor that gives it back with the answer.
type Call<T> = Pin<Box<dyn Future<Output = (Box<dyn RecordProcessor>, T)> + Send>>;

impl Processor {
    pub(in crate::records) fn new(shared: Arc<Shared>, lease: Arc<HeldLease>, lane: LaneContext) -> Self {
        let checkpointer = Checkpointer::new(shared.settings.checkpoints, lease.clone(), shared.flush.clone());
        Self { shared, lease, lane, checkpointer, inner: None, newest_arrival: None }
    }

    /// When the newest record that was handed over had arrived.
    pub(super) const fn newest_arrival(&self) -> Option<Timestamp> {
        self.newest_arrival
    }

    /// Makes and initializes the processor, as often as it takes. Gives the checkpoint to resume after.
    pub(in crate::records) async fn initialize(&mut self) -> Result<Checkpoint, ConsumerEnd> {
        let stored = self.lease.progress().wanted();
        let lease = self.lease.clone();
        let answer = tokio::select! {
            biased;
            stop = lease.told_to_stop() => Err(stop),
            answer = self.until_initialized() => Ok(answer),
        };
        match answer {
            Ok(None) => Ok(stored),
            Ok(Some(position)) => {
                self.lease.progress().resume_from(position);
                Ok(position)
            }
            Err(Stop::Lost) => Err(ConsumerEnd::LeaseLost),
            Err(Stop::Drain { .. }) => Err(ConsumerEnd::Stopped),
        }
    }

    async fn until_initialized(&mut self) -> Option<Checkpoint> {
        for failures in 1.. {
            let start = Start {
                lane: self.lane.clone(),
                checkpoint: self.lease.progress().wanted(),
                pending: self.lease.image().pending_checkpoint,
            };
            let answer = self
                .call(|mut processor| {
                    Box::pin(async move {
                        let answer = processor.initialize(&start).await;
                        (processor, answer)
                    })
                })
                .await;
            match answer {
                Ok(position) => return position,
                Err(reason) => self.back_off("initialize", &reason, failures).await,
            }
        }
        None
    }

    /// Hands over a batch, once the pool has a place for it.
    pub(super) async fn process(
        mut self,
        batch: Batch,
        attempt: u32,
        behind_latest: Option<Duration>,
        cancel: CancellationToken,
    ) -> (Self, Verdict) {
        let lease = self.lease.clone();
        let permit = tokio::select! {
            biased;
            _ = lease.told_to_stop() => return (self, Verdict::NotInvoked),
            permit = self.shared.pool.clone().acquire_owned() => permit,
        };
        // The wait may have been long.
        if permit.is_err() || !self.lease.may_process(self.shared.env.now()) {
            return (self, Verdict::NotInvoked);
        }
        if self.inner.is_none() && self.until_initialized().await.is_some() {
            warn!("a processor that replaces one that panicked cannot move the position; going on where the other was");
        }
        if let Some(last) = batch.records().last() {
            self.lease.progress().delivering(last.position);
            self.newest_arrival = Some(last.arrival);
        }
        let span = debug_span!("batch", records = batch.records().len(), attempt);
        let verdict = self.process_now(batch, attempt, behind_latest, cancel).instrument(span).await;
        (self, verdict)
    }

    async fn process_now(
        &mut self,
        batch: Batch,
        attempt: u32,
        behind_latest: Option<Duration>,
        cancel: CancellationToken,
    ) -> Verdict {
        let started = self.shared.env.now();
        let bytes = batch.records().iter().map(|record: &UserRecord| record.data.len() as u64).sum();
        let batch = UserBatch::new(batch, self.lane.clone(), attempt, behind_latest, cancel, self.checkpointer.clone());
        let answer = self
            .call(|mut processor| {
                Box::pin(async move {
                    let answer = processor.process(&batch).await;
                    (processor, answer)
                })
            })
            .await;
        let labels = self.shared.labels(&self.lane.shard);
        histogram!(PROCESSOR_TIME, &labels).record(self.shared.env.now().since(started).as_secs_f64());
        let (verdict, result) = match answer {
            Ok(Outcome::Done) => {
                self.lease.progress().handled(bytes);
                (Verdict::Done, "done")
            }
            Err(reason) => {
                warn!(%reason, attempt, "the processor failed on a batch; it will be delivered again");
                let panicked = matches!(reason, Reason::Panicked(_));
                self.lease.activity().update(|activity| activity.last_error = Some(reason.to_string()));
                (Verdict::Failed, if panicked { "panicked" } else { "failed" })
            }
        };
        let [application, shard] = labels;
        counter!(BATCHES, application.0 => application.1, shard.0 => shard.1, "result" => result).increment(1);
        verdict
    }

    /// Tells the processor that the shard is done, as often as it takes, unless the lease is to go.
    pub(super) async fn shard_ended(&mut self) -> Result<(), Stop> {
        let lease = self.lease.clone();
        tokio::select! {
            biased;
            stop = lease.told_to_stop() => Err(stop),
            () = self.until_shard_ended() => Ok(()),
        }
    }

    async fn until_shard_ended(&mut self) {
        for failures in 1.. {
            let checkpointer = self.checkpointer.clone();
            let answer = self
                .call(|mut processor| {
                    Box::pin(async move {
                        let answer = processor.shard_ended(&checkpointer).await;
                        (processor, answer)
                    })
                })
                .await;
            match answer {
                Ok(()) => return,
                Err(reason) => self.back_off("end the shard", &reason, failures).await,
            }
        }
    }

    /// Gives the processor its last chance to flush.
    pub(super) async fn shutdown_requested(&mut self) {
        let checkpointer = self.checkpointer.clone();
        let answer = self
            .call(|mut processor| {
                Box::pin(async move {
                    let answer = processor.shutdown_requested(&checkpointer).await;
                    (processor, answer)
                })
            })
            .await;
        if let Err(reason) = answer {
            warn!(%reason, "the processor failed to shut down; its lease goes all the same");
        }
    }

    /// Tells the processor that its work is over. A replacement of one that panicked is not made for that.
    pub(super) async fn lease_lost(&mut self) {
        if self.inner.is_none() {
            return;
        }
        let answer = self
            .call(|mut processor| {
                Box::pin(async move {
                    processor.lease_lost().await;
                    (processor, Ok(()))
                })
            })
            .await;
        if let Err(reason) = answer {
            warn!(%reason, "the processor failed when told that its lease is lost");
        }
    }

    /// Makes a call at `Place::Processor`.
    async fn call<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(Box<dyn RecordProcessor>) -> Call<Result<T, ProcessError>>,
    ) -> Result<T, Reason> {
        let processor = match self.inner.take() {
            Some(processor) => processor,
            None => self.make()?,
        };
        let call = call(processor).in_current_span();
        match self.shared.env.spawn(Place::Processor, call).await {
            Ok((processor, answer)) => {
                self.inner = Some(processor);
                answer.map_err(Reason::Failed)
            }
            Err(task) => Err(Reason::Panicked(task.to_string())),
        }
    }

    fn make(&self) -> Result<Box<dyn RecordProcessor>, Reason> {
        let make = std::panic::AssertUnwindSafe(|| (self.shared.factory)(&self.lane));
        std::panic::catch_unwind(make).map_err(|_| Reason::Panicked("the processor factory panicked".into()))
    }

    async fn back_off(&mut self, what: &str, reason: &Reason, failures: u32) {
        let retry = self.shared.settings.retry.with_max_retries(None);
        let delay = retry.delay(failures, self.shared.env.random()).unwrap_or_default();
        error!(%reason, failures, "the processor failed to {what}; trying again in {delay:?}");
        self.lease.activity().update(|activity| activity.last_error = Some(reason.to_string()));
        self.shared.env.sleep(delay).await;
    }
}

/// Why a call has no answer.
#[derive(Debug)]
enum Reason {
    Failed(ProcessError),
    Panicked(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error}"),
            Self::Panicked(message) => f.write_str(message),
        }
    }
}
