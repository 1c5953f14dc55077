//! One stream: its settings, its shards, and its way through the states.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::error::{KinesisError, KinesisErrorKind};
use super::numbering::Numbering;
use super::reshard::Reshard;
use super::routing::OpenShards;
use super::shard::{ShardState, shard_index};
use crate::{HashKeyRange, ShardId, StreamStatus, Timestamp};

/// Shards of one stream at most: the largest `TargetShardCount` the API takes.
pub const MAX_SHARDS: u32 = 10_000;
/// The shortest and the longest retention that the service offers (Kinesis API, `RetentionPeriodHours`: 24 to 8760).
pub const RETENTION_HOURS: std::ops::RangeInclusive<u32> = 24..=8760;
/// Payload and partition key of one record at most unless the stream says otherwise, in bytes (Kinesis quotas: 1 MiB).
pub const DEFAULT_MAX_RECORD_SIZE: usize = 1024 * 1024;

/// How a stream's capacity is set (Kinesis API, `StreamMode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamMode {
    /// By its number of shards.
    #[default]
    Provisioned,
    /// By the service: resharding it is refused. The model never reshards by itself.
    OnDemand,
}

/// What a new stream is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// The number of shards, 1 to 10,000.
    pub shards: u32,
    /// How its capacity is set. Default: provisioned.
    pub mode: StreamMode,
    /// How long it keeps records. Default: 24 hours.
    pub retention: Duration,
    /// Payload and partition key of one record at most, in bytes. Default: 1 MiB.
    pub max_record_size: usize,
    /// Whether records are spread over the shards without regard to their keys. Default: no.
    pub automatic_distribution: bool,
    /// The tags. Default: none.
    pub tags: BTreeMap<String, String>,
}

impl StreamSettings {
    /// A provisioned stream with a number of shards, and the service's defaults.
    pub fn new(shards: u32) -> Self {
        Self {
            shards,
            mode: StreamMode::Provisioned,
            retention: Duration::from_secs(u64::from(*RETENTION_HOURS.start()) * 3600),
            max_record_size: DEFAULT_MAX_RECORD_SIZE,
            automatic_distribution: false,
            tags: BTreeMap::new(),
        }
    }
}

/// What `DescribeStreamSummary` tells about a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// The name.
    pub name: String,
    /// The ARN.
    pub arn: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where it is in its life.
    pub status: StreamStatus,
    /// How its capacity is set.
    pub mode: StreamMode,
    /// How long it keeps records.
    pub retention: Duration,
    /// Payload and partition key of one record at most, in bytes.
    pub max_record_size: usize,
    /// Whether records are spread over the shards without regard to their keys.
    pub automatic_distribution: bool,
    /// How many shards take records.
    pub open_shards: usize,
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) name: String,
    pub(super) arn: String,
    pub(super) created_at: Timestamp,
    pub(super) mode: StreamMode,
    pub(super) retention: Duration,
    pub(super) max_record_size: usize,
    pub(super) automatic_distribution: bool,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) phase: Phase,
    pub(super) shards: BTreeMap<u32, ShardState>,
    pub(super) open: OpenShards,
    /// The closed shards that are still listed, by the time of their end.
    pub(super) closed: VecDeque<u32>,
    pub(super) numbering: Numbering,
    pub(super) next_shard: u32,
    /// Counts records on a stream that spreads them by itself.
    pub(super) turn: u64,
}

/// Where the stream is in its life, and when it goes on from there.
#[derive(Debug)]
pub(super) enum Phase {
    Creating { until: Timestamp, shards: u32 },
    Active,
    Updating { until: Timestamp, change: Reshard },
    Deleting { until: Timestamp },
}

impl StreamState {
    pub(super) fn new(
        name: &str,
        arn: String,
        settings: StreamSettings,
        ordinal: u64,
        now: Timestamp,
        delay: Duration,
    ) -> Self {
        let mut stream = Self {
            name: name.to_owned(),
            arn,
            created_at: now,
            mode: settings.mode,
            retention: settings.retention,
            max_record_size: settings.max_record_size,
            automatic_distribution: settings.automatic_distribution,
            tags: settings.tags,
            phase: Phase::Creating { until: now.plus(delay), shards: settings.shards },
            shards: BTreeMap::new(),
            open: OpenShards::default(),
            closed: VecDeque::new(),
            numbering: Numbering::new(now, ordinal),
            next_shard: 0,
            turn: 0,
        };
        stream.advance(now);
        stream
    }

