//! Which leases are of no use any more.

use std::collections::BTreeSet;

use crate::{Checkpoint, Lease, ShardId};

/// The finished leases that may go. `listed` is every shard that the stream still knows.
///
/// - A finished lease whose shard the stream has trimmed goes at once.
/// - Otherwise it stays until all its children have a lease and have begun, and its own parents' leases are gone (the
///   KCL's rules): a sync in between finds children covered and creates nothing twice.
pub fn removable<'a>(leases: &'a [Lease], listed: &BTreeSet<ShardId>) -> Vec<&'a Lease> {
    let find = |like: &Lease, shard: &ShardId| leases.iter().find(|l| l.shard == *shard && l.stream == like.stream);
    leases
        .iter()
        .filter(|lease| lease.is_finished())
        .filter(|lease| {
            let trimmed = !listed.contains(&lease.shard);
            let children_began = !lease.children.is_empty()
                && lease.children.iter().all(|child| find(lease, child).is_some_and(has_begun));
            let parents_gone = lease.parents.iter().all(|parent| find(lease, parent).is_none());
            trimmed || (children_began && parents_gone)
        })
        .collect()
}

/// Whether something of the shard is done. A child starts at `TRIM_HORIZON`.
const fn has_begun(lease: &Lease) -> bool {
    match lease.checkpoint {
        Checkpoint::TrimHorizon | Checkpoint::AtTimestamp => false,
        Checkpoint::Latest | Checkpoint::At(_) | Checkpoint::ShardEnd => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family() -> Vec<Lease> {
        let mut parent = Lease::new("p".into(), Checkpoint::ShardEnd);
        parent.children = ["c1".into(), "c2".into()].into();
        let mut leases = vec![parent];
        for child in ["c1", "c2"] {
            let mut lease = Lease::new(child.into(), Checkpoint::TrimHorizon);
            lease.parents = ["p".into()].into();
            leases.push(lease);
        }
        leases
    }

    fn removed(leases: &[Lease], listed: &[&str]) -> Vec<String> {
        let listed = listed.iter().map(|id| ShardId::from(*id)).collect();
        removable(leases, &listed).into_iter().map(|lease| lease.key.to_string()).collect()
    }

    #[test]
    fn a_finished_lease_stays_until_all_its_children_have_begun() {
        let mut leases = family();
        let listed = ["p", "c1", "c2"];
        assert!(removed(&leases, &listed).is_empty());
        leases[1].checkpoint = Checkpoint::At(crate::SequenceNumber::from(7).into());
        assert!(removed(&leases, &listed).is_empty());
        leases[2].checkpoint = Checkpoint::ShardEnd;
        assert_eq!(removed(&leases, &listed), ["p"], "c2 has a parent with a lease, and no children");
        leases.pop();
        assert!(removed(&leases, &listed).is_empty(), "a child without a lease has not begun");
    }

    #[test]
    fn a_finished_lease_of_a_trimmed_shard_goes() {
        assert_eq!(removed(&family(), &["c1", "c2"]), ["p"]);
        let unfinished = [Lease::new("gone".into(), Checkpoint::TrimHorizon)];
        assert!(removed(&unfinished, &[]).is_empty(), "whoever owns it reports the loss first");
    }

    #[test]
    fn a_finished_lease_stays_while_its_parents_have_leases() {
        let mut leases = family();
        leases[1].checkpoint = Checkpoint::ShardEnd;
        leases[1].children = ["g".into()].into();
        let mut grandchild = Lease::new("g".into(), Checkpoint::ShardEnd);
        grandchild.parents = ["c1".into()].into();
        leases.push(grandchild);
        assert!(!removed(&leases, &["p", "c1", "c2", "g"]).contains(&"c1".to_owned()));
        leases.remove(0);
        assert!(removed(&leases, &["p", "c1", "c2", "g"]).contains(&"c1".to_owned()));
    }
}
