//! Deliberately broken workers.
//!
//! The worker itself is never touched. The seams under it lie, so that it behaves as one would that lacks a rule: a table that
//! applies a renewal whatever its counter is makes an unfenced worker out of a fenced one. Each lie must be found out.

use std::sync::Arc;

use shardwell_core::delivery::{ResumeState, StoredPosition};
use shardwell_core::{
    Assignment, CheckpointState, Conditional, Created, HandoffStart, Lease, LeaseKey, LeaseListing, LeaseStore,
    MetricsWrite, RenewOutcome, Renewal, StoreError, WorkerId, WorkerMetrics,
};

use super::checks::Write;
use super::named::named;
use super::weather::ProcessId;
use super::world::{Life, World};

named! {
    /// A rule that is broken.
    Lie {
        /// A renewal is applied whatever counter and owner are.
        NoFencing,
        /// What was read is checkpointed, done or not.
        CheckpointBeforeDone,
        /// A checkpoint is taken back now and then.
        CheckpointBackwards,
        /// No lease knows its parents.
        ChildBeforeParent,
        /// A lease of two parents knows one of them.
        OneParentOnly,
        /// An owned lease counts as free the first time that it is seen.
        ExpiryOnFirstSight,
        /// An expired lease is never noticed.
        NoExpiry,
        /// A lease that is asked for is given away at once, whatever runs.
        HandoffWithoutDrain,
        /// Nobody cuts a handoff off.
        ForgottenDeadline,
        /// A renewal with a checkpoint does not tell that the lease is asked for.
        HandoffUnheard,
        /// Leases are never handed over to balance loads.
        NoBalance,
        /// A lease is moved whenever the leader plans.
        Restless,
        /// The state beside another checkpoint is believed.
        ForeignStateTrusted,
        /// A worker that stops stays in the plan.
        StopsWithoutLeaving,
        /// Nobody tells which streams it consumes.
        StreamsUntold,
        /// A worker that stops does not look for what it was given meanwhile.
        NoLastLook,
        /// Renewals are reported and not written.
        RenewalsNotWritten,
        /// Letters are reported and not written.
        LettersNotWritten,
        /// Some records are never read.
        RecordsSkipped,
        /// Two records of a read change places.
        RecordsSwapped,
        /// The end of a shard creates no leases for its children, and nobody notices.
        ChildrenForgotten,
    }
}

/// A row as it is told.
pub(crate) fn row(world: &World, mut row: Lease) -> Lease {
    match world.lie {
        Some(Lie::ChildBeforeParent) => row.parents.clear(),
        Some(Lie::OneParentOnly) => row.parents = row.parents.into_iter().take(1).collect(),
        Some(Lie::ForeignStateTrusted) => row.checkpoint_state = forged(world, &row),
        _ => {}
    }
    row
}

/// The state beside another checkpoint, made to look as if it belonged to this one.
fn forged(world: &World, row: &Lease) -> Option<CheckpointState> {
    let state = row.checkpoint_state.clone()?;
    let belongs_to = row.checkpoint;
    if state.belongs_to == belongs_to {
        return Some(state);
    }
    let mut resume = ResumeState::decode(&state)?;
    let position = belongs_to.position()?;
    let coming: Vec<StoredPosition> = world.state().truth.positions_behind(&row.key, position);
    resume.first = Some(coming.first()?.clone());
    if let Some(finished) = &mut resume.finished {
        finished.last.1 = coming.get(usize::try_from(finished.last.0).ok()?)?.clone();
    }
    resume.encode().map(|(version, data)| CheckpointState { belongs_to, version, data })
}

/// A listing as it is told.
pub(crate) fn listing(world: &World, process: ProcessId, mut listing: LeaseListing) -> LeaseListing {
    listing.leases = listing.leases.into_iter().map(|lease| row(world, lease)).collect();
    match world.lie {
        Some(Lie::ExpiryOnFirstSight) => {
            for lease in &mut listing.leases {
                if world.state().lies.sees_first(process, &lease.key) {
                    (lease.owner, lease.checkpoint_owner) = (None, None);
                }
            }
        }
        Some(Lie::NoExpiry) => {
            // Whoever owns a lease seems to renew it.
            let looks = world.state().lies.looks();
            for lease in listing.leases.iter_mut().filter(|lease| lease.owner.is_some()) {
                lease.counter += looks;
            }
        }
        Some(Lie::Restless) => {
            if let Some(lease) = listing.leases.iter_mut().find(|lease| lease.owner.is_some() && !lease.is_finished()) {
                (lease.owner, lease.checkpoint_owner) = (None, None);
            }
        }
        _ => {}
    }
    listing
}

/// Whether a worker finds none of its leases.
pub(crate) fn hides_leases(world: &World, process: ProcessId) -> bool {
    world.lie == Some(Lie::NoLastLook) && world.state().processes[process].stopping
}

