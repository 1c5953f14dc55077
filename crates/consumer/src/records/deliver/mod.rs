//! The third stage: batches to the processors, until each record is done or dead.
//!
//! The decisions are [`Delivery`]'s; this carries them out.

mod answer;
mod burial;
mod invocation;
mod processor;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use metrics::{counter, gauge};
use shardwell_core::delivery::{Batch, Burial, BurialOutcome, Command, Delivery, Event, Now, Settled};
use shardwell_core::{ChildShard, EnvExt, Monotonic, Task};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::ConsumerEnd;
use super::fetch::{Fetched, Room};
use crate::leases::{self, HeldLease, Stop};
use crate::lock::lock;
use crate::metrics::{ABANDONED_BATCHES, DISCARDED, ITERATOR_AGE, RECORDS_DEAD, RECORDS_DONE, RETRIES};
use crate::processor::LaneContext;
use crate::worker::status::Fetching;
use crate::worker::{Shared, WorkerError};

use invocation::{Invoked, invoke};
use processor::Invocation;
pub(super) use processor::Processor;

/// The delivery of one shard.
pub(super) struct Deliver {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    room: Arc<Room>,
    fetched: mpsc::UnboundedReceiver<Fetched>,
    /// Shared with the watermark, which looks at it when the lease is written.
    delivery: Arc<Mutex<Delivery>>,
    context: LaneContext,
    /// By lane; away while a batch is in flight, and made when first needed.
    processors: Vec<Option<Processor>>,
    invocations: FuturesUnordered<BoxFuture<'static, Invoked>>,
    burials: FuturesUnordered<BoxFuture<'static, (u32, BurialOutcome)>>,
    /// A write to the lease. Nothing starts before it is done.
    first_of_all: Option<BoxFuture<'static, ()>>,
    /// Whether the term has begun.
    has_begun: bool,
    dead_keys: Option<BoxFuture<'static, Event>>,
    /// Nothing starts before it is known which keys are held back.
    keys_known: bool,
    /// Known once the end of the shard was read.
    children: Option<Vec<ChildShard>>,
    behind_latest: Option<Duration>,
    /// Tells the batches in flight that they have become useless.
    cancel: CancellationToken,
}

