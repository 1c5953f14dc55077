//! Rows to values and back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use shardwell_core::{
    Checkpoint, CheckpointState, FleetSettings, HashKeyRange, Heartbeat, LeaderLock, Lease, LeaseKey,
    PendingCheckpoint, ShardId, StreamIdentity, Timestamp, WorkerId, WorkerMetrics, WriteToken,
};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::error::Failure;

/// A lease that cannot be read: its key, and why.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) key: LeaseKey,
    pub(crate) failure: Failure,
}

/// A lease, from the columns that every statement on leases gives.
pub(crate) fn lease(row: &SqliteRow) -> Result<Lease, Unreadable> {
    let key = row.try_get::<String, _>("lease_key").unwrap_or_default();
    decode(&key, row).map_err(|failure| {
        let failure = match failure {
            Failure::Damaged(why) => Failure::Damaged(format!("the lease {key} cannot be read: {why}")),
            other => other,
        };
        Unreadable { key: key.as_str().into(), failure }
    })
}

fn decode(key: &str, row: &SqliteRow) -> Result<Lease, Failure> {
    let shard = ShardId::from(row.try_get::<String, _>("shard_id")?);
    let (text, sub) = (row.try_get("checkpoint")?, row.try_get("checkpoint_sub_sequence_number")?);
    let mut lease = Lease::new(shard, checkpoint(text, sub)?);
    lease.key = key.into();
    lease.stream = row.try_get("stream")?;
    lease.owner = row.try_get::<Option<String>, _>("lease_owner")?.map(WorkerId::from);
    lease.counter = unsigned(row.try_get("lease_counter")?)?;
    lease.owner_switches_since_checkpoint = unsigned(row.try_get("owner_switches_since_checkpoint")?)?;
    lease.pending_checkpoint = pending_checkpoint(row)?;
    lease.parents = shards(row.try_get("parent_shard_ids")?)?;
    lease.children = shards(row.try_get("child_shard_ids")?)?;
    lease.hash_key_range = hash_key_range(row.try_get("starting_hash_key")?, row.try_get("ending_hash_key")?)?;
    lease.throughput_kbps = row.try_get("throughput_kbps")?;
    lease.checkpoint_owner = row.try_get::<Option<String>, _>("checkpoint_owner")?.map(WorkerId::from);
    lease.checkpoint_state = checkpoint_state(row)?;
    lease.token = row.try_get::<Option<i64>, _>("write_token")?.map(|bits| WriteToken::new(bits.cast_unsigned()));
    Ok(lease)
}

fn checkpoint(text: &str, sub_sequence_number: i64) -> Result<Checkpoint, Failure> {
    Checkpoint::from_stored(text, unsigned(sub_sequence_number)?).map_err(|e| Failure::Damaged(e.to_string()))
}

fn pending_checkpoint(row: &SqliteRow) -> Result<Option<PendingCheckpoint>, Failure> {
    let Some(text) = row.try_get::<Option<&str>, _>("pending_checkpoint")? else { return Ok(None) };
    let sub = row.try_get::<Option<i64>, _>("pending_checkpoint_sub_sequence_number")?.unwrap_or(0);
    let state = row.try_get::<Option<Vec<u8>>, _>("pending_checkpoint_state")?.map(Bytes::from);
    Ok(Some(PendingCheckpoint { checkpoint: checkpoint(text, sub)?, state }))
}

fn checkpoint_state(row: &SqliteRow) -> Result<Option<CheckpointState>, Failure> {
    let Some(text) = row.try_get::<Option<&str>, _>("state_checkpoint")? else { return Ok(None) };
    let sub = row.try_get::<Option<i64>, _>("state_checkpoint_sub_sequence_number")?.unwrap_or(0);
    let version = unsigned(row.try_get::<Option<i64>, _>("state_version")?.unwrap_or(0))?;
    let version = u32::try_from(version).map_err(|e| Failure::Damaged(format!("state version {version}: {e}")))?;
    let data = row.try_get::<Option<Vec<u8>>, _>("state")?.unwrap_or_default();
    Ok(Some(CheckpointState { belongs_to: checkpoint(text, sub)?, version, data: data.into() }))
}

fn hash_key_range(start: Option<&str>, end: Option<&str>) -> Result<Option<HashKeyRange>, Failure> {
    let (Some(start), Some(end)) = (start, end) else { return Ok(None) };
    let number = |text: &str| text.parse::<u128>().map_err(|e| Failure::Damaged(format!("hash key `{text}`: {e}")));
    let range = HashKeyRange::new(number(start)?, number(end)?);
    range.map(Some).map_err(|e| Failure::Damaged(e.to_string()))
}

