//! Parents before children.

use std::collections::BTreeSet;

use crate::{Lease, ShardId};

/// The shards that have a lease and are not finished: no child of theirs may be read.
///
/// A parent without a lease does not block, as in the KCL: it was finished and cleaned up, or lies before the initial
/// position.
#[derive(Clone, Debug)]
pub struct Unfinished<'a>(BTreeSet<(Option<&'a str>, &'a ShardId)>);

impl<'a> Unfinished<'a> {
    /// Those of a listing.
    pub fn of(leases: &'a [Lease]) -> Self {
        let unfinished = leases.iter().filter(|lease| !lease.is_finished());
        Self(unfinished.map(|lease| (lease.stream.as_deref(), &lease.shard)).collect())
    }

    /// The parents that a lease waits for.
    pub fn parents_of<'b>(&'b self, lease: &'b Lease) -> impl Iterator<Item = &'b ShardId> {
        lease.parents.iter().filter(|parent| self.0.contains(&(lease.stream.as_deref(), *parent)))
    }

    /// Whether a lease waits for a parent.
    pub fn block(&self, lease: &Lease) -> bool {
        self.parents_of(lease).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    #[test]
    fn a_child_waits_for_all_its_parents() {
        let mut leases: Vec<Lease> = ["p1", "p2", "c"].map(|id| Lease::new(id.into(), Checkpoint::TrimHorizon)).into();
        leases[2].parents = ["p1".into(), "p2".into(), "gone".into()].into();
        let blocking = |leases: &[Lease]| -> Vec<String> {
            Unfinished::of(leases).parents_of(&leases[2]).map(ToString::to_string).collect()
        };
        assert_eq!(blocking(&leases), ["p1", "p2"]);
        leases[0].checkpoint = Checkpoint::ShardEnd;
        assert_eq!(blocking(&leases), ["p2"]);
        leases[1].stream = Some("another".into());
        assert!(blocking(&leases).is_empty(), "a shard of another stream");
    }
}
