//! Syncing: every shard of the stream gets its lease, and leases of no use go. The leader's work; every worker looks who the
//! stream is.

use std::collections::BTreeSet;
use std::sync::Arc;

use shardwell_core::leasing::{cover_every_hash_key, first_leases, missing_leases, removable};
use shardwell_core::{Created, EnvExt, Lease, Shard, ShardFilter, ShardId, StreamErrorKind};
use tracing::{debug, info, warn};

use super::prepare;
use crate::causes::with_causes;
use crate::worker::{Phase, Shared, WorkerError};

/// Syncs now and then for as long as the worker runs, and whenever there is a reason.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut phase = shared.phase.watch();
    loop {
        let next = shared.env.now().plus(shared.settings.shard_sync_interval);
        tokio::select! {
            biased;
            _ = phase.until(|phase| matches!(phase, Phase::Stopping { .. })) => return,
            () = shared.sync_now.notified() => {}
            () = shared.env.sleep_until(next) => {}
        }
        match again(&shared).await {
            Ok(()) => {}
            // The checkpoints mean nothing any more. Everything else may be mended while the worker goes on.
            Err(error @ (WorkerError::StreamRecreated { .. } | WorkerError::StreamDeleted { .. })) => {
                shared.fail(error);
            }
            Err(error) => warn!(error = %with_causes(&error), "cannot sync shards and leases; trying again"),
        }
    }
}

/// A look at who the stream is now, and on the leader a sync.
async fn again(shared: &Arc<Shared>) -> Result<(), WorkerError> {
    let description = shared.stream.control.describe().await.map_err(|error| match error.kind() {
        StreamErrorKind::NotFound => WorkerError::StreamDeleted { stream: shared.stream.name() },
        StreamErrorKind::Throttled
        | StreamErrorKind::Timeout
        | StreamErrorKind::Unavailable
        | StreamErrorKind::Denied
        | StreamErrorKind::Invalid => WorkerError::Stream(error),
    })?;
    prepare::recognize(shared, &description).await?;
    if *shared.leads.look() { once(shared).await } else { Ok(()) }
}

/// Creates the leases that are missing, and removes those that may go.
async fn once(shared: &Arc<Shared>) -> Result<(), WorkerError> {
    let leases = shared.bounded(shared.store.leases()).await.map_err(WorkerError::Store)?.leases;
    let position = shared.settings.initial_position;
    let wanted = if leases.is_empty() {
        first_leases(None, &open_shards(shared).await?, position)
    } else {
        let shards = list(shared, ShardFilter::All).await?;
        clean_up(shared, &leases, &shards).await?;
        missing_leases(None, &shards, &leases, position)
    };
    let mut created = 0;
    for lease in &wanted {
        let answer = shared.bounded(shared.store.create_lease(lease)).await.map_err(WorkerError::Store)?;
        created += usize::from(answer == Created::New);
    }
    if created > 0 {
        info!(created, "leases created");
        shared.plan_now.notify_one();
    }
    Ok(())
}

/// How often a listing with a hole is asked for again: it raced a reshard.
const LISTING_ATTEMPTS: u32 = 3;

/// The shards that were open at the initial position.
async fn open_shards(shared: &Shared) -> Result<Vec<Shard>, WorkerError> {
    for _ in 1..LISTING_ATTEMPTS {
        let shards = list(shared, shared.settings.initial_position.shard_filter()).await?;
        if cover_every_hash_key(shards.iter().map(|shard| shard.hash_key_range)) {
            return Ok(shards);
        }
        debug!("the listing of shards has a hole; asking again");
        shared.env.sleep(shared.settings.discovery_interval).await;
    }
    // What is still missing then gets its lease in a later sync.
    list(shared, shared.settings.initial_position.shard_filter()).await
}

async fn list(shared: &Shared, filter: ShardFilter) -> Result<Vec<Shard>, WorkerError> {
    shared.stream.control.list_shards(filter).await.map_err(WorkerError::Stream)
}

async fn clean_up(shared: &Shared, leases: &[Lease], shards: &[Shard]) -> Result<(), WorkerError> {
    let listed: BTreeSet<ShardId> = shards.iter().map(|shard| shard.id.clone()).collect();
    for lease in removable(leases, &listed) {
        info!(lease = %lease.key, "removing the lease of a finished shard");
        shared.bounded(shared.store.delete_lease(&lease.key)).await.map_err(WorkerError::Store)?;
    }
    Ok(())
}
