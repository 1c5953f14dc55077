//! The third stage: batches to the processor, until each is done.
//!
//! The decisions are [`Delivery`]'s; this carries them out.

mod processor;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{counter, gauge};
use shardwell_core::delivery::{Batch, Command, Delivery, Event, Verdict};
use shardwell_core::{ChildShard, EnvExt, ExtendedSequenceNumber, Monotonic, Task};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ConsumerEnd;
use super::fetch::{Fetched, Room};
use crate::leases::{HeldLease, Stop};
use crate::metrics::{ABANDONED_BATCHES, ITERATOR_AGE, RECORDS_DONE, RETRIES};
use crate::worker::status::Fetching;
use crate::worker::{Shared, WorkerError};

pub(super) use processor::Processor;

/// An invocation on its way, and how it ended: the processor comes back with it.
type Invocation = BoxFuture<'static, (Processor, Verdict)>;

/// The delivery of one shard.
pub(super) struct Deliver {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    room: Arc<Room>,
    fetched: mpsc::UnboundedReceiver<Fetched>,
    delivery: Delivery,
    /// Away while a batch is in flight.
    processor: Option<Processor>,
    invocation: Option<Invocation>,
    /// Known once the end of the shard was read.
    children: Option<Vec<ChildShard>>,
    behind_latest: Option<Duration>,
    /// Tells the batch in flight that it has become useless.
    cancel: CancellationToken,
}

impl Deliver {
    pub(super) fn new(
        shared: Arc<Shared>,
        lease: Arc<HeldLease>,
        processor: Processor,
        room: Arc<Room>,
        fetched: mpsc::UnboundedReceiver<Fetched>,
    ) -> Self {
        let delivery = Delivery::new(shared.settings.batch, shared.settings.retry);
        Self {
            shared,
            lease,
            room,
            fetched,
            delivery,
            processor: Some(processor),
            invocation: None,
            children: None,
            behind_latest: None,
            cancel: CancellationToken::new(),
        }
    }