/// A renewal, with an eye on it.
pub(crate) async fn renew(world: &Arc<World>, process: ProcessId, worker: &WorkerId, renewal: Renewal) -> RenewOutcome {
    let Some(before) = world.lease(&renewal.key) else { return RenewOutcome::Lost(None) };
    let mut renewal = renewal;
    let with_checkpoint = renewal.checkpoint.is_some();
    if let Some(write) = &mut renewal.checkpoint {
        match world.lie {
            Some(Lie::CheckpointBeforeDone) => {
                if let Some(position) = world.state().truth.newest_in(&before.key) {
                    write.checkpoint = write.checkpoint.max(shardwell_core::Checkpoint::At(position));
                }
            }
            Some(Lie::CheckpointBackwards) if before.counter.is_multiple_of(5) => {
                write.checkpoint = shardwell_core::Checkpoint::TrimHorizon;
            }
            _ => {}
        }
    }
    if world.lie == Some(Lie::RenewalsNotWritten) && !with_checkpoint {
        return RenewOutcome::Renewed(before);
    }
    let after = match (renewal.apply(worker, &before), world.lie) {
        (Some(after), _) => after,
        (None, Some(Lie::NoFencing)) => {
            let mut unfenced = before.clone();
            unfenced.owner = Some(worker.clone());
            let renewal = Renewal { counter: before.counter, ..renewal.clone() };
            let Some(mut after) = renewal.apply(worker, &unfenced) else { return RenewOutcome::Lost(Some(before)) };
            after.owner.clone_from(&before.owner);
            after
        }
        (None, _) => return RenewOutcome::Lost(Some(before)),
    };
    if after == before {
        // A repetition of what was applied.
        return answer(world, process, worker, after, with_checkpoint).await;
    }
    world.table.edit(&renewal.key, |row| row.clone_from(&after));
    world.state().wrote(process, Write::Renewal { with_checkpoint }, &before, &after);
    answer(world, process, worker, after, with_checkpoint).await
}

async fn answer(
    world: &Arc<World>,
    process: ProcessId,
    worker: &WorkerId,
    after: Lease,
    with_checkpoint: bool,
) -> RenewOutcome {
    let asked = after.handoff_requested();
    match (world.lie, &after.owner) {
        (Some(Lie::HandoffUnheard), _) if asked && with_checkpoint => RenewOutcome::Renewed(owned_by(worker, after)),
        (Some(Lie::HandoffWithoutDrain), Some(to)) if asked => {
            let assignment = Assignment::of(&after, to.clone());
            if let Ok(Conditional::Applied(given)) = world.table.assign(&assignment).await {
                world.state().wrote(process, Write::Assignment, &after, &given);
            }
            RenewOutcome::Renewed(owned_by(worker, after))
        }
        _ => RenewOutcome::applied(row(world, after)),
    }
}

/// The row as it is where nobody asks for it.
fn owned_by(worker: &WorkerId, mut row: Lease) -> Lease {
    (row.owner, row.checkpoint_owner) = (Some(worker.clone()), None);
    row
}

/// An assignment.
pub(crate) async fn assign(
    world: &World,
    process: ProcessId,
    assignment: &Assignment,
) -> Result<Conditional, StoreError> {
    let mut assignment = assignment.clone();
    let lied_about_owner = matches!(world.lie, Some(Lie::ExpiryOnFirstSight | Lie::Restless));
    if let Some(row) = world.lease(&assignment.key)
        && ((lied_about_owner && assignment.seen.owner.is_none()) || world.lie == Some(Lie::NoExpiry))
    {
        let _ = process;
        assignment.seen = shardwell_core::Seen::of(&row);
    }
    world.table.assign(&assignment).await
}

/// The start of a handoff.
pub(crate) async fn start_handoff(world: &World, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
    if world.lie == Some(Lie::NoBalance) {
        return Ok(Conditional::Refused(world.lease(&handoff.key)));
    }
    world.table.start_handoff(handoff).await
}

/// A new lease.
pub(crate) async fn create(world: &World, lease: &Lease) -> Result<Created, StoreError> {
    if world.lie == Some(Lie::ChildrenForgotten) && !lease.parents.is_empty() {
        return Ok(Created::Existed);
    }
    world.table.create_lease(lease).await
}

/// A worker's item.
pub(crate) async fn put_metrics(world: &World, mut metrics: WorkerMetrics) -> Result<MetricsWrite, StoreError> {
    if world.lie == Some(Lie::StreamsUntold) {
        metrics.streams = None;
    }
    world.table.put_worker_metrics(&metrics).await
}

/// The removal of a worker's item.
pub(crate) async fn delete_metrics(
    world: &World,
    process: ProcessId,
    seen: &WorkerMetrics,
) -> Result<bool, StoreError> {
    let own = world.state().processes.get(process).is_some_and(|p| p.id == seen.worker && p.state == Life::Running);
    if world.lie == Some(Lie::StopsWithoutLeaving) && own {
        return Ok(true);
    }
    world.table.delete_worker_metrics(seen).await
}

/// What the lies remember.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    seen: std::collections::BTreeSet<(ProcessId, LeaseKey)>,
    looks: u64,
}

impl Memory {
    pub(crate) fn sees_first(&mut self, process: ProcessId, key: &LeaseKey) -> bool {
        self.seen.insert((process, key.clone()))
    }

    pub(crate) fn looks(&mut self) -> u64 {
        self.looks += 1;
        self.looks
    }
}