impl Deliver {
    /// The delivery to a shard's processors, of which the first is there already.
    pub(super) fn new(
        shared: Arc<Shared>,
        lease: Arc<HeldLease>,
        first: Processor,
        context: LaneContext,
        delivery: Arc<Mutex<Delivery>>,
        room: Arc<Room>,
        fetched: mpsc::UnboundedReceiver<Fetched>,
    ) -> Self {
        let mut processors = vec![Some(first)];
        processors.resize_with(shared.settings.delivery.lanes() as usize, || None);
        let dead_keys = burial::dead_keys(&shared, &lease, &delivery, Duration::ZERO);
        Self {
            shared,
            lease,
            room,
            fetched,
            delivery,
            context,
            processors,
            invocations: FuturesUnordered::new(),
            burials: FuturesUnordered::new(),
            first_of_all: None,
            has_begun: false,
            keys_known: dead_keys.is_none(),
            dead_keys,
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
        let mut paused = self.shared.paused.watch();
        loop {
            let (is_complete, is_misled) = self.ends();
            if is_misled {
                return self.misled().await;
            }
            if is_complete {
                return self.shard_ended().await;
            }
            let timer = self.shared.env.sleep_until_if_any(self.wake_at());
            let event = tokio::select! {
                biased;
                stop = &mut told => {
                    drop(fetching);
                    return self.stop(stop).await;
                }
                Some(invoked) = self.invocations.next() => self.invoked(invoked),
                Some((lane, outcome)) = self.burials.next() => self.buried(lane, outcome),
                () = ready(&mut self.first_of_all) => {
                    self.first_of_all = None;
                    Event::Tick
                }
                event = ready(&mut self.dead_keys) => {
                    self.keys_known = true;
                    self.dead_keys = burial::dead_keys(&self.shared, &self.lease, &self.delivery, DEAD_KEYS_REFRESH);
                    event
                }
                fetched = self.fetched.recv(), if self.children.is_none() => match fetched {
                    Some(Fetched::Records { records, behind_latest }) => {
                        self.behind_latest = behind_latest;
                        self.begin();
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
            self.step(event, true);
        }
    }

    /// The first records are there: stores that the term has begun, so that the next one knows if the process dies of them.
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.has_begun, true) {
            lock(&self.delivery).begin();
            self.store_first(None);
        }
    }

    fn ends(&self) -> (bool, bool) {
        let delivery = lock(&self.delivery);
        (delivery.is_complete(), delivery.is_misled())
    }

    /// Whether anything may be handed to a processor or a sink now.
    fn may_deliver(&self) -> bool {
        !self.is_held_up() && self.lease.may_process(self.shared.env.now())
    }

    /// Whether an event must come first.
    fn is_held_up(&self) -> bool {
        *self.shared.paused.look() || self.first_of_all.is_some() || !self.keys_known
    }

    /// When to look again if nothing happens.
    fn wake_at(&self) -> Option<Monotonic> {
        let now = self.shared.env.now();
        if self.is_held_up() {
            None
        } else if self.lease.may_process(now) {
            lock(&self.delivery).wake_at()
        } else {
            // The lease is in doubt: it will be renewed or lost soon.
            Some(now.plus(self.shared.timing.renew_retry()))
        }
    }

    fn step(&mut self, event: Event, go_on: bool) {
        let env = self.shared.env.clone();
        let now = Now { monotonic: env.now(), timestamp: env.timestamp() };
        let may_deliver = go_on && self.may_deliver();
        let (commands, failures) = {
            let mut delivery = lock(&self.delivery);
            let commands = delivery.step(event, now, env.random(), may_deliver);
            (commands, delivery.failures())
        };
        self.lease.activity().update(|activity| {
            activity.failures = failures;
            if failures == 0 && activity.fetching == Fetching::Reading {
                activity.last_error = None;
            }
        });
        for command in commands {
            match command {
                Command::Invoke { lane, batch, attempt, alone } => self.invoke(lane, batch, attempt, alone),
                Command::Bury { lane, burial } => self.bury(lane, burial),
                Command::Settled(settled) => self.settled(&settled),
            }
        }
    }

    fn invoke(&mut self, lane: u32, batch: Batch, attempt: u32, alone: bool) {
        if attempt > 1 {
            counter!(RETRIES, &self.shared.labels(&self.lease)).increment(1);
        }
        let (shared, lease) = (self.shared.clone(), self.lease.clone());
        let processor = self.processors.get_mut(lane as usize).and_then(Option::take).unwrap_or_else(|| {
            let context = LaneContext { lane, ..self.context.clone() };
            Processor::new(shared.clone(), lease.clone(), context)
        });
        let (behind_latest, cancel) = (self.behind_latest, self.cancel.child_token());
        let invocation = Invocation { batch, attempt, behind_latest, cancel };
        let announce = alone.then(|| self.delivery.clone());
        self.invocations.push(invoke(shared, lease, lane, processor, invocation, announce).boxed());
    }

    /// An invocation is over: the processor is back.
    fn invoked(&mut self, invoked: Invoked) -> Event {
        let Invoked { lane, processor, verdict, alone } = invoked;
        self.processors[lane as usize] = Some(processor);
        if let Some(nothing_else_runs) = alone {
            self.store_first(Some(nothing_else_runs));
        }
        Event::Finished { lane, verdict }
    }

    /// A burial is over. Under suspicion that is stored before anything else is tried: if the process dies of what comes next,
    /// every process after it would come so far and no further.
    fn buried(&mut self, lane: u32, outcome: BurialOutcome) -> Event {
        if lock(&self.delivery).suspicion().is_some() {
            self.store_first(None);
        }
        Event::Buried { lane, outcome }
    }

    /// Stores what the delivery wants stored, before anything else is tried: that the term has begun, or that a batch that was
    /// processed alone, or a burial under suspicion, is over. What was to be stored before is waited for as well, and only then
    /// may others run.
    fn store_first(&mut self, nothing_else_runs: Option<OwnedSemaphorePermit>) {
        let (shared, lease, before) = (self.shared.clone(), self.lease.clone(), self.first_of_all.take());
        let store = async move {
            if let Some(before) = before {
                before.await;
            }
            // If the lease is lost it may still say that this batch is running. That is one death too many for a record that
            // is condemned at its third only.
            let _ = leases::flush(&shared, &lease).await;
            drop(nothing_else_runs);
        };
        self.first_of_all = Some(store.boxed());
    }

    fn bury(&mut self, lane: u32, burial: Burial) {
        let bury =
            burial::bury(self.shared.clone(), self.lease.clone(), LaneContext { lane, ..self.context.clone() }, burial);
        self.burials.push(bury.map(move |outcome| (lane, outcome)).boxed());
    }

    fn settled(&self, settled: &Settled) {
        self.room.release(settled.weight);
        let labels = self.shared.labels(&self.lease);
        if settled.done > 0 {
            counter!(RECORDS_DONE, &labels).increment(settled.done as u64);
        }
        if let Some(reason) = settled.reason {
            self.lease.activity().update(|activity| activity.dead += settled.dead as u64);
            let labels = self.shared.labels_and(&self.lease, "reason", reason.as_str());
            counter!(RECORDS_DEAD, &labels).increment(settled.dead as u64);
        }
        if settled.discarded > 0 {
            counter!(DISCARDED, &labels).increment(settled.discarded as u64);
            warn!(records = settled.discarded, "no sink took the dead letters; they are given up, as the policy says");
        }
        if let Some(arrival) = settled.newest {
            gauge!(ITERATOR_AGE, &labels).set(self.shared.env.timestamp().since(arrival).as_secs_f64());
        }
    }

    /// The shard is done: tells every processor, as often as it takes.
    async fn shard_ended(mut self) -> ConsumerEnd {
        for lane in 0..self.processors.len() {
            let Some(processor) = self.processors[lane].as_mut() else { continue };
            if lane > 0 && !processor.is_made() {
                continue;
            }
            if let Err(stop) = processor.shard_ended().await {
                return self.stop(stop).await;
            }
        }
        ConsumerEnd::ShardEnded { children: self.children.unwrap_or_default() }
    }

    /// What an earlier term left behind belongs to other records than those that came. All that is running is waited for,
    /// since nothing may run twice at a time.
    async fn misled(mut self) -> ConsumerEnd {
        self.cancel.cancel();
        while let Some(invoked) = self.invocations.next().await {
            self.processors[invoked.lane as usize] = Some(invoked.processor);
        }
        while self.burials.next().await.is_some() {}
        self.tell_lost().await;
        ConsumerEnd::Misled
    }

    async fn stop(mut self, stop: Stop) -> ConsumerEnd {
        self.lease.activity().update(|activity| activity.stopping = true);
        match stop {
            Stop::Drain { deadline } => self.drain(deadline).await,
            Stop::Lost => self.lost().await,
        }
    }

    /// Lets what is running finish, tells the processors, and ends; at the deadline at the latest.
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
                let abandoned = self.invocations.len();
                counter!(ABANDONED_BATCHES, "application" => self.shared.application.clone())
                    .increment(abandoned as u64);
                warn!(
                    abandoned,
                    "processors were still running at the deadline; their batches will be delivered again"
                );
            }
            None => return self.lost().await,
        }
        ConsumerEnd::Stopped
    }

    /// Waits for what is running, and gives the processors their last chance to flush. What was done while draining
    /// counts; nothing new starts.
    async fn finish(&mut self) {
        while !(self.invocations.is_empty() && self.burials.is_empty() && self.first_of_all.is_none()) {
            let event = tokio::select! {
                biased;
                Some(invoked) = self.invocations.next() => self.invoked(invoked),
                Some((lane, outcome)) = self.burials.next() => self.buried(lane, outcome),
                () = ready(&mut self.first_of_all) => {
                    self.first_of_all = None;
                    Event::Tick
                }
            };
            self.step(event, false);
        }
        for processor in self.processors.iter_mut().flatten().filter(|processor| processor.is_made()) {
            processor.shutdown_requested().await;
        }
    }

    /// Waits for what is running, whose result counts no more, and tells the processors. Letters that are on their way are
    /// left alone: the new owner writes them.
    async fn lost(&mut self) -> ConsumerEnd {
        self.cancel.cancel();
        self.burials = FuturesUnordered::new();
        while let Some(invoked) = self.invocations.next().await {
            self.processors[invoked.lane as usize] = Some(invoked.processor);
        }
        self.tell_lost().await;
        info!("stopped working on a shard whose lease is lost");
        ConsumerEnd::LeaseLost
    }

    async fn tell_lost(&mut self) {
        for processor in self.processors.iter_mut().flatten() {
            processor.lease_lost().await;
        }
    }
}

/// How often to look which keys are still dead.
const DEAD_KEYS_REFRESH: Duration = Duration::from_secs(5);

/// The output of a future that may not be there; never, if it is not.
async fn ready<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
