//! Holding: one lease from the start of its consumer to the end of it, whatever that end is.

use std::sync::Arc;

use shardwell_core::leasing::{awaits_parent_lease, child_leases};
use shardwell_core::{ChildShard, EnvExt, Lease, LeaseMeta, Place, ShardFilter, ShardId, StoreError};
use tracing::{Instrument, debug, error, info, warn};

use super::hand_over::{hand_over, insist};
use super::{HeldLease, LeaseGone, Stop};
use crate::records::{self, ConsumerEnd};
use crate::worker::Shared;
use crate::worker::status::Fetching;

/// Runs the consumer of a lease that was just taken up, and does what its end asks for.
pub(super) async fn hold(shared: Arc<Shared>, lease: Arc<HeldLease>) {
    let outcome = match parents_done(&shared, &lease).await {
        Ok(()) => consume(&shared, &lease).await,
        Err(Stop::Drain { .. }) => hand_over(&shared, &lease).await,
        Err(Stop::Lost) => Err(LeaseGone),
    };
    if outcome.is_err() {
        warn!(lease = %lease.key(), "let go of a lease that is lost");
    }
    shared.held.remove(lease.key());
    shared.leases_changed.notify_one();
    // It may have been given back meanwhile; and the leader may have given it to somebody for whom it is free now.
    shared.discover_now.notify_one();
    shared.plan_now.notify_one();
}

async fn consume(shared: &Arc<Shared>, lease: &Arc<HeldLease>) -> Result<(), LeaseGone> {
    let consumer = records::consume(shared.clone(), lease.clone()).in_current_span();
    match shared.env.spawn(Place::Pipeline, consumer).await {
        Ok(ConsumerEnd::ShardEnded { children }) => finish(shared, lease, &children).await,
        // Only what is stored beside a checkpoint misleads, and that was not believed the second time.
        Ok(ConsumerEnd::Stopped | ConsumerEnd::Misled) => hand_over(shared, lease).await,
        Ok(ConsumerEnd::LeaseLost) => Err(LeaseGone),
        Ok(ConsumerEnd::Fatal(error)) => {
            shared.fail_at(lease.stream(), error);
            hand_over(shared, lease).await
        }
        Err(task) => {
            error!(lease = %lease.key(), error = %task, "the consumer of a shard broke down; its lease is released");
            hand_over(shared, lease).await
        }
    }
}

/// Waits until every parent of the shard is done. A leader of ours gives no lease away before, so this is one look as a rule; a
/// Java leader does.
async fn parents_done(shared: &Shared, lease: &HeldLease) -> Result<(), Stop> {
    let image = lease.image();
    loop {
        let looked = tokio::select! {
            biased;
            stop = lease.told_to_stop() => return Err(stop),
            looked = unfinished_parents(shared, &image) => looked,
        };
        match looked {
            Ok(parents) if parents.is_empty() => break,
            Ok(parents) => {
                debug!(lease = %lease.key(), ?parents, "waiting for the parents of a shard");
                lease.activity().update(|activity| activity.fetching = Fetching::WaitingForParents(parents));
            }
            Err(error) => warn!(lease = %lease.key(), %error, "cannot look for the parents of a shard; trying again"),
        }
        tokio::select! {
            biased;
            stop = lease.told_to_stop() => return Err(stop),
            () = shared.env.sleep(shared.settings.discovery_interval) => {}
        }
    }
    lease.activity().update(|activity| activity.fetching = Fetching::Starting);
    Ok(())
}

async fn unfinished_parents(shared: &Shared, lease: &Lease) -> Result<Vec<ShardId>, StoreError> {
    let mut unfinished = Vec::new();
    for parent in &lease.parents {
        let row = shared.bounded(shared.store.lease(&lease.key_of(parent))).await?;
        if row.is_some_and(|row| !row.is_finished()) {
            unfinished.push(parent.clone());
        }
    }
    Ok(unfinished)
}

/// Marks the end of a shard: children first, so that a crash in between leaves nobody without a lease.
async fn finish(shared: &Shared, lease: &HeldLease, children: &[ChildShard]) -> Result<(), LeaseGone> {
    let store = &shared.store;
    let stream = lease.image().stream;
    for child in child_leases(stream.as_deref(), children) {
        if awaits_parent(shared, lease, &child).await? {
            info!(child = %child.key, "another parent has no lease yet; the child gets its lease after it");
            continue;
        }
        insist(shared, lease, "create the lease of a child", || store.create_lease(&child)).await?;
    }
    if !children.is_empty() {
        let meta = LeaseMeta::Children(children.iter().map(|child| child.id.clone()).collect());
        insist(shared, lease, "name the children", || store.update_meta(lease.key(), &meta)).await?;
    }
    lease.progress().shard_ended();
    info!(lease = %lease.key(), children = children.len(), "every record of the shard is done");
    let released = hand_over(shared, lease).await;
    shared.sync_now.notify_one();
    released
}

/// Whether a child of a merge must wait for the lease of its other parent. Asks for more than the parents' leases only when
/// one of them is missing, which is rare.
async fn awaits_parent(shared: &Shared, lease: &HeldLease, child: &Lease) -> Result<bool, LeaseGone> {
    let mut all_there = true;
    for parent in child.parents.iter().filter(|parent| *parent != lease.shard()) {
        let key = child.key_of(parent);
        let found = insist(shared, lease, "look for a parent's lease", || shared.store.lease(&key)).await?;
        all_there &= found.is_some();
    }
    if all_there {
        return Ok(false);
    }
    let list = || lease.stream().control.list_shards(ShardFilter::All);
    let shards = insist(shared, lease, "list the shards", list).await?;
    let mut leases = insist(shared, lease, "list the leases", || shared.store.leases()).await?.leases;
    leases.retain(|other| other.stream == child.stream);
    Ok(awaits_parent_lease(child.parents.iter(), &shards, &leases))
}
