//! Syncing: every shard of a stream gets its lease, and leases of no use go. The leader's work, or that of another worker for a
//! stream that the leader does not consume; every worker looks who its streams are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, stream};
use shardwell_core::leasing::{
    Removals, cover_every_hash_key, first_leases, missing_leases, removable, syncs_for_leader,
};
use shardwell_core::{
    Created, EnvExt, Lease, Monotonic, RetryPolicy, Shard, ShardFilter, ShardId, StoreError, StreamIdentifier,
    WorkerId, WorkerMetrics,
};
use tracing::{debug, info, warn};

use super::prepare;
use crate::causes::with_causes;
use crate::lock::lock;
use crate::worker::{ConsumedStream, Phase, Shared, WorkerError};

/// How many streams are synced at the same time.
const CONCURRENT_SYNCS: usize = 8;

/// What may go, by stream.
type RemovalsByStream = Mutex<BTreeMap<Option<String>, Removals>>;

/// Syncs now and then for as long as the worker runs, and whenever there is a reason. What went wrong is tried again sooner: it may
/// be a shard that nobody reads.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut phase = shared.phase.watch();
    let removals = RemovalsByStream::default();
    let interval = shared.settings.shard_sync_interval;
    let retry = RetryPolicy::default().with_cap(interval);
    let mut failures = 0_u32;
    loop {
        let sooner = (failures > 0).then(|| retry.delay(failures, shared.env.random())).flatten();
        let next = shared.env.now().plus(sooner.unwrap_or(interval));
        tokio::select! {
            biased;
            _ = phase.until(|phase| matches!(phase, Phase::Stopping { .. })) => return,
            () = shared.sync_now.notified() => {}
            () = shared.env.sleep_until(next) => {}
        }
        let went_well = round(&shared, &removals).await.unwrap_or_else(|error| {
            warn!(%error, "cannot sync shards and leases; trying again");
            false
        });
        failures = if went_well { 0 } else { failures.saturating_add(1) };
    }
}

/// A look at who each stream is now, and a sync of those that are this worker's to sync. Gives whether it went well with all of them.
async fn round(shared: &Arc<Shared>, removals: &RemovalsByStream) -> Result<bool, StoreError> {
    let consumed = shared.streams.consumed();
    let count = consumed.len();
    let there = stream::iter(consumed)
        .map(|stream| async move {
            let is_there = settle(shared, &stream, look(shared, &stream).await);
            is_there.then_some(stream)
        })
        .buffered(CONCURRENT_SYNCS)
        .filter_map(|stream| async { stream })
        .collect::<Vec<_>>()
        .await;
    let all_there = there.len() == count;
    let ours = ours(shared, there).await?;
    if ours.is_empty() {
        return Ok(all_there);
    }
    let asked = shared.env.now();
    let leases = &shared.bounded(shared.store.leases()).await?.leases;
    let table = Seen { leases, asked, removals };
    let all_synced = stream::iter(ours)
        .map(async |stream| settle(shared, &stream, once(shared, &stream, &table).await))
        .buffer_unordered(CONCURRENT_SYNCS)
        .fold(true, async |all, went_well| all && went_well)
        .await;
    Ok(all_there && all_synced)
}

/// Says whether it went well with a stream, and acts on it if it did not.
fn settle(shared: &Shared, stream: &Arc<ConsumedStream>, result: Result<(), WorkerError>) -> bool {
    match result {
        Ok(()) => return true,
        // The checkpoints mean nothing any more. Everything else may be mended while the worker goes on.
        Err(error @ (WorkerError::StreamRecreated { .. } | WorkerError::StreamDeleted { .. })) => {
            shared.fail_at(stream, error);
        }
        Err(error) => {
            let (stream, error) = (stream.name(), with_causes(&error));
            warn!(stream, error, "cannot sync shards and leases; trying again");
        }
    }
    false
}

/// A look at who a stream is now.
async fn look(shared: &Shared, stream: &ConsumedStream) -> Result<(), WorkerError> {
    let description = stream.control.describe().await.map_err(|error| prepare::cannot_describe(stream, error))?;
    if shared.streams.are_several() && !stream.may_be(&description.identity) {
        return Err(WorkerError::StreamDeleted { stream: stream.name() });
    }
    prepare::recognize(shared, stream, &description).await
}

