//! Holding: one lease from the start of its consumer to the end of it, whatever that end is.

use std::future::Future;
use std::sync::Arc;

use shardwell_core::leasing::{awaits_parent_lease, child_leases};
use shardwell_core::{
    Assignment, ChildShard, Conditional, EnvExt, Eviction, Lease, LeaseKey, LeaseMeta, Place, RetryPolicy, ShardFilter,
};
use tokio::sync::oneshot;
use tracing::{Instrument, error, info, warn};

use super::{Flush, HeldLease, LeaseGone};
use crate::records::{self, ConsumerEnd};
use crate::worker::Shared;

/// Runs the consumer of a lease that was just taken, and does what its end asks for.
pub(super) async fn hold(shared: Arc<Shared>, lease: Arc<HeldLease>) {
    let consumer = records::consume(shared.clone(), lease.clone()).in_current_span();
    let outcome = match shared.env.spawn(Place::Pipeline, consumer).await {
        Ok(ConsumerEnd::ShardEnded { children }) => finish(&shared, &lease, &children).await,
        Ok(ConsumerEnd::Stopped) => release(&shared, &lease).await,
        Ok(ConsumerEnd::LeaseLost) => Err(LeaseGone),
        // Only what is stored beside a checkpoint misleads, and that was not believed the second time.
        Ok(ConsumerEnd::Misled) => release(&shared, &lease).await,
        Ok(ConsumerEnd::Fatal(error)) => {
            shared.fail(error);
            release(&shared, &lease).await
        }
        Err(task) => {
            error!(lease = %lease.key(), error = %task, "the consumer of a shard broke down; its lease is released");
            release(&shared, &lease).await
        }
    };
    if outcome.is_err() {
        warn!(lease = %lease.key(), "let go of a lease that is lost");
    }
    shared.held.remove(lease.key());
    shared.leases_changed.notify_one();
    shared.claim_now.notify_one();
}

/// Marks the end of a shard: children first, so that a crash in between leaves nobody without a lease.
async fn finish(shared: &Shared, lease: &HeldLease, children: &[ChildShard]) -> Result<(), LeaseGone> {
    let store = &shared.store;
    for child in child_leases(children) {
        if awaits_parent(shared, lease, &child).await? {
            info!(child = %child.key, "another parent has no lease yet; its end will create the child's");
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
    let released = release(shared, lease).await;
    shared.sync_now.notify_one();
    released
}

/// Whether a child of a merge must wait for the lease of its other parent. Asks for more than the parents' leases only when
/// one of them is missing, which is rare.
async fn awaits_parent(shared: &Shared, lease: &HeldLease, child: &Lease) -> Result<bool, LeaseGone> {
    let mut all_there = true;
    for parent in child.parents.iter().filter(|parent| *parent != lease.shard()) {
        let key = LeaseKey::from(parent);
        let found = insist(shared, lease, "look for a parent's lease", || shared.store.lease(&key)).await?;
        all_there &= found.is_some();
    }
    if all_there {
        return Ok(false);
    }
    let list = || shared.stream_control.list_shards(ShardFilter::All);
    let shards = insist(shared, lease, "list the shards", list).await?;
    let leases = insist(shared, lease, "list the leases", || shared.store.leases()).await?.leases;
    Ok(awaits_parent_lease(child.parents.iter(), &shards, &leases))
}

/// Stores what is done and gives the lease to whom it was promised, or to nobody.
async fn release(shared: &Shared, lease: &HeldLease) -> Result<(), LeaseGone> {
    flush(shared, lease).await?;
    let image = lease.image();
    let let_go = match (&image.checkpoint_owner, &image.owner) {
        (Some(_), Some(successor)) => {
            let assignment = Assignment::of(&image, successor.clone());
            insist(shared, lease, "hand the lease over", || shared.store.assign(&assignment)).await?
        }
        (Some(_), None) | (None, Some(_) | None) => {
            let eviction = Eviction::of(&image);
            insist(shared, lease, "release the lease", || shared.store.evict(&eviction)).await?
        }
    };
    match let_go {
        Conditional::Applied(_) => Ok(()),
        // A renewal passed in between, or the row went to somebody else. The first is mended by the next attempt.
        Conditional::Refused(Some(row)) if row.actual_owner() == Some(&shared.worker) => {
            let eviction = Eviction::of(&row);
            insist(shared, lease, "release the lease", || shared.store.evict(&eviction)).await.map(|_| ())
        }
        Conditional::Refused(_) => Err(LeaseGone),
    }
}

/// Has everything that is wanted stored.
pub(crate) async fn flush(shared: &Shared, lease: &HeldLease) -> Result<(), LeaseGone> {
    let (written, stored) = oneshot::channel();
    shared.flush.send(Flush { key: lease.key().clone(), written }).map_err(|_| LeaseGone)?;
    stored.await.unwrap_or(Err(LeaseGone))
}

/// Repeats a call until it has an answer, for as long as the lease is ours.
async fn insist<T, E, F, Fut>(shared: &Shared, lease: &HeldLease, what: &str, mut call: F) -> Result<T, LeaseGone>
where
    E: std::error::Error,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>> + Send,
{
    let retry = RetryPolicy::default().with_initial(shared.timing.renew_retry()).with_cap(shared.timing.duration());
    for failures in 1.. {
        if !lease.may_process(shared.env.now()) {
            break;
        }
        let deadline = shared.env.now().plus(shared.timing.duration());
        match shared.env.deadline(deadline, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => warn!(lease = %lease.key(), %error, "cannot {what}; trying again"),
            Err(_) => warn!(lease = %lease.key(), "no answer to the attempt to {what}; trying again"),
        }
        shared.env.sleep(retry.delay(failures, shared.env.random()).unwrap_or_default()).await;
    }
    Err(LeaseGone)
}
