//! What a leader would change, and why.

use std::collections::BTreeMap;

use shardwell::core::leasing::Observations;
use shardwell::core::leasing::plan::{Fleet, Held, Move, MoveKind, Patience, PlanSettings, PlannedLease, plan};
use shardwell::{Lease, LeaseKey, WorkerId};

use super::look::Look;

/// A plan with its reasons, and what it leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Proposal {
    pub(super) changes: Vec<Change>,
    /// How many leases nobody has room for.
    pub(super) spillover: usize,
    /// What each worker has now, and will have once the plan and the handoffs under way are carried out. Leases that nobody
    /// has are under no worker.
    pub(super) loads: BTreeMap<Option<WorkerId>, BeforeAndAfter>,
}

/// A lease that changes hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) lease: LeaseKey,
    /// Who has it, dead or alive.
    pub(super) from: Option<WorkerId>,
    pub(super) to: WorkerId,
    pub(super) why: Why,
}

/// Why a lease changes hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Nobody has it.
    Unowned,
    /// Its owner does not renew it, though nothing else says that the owner is dead.
    Expired,
    /// Its owner shows no sign of life.
    OwnerDead,
    /// Its handoff takes too long.
    HandoffOverdue,
    /// Its owner has more than others.
    Balance,
    /// Its owner is being drained.
    Drain,
}

/// A worker's leases.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct BeforeAndAfter {
    pub(super) before: Load,
    pub(super) after: Load,
}

/// Leases that are not finished and wait for no parents, and what they report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    pub(super) leases: usize,
    pub(super) throughput_kbps: f64,
}

/// Plans as the leader does.
pub(super) fn propose(
    look: &Look,
    observations: &Observations,
    patience: &Patience,
    settings: &PlanSettings,
) -> Proposal {
    let (leases, draining) = (&look.listing.leases, look.draining());
    let fleet = Fleet { leases, workers: &look.workers, draining: &draining };
    let (planned, workers) = fleet.snapshot(observations, patience, look.asked);
    let plan = plan(&planned, &workers, settings);
    let rows: BTreeMap<&LeaseKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
    let owner = |key: &LeaseKey| rows.get(key).and_then(|row| row.actual_owner());
    let is_dead =
        |worker: Option<&WorkerId>| worker.map(|id| observations.is_dead(id, patience.lease_duration, look.asked));
    let change = |change: &Move| Change {
        lease: change.key.clone(),
        from: owner(&change.key).cloned(),
        to: change.to.clone(),
        why: why(&change.kind, is_dead(owner(&change.key))),
    };
    Proposal {
        changes: plan.moves.iter().map(change).collect(),
        spillover: plan.spillover,
        loads: loads(&planned, &plan.moves, owner),
    }
}

/// `owner_is_dead`: whether it is, if there is an owner.
fn why(kind: &MoveKind, owner_is_dead: Option<bool>) -> Why {
    match (kind, owner_is_dead) {
        (MoveKind::Free, None) => Why::Unowned,
        (MoveKind::Free, Some(true)) => Why::OwnerDead,
        (MoveKind::Free, Some(false)) => Why::Expired,
        (MoveKind::Overdue, _) => Why::HandoffOverdue,
        (MoveKind::Balance { .. }, _) => Why::Balance,
        (MoveKind::Drain { .. }, _) => Why::Drain,
    }
}

fn loads<'a>(
    leases: &'a [PlannedLease],
    moves: &'a [Move],
    owner: impl Fn(&LeaseKey) -> Option<&'a WorkerId>,
) -> BTreeMap<Option<WorkerId>, BeforeAndAfter> {
    let targets: BTreeMap<&LeaseKey, &WorkerId> = moves.iter().map(|change| (&change.key, &change.to)).collect();
    let mut loads: BTreeMap<Option<WorkerId>, BeforeAndAfter> = BTreeMap::new();
    for lease in leases {
        let before = owner(&lease.key);
        let after = match (targets.get(&lease.key), &lease.held) {
            (Some(to), _) => Some(*to),
            (None, Held::HandedTo(to)) => Some(to),
            (None, _) => before,
        };
        loads.entry(before.cloned()).or_default().before.add(lease);
        loads.entry(after.cloned()).or_default().after.add(lease);
    }
    loads
}

impl Load {
    fn add(&mut self, lease: &PlannedLease) {
        self.leases += 1;
        self.throughput_kbps += lease.throughput_kbps.unwrap_or_default();
    }
}