/// Those of the streams that are this worker's to sync.
async fn ours(shared: &Shared, mut streams: Vec<Arc<ConsumedStream>>) -> Result<Vec<Arc<ConsumedStream>>, StoreError> {
    if *shared.leads.look() {
        return Ok(streams);
    }
    if !shared.streams.are_several() || streams.is_empty() {
        return Ok(Vec::new());
    }
    let lock = shared.bounded(shared.store.leader_lock()).await?;
    let leader: Option<WorkerId> = lock.filter(|lock| !lock.released).map(|lock| lock.owner);
    let workers: Vec<WorkerMetrics> = shared.bounded(shared.store.worker_metrics()).await?;
    streams.retain(|stream| {
        let named = stream.identifier();
        named.is_some_and(|named| syncs_for_leader(named, &shared.worker, leader.as_ref(), &workers))
    });
    Ok(streams)
}

/// What a sync goes by.
struct Seen<'a> {
    /// Every lease of the table.
    leases: &'a [Lease],
    /// When they were asked for.
    asked: Monotonic,
    removals: &'a RemovalsByStream,
}

/// Creates the leases of a stream that are missing, and removes those that may go.
async fn once(shared: &Arc<Shared>, stream: &ConsumedStream, table: &Seen<'_>) -> Result<(), WorkerError> {
    remove_replaced(shared, stream, table.leases).await?;
    let named = stream.identifier();
    let leases: Vec<Lease> = table.leases.iter().filter(|lease| lease.stream.as_deref() == named).cloned().collect();
    let position = shared.settings.initial_position;
    let wanted = if leases.is_empty() {
        first_leases(named, &open_shards(shared, stream).await?, position)
    } else {
        let shards = list(stream, ShardFilter::All).await?;
        let listed: BTreeSet<ShardId> = shards.iter().map(|shard| shard.id.clone()).collect();
        clean_up(shared, named, &removable(&leases, &listed), table).await?;
        missing_leases(named, &shards, &leases, position)
    };
    let mut created = 0;
    for lease in &wanted {
        let answer = shared.bounded(shared.store.create_lease(lease)).await.map_err(WorkerError::Store)?;
        created += usize::from(answer == Created::New);
    }
    if created > 0 {
        info!(stream = %stream.name(), created, "leases created");
        shared.plan_now.notify_one();
    }
    Ok(())
}

/// How often a listing with a hole is asked for again: it raced a reshard.
const LISTING_ATTEMPTS: u32 = 3;

/// The shards that were open at the initial position.
async fn open_shards(shared: &Shared, stream: &ConsumedStream) -> Result<Vec<Shard>, WorkerError> {
    for _ in 1..LISTING_ATTEMPTS {
        let shards = list(stream, shared.settings.initial_position.shard_filter()).await?;
        if cover_every_hash_key(shards.iter().map(|shard| shard.hash_key_range)) {
            return Ok(shards);
        }
        debug!("the listing of shards has a hole; asking again");
        shared.env.sleep(shared.settings.discovery_interval).await;
    }
    // What is still missing then gets its lease in a later sync.
    list(stream, shared.settings.initial_position.shard_filter()).await
}

async fn list(stream: &ConsumedStream, filter: ShardFilter) -> Result<Vec<Shard>, WorkerError> {
    stream.control.list_shards(filter).await.map_err(WorkerError::Stream)
}

async fn clean_up(
    shared: &Shared,
    stream: Option<&str>,
    removable: &[&Lease],
    table: &Seen<'_>,
) -> Result<(), WorkerError> {
    let due = lock(table.removals).entry(stream.map(str::to_owned)).or_default().due(removable, table.asked);
    for lease in due {
        info!(%lease, "removing the lease of a finished shard");
        shared.bounded(shared.store.delete_lease(&lease)).await.map_err(WorkerError::Store)?;
    }
    Ok(())
}

/// Removes the leases of streams that had the same name before: that this one is there shows that they are gone.
async fn remove_replaced(shared: &Shared, stream: &ConsumedStream, leases: &[Lease]) -> Result<(), WorkerError> {
    let Some(present) = stream.identifier().and_then(StreamIdentifier::parse) else { return Ok(()) };
    let is_replaced = |lease: &&Lease| {
        let named = lease.stream.as_deref().and_then(StreamIdentifier::parse);
        named.is_some_and(|named| present.replaces(&named))
    };
    for lease in leases.iter().filter(is_replaced) {
        info!(lease = %lease.key, "removing a lease of a stream that was deleted");
        shared.bounded(shared.store.delete_lease(&lease.key)).await.map_err(WorkerError::Store)?;
    }
    Ok(())
}
