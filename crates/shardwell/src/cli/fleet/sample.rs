//! Fleets for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use shardwell::core::delivery::ResumeState;
use shardwell::core::leasing::plan::CPU;
use shardwell::core::{CheckpointState, FleetSettings, Heartbeat, LeaderLock, Monotonic, WorkerMetrics};
use shardwell::{Checkpoint, ExtendedSequenceNumber, Lease, LeaseListing, Timestamp, WorkerId};

use super::look::Look;

pub(super) const DURATION: Duration = Duration::from_secs(10);
pub(super) const HANDOFF: Duration = Duration::from_secs(30);

/// 2026-01-01T00:00:00Z, plus some seconds.
pub(super) fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + seconds * 1000)
}

pub(super) fn at(seconds: u64) -> Monotonic {
    Monotonic::from_origin(Duration::from_secs(seconds))
}

pub(super) fn position(number: u64) -> Checkpoint {
    Checkpoint::At(ExtendedSequenceNumber::new(number.to_string().parse().expect("digits"), 0))
}

pub(super) fn lease(shard: &str, owner: Option<&str>) -> Lease {
    let mut lease = Lease::new(shard.into(), Checkpoint::TrimHorizon);
    lease.owner = owner.map(Into::into);
    lease
}

pub(super) fn handed(shard: &str, from: &str, to: &str) -> Lease {
    let mut lease = lease(shard, Some(to));
    lease.checkpoint_owner = Some(from.into());
    lease
}

/// A lease whose owner noted that everything was done at that time.
pub(super) fn caught_up(mut lease: Lease, at: Timestamp) -> Lease {
    let state = ResumeState { caught_up_at: Some(at.as_millis()), ..ResumeState::default() };
    let (version, data) = state.encode().expect("something to say");
    lease.checkpoint_state = Some(CheckpointState { belongs_to: lease.checkpoint, version, data });
    lease
}

/// The item of a worker that wrote it `seconds` after midnight.
pub(super) fn item(worker: &str, seconds: i64) -> WorkerMetrics {
    let mut metrics = WorkerMetrics::new(worker.into(), wall(seconds));
    metrics.heartbeat = Some(Heartbeat { incarnation: 1, beat: seconds.unsigned_abs() });
    metrics
}

pub(super) fn with_cpu(mut metrics: WorkerMetrics, percent: f64) -> WorkerMetrics {
    metrics.samples = BTreeMap::from([(CPU.to_owned(), vec![1.0, percent])]);
    metrics.operating_range = BTreeMap::from([(CPU.to_owned(), vec![80.0])]);
    metrics
}

pub(super) fn lock(owner: &str, version: &str) -> LeaderLock {
    LeaderLock {
        owner: owner.into(),
        duration: DURATION,
        version: version.to_owned(),
        released: false,
        standbys: Vec::new(),
    }
}

/// What was seen `seconds` after midnight: these leases, and nothing else.
pub(super) fn look(seconds: u32, leases: &[Lease]) -> Look {
    Look {
        asked: at(seconds.into()),
        at: wall(seconds.into()),
        listing: LeaseListing { leases: leases.to_vec(), unreadable: Vec::new() },
        workers: Vec::new(),
        settings: Some(FleetSettings::new(DURATION)),
        leader: None,
    }
}

pub(super) fn draining(mut look: Look, workers: &[&str]) -> Look {
    let settings = look.settings.get_or_insert(FleetSettings::new(DURATION));
    settings.draining = workers.iter().map(|id| WorkerId::from(*id)).collect();
    look
}
