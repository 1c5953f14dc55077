//! How records are delivered, and what happens when that fails.

use std::time::Duration;

use super::FusePolicy;
use crate::RetryPolicy;

/// When a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// Records at most, at least 1.
    pub records: usize,
    /// Payload bytes at most; one record always fits.
    pub bytes: usize,
    /// How long to wait for more once something is there and the lane is idle.
    pub window: Duration,
}

/// What to do with a record that claims to be aggregated, by magic and digest, and cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUndecodable {
    /// Deliver it as it is, as one user record. Its user records are in there, for who can read them.
    #[default]
    DeliverRaw,
    /// Dead-letter it, as it is. Needs a sink, or `discard_dead_letters`.
    DeadLetter,
    /// Stop the worker, with nothing checkpointed beyond the record.
    Fail,
}

/// What to do when no sink takes a dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnSinkFailure {
    /// Wait and try again, for as long as it takes: the record's lane stands still, and nothing is lost.
    #[default]
    Wait,
    /// Give the record up for good, and count it. What Lambda does.
    Discard,
}

/// How records are delivered, and what happens when that fails: batches, lanes, retries, bisection, age, dead letters.
///
/// The default delivers in batches of up to 500 records, one lane to a shard, and retries for ever, so that nothing is ever
/// skipped; with a dead-letter sink a record is given up on after 10 retries by itself. [`DeliveryPolicy::lambda`] does
/// what a Lambda trigger does.
///
/// ```
/// use std::time::Duration;
/// use shardwell_core::delivery::DeliveryPolicy;
///
/// let policy = DeliveryPolicy::default()
///     .with_lanes(16)
///     .with_batch_records(100)
///     .with_max_retries(Some(4))
///     .with_max_record_age(Some(Duration::from_secs(3600)));
/// assert!(policy.resolve(true).is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryPolicy {
    pub(super) batch: BatchSettings,
    pub(super) lanes: u32,
    retries: Retries,
    pub(super) max_record_age: Option<Duration>,
    pub(super) backoff: RetryPolicy,
    pub(super) outage_backoff: RetryPolicy,
    pub(super) bisect: bool,
    pub(super) isolate: bool,
    pub(super) exact_reports: bool,
    pub(super) transient_errors: bool,
    pub(super) on_sink_failure: OnSinkFailure,
    pub(super) quarantine: bool,
    pub(super) max_state_bytes: usize,
    processor_timeout: Option<Duration>,
    on_undecodable: OnUndecodable,
    max_record_bytes: Option<usize>,
    fuse: Option<FusePolicy>,
    redrive_rounds: u32,
    discard: bool,
    /// Whether a record can be given up on: known once the policy is resolved.
    pub(super) can_bury: bool,
}

/// How often a batch is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retries {
    /// As often as makes sense: see [`DEFAULT_RETRIES`].
    Default,
    /// So often; `None` for any number.
    Set(Option<u32>),
}

/// Retries where dead letters are kept, unless another number was set.
const DEFAULT_RETRIES: u32 = 10;
/// The most lanes of a shard. Each is a processor of its own.
const MAX_LANES: u32 = 1024;
/// The least that state may take: less holds nothing useful.
const MIN_STATE_BYTES: usize = 256;
/// The most retries that can be asked for (Lambda's limit).
const MAX_RETRIES: u32 = 10_000;

impl Default for DeliveryPolicy {
    fn default() -> Self {
        Self {
            batch: BatchSettings { records: 500, bytes: 1024 * 1024, window: Duration::ZERO },
            lanes: 1,
            retries: Retries::Default,
            max_record_age: None,
            backoff: RetryPolicy::default(),
            outage_backoff: RetryPolicy::default().with_initial(Duration::from_secs(1)),
            bisect: true,
            isolate: true,
            exact_reports: true,
            transient_errors: true,
            on_sink_failure: OnSinkFailure::Wait,
            quarantine: false,
            max_state_bytes: 1024,
            processor_timeout: None,
            on_undecodable: OnUndecodable::DeliverRaw,
            max_record_bytes: None,
            fuse: None,
            redrive_rounds: 3,
            discard: false,
            can_bury: false,
        }
    }
}

