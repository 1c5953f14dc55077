//! The conditional writes on a lease, each with its condition and its effect as a pure function.
//!
//! `apply` takes the image of the row as the table has it and gives the image after the write, or `None` when the
//! condition does not hold. The in-memory store is these functions; every other store says the same in its own language,
//! and the conformance suite holds them together.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use shardwell_aggregation::HashKeyRange;

use super::Lease;
use crate::{Checkpoint, CheckpointState, LeaseKey, PendingCheckpoint, ShardId, WorkerId};

/// A random number that a write leaves in the row. A writer that got no reply finds its own token and knows that the
/// write was applied.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WriteToken(u64);

impl WriteToken {
    /// A token from 64 random bits.
    pub const fn new(random: u64) -> Self {
        Self(random)
    }

    /// The 64 bits.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A renewal, with or without a checkpoint: the one write that an owner makes per lease and period.
///
/// - Condition: the counter is `counter`, and `worker` is the owner or the one who must checkpoint.
/// - Effect: the counter rises by one; throughput and token are written; with a checkpoint, that and its state are
///   written, pending checkpoints are removed, and the count of owner switches starts anew.
/// - Repeated with the same token after it was applied: nothing changes, and it counts as applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Renewal {
    /// The lease.
    pub key: LeaseKey,
    /// The counter that the writer last saw.
    pub counter: u64,
    /// A fresh token; the same one when the write is repeated because its outcome is unknown.
    pub token: WriteToken,
    /// The throughput to record, in KiB per second; `None`, or what is not finite, leaves the recorded one.
    pub throughput_kbps: Option<f64>,
    /// The checkpoint to write.
    pub checkpoint: Option<CheckpointWrite>,
}

/// What a renewal writes beside the counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointWrite {
    /// How far the shard is done. Never below what is stored: the owner sees to that.
    pub checkpoint: Checkpoint,
    /// The blob that belongs to this checkpoint, with its format's version; `None` removes what is there.
    pub state: Option<(u32, Bytes)>,
    /// What happens to the pending checkpoint.
    pub pending: PendingWrite,
}

/// What a checkpointing write does to the pending checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingWrite {
    /// Removes it: what every commit does.
    Clear,
    /// Announces one (the KCL's `prepareCheckpoint`); the committed checkpoint stays what it was.
    Set(PendingCheckpoint),
}

impl CheckpointWrite {
    /// A checkpoint without state that clears what was pending.
    pub const fn new(checkpoint: Checkpoint) -> Self {
        Self { checkpoint, state: None, pending: PendingWrite::Clear }
    }

    fn apply(&self, row: &mut Lease) {
        row.checkpoint = self.checkpoint;
        let state = |(version, data)| CheckpointState { belongs_to: self.checkpoint, version, data };
        row.checkpoint_state = self.state.clone().map(state);
        row.owner_switches_since_checkpoint = 0;
        row.pending_checkpoint = match &self.pending {
            PendingWrite::Clear => None,
            PendingWrite::Set(pending) => Some(pending.clone()),
        };
    }
}

impl Renewal {
    /// The row after this write by `worker`, or `None` when the condition does not hold.
    pub fn apply(&self, worker: &WorkerId, row: &Lease) -> Option<Lease> {
        if self.was_applied(row) {
            return Some(row.clone());
        }
        let mine = row.owner.as_ref() == Some(worker) || row.checkpoint_owner.as_ref() == Some(worker);
        if row.counter != self.counter || !mine {
            return None;
        }
        let mut row = row.clone();
        row.counter += 1;
        row.token = Some(self.token);
        row.throughput_kbps = self.throughput_kbps.filter(|kbps| kbps.is_finite()).or(row.throughput_kbps);
        if let Some(write) = &self.checkpoint {
            write.apply(&mut row);
        }
        Some(row)
    }

    /// Whether a row shows that this very write was applied, though its reply may have been lost.
    pub fn was_applied(&self, row: &Lease) -> bool {
        self.counter.checked_add(1) == Some(row.counter) && row.token == Some(self.token)
    }
}

/// Whose a lease was when somebody decided to change that. The condition of [`Assignment`] and [`Eviction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The owner.
    pub owner: Option<WorkerId>,
    /// The checkpoint owner.
    pub checkpoint_owner: Option<WorkerId>,
    /// The counter; `None` where it does not matter.
    pub counter: Option<u64>,
}

impl Seen {
    /// A row as it was seen, counter included.
    pub fn of(row: &Lease) -> Self {
        let (owner, checkpoint_owner) = (row.owner.clone(), row.checkpoint_owner.clone());
        Self { owner, checkpoint_owner, counter: Some(row.counter) }
    }

    fn is(&self, row: &Lease) -> bool {
        row.owner == self.owner
            && row.checkpoint_owner == self.checkpoint_owner
            && self.counter.is_none_or(|counter| counter == row.counter)
    }
}

