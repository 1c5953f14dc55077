//! The first stage: reading a shard, within its limits and the worker's byte budget.

mod budget;
mod horizon;

use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, gauge};
use shardwell_core::delivery::Intake;
use shardwell_core::fetching::{ReadPacer, ReadSizer};
use shardwell_core::{
    Checkpoint, ChildShard, EnvExt, ExtendedSequenceNumber, Read, RetryPolicy, ShardReader, StartPosition, StreamError,
    StreamErrorKind, StreamStatus, Timestamp,
};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::deaggregate::{Deaggregation, Undecodable, UserRecords};
use crate::leases::HeldLease;
use crate::metrics::{
    BEHIND_LATEST, BYTES_READ, DATA_LOSSES, FILTERED, OUT_OF_RANGE, READS, RECORD_KINDS, RECORDS_READ,
};
use crate::worker::status::Fetching;
use crate::worker::{DataLoss, OnDataLoss, Shared, WorkerError};

pub(crate) use budget::{Room, SharedBudget};
use horizon::{CLOCK_MARGIN, Horizon};

/// What fetching hands on.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// User records that are not done yet, in order; room is reserved for those that are to be delivered.
    Records { records: Vec<Intake>, behind_latest: Option<Duration> },
    /// The end of the shard: nothing follows.
    Ended { children: Vec<ChildShard> },
    /// The worker cannot go on.
    Fatal(WorkerError),
}

/// The fetching of one shard.
#[derive(Debug)]
pub(crate) struct Fetch {
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    room: Arc<Room>,
    /// Everything up to here is done: where reading starts.
    from: Checkpoint,
    /// The time from which to read where no record is done: when the shard was opened at its tip in an earlier term of the lease,
    /// or what an operator wants.
    since: Option<Timestamp>,
    deaggregation: Deaggregation,
    pacer: ReadPacer,
    sizer: ReadSizer,
    horizon: Horizon,
    /// How often reading failed since it last succeeded.
    failures: u32,
}

/// Why fetching is over.
struct Over(Fetched);

impl Fetch {
    pub(crate) fn new(
        shared: Arc<Shared>,
        lease: Arc<HeldLease>,
        room: Arc<Room>,
        from: Checkpoint,
        since: Option<Timestamp>,
    ) -> Self {
        let limits = lease.stream().reading.read_limits();
        let limits = if shared.settings.read_pacing { limits } else { limits.without_pace() };
        let caught_up_at = lease.progress().caught_up_at();
        let horizon = Horizon::new(from, caught_up_at, shared.env.timestamp(), lease.stream().retention());
        let range = lease.image().hash_key_range.filter(|_| !lease.stream().automatic_distribution());
        let deaggregation = Deaggregation {
            done: from,
            range,
            range_policy: shared.settings.range_policy,
            on_undecodable: shared.settings.delivery.on_undecodable(),
            filter: shared.filter.clone(),
        };
        Self {
            deaggregation,
            pacer: ReadPacer::new(limits),
            sizer: ReadSizer::new(&limits),
            horizon,
            failures: 0,
            shared,
            lease,
            room,
            from,
            since,
        }
    }

    /// Reads until the end of the shard, or until nobody wants it any more.
    pub(crate) async fn run(mut self, out: mpsc::UnboundedSender<Fetched>) {
        let Over(last) = match self.read_all(&out).await {
            Ok(never) => match never {},
            Err(over) => over,
        };
        self.lease.activity().update(|activity| activity.fetching = Fetching::Ended);
        // Nobody listens: the consumer is stopping.
        let _ = out.send(last);
    }

    async fn read_all(&mut self, out: &mpsc::UnboundedSender<Fetched>) -> Result<std::convert::Infallible, Over> {
        let mut reader = self.open().await?;
        loop {
            self.unpaused().await;
            self.shared.env.sleep_until(self.pacer.next_read()).await;
            let limit = self.sizer.limit(self.room.share());
            let reserved = self.reserve(self.sizer.expected(limit)).await;
            let started = self.shared.env.now();
            match reader.read(limit).await {
                Ok(read) => {
                    let bytes = read.records.iter().map(|record| record.data.len()).sum();
                    self.pacer.on_read(started, read.records.len(), bytes);
                    self.count(&read, bytes);
                    let end = read.end.clone();
                    if let Some(fetched) = self.accept(read, bytes, reserved)? {
                        // Nobody listens: the consumer is stopping, and drops this task.
                        let _ = out.send(fetched);
                    }
                    if let Some(children) = end {
                        return Err(self.end(children).await);
                    }
                }
                Err(error) => {
                    drop(reserved);
                    self.failed(error).await?;
                }
            }
        }
    }