impl DeliveryPolicy {
    /// What a Lambda trigger does, with its defaults: batches of 100 records and 4.5 MiB (6 MB as base64), retries without
    /// limit, no bisection; a report of single failures retries everything from the first of them on; every error spends
    /// a retry; a dead letter that no sink takes is given up. The limits are set as on Lambda:
    /// [`with_max_retries`](Self::with_max_retries) (`MaximumRetryAttempts`),
    /// [`with_max_record_age`](Self::with_max_record_age) (`MaximumRecordAgeInSeconds`),
    /// [`with_bisect`](Self::with_bisect) (`BisectBatchOnFunctionError`), [`with_lanes`](Self::with_lanes)
    /// (`ParallelizationFactor`).
    pub fn lambda() -> Self {
        Self {
            batch: BatchSettings { records: 100, bytes: 4608 * 1024, window: Duration::ZERO },
            retries: Retries::Set(None),
            bisect: false,
            isolate: false,
            exact_reports: false,
            transient_errors: false,
            on_sink_failure: OnSinkFailure::Discard,
            ..Self::default()
        }
    }

    /// How many records a batch has at most. Default: 500.
    #[must_use]
    pub const fn with_batch_records(mut self, records: usize) -> Self {
        self.batch.records = records;
        self
    }

    /// How many payload bytes a batch has at most; one record always fits. Default: 1 MiB.
    #[must_use]
    pub const fn with_batch_bytes(mut self, bytes: usize) -> Self {
        self.batch.bytes = bytes;
        self
    }

    /// How long to wait for a batch to fill once something is there and the lane is idle. Default: zero, which delivers at
    /// once whatever is there. Longer makes fewer, larger batches and adds that much latency.
    #[must_use]
    pub const fn with_batch_window(mut self, window: Duration) -> Self {
        self.batch.window = window;
        self
    }

    /// Into how many lanes a shard is divided, 1 to 1024. Default: 1. Records of one partition key share a lane and stay in
    /// order; each lane has a processor and a batch of its own, so a key that is stuck holds up its lane alone. Records
    /// without a key take lanes in turn.
    #[must_use]
    pub const fn with_lanes(mut self, lanes: u32) -> Self {
        self.lanes = lanes;
        self
    }

    /// How often a batch that cannot be split any further is tried again before its records are dead; `None` for any
    /// number of times. Default: 10 where dead letters are kept or discarded, else `None`. At most 10,000.
    #[must_use]
    pub const fn with_max_retries(mut self, retries: Option<u32>) -> Self {
        self.retries = Retries::Set(retries);
        self
    }

    /// How old a record may be, since it arrived in the stream, when it is handed to the processor; an older one is dead.
    /// Default: `None`, any age.
    #[must_use]
    pub const fn with_max_record_age(mut self, age: Option<Duration>) -> Self {
        self.max_record_age = age;
        self
    }

    /// How soon to try a batch again. Default: 200 ms, doubling up to 60 s, with full jitter. A number of retries in here
    /// is not used: see [`with_max_retries`](Self::with_max_retries).
    #[must_use]
    pub const fn with_backoff(mut self, backoff: RetryPolicy) -> Self {
        self.backoff = backoff;
        self
    }

    /// How soon to try a batch again after a transient error: an outage of something that the processor needs. Default:
    /// 1 s, doubling up to 60 s, with full jitter.
    #[must_use]
    pub const fn with_outage_backoff(mut self, backoff: RetryPolicy) -> Self {
        self.outage_backoff = backoff;
        self
    }

    /// Whether a batch that failed as a whole is split in two, and each half delivered by itself. Default: true. A split
    /// costs no retry.
    #[must_use]
    pub const fn with_bisect(mut self, bisect: bool) -> Self {
        self.bisect = bisect;
        self
    }

    /// Whether a record that the processor named is delivered by itself before those behind it. Default: true. Without it,
    /// the rest of the batch is delivered again from that record on.
    #[must_use]
    pub const fn with_isolate(mut self, isolate: bool) -> Self {
        self.isolate = isolate;
        self
    }