    /// Delivers until the end of the shard is done or the lease is to go. `fetching` stops with this.
    pub(super) async fn run(mut self, fetching: Task<()>) -> ConsumerEnd {
        let lease = self.lease.clone();
        let told = lease.told_to_stop();
        tokio::pin!(told);
        let mut paused = self.shared.paused.subscribe();
        loop {
            if self.delivery.is_complete() {
                return self.shard_ended().await;
            }
            let wake = self.wake_at();
            let timer = async {
                match wake {
                    Some(at) => self.shared.env.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                stop = &mut told => {
                    drop(fetching);
                    return self.stop(stop).await;
                }
                (processor, verdict) = in_flight(&mut self.invocation) => {
                    self.processor = Some(processor);
                    self.invocation = None;
                    Event::Finished(verdict)
                }
                fetched = self.fetched.recv(), if self.children.is_none() => match fetched {
                    Some(Fetched::Records { records, behind_latest }) => {
                        self.behind_latest = behind_latest;
                        Event::Arrived(records)
                    }
                    Some(Fetched::Ended { children }) => {
                        self.children = Some(children);
                        Event::ShardEnded
                    }
                    Some(Fetched::Fatal(error)) => return ConsumerEnd::Fatal(error),
                    None => return ConsumerEnd::Fatal(WorkerError::Broken("the fetching of a shard broke down".into())),
                },
                _ = paused.changed() => Event::Tick,
                () = timer => Event::Tick,
            };
            self.step(event);
        }
    }

    /// Whether a batch may be handed to the processor now.
    fn may_invoke(&self) -> bool {
        !*self.shared.paused.borrow() && self.lease.may_process(self.shared.env.now())
    }

    /// When to look again if nothing happens.
    fn wake_at(&self) -> Option<Monotonic> {
        let now = self.shared.env.now();
        if *self.shared.paused.borrow() {
            None
        } else if self.lease.may_process(now) {
            self.delivery.wake_at()
        } else {
            // The lease is in doubt: it will be renewed or lost soon.
            Some(now.plus(self.shared.timing.renew_retry()))
        }
    }

    fn step(&mut self, event: Event) {
        let env = self.shared.env.clone();
        let commands = self.delivery.step(event, env.now(), env.random(), self.may_invoke());
        let failures = self.delivery.failures();
        self.lease.activity().update(|activity| {
            activity.failures = failures;
            if failures == 0 && activity.fetching == Fetching::Reading {
                activity.last_error = None;
            }
        });
        for command in commands {
            match command {
                Command::Invoke { batch, attempt } => self.invoke(batch, attempt),
                Command::Done { up_to, records, weight } => self.done(up_to, records, weight),
            }
        }
    }

    fn invoke(&mut self, batch: Batch, attempt: u32) {
        let Some(processor) = self.processor.take() else { return };
        if attempt > 1 {
            counter!(RETRIES, &self.shared.labels(self.lease.shard())).increment(1);
        }
        let call = processor.process(batch, attempt, self.behind_latest, self.cancel.clone());
        self.invocation = Some(call.boxed());
    }

    fn done(&self, up_to: ExtendedSequenceNumber, records: usize, weight: usize) {
        self.room.release(weight);
        self.lease.progress().done(up_to);
        let labels = self.shared.labels(self.lease.shard());
        counter!(RECORDS_DONE, &labels).increment(records as u64);
        if let Some(arrival) = self.processor.as_ref().and_then(Processor::newest_arrival) {
            gauge!(ITERATOR_AGE, &labels).set(self.shared.env.timestamp().since(arrival).as_secs_f64());
        }
    }

    /// The shard is done: tells the processor, as often as it takes.
    async fn shard_ended(mut self) -> ConsumerEnd {
        let Some(mut processor) = self.processor.take() else {
            return ConsumerEnd::Fatal(WorkerError::Broken("the end of a shard without its processor".into()));
        };
        match processor.shard_ended().await {
            Ok(()) => ConsumerEnd::ShardEnded { children: self.children.unwrap_or_default() },
            Err(stop) => {
                self.processor = Some(processor);
                self.stop(stop).await
            }
        }
    }

    async fn stop(mut self, stop: Stop) -> ConsumerEnd {
        self.lease.activity().update(|activity| activity.stopping = true);
        match stop {
            Stop::Drain { deadline } => self.drain(deadline).await,
            Stop::Lost => self.lost().await,
        }
    }

    /// Lets what is running finish, tells the processor, and ends; at the deadline at the latest.
    async fn drain(&mut self, deadline: Monotonic) -> ConsumerEnd {
        let (env, lease) = (self.shared.env.clone(), self.lease.clone());
        let in_time = tokio::select! {
            biased;
            finished = env.deadline(deadline, self.finish()) => Some(finished.is_ok()),
            () = lease.told_lost() => None,
        };
        match in_time {
            Some(true) => {}
            Some(false) => {
                self.cancel.cancel();
                counter!(ABANDONED_BATCHES, "application" => self.shared.application.clone()).increment(1);
                warn!("the processor was still running at the deadline; its batch will be delivered again");
            }
            None => return self.lost().await,
        }
        ConsumerEnd::Stopped
    }

    /// Waits for what is running, and gives the processor its last chance to flush.
    async fn finish(&mut self) {
        if self.invocation.is_some() {
            let (processor, verdict) = in_flight(&mut self.invocation).await;
            self.invocation = None;
            self.processor = Some(processor);
            self.finished_while_draining(verdict);
        }
        if let Some(processor) = &mut self.processor {
            processor.shutdown_requested().await;
        }
    }

    /// A batch that was done while draining counts; nothing new starts.
    fn finished_while_draining(&mut self, verdict: Verdict) {
        let env = self.shared.env.clone();
        for command in self.delivery.step(Event::Finished(verdict), env.now(), env.random(), false) {
            if let Command::Done { up_to, records, weight } = command {
                self.done(up_to, records, weight);
            }
        }
    }

    /// Waits for what is running, whose result counts no more, and tells the processor.
    async fn lost(&mut self) -> ConsumerEnd {
        self.cancel.cancel();
        if let Some(invocation) = self.invocation.take() {
            self.processor = Some(invocation.await.0);
        }
        if let Some(processor) = &mut self.processor {
            processor.lease_lost().await;
        }
        info!("stopped working on a shard whose lease is lost");
        ConsumerEnd::LeaseLost
    }
}

/// The end of the invocation in flight; never, if there is none.
async fn in_flight(invocation: &mut Option<Invocation>) -> (Processor, Verdict) {
    match invocation {
        Some(invocation) => invocation.await,
        None => std::future::pending().await,
    }
}