impl Why {
    /// For people.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Unowned => "nobody has it",
            Self::Expired => "its owner does not renew it",
            Self::OwnerDead => "its owner is dead",
            Self::HandoffOverdue => "its handoff is overdue",
            Self::Balance => "its owner has more than others",
            Self::Drain => "its owner is being drained",
        }
    }

    /// For programs.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Unowned => "unowned",
            Self::Expired => "expired",
            Self::OwnerDead => "owner_dead",
            Self::HandoffOverdue => "handoff_overdue",
            Self::Balance => "balance",
            Self::Drain => "drain",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::patience;
    use super::super::sample::{HANDOFF, draining, handed, item, lease, look};
    use super::*;

    /// A proposal at `seconds`, after the rows were seen at the beginning; workers `alive` wrote their items and renewed their
    /// leases since.
    fn proposal(leases: &[Lease], seconds: u32, items: &[&str], alive: &[&str], drained: &[&str]) -> Proposal {
        let mut observations = Observations::default();
        let beat = |id: &&str, beat| item(id, if alive.contains(id) { beat } else { 0 });
        let seen = |seconds: u32| {
            let workers = items.iter().map(|id| beat(id, seconds.into())).collect();
            let is_alive = |lease: &Lease| lease.actual_owner().is_some_and(|id| alive.contains(&id.as_str()));
            let mut leases = leases.to_vec();
            leases.iter_mut().filter(|lease| is_alive(lease)).for_each(|lease| lease.counter += u64::from(seconds));
            draining(Look { workers, ..look(seconds, &leases) }, drained)
        };
        for look in [seen(0), seen(seconds)] {
            observations.observe(&look.listing.leases, look.asked);
            observations.observe_workers(&look.workers, look.asked, look.at);
        }
        let look = seen(seconds);
        propose(&look, &observations, &patience(&look, HANDOFF), &PlanSettings::default())
    }

    fn changes(proposal: &Proposal) -> Vec<(&str, Option<&str>, &str, Why)> {
        let changes = proposal.changes.iter();
        changes
            .map(|Change { lease, from, to, why }| {
                (lease.as_str(), from.as_ref().map(WorkerId::as_str), to.as_str(), *why)
            })
            .collect()
    }

    fn leases(proposal: &Proposal, worker: Option<&str>) -> (usize, usize) {
        let load = proposal.loads.get(&worker.map(WorkerId::from)).copied().unwrap_or_default();
        (load.before.leases, load.after.leases)
    }

    #[test]
    fn every_free_lease_says_why_it_is_free() {
        let rows = [lease("a", None), lease("b", Some("dead")), lease("c", Some("gone"))];
        let proposal = proposal(&rows, 11, &["dead", "alive"], &["alive"], &[]);
        let expected = [
            ("a", None, "alive", Why::Unowned),
            ("b", Some("dead"), "alive", Why::OwnerDead),
            ("c", Some("gone"), "alive", Why::Expired),
        ];
        assert_eq!(changes(&proposal), expected);
        assert_eq!(leases(&proposal, Some("alive")), (0, 3));
        assert_eq!(leases(&proposal, Some("dead")), (1, 0));
        assert_eq!(leases(&proposal, None), (1, 0));
    }

    #[test]
    fn leases_move_to_even_out_and_off_the_drained() {
        let rows: Vec<Lease> = (0..4).map(|n| lease(&format!("s{n}"), Some("a"))).collect();
        let balanced = proposal(&rows, 1, &["a", "b"], &["a", "b"], &[]);
        assert!(balanced.changes.iter().all(|change| change.why == Why::Balance), "{balanced:?}");
        assert_eq!((leases(&balanced, Some("a")), leases(&balanced, Some("b"))), ((4, 2), (0, 2)));
        let drained = proposal(&rows, 1, &["a", "b"], &["a", "b"], &["a"]);
        assert!(drained.changes.iter().all(|change| change.why == Why::Drain), "{drained:?}");
        assert_eq!((leases(&drained, Some("a")), leases(&drained, Some("b"))), ((4, 0), (0, 4)));
    }

    #[test]
    fn a_handoff_counts_as_done_until_it_is_overdue() {
        let row = handed("a", "old", "new");
        let under_way = proposal(std::slice::from_ref(&row), 1, &["old", "new"], &["old", "new"], &[]);
        assert_eq!(under_way.changes, []);
        assert_eq!((leases(&under_way, Some("old")), leases(&under_way, Some("new"))), ((1, 0), (0, 1)));
        let kind = MoveKind::Overdue;
        assert_eq!(why(&kind, Some(false)), Why::HandoffOverdue);
    }

    #[test]
    fn what_nobody_can_take_spills_over() {
        let proposal = proposal(&[lease("a", None)], 11, &[], &[], &[]);
        assert_eq!((proposal.changes.len(), proposal.spillover, leases(&proposal, None)), (0, 1, (1, 1)));
    }
}
