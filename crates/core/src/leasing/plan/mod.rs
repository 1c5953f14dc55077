//! Who should have which lease: what a leader decides in every round.
//!
//! [`plan`] takes the leases and the workers as they are and gives what has to change. It is a function of its arguments
//! alone: two leaders that see the same decide the same, and a plan that was carried out is followed by an empty one as long
//! as nothing changes.
//!
//! 1. Leases without a living owner are given to the least loaded workers, the heaviest first.
//! 2. Nothing more while a worker stops: it hands over what it has by itself. Otherwise,
//!    if the loads are more than a tenth apart from their mean, leases move from the most to the least loaded worker, each
//!    the one that brings the two closest together, until loads are close or no move makes a difference.
//!
//! A lease goes to workers alone that consume its stream. Where workers consume different streams their loads may have to stay
//! apart; what could still move then moves for a difference between two workers that is worth it, and not for noise.

mod fleet;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet};

use crate::{LeaseKey, WorkerId};

use fleet::Loads;
pub use snapshot::{CPU, Fleet, Patience};

/// How loads are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlanStrategy {
    /// By the throughput of leases, of which each counts for at least a floor; and workers that are busier than they should
    /// be get no more.
    #[default]
    Utilisation,
    /// By the number of leases alone.
    Count,
}

/// How to plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlanSettings {
    /// How loads are counted.
    pub strategy: PlanStrategy,
    /// How many leases a worker has at most. Default: any number.
    pub max_leases_for_worker: usize,
    /// How far from their mean loads may be, as a share of it, before leases move. Default: 0.1, the KCL's.
    pub tolerance: f64,
    /// What a lease counts for at least, in KiB per second: what it costs to have one, and noise below it moves nothing.
    /// Default: 16.
    pub floor_kbps: f64,
}

impl Default for PlanSettings {
    fn default() -> Self {
        Self { strategy: PlanStrategy::default(), max_leases_for_worker: usize::MAX, tolerance: 0.1, floor_kbps: 16.0 }
    }
}

/// A lease that somebody should have: not finished, and not waiting for parents.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedLease {
    /// The lease.
    pub key: LeaseKey,
    /// The stream of its shard; `None` where there is only one.
    pub stream: Option<String>,
    /// Its throughput in KiB per second; `None` where it is not known, and counts as the mean of the others.
    pub throughput_kbps: Option<f64>,
    /// Who has it.
    pub held: Held,
}

/// Who has a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nobody, or somebody who does not renew it any more.
    Free,
    /// This worker, which renews it.
    By(WorkerId),
    /// It was given to this worker, which has not taken it up yet; or it is being handed over. Nothing is to be done about it.
    HandedTo(WorkerId),
    /// By a worker that stops and hands over what it has. Where it goes decides who has too much, so nothing is balanced
    /// before it is there.
    ByLeaving,
    /// It was to be handed over to this worker, and that has taken too long.
    Overdue(WorkerId),
}

/// A worker that is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedWorker {
    /// The worker.
    pub id: WorkerId,
    /// Whether it is busier than it should be, whatever its leases say: it gets no more while others have room.
    pub is_busy: bool,
    /// Whether it is to hand over what it has: it gets nothing, and what it has goes where there is room.
    pub is_draining: bool,
    /// The streams whose leases it may have; `None` for any.
    pub streams: Option<BTreeSet<String>>,
}

/// A change to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The lease.
    pub key: LeaseKey,
    /// The worker that should have it.
    pub to: WorkerId,
    /// How it gets there, and why.
    pub kind: MoveKind,
}

/// How and why a lease changes hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveKind {
    /// It is assigned: nobody has it.
    Free,
    /// It is assigned: its handoff has taken too long.
    Overdue,
    /// It is handed over by this worker, which has too much.
    Balance {
        /// Who has it now.
        from: WorkerId,
    },
    /// It is handed over by this worker, which is being drained.
    Drain {
        /// Who has it now.
        from: WorkerId,
    },
}

/// What to do, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The changes, ordered by lease.
    pub moves: Vec<Move>,
    /// How many leases nobody has room for (the KCL's `LeaseSpillover`), or nobody consumes the stream of.
    pub spillover: usize,
}

/// Decides who should have which lease.
pub fn plan(leases: &[PlannedLease], workers: &[PlannedWorker], settings: &PlanSettings) -> Plan {
    // By key, so that the order in which a table tells them decides nothing.
    let mut leases: Vec<&PlannedLease> = leases.iter().collect();
    leases.sort_by(|a, b| a.key.cmp(&b.key));
    let mut loads = Loads::new(&leases, workers, settings);
    let mut targets: BTreeMap<&LeaseKey, (WorkerId, MoveKind)> = BTreeMap::new();
    let mut spillover = 0;
    for lease in loads.homeless() {
        let kind = match &leases[lease].held {
            Held::Overdue(_) => MoveKind::Overdue,
            Held::By(from) => MoveKind::Drain { from: from.clone() },
            Held::Free | Held::HandedTo(_) | Held::ByLeaving => MoveKind::Free,
        };
        match loads.place(lease) {
            Some(to) => drop(targets.insert(&leases[lease].key, (to, kind))),
            None => spillover += usize::from(!matches!(kind, MoveKind::Drain { .. })),
        }
    }
    let is_in_flux = leases.iter().any(|lease| lease.held == Held::ByLeaving);
    if !is_in_flux && loads.best_move(settings.tolerance).is_some() {
        // Once leases move, loads are brought closer than they have to be, so that a little change does not move them again.
        while let Some((lease, to)) = loads.next_move(settings.tolerance / 2.0) {
            // A lease that moves twice goes where it ends, from where it was.
            match (&leases[lease].held, targets.get_mut(&leases[lease].key)) {
                (_, Some((target, _))) => *target = to,
                (Held::By(from), None) => {
                    targets.insert(&leases[lease].key, (to, MoveKind::Balance { from: from.clone() }));
                }
                (Held::Free | Held::HandedTo(_) | Held::Overdue(_) | Held::ByLeaving, None) => {}
            }
        }
    }
    let stays = |to: &WorkerId, kind: &MoveKind| matches!(kind, MoveKind::Balance { from } if from == to);
    let moves = targets.into_iter().filter(|(_, (to, kind))| !stays(to, kind));
    Plan { moves: moves.map(|(key, (to, kind))| Move { key: key.clone(), to, kind }).collect(), spillover }
}

#[cfg(test)]
mod tests;
