//! A lane's processor, and every call to it.

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};
use shardwell_core::delivery::{Batch, Verdict};
use shardwell_core::{Checkpoint, EnvExt, UserRecord};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug_span, error, warn};

use super::answer::{broken, error_line, verdict};
use crate::host::{Host, Limit, Reason};
use crate::leases::{HeldLease, Stop};
use crate::metrics::{BATCHES, PROCESSOR_TIME};
use crate::processor::{LaneContext, Outcome, Start};
use crate::records::ConsumerEnd;
use crate::worker::Shared;
use crate::{Batch as UserBatch, Checkpointer};

/// A lane's processor.
pub(in crate::records) struct Processor {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    host: Host,
    checkpointer: Checkpointer,
}

/// A batch as it is handed over.
#[derive(Clone, Debug)]
pub(super) struct Invocation {
    pub(super) batch: Batch,
    pub(super) attempt: u32,
    pub(super) behind_latest: Option<Duration>,
    pub(super) cancel: CancellationToken,
}

impl Processor {
    pub(in crate::records) fn new(shared: Arc<Shared>, lease: Arc<HeldLease>, lane: LaneContext) -> Self {
        let checkpointer = Checkpointer::new(shared.settings.checkpoints, lease.clone(), shared.flush.clone());
        let host = Host::new(shared.env.clone(), shared.factory.clone(), lane);
        Self { shared, lease, host, checkpointer }
    }

    /// Makes and initializes the processor of the first lane, as often as it takes. Gives the checkpoint to resume after.
    pub(in crate::records) async fn initialize(&mut self) -> Result<Checkpoint, ConsumerEnd> {
        let stored = self.lease.progress().wanted();
        let lease = self.lease.clone();
        let answer = tokio::select! {
            biased;
            stop = lease.told_to_stop() => Err(stop),
            answer = self.until_initialized() => Ok(answer),
        };
        match answer {
            Ok(Some(position)) if self.shared.settings.delivery.lanes() == 1 => {
                self.lease.progress().resume_from(position);
                Ok(position)
            }
            Ok(position) => {
                if position.is_some() {
                    warn!("a processor of one lane of several cannot say where to resume; the checkpoint counts");
                }
                Ok(stored)
            }
            Err(stop) => Err(stop.into()),
        }
    }

    async fn until_initialized(&mut self) -> Option<Checkpoint> {
        for failures in 1.. {
            let start = Start {
                lane: self.host.lane().clone(),
                checkpoint: self.lease.progress().wanted(),
                pending: self.lease.image().pending_checkpoint,
            };
            let answer = self
                .host
                .call(None, |mut processor| {
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

    /// Whether there is a processor now, initialized.
    pub(super) const fn is_made(&self) -> bool {
        self.host.is_made()
    }

    /// Hands over a batch.
    pub(super) async fn process(&mut self, invocation: Invocation) -> Verdict {
        if !self.host.is_made()
            && self.until_initialized().await.is_some()
            && self.shared.settings.delivery.lanes() == 1
        {
            warn!("a processor that replaces another one cannot move the position; going on where the other was");
        }
        if let Some(last) = invocation.batch.records().last() {
            self.lease.progress().delivering(last.position);
        }
        let span = debug_span!("batch", records = invocation.batch.records().len(), attempt = invocation.attempt);
        self.process_now(invocation).instrument(span).await
    }

    async fn process_now(&mut self, invocation: Invocation) -> Verdict {
        let started = self.shared.env.now();
        let Invocation { batch, attempt, behind_latest, cancel } = invocation;
        let records = batch.clone();
        let timeout = self.shared.settings.delivery.processor_timeout();
        let limit = timeout.map(|timeout| Limit { at: started.plus(timeout), timeout, cancel: cancel.clone() });
        let batch =
            UserBatch::new(batch, self.host.lane().clone(), attempt, behind_latest, cancel, self.checkpointer.clone());
        let answer = self
            .host
            .call(limit, |mut processor| {
                Box::pin(async move {
                    let answer = processor.process(&batch).await;
                    (processor, answer)
                })
            })
            .await;
        histogram!(PROCESSOR_TIME, &self.shared.labels(&self.lease))
            .record(self.shared.env.now().since(started).as_secs_f64());
        let (verdict, result) = self.judge(records.records(), answer);
        if let Some(error) = error_line(&verdict) {
            warn!(%error, attempt, "the processor failed on a batch; it will be delivered again, or its records are dead");
            self.lease.activity().update(|activity| activity.last_error = Some(error));
        }
        counter!(BATCHES, &self.shared.labels_and(&self.lease, "result", result)).increment(1);
        verdict
    }

    fn judge(&self, records: &[UserRecord], answer: Result<Outcome, Reason>) -> (Verdict, &'static str) {
        match answer {
            Ok(outcome) => {
                let verdict = verdict(records, Ok(outcome));
                let result = if verdict == Verdict::Done { "done" } else { "failed" };
                self.lease.progress().handled(records.iter().map(|record| record.data.len() as u64).sum());
                (verdict, result)
            }
            Err(Reason::Failed(error)) => (verdict(records, Err(error)), "failed"),
            Err(reason @ Reason::Panicked(_)) => (Verdict::Failed(broken(reason.to_string())), "panicked"),
            Err(reason @ Reason::TimedOut(_)) => (Verdict::Failed(broken(reason.to_string())), "timed_out"),
        }
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
                .host
                .call(None, |mut processor| {
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
            .host
            .call(None, |mut processor| {
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
        if !self.host.is_made() {
            return;
        }
        let answer = self
            .host
            .call(None, |mut processor| {
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

    async fn back_off(&mut self, what: &str, reason: &Reason, failures: u32) {
        let retry = self.shared.settings.delivery.backoff().with_max_retries(None);
        let delay = retry.delay(failures, self.shared.env.random()).unwrap_or_default();
        error!(%reason, failures, "the processor failed to {what}; trying again in {delay:?}");
        self.lease.activity().update(|activity| activity.last_error = Some(reason.to_string()));
        self.shared.env.sleep(delay).await;
    }
}