    /// How long the processor may take for a batch. Default: `None`, any time. One that takes longer is stopped at its next
    /// await point, replaced, and the batch has failed. Code that blocks its thread cannot be stopped: its lane waits for
    /// it.
    #[must_use]
    pub const fn with_processor_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.processor_timeout = timeout;
        self
    }

    /// What to do with a record that claims to be aggregated and cannot be read. Default: deliver it as it is. It is
    /// counted either way.
    #[must_use]
    pub const fn with_on_undecodable(mut self, choice: OnUndecodable) -> Self {
        self.on_undecodable = choice;
        self
    }

    /// The largest payload that is handed to the processor; a larger one is dead. Default: `None`, any size.
    #[must_use]
    pub const fn with_max_record_bytes(mut self, bytes: Option<usize>) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// What to do when no sink takes a dead letter. Default: wait, which loses nothing.
    #[must_use]
    pub const fn with_on_sink_failure(mut self, choice: OnSinkFailure) -> Self {
        self.on_sink_failure = choice;
        self
    }

    /// Gives up on dead records without keeping them anywhere; they are counted and logged. Default: false: dead letters
    /// need a sink.
    #[must_use]
    pub const fn with_discard_dead_letters(mut self, discard: bool) -> Self {
        self.discard = discard;
        self
    }

    /// Whether the later records of a key with a dead record are dead-lettered too, until the dead ones are redriven, so
    /// that the order within the key is kept. Default: false.
    #[must_use]
    pub const fn with_quarantine(mut self, quarantine: bool) -> Self {
        self.quarantine = quarantine;
        self
    }

    /// What to do when too many records die in too short a time: an outage must not drain a stream into the dead letters.
    /// Default: `None`.
    #[must_use]
    pub const fn with_fuse(mut self, fuse: Option<FusePolicy>) -> Self {
        self.fuse = fuse;
        self
    }

    /// How often a dead letter may fail when it is redriven before it is parked. Default: 3.
    #[must_use]
    pub const fn with_redrive_rounds(mut self, rounds: u32) -> Self {
        self.redrive_rounds = rounds;
        self
    }

    /// How many bytes of state may ride with a checkpoint: what is finished beyond it, and attempts. Default: 1 KiB, since
    /// DynamoDB bills it with every write; at least 256. With many lanes, more lets fast keys run further ahead of a stuck
    /// one.
    #[must_use]
    pub const fn with_max_state_bytes(mut self, bytes: usize) -> Self {
        self.max_state_bytes = bytes;
        self
    }

    /// How many lanes a shard has.
    pub const fn lanes(&self) -> u32 {
        self.lanes
    }

    /// When a batch is full.
    pub const fn batch(&self) -> &BatchSettings {
        &self.batch
    }

    /// How soon to try again.
    pub const fn backoff(&self) -> &RetryPolicy {
        &self.backoff
    }

    /// How long the processor may take.
    pub const fn processor_timeout(&self) -> Option<Duration> {
        self.processor_timeout
    }

    /// What to do with what cannot be read.
    pub const fn on_undecodable(&self) -> OnUndecodable {
        self.on_undecodable
    }

    /// The largest payload that is delivered.
    pub const fn max_record_bytes(&self) -> Option<usize> {
        self.max_record_bytes
    }

    /// Whether keys with a dead record are held back.
    pub const fn quarantine(&self) -> bool {
        self.quarantine
    }

    /// When too many have died.
    pub const fn fuse(&self) -> Option<FusePolicy> {
        self.fuse
    }

    /// How often a redriven letter may fail.
    pub const fn redrive_rounds(&self) -> u32 {
        self.redrive_rounds
    }

    /// Whether dead letters are given up on purpose.
    pub const fn discards_dead_letters(&self) -> bool {
        self.discard
    }

    /// The retries after the first attempt; `None` for any number. Known once the policy is resolved.
    pub(super) fn max_retries(&self) -> Option<u32> {
        match self.retries {
            Retries::Set(retries) => retries,
            Retries::Default => self.can_bury.then_some(DEFAULT_RETRIES),
        }
    }

    /// The policy as it holds for a worker with or without a sink for dead letters.
    ///
    /// # Errors
    /// The first rule that is broken, in words that name the settings.
    pub fn resolve(mut self, has_sink: bool) -> Result<Self, String> {
        self.can_bury = has_sink || self.discard;
        let needs = |what: &str| {
            format!(
                "{what}, but dead letters have nowhere to go; add a sink with `dead_letters`, or give them up with \
                 `with_discard_dead_letters`"
            )
        };
        let retries = match self.retries {
            Retries::Set(retries) => retries,
            Retries::Default => None,
        };
        let undecodable = self.on_undecodable == OnUndecodable::DeadLetter;
        let can_bury = self.can_bury;
        let rules = [
            (self.batch.records > 0, "batch_records is 0; it must be at least 1".to_owned()),
            (self.batch.bytes > 0, "batch_bytes is 0; it must be at least 1".to_owned()),
            (
                (1..=MAX_LANES).contains(&self.lanes),
                format!("lanes is {}; it must be between 1 and {MAX_LANES}", self.lanes),
            ),
            (
                retries.is_none_or(|retries| retries <= MAX_RETRIES),
                format!("max_retries is {}; it must be at most {MAX_RETRIES}", retries.unwrap_or_default()),
            ),
            (can_bury || retries.is_none(), needs("max_retries is limited")),
            (can_bury || self.max_record_age.is_none(), needs("max_record_age is limited")),
            (can_bury || self.max_record_bytes.is_none(), needs("max_record_bytes is limited")),
            (can_bury || !undecodable, needs("on_undecodable is DeadLetter")),
            (
                !self.quarantine || has_sink,
                "quarantine needs a sink whose letters can be read back and redriven".to_owned(),
            ),
            (
                self.processor_timeout.is_none_or(|timeout| !timeout.is_zero()),
                "processor_timeout is zero; no batch could ever be processed".to_owned(),
            ),
            (
                self.max_record_age.is_none_or(|age| !age.is_zero()),
                "max_record_age is zero; every record would be dead on arrival".to_owned(),
            ),
            (self.redrive_rounds > 0, "redrive_rounds is 0; it must be at least 1".to_owned()),
            (
                (MIN_STATE_BYTES..=crate::MAX_CHECKPOINT_STATE_BYTES).contains(&self.max_state_bytes),
                format!(
                    "max_state_bytes is {}; it must be between {MIN_STATE_BYTES} and {}",
                    self.max_state_bytes,
                    crate::MAX_CHECKPOINT_STATE_BYTES
                ),
            ),
            (
                self.fuse.is_none_or(|fuse| fuse.is_valid()),
                "the fuse must allow at least one letter in a time above zero".to_owned(),
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(self), |(_, broken)| Err(broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_limited_only_where_the_dead_have_a_place() {
        let resolved = |has_sink| DeliveryPolicy::default().resolve(has_sink).expect("valid").max_retries();
        assert_eq!(resolved(false), None);
        assert_eq!(resolved(true), Some(DEFAULT_RETRIES));
        let discard = DeliveryPolicy::default().with_discard_dead_letters(true).resolve(false).expect("valid");
        assert_eq!(discard.max_retries(), Some(DEFAULT_RETRIES));
        assert_eq!(DeliveryPolicy::lambda().resolve(true).expect("valid").max_retries(), None);
    }

    #[test]
    fn every_rule_can_be_broken() {
        let policy = DeliveryPolicy::default;
        let second = Some(Duration::from_secs(1));
        let without_sink = [
            (policy().with_max_retries(Some(3)), "max_retries"),
            (policy().with_max_record_age(second), "max_record_age"),
            (policy().with_max_record_bytes(Some(1)), "max_record_bytes"),
            (policy().with_on_undecodable(OnUndecodable::DeadLetter), "on_undecodable"),
            (policy().with_quarantine(true), "quarantine"),
        ];
        for (policy, setting) in without_sink {
            assert!(policy.clone().resolve(true).is_ok(), "{setting}");
            let broken = policy.resolve(false).expect_err(setting);
            assert!(broken.contains(setting), "{broken}");
        }
        let invalid = [
            (policy().with_batch_records(0), "batch_records"),
            (policy().with_batch_bytes(0), "batch_bytes"),
            (policy().with_lanes(0), "lanes"),
            (policy().with_lanes(1025), "lanes"),
            (policy().with_max_retries(Some(10_001)), "max_retries"),
            (policy().with_processor_timeout(Some(Duration::ZERO)), "processor_timeout"),
            (policy().with_max_record_age(Some(Duration::ZERO)), "max_record_age"),
            (policy().with_redrive_rounds(0), "redrive_rounds"),
            (policy().with_max_state_bytes(255), "max_state_bytes"),
            (policy().with_fuse(Some(FusePolicy::pause(0, Duration::from_secs(1)))), "fuse"),
        ];
        for (policy, setting) in invalid {
            let broken = policy.resolve(true).expect_err(setting);
            assert!(broken.contains(setting), "{broken}");
        }
    }
}
