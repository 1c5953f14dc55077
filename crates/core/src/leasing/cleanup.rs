//! Which leases are of no use any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{Checkpoint, Lease, LeaseKey, Monotonic, ShardId};

/// How far the rows of one listing may lie apart in time, and more.
const LISTING_LAG: Duration = Duration::from_secs(10);

/// The leases of one stream that may go, and since when.
///
/// They go once they could have gone for longer than a listing may lag behind. A listing in which a lease is gone, and its children's
/// are not there yet, would look as if the shard had never been read.
#[derive(Clone, Debug, Default)]
pub struct Removals(BTreeMap<LeaseKey, Monotonic>);

impl Removals {
    /// Takes note of which leases are [`removable`] in a listing that was asked for at `asked`, and gives those that go now.
    pub fn due(&mut self, removable: &[&Lease], asked: Monotonic) -> Vec<LeaseKey> {
        let mut since = std::mem::take(&mut self.0);
        let since = removable.iter().map(|lease| (lease.key.clone(), since.remove(&lease.key).unwrap_or(asked)));
        self.0 = since.collect();
        self.0.iter().filter(|(_, since)| asked.since(**since) >= LISTING_LAG).map(|(key, _)| key.clone()).collect()
    }
}

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
    fn leases_go_once_they_could_have_gone_for_a_while() {
        let (one, other) =
            (Lease::new("one".into(), Checkpoint::ShardEnd), Lease::new("other".into(), Checkpoint::ShardEnd));
        let mut removals = Removals::default();
        let mut due = |removable: &[&Lease], second| {
            let asked = Monotonic::from_origin(Duration::from_secs(second));
            removals.due(removable, asked).into_iter().map(|key| key.to_string()).collect::<Vec<_>>()
        };
        assert!(due(&[&one], 0).is_empty());
        assert!(due(&[&one, &other], 9).is_empty());
        assert_eq!(due(&[&one, &other], 10), ["one"]);
        assert!(due(&[&one], 18).contains(&"one".to_owned()), "it could not be removed before");
        assert_eq!(due(&[&one, &other], 20), ["one"], "the other one could not go in between");
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