    /// Opens the shard, as often as it takes.
    async fn open(&mut self) -> Result<Box<dyn ShardReader>, Over> {
        let Some(position) = self.position() else {
            return Err(Over(Fetched::Ended { children: Vec::new() }));
        };
        loop {
            match self.lease.stream().reading.open(self.lease.shard(), position).await {
                Ok(reader) => {
                    debug!(?position, "shard opened");
                    self.lease.activity().update(|activity| {
                        activity.opened = true;
                        activity.fetching = Fetching::Reading;
                    });
                    self.shared.readiness.set(());
                    return Ok(reader);
                }
                Err(error) => self.failed(error).await?,
            }
        }
    }

    /// Where to open the shard. The tip of today is not the tip of an earlier term that died before anything was done: what
    /// arrived since then is read.
    fn position(&self) -> Option<StartPosition> {
        match (self.since, self.from) {
            (Some(time), Checkpoint::Latest) => Some(StartPosition::AtTimestamp(time.minus(CLOCK_MARGIN))),
            (Some(time), _) => Some(StartPosition::AtTimestamp(time)),
            (None, _) => self.shared.settings.initial_position.start(&self.from),
        }
    }

    async fn unpaused(&self) {
        let mut paused = self.shared.paused.watch();
        if *paused.look() {
            self.lease.activity().update(|activity| activity.fetching = Fetching::Paused);
            // An error means that the worker is gone, and this task with it.
            paused.until(|paused| !paused).await;
            self.lease.activity().update(|activity| activity.fetching = Fetching::Reading);
        }
    }

    async fn reserve(&self, bytes: usize) -> budget::Reservation {
        match self.room.try_reserve(bytes) {
            Some(reserved) => reserved,
            None => {
                self.lease.activity().update(|activity| activity.fetching = Fetching::WaitingForRoom);
                let reserved = self.room.reserve(bytes).await;
                self.lease.activity().update(|activity| activity.fetching = Fetching::Reading);
                reserved
            }
        }
    }

    /// Takes in what was read, of which `payload` bytes are payload.
    fn accept(&mut self, read: Read, payload: usize, reserved: budget::Reservation) -> Result<Option<Fetched>, Over> {
        self.failures = 0;
        self.lease.activity().update(|activity| {
            activity.fetching = Fetching::Reading;
            activity.behind_latest = read.behind_latest;
            if activity.failures == 0 {
                activity.last_error = None;
            }
        });
        if let Some(first_left) = self.horizon.check(&read) {
            self.lost(first_left)?;
        }
        let count = read.records.len();
        let records = match self.deaggregation.user_records(read.records) {
            Ok(out) => self.deaggregated(out),
            Err(Undecodable { sequence_number, error }) => {
                return Err(Over(Fetched::Fatal(WorkerError::Undecodable {
                    shard: self.lease.shard().clone(),
                    sequence_number: Box::new(sequence_number),
                    reason: Box::new(error),
                })));
            }
        };
        let weight = records.iter().map(weight).sum();
        self.sizer.observe(count, payload, weight);
        reserved.settle(weight);
        if let Some(behind) = read.behind_latest {
            self.watch(behind, records.last().map(position));
        }
        let behind_latest = read.behind_latest;
        Ok((!records.is_empty()).then_some(Fetched::Records { records, behind_latest }))
    }

    /// Counts and reports what was seen in the records.
    fn deaggregated(&self, out: UserRecords) -> Vec<Intake> {
        for (kind, count) in out.kinds {
            let labels = self.shared.labels_and(&self.lease, "kind", kind.as_str());
            counter!(RECORD_KINDS, &labels).increment(count);
        }
        let delivered = out.ranges.outside.saturating_sub(out.ranges.dropped);
        for (result, count) in [("delivered", delivered), ("dropped", out.ranges.dropped)] {
            if count > 0 {
                counter!(OUT_OF_RANGE, &self.shared.labels_and(&self.lease, "result", result)).increment(count);
            }
        }
        if let Some((record, error)) = out.malformed {
            warn!(
                %record, %error,
                "a record claims to be aggregated and cannot be read; it is delivered as it is, or dead"
            );
        }
        if out.filtered > 0 {
            counter!(FILTERED, &self.labels()).increment(out.filtered);
        }
        out.records
    }

    /// Notes how far behind the shard is: for the metric, for the warning, and at the tip for the next owner.
    fn watch(&mut self, behind: Duration, newest: Option<ExtendedSequenceNumber>) {
        gauge!(BEHIND_LATEST, &self.labels()).set(behind.as_secs_f64());
        if let Some(newest) = newest {
            self.lease.progress().read_up_to(newest);
        }
        if behind.is_zero() {
            self.lease.progress().at_tip(self.shared.env.timestamp());
        }
        if self.horizon.is_near(behind, self.lease.stream().retention()) {
            let retention = self.lease.stream().retention();
            warn!(
                ?behind,
                ?retention,
                "the shard is about to lose records: they are trimmed before they are read. Raise the stream's retention, \
                 or add throughput"
            );
        }
    }