/// Gives a lease to a worker: how a leader assigns, how a worker takes what is free, and how a handoff ends.
///
/// - Condition: owner and checkpoint owner are as seen; where the counter was noted, that too (for a lease that was
///   judged expired: an owner that renewed in the meantime keeps it).
/// - Effect: the owner is `to`, the checkpoint owner and the token are removed, the counter rises by one, and the owner
///   switches too if the lease had another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The lease.
    pub key: LeaseKey,
    /// What the writer saw.
    pub seen: Seen,
    /// The new owner.
    pub to: WorkerId,
}

impl Assignment {
    /// An assignment of a lease as it was seen, counter included.
    pub fn of(seen: &Lease, to: WorkerId) -> Self {
        Self { key: seen.key.clone(), seen: Seen::of(seen), to }
    }

    /// The row after this write, or `None` when the condition does not hold.
    pub fn apply(&self, row: &Lease) -> Option<Lease> {
        if !self.seen.is(row) {
            return None;
        }
        let mut row = row.clone();
        // The KCL's rule: another owner before, or the end of a handoff that gives the lease back to its old owner.
        let switched = row.owner.as_ref().is_some_and(|owner| *owner != self.to)
            || row.checkpoint_owner.as_ref() == Some(&self.to);
        row.owner_switches_since_checkpoint += u64::from(switched);
        row.owner = Some(self.to.clone());
        row.checkpoint_owner = None;
        row.counter += 1;
        row.token = None;
        Some(row)
    }
}

/// Asks the owner of a lease to hand it over.
///
/// - Condition: the owner is `from`, and no handoff is under way.
/// - Effect: the owner is `to` and the checkpoint owner is `from`. The counter stays, so that the old owner's renewals
///   and checkpoints go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandoffStart {
    /// The lease.
    pub key: LeaseKey,
    /// The worker that is to hand it over.
    pub from: WorkerId,
    /// The worker that is to have it.
    pub to: WorkerId,
}

impl HandoffStart {
    /// The row after this write, or `None` when the condition does not hold.
    pub fn apply(&self, row: &Lease) -> Option<Lease> {
        if row.owner.as_ref() != Some(&self.from) || row.checkpoint_owner.is_some() {
            return None;
        }
        let mut row = row.clone();
        row.owner = Some(self.to.clone());
        row.checkpoint_owner = Some(self.from.clone());
        Some(row)
    }
}

/// Takes a lease from its owner without naming another: how a worker that stops lets go.
///
/// - Condition: owner and checkpoint owner are as seen; where the counter was noted, that too.
/// - Effect: without a checkpoint owner the owner is removed; checkpoint owner and token are removed; the counter rises by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The lease.
    pub key: LeaseKey,
    /// What the writer saw.
    pub seen: Seen,
}

impl Eviction {
    /// An eviction of a lease as it was seen, counter included.
    pub fn of(seen: &Lease) -> Self {
        Self { key: seen.key.clone(), seen: Seen::of(seen) }
    }

    /// The row after this write, or `None` when the condition does not hold.
    pub fn apply(&self, row: &Lease) -> Option<Lease> {
        if !self.seen.is(row) {
            return None;
        }
        let mut row = row.clone();
        if row.checkpoint_owner.is_none() {
            row.owner = None;
        }
        row.checkpoint_owner = None;
        row.counter += 1;
        row.token = None;
        Some(row)
    }
}

/// Puts a checkpoint anywhere, also backwards: what an operator does, and no worker.
///
/// - Condition: the row exists.
/// - Effect: the checkpoint is written as a [`Renewal`] writes it; owner, checkpoint owner and token are removed, and the counter
///   rises by one, so that no write of a worker that has the lease, or thinks so, applies any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The lease.
    pub key: LeaseKey,
    /// The checkpoint.
    pub to: CheckpointWrite,
}

impl Reset {
    /// The row after this write.
    pub fn apply(&self, row: &Lease) -> Lease {
        let mut row = row.clone();
        self.to.apply(&mut row);
        (row.owner, row.checkpoint_owner, row.token) = (None, None, None);
        row.counter += 1;
        row
    }
}

/// A fact about a shard that is written beside the protocol: conditional on the row alone, the counter untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseMeta {
    /// The children of the shard.
    Children(BTreeSet<ShardId>),
    /// The hash keys of the shard.
    HashKeyRange(HashKeyRange),
}

impl LeaseMeta {
    /// The row after this write.
    pub fn apply(&self, row: &Lease) -> Lease {
        let mut row = row.clone();
        match self {
            Self::Children(children) => row.children.clone_from(children),
            Self::HashKeyRange(range) => row.hash_key_range = Some(*range),
        }
        row
    }
}