fn shards(json: &str) -> Result<BTreeSet<ShardId>, Failure> {
    let ids: Vec<String> = from_json(json)?;
    Ok(ids.into_iter().map(ShardId::from).collect())
}

/// A set of shards as it is stored.
pub(crate) fn shards_to_json(shards: &BTreeSet<ShardId>) -> Result<String, Failure> {
    let ids: Vec<&str> = shards.iter().map(ShardId::as_str).collect();
    to_json(&ids)
}

/// A worker's metrics, from the columns of their table.
pub(crate) fn worker_metrics(row: &SqliteRow) -> Result<WorkerMetrics, Failure> {
    let seconds = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let worker = WorkerId::from(row.try_get::<String, _>("worker_id")?);
    let mut metrics = WorkerMetrics::new(worker, seconds(row.try_get("last_update_seconds")?));
    metrics.samples = from_json(row.try_get("samples")?)?;
    metrics.operating_range = from_json(row.try_get("operating_range")?)?;
    metrics.support_code = row.try_get("support_code")?;
    metrics.support_heartbeat = seconds(row.try_get("support_heartbeat_seconds")?);
    let (incarnation, beat): (Option<i64>, Option<i64>) = (row.try_get("incarnation")?, row.try_get("beat")?);
    metrics.heartbeat = incarnation
        .zip(beat)
        .map(|(incarnation, beat)| Heartbeat { incarnation: incarnation.cast_unsigned(), beat: beat.cast_unsigned() });
    metrics.streams = row.try_get::<Option<&str>, _>("streams")?.map(from_json).transpose()?;
    Ok(metrics)
}

/// Metrics as they are stored. What is no number could not be measured, which is -1.
pub(crate) fn metrics_to_json(metrics: &BTreeMap<String, Vec<f64>>) -> Result<String, Failure> {
    let finite = |value: &f64| if value.is_finite() { *value } else { -1.0 };
    let metrics: BTreeMap<&str, Vec<f64>> =
        metrics.iter().map(|(name, values)| (name.as_str(), values.iter().map(finite).collect())).collect();
    to_json(&metrics)
}

/// The leader lock, from the columns of its table.
pub(crate) fn leader_lock(row: &SqliteRow) -> Result<LeaderLock, Failure> {
    Ok(LeaderLock {
        owner: WorkerId::from(row.try_get::<String, _>("owner")?),
        duration: Duration::from_nanos(unsigned(row.try_get("duration_nanos")?)?),
        version: row.try_get("version")?,
        released: row.try_get("released")?,
        standbys: workers(row.try_get("standbys")?)?,
    })
}

/// The settings of a fleet, from the columns of their table.
pub(crate) fn fleet_settings(row: &SqliteRow) -> Result<FleetSettings, Failure> {
    let mut settings = FleetSettings::new(Duration::from_nanos(unsigned(row.try_get("lease_duration_nanos")?)?));
    settings.draining = workers(row.try_get("draining")?)?;
    Ok(settings)
}

fn workers<C: FromIterator<WorkerId>>(json: &str) -> Result<C, Failure> {
    let ids: Vec<String> = from_json(json)?;
    Ok(ids.into_iter().map(WorkerId::from).collect())
}

/// Workers as they are stored.
pub(crate) fn workers_to_json<'a>(workers: impl IntoIterator<Item = &'a WorkerId>) -> Result<String, Failure> {
    let ids: Vec<&str> = workers.into_iter().map(WorkerId::as_str).collect();
    to_json(&ids)
}

/// A stream's identity, from the columns of its table.
pub(crate) fn stream_identity(row: &SqliteRow) -> Result<StreamIdentity, Failure> {
    Ok(StreamIdentity {
        name: row.try_get("name")?,
        arn: row.try_get("arn")?,
        created_at: Timestamp::from_millis(row.try_get("created_at_millis")?),
    })
}

/// A stored number that is never negative.
pub(crate) fn unsigned(number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| Failure::Damaged(format!("{number} should not be negative")))
}

/// A number as SQLite can store it.
pub(crate) fn signed(number: u64) -> Result<i64, Failure> {
    i64::try_from(number).map_err(|_| Failure::Invalid(format!("{number} does not fit SQLite's 63 bits")))
}

/// A duration as SQLite can store it, in nanoseconds: up to 292 years.
pub(crate) fn nanos(duration: Duration) -> Result<i64, Failure> {
    i64::try_from(duration.as_nanos()).map_err(|_| Failure::Invalid(format!("{duration:?} is longer than 292 years")))
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|e| Failure::Invalid(format!("it cannot be written as JSON: {e}")))
}

fn from_json<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|e| Failure::Damaged(format!("`{json}` is not the JSON that it should be: {e}")))
}