    /// Reports records that were trimmed before they were read.
    fn lost(&self, first_left: horizon::FirstLeft) -> Result<(), Over> {
        let loss = DataLoss { shard: self.lease.shard().clone(), after: self.from, first_left };
        counter!(DATA_LOSSES, "application" => self.shared.application.clone()).increment(1);
        match self.shared.settings.on_data_loss {
            OnDataLoss::Continue => {
                warn!(after = %loss.after, first_left = ?loss.first_left, "{loss}");
                self.lease.activity().update(|activity| activity.data_loss = Some(loss));
                Ok(())
            }
            OnDataLoss::Stop => Err(Over(Fetched::Fatal(WorkerError::DataLoss(Box::new(loss))))),
        }
    }

    /// Waits out an error, or ends fetching where waiting cannot help.
    async fn failed(&mut self, error: StreamError) -> Result<(), Over> {
        let now = self.shared.env.now();
        let throttled = error.kind() == StreamErrorKind::Throttled;
        self.count_read(if throttled { "throttled" } else { "error" });
        let text = crate::causes::with_causes(&error);
        self.lease.activity().update(|activity| {
            activity.fetching = Fetching::BackingOff;
            activity.last_error = Some(text.clone());
        });
        if error.kind() == StreamErrorKind::NotFound {
            return self.gone().await;
        }
        if throttled {
            debug!("throttled; reading more slowly");
            self.pacer.on_throttled(now, self.shared.env.random());
            self.shared.env.sleep_until(self.pacer.next_read()).await;
            return Ok(());
        }
        self.failures = self.failures.saturating_add(1);
        let retry = RetryPolicy::default().with_cap(MAX_READ_BACKOFF);
        let delay = retry.delay(self.failures, self.shared.env.random()).unwrap_or_default();
        warn!(error = %text, failures = self.failures, "cannot read the shard; trying again in {delay:?}");
        self.shared.env.sleep(delay).await;
        Ok(())
    }

    /// The end of the shard. One without children may be the end of the whole stream, which finishes nothing.
    async fn end(&self, children: Vec<ChildShard>) -> Over {
        while children.is_empty() {
            match self.stream_is_there().await {
                Some(true) => break,
                Some(false) => return self.deleted(),
                None => {}
            }
        }
        Over(Fetched::Ended { children })
    }

    /// Whether the stream still exists. `None`, after a pause, when that cannot be told.
    async fn stream_is_there(&self) -> Option<bool> {
        match self.lease.stream().reading.describe().await {
            Ok(description) => {
                // There may be another one of its name already.
                let is_ours = self.lease.stream().may_be(&description.identity);
                Some(is_ours && description.status != StreamStatus::Deleting)
            }
            Err(error) if error.kind() == StreamErrorKind::NotFound => Some(false),
            Err(error) => {
                warn!(%error, "cannot tell whether the stream is gone; trying again");
                self.shared.env.sleep(MAX_READ_BACKOFF).await;
                None
            }
        }
    }

    fn deleted(&self) -> Over {
        Over(Fetched::Fatal(WorkerError::StreamDeleted { stream: self.lease.stream().name() }))
    }

    /// There is no such shard any more: either the stream is gone, or the shard was trimmed with what was left in it.
    async fn gone(&mut self) -> Result<(), Over> {
        match self.stream_is_there().await {
            Some(true) => {
                self.lost(None)?;
                Err(Over(Fetched::Ended { children: Vec::new() }))
            }
            Some(false) => Err(self.deleted()),
            None => Ok(()),
        }
    }

    fn count(&self, read: &Read, bytes: usize) {
        self.count_read("ok");
        let labels = self.labels();
        counter!(RECORDS_READ, &labels).increment(read.records.len() as u64);
        counter!(BYTES_READ, &labels).increment(bytes as u64);
    }

    fn count_read(&self, result: &'static str) {
        counter!(READS, &self.shared.labels_and(&self.lease, "result", result)).increment(1);
    }

    fn labels(&self) -> Vec<(&'static str, String)> {
        self.shared.labels(&self.lease)
    }
}

/// What a record costs in memory until it is settled.
fn weight(intake: &Intake) -> usize {
    match intake {
        Intake::Record(record) | Intake::Doomed(record, _) => record.weight(),
        Intake::Passed(_) => 0,
    }
}

const fn position(intake: &Intake) -> ExtendedSequenceNumber {
    match intake {
        Intake::Record(record) | Intake::Doomed(record, _) => record.position,
        Intake::Passed(position) => *position,
    }
}

/// The longest wait between reads that fail.
const MAX_READ_BACKOFF: Duration = Duration::from_secs(10);