    /// Carries out what has become due, as of the time when it was. False once the stream is gone.
    pub(super) fn advance(&mut self, now: Timestamp) -> bool {
        match &self.phase {
            Phase::Creating { until, shards } if *until <= now => {
                let (until, shards) = (*until, *shards);
                self.phase = Phase::Active;
                for range in HashKeyRange::even_split(shards) {
                    self.open_shard(Vec::new(), range, until);
                }
            }
            Phase::Updating { until, .. } if *until <= now => {
                let until = *until;
                if let Phase::Updating { change, .. } = std::mem::replace(&mut self.phase, Phase::Active) {
                    self.reshard(change, until);
                }
            }
            Phase::Deleting { until } if *until <= now => return false,
            Phase::Creating { .. } | Phase::Active | Phase::Updating { .. } | Phase::Deleting { .. } => {}
        }
        self.forget_closed(now);
        true
    }

    /// Forgets the shards that ended at or before the trim horizon: every record of theirs is behind it.
    fn forget_closed(&mut self, now: Timestamp) {
        let horizon = self.trim_horizon(now);
        while let Some(index) = self.closed.front() {
            let expired = |shard: &ShardState| shard.closed.is_none_or(|closed| closed.at <= horizon);
            if !self.shards.get(index).is_none_or(expired) {
                break;
            }
            self.shards.remove(index);
            self.closed.pop_front();
        }
    }

    /// Starts a change, which is carried out when the stream becomes `ACTIVE` again.
    pub(super) fn update(&mut self, change: Reshard, now: Timestamp, delay: Duration) {
        self.phase = Phase::Updating { until: now.plus(delay), change };
        self.advance(now);
    }

    /// What arrived at or before this has expired.
    pub(super) fn trim_horizon(&self, now: Timestamp) -> Timestamp {
        now.minus(self.retention)
    }

    /// Changes the retention. What has expired by then is gone, even if the retention grows.
    pub(super) fn set_retention(&mut self, retention: Duration, now: Timestamp) {
        let horizon = self.trim_horizon(now);
        self.retention = retention;
        let horizon = horizon.max(self.trim_horizon(now));
        for shard in self.shards.values_mut() {
            shard.trim(horizon);
        }
        self.forget_closed(now);
    }

    pub(super) fn status(&self) -> StreamStatus {
        match self.phase {
            Phase::Creating { .. } => StreamStatus::Creating,
            Phase::Active => StreamStatus::Active,
            Phase::Updating { .. } => StreamStatus::Updating,
            Phase::Deleting { .. } => StreamStatus::Deleting,
        }
    }

    /// Refuses unless the stream is `ACTIVE`, which every change of it needs.
    pub(super) fn check_active(&self) -> Result<(), KinesisError> {
        match self.phase {
            Phase::Active => Ok(()),
            Phase::Creating { .. } | Phase::Updating { .. } | Phase::Deleting { .. } => Err(KinesisError::new(
                KinesisErrorKind::ResourceInUse,
                format!("stream `{}` is {:?}, not ACTIVE: wait until it is", self.name, self.status()),
            )),
        }
    }

    /// Refuses unless records may be put and read.
    pub(super) fn check_readable(&self) -> Result<(), KinesisError> {
        match self.phase {
            Phase::Active | Phase::Updating { .. } => Ok(()),
            Phase::Creating { .. } | Phase::Deleting { .. } => {
                Err(KinesisError::not_found(format!("stream `{}` is {:?}", self.name, self.status())))
            }
        }
    }

    /// Refuses a change of shards on a stream whose shards are the service's business.
    pub(super) fn check_provisioned(&self) -> Result<(), KinesisError> {
        match self.mode {
            StreamMode::Provisioned => Ok(()),
            StreamMode::OnDemand => {
                Err(KinesisError::validation(format!("stream `{}` is on-demand: it cannot be resharded", self.name)))
            }
        }
    }

    pub(super) fn find(&self, id: &ShardId) -> Result<(u32, &ShardState), KinesisError> {
        shard_index(id)
            .and_then(|index| Some((index, self.shards.get(&index)?)))
            .ok_or_else(|| KinesisError::not_found(format!("stream `{}` has no shard {id}", self.name)))
    }

    pub(super) fn summary(&self) -> StreamSummary {
        StreamSummary {
            name: self.name.clone(),
            arn: self.arn.clone(),
            created_at: self.created_at,
            status: self.status(),
            mode: self.mode,
            retention: self.retention,
            max_record_size: self.max_record_size,
            automatic_distribution: self.automatic_distribution,
            open_shards: self.open.len(),
            tags: self.tags.clone(),
        }
    }
}
