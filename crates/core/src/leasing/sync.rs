//! Which leases a stream needs (the KCL's hierarchical shard sync).

use std::collections::{BTreeMap, BTreeSet};

use shardwell_aggregation::HashKeyRange;

use crate::{Checkpoint, ChildShard, Lease, Shard, ShardFilter, ShardId, StartPosition, Timestamp};

/// Where an application starts on a stream that it has no leases for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialPosition {
    /// After the newest record.
    Latest,
    /// At the oldest record.
    TrimHorizon,
    /// At the first record that arrived at or after a time.
    AtTimestamp(Timestamp),
}

impl InitialPosition {
    /// The checkpoint of a lease that starts there.
    pub const fn checkpoint(&self) -> Checkpoint {
        match self {
            Self::Latest => Checkpoint::Latest,
            Self::TrimHorizon => Checkpoint::TrimHorizon,
            Self::AtTimestamp(_) => Checkpoint::AtTimestamp,
        }
    }

    /// The shards that were open there.
    pub const fn shard_filter(&self) -> ShardFilter {
        match self {
            Self::Latest => ShardFilter::AtLatest,
            Self::TrimHorizon => ShardFilter::AtTrimHorizon,
            Self::AtTimestamp(time) => ShardFilter::AtTimestamp(*time),
        }
    }

    /// Where to open a shard whose lease has this checkpoint; `None` at the end of a shard. A position is opened *at* its
    /// record, since a part of an aggregated record may be left in there; the caller skips what is done.
    pub const fn start(&self, checkpoint: &Checkpoint) -> Option<StartPosition> {
        match (checkpoint, self) {
            (Checkpoint::TrimHorizon, _) => Some(StartPosition::TrimHorizon),
            (Checkpoint::Latest, _) => Some(StartPosition::Latest),
            (Checkpoint::AtTimestamp, Self::AtTimestamp(time)) => Some(StartPosition::AtTimestamp(*time)),
            // The time is not in the table. Without it in the settings either, the safe reading is "everything".
            (Checkpoint::AtTimestamp, Self::Latest | Self::TrimHorizon) => Some(StartPosition::TrimHorizon),
            (Checkpoint::At(position), _) => Some(StartPosition::AtSequenceNumber(position.sequence_number)),
            (Checkpoint::ShardEnd, _) => None,
        }
    }
}

/// Whether these ranges hold every hash key. Those of a listing of shards that raced a reshard do not.
pub fn cover_every_hash_key(ranges: impl IntoIterator<Item = HashKeyRange>) -> bool {
    let mut ranges: Vec<HashKeyRange> = ranges.into_iter().collect();
    ranges.sort_unstable();
    let mut next = Some(0u128);
    for range in ranges {
        match next {
            Some(key) if range.start() > key => return false,
            Some(key) if range.end() >= key => next = range.end().checked_add(1),
            Some(_) | None => {}
        }
    }
    next.is_none()
}

/// Whether there are hash keys for which these leases of one stream name no shard to read: a lease is missing, or will come
/// with the end of another shard. A lease without a range tells nothing, and then nothing is told.
pub fn leave_a_hole<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> bool {
    let ranges = leases.into_iter().filter(|lease| !lease.is_finished()).map(|lease| lease.hash_key_range);
    ranges.collect::<Option<Vec<_>>>().is_some_and(|ranges| !cover_every_hash_key(ranges))
}

/// The lease of a shard, from `checkpoint` on.
fn lease_for(stream: Option<&str>, shard: &Shard, checkpoint: Checkpoint) -> Lease {
    let mut lease = Lease::in_stream(stream, shard.id.clone(), checkpoint);
    lease.parents = shard.parents().cloned().collect();
    lease.hash_key_range = Some(shard.hash_key_range);
    lease
}

/// The leases of a stream that has none: one for every shard that was open at the initial position, as
/// [`InitialPosition::shard_filter`] lists them. `stream` is what its leases name: `None` where the table holds one stream only.
pub fn first_leases(stream: Option<&str>, open_there: &[Shard], position: InitialPosition) -> Vec<Lease> {
    in_creation_order(stream, open_there.iter().map(|shard| (shard, position.checkpoint())))
}

/// The leases that a stream with leases lacks, given all shards that it knows. `leases` are those of this stream, which name
/// it as `stream` does.
///
/// An open shard without a lease gets one, unless an ancestor of it has a lease or gets one here: then it waits for the
/// end of that ancestor. At most one generation per line of descent is created. And every child of a finished shard gets
/// one: whoever finished it normally created them first, but could not if the shard was trimmed before its end was read, or
/// if the child's other parent had no lease. Then that parent gets one first.
pub fn missing_leases(
    stream: Option<&str>,
    all_shards: &[Shard],
    leases: &[Lease],
    position: InitialPosition,
) -> Vec<Lease> {
    let mut walk = Walk {
        shards: all_shards.iter().map(|shard| (&shard.id, shard)).collect(),
        with_lease: leases.iter().map(|lease| &lease.shard).collect(),
        position,
        verdicts: BTreeMap::new(),
        create: BTreeMap::new(),
    };
    for shard in all_shards.iter().filter(|shard| shard.is_open()) {
        if walk.visit(shard) != Verdict::Covered {
            walk.create.insert(&shard.id, position.checkpoint());
        }
    }
    // A child's lease outlives its parents', so one that is missing beside a finished parent was never created.
    let finished: BTreeSet<&ShardId> = leases.iter().filter(|l| l.is_finished()).map(|lease| &lease.shard).collect();
    let follows = |shard: &&Shard| shard.parents().any(|parent| finished.contains(parent));
    let without_lease = all_shards.iter().filter(|shard| !walk.with_lease.contains(&shard.id));
    for shard in without_lease.filter(follows).collect::<Vec<_>>() {
        walk.visit(shard);
        if !awaits_parent_lease(shard.parents(), all_shards, leases) {
            walk.create.insert(&shard.id, Checkpoint::TrimHorizon);
        }
    }
    in_creation_order(stream, walk.create.iter().map(|(id, checkpoint)| (walk.shards[*id], *checkpoint)))
}

/// Ordered by where the shards begin, so that a crash in the middle leaves ancestors without descendants and never the
/// other way round.
fn in_creation_order<'a>(stream: Option<&str>, wanted: impl Iterator<Item = (&'a Shard, Checkpoint)>) -> Vec<Lease> {
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort_by_key(|(shard, _)| (shard.starting_sequence_number, &shard.id));
    wanted.into_iter().map(|(shard, checkpoint)| lease_for(stream, shard, checkpoint)).collect()
}

/// What the walk found out about a shard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It has a lease, or a line of ancestors leads to one.
    Covered,
    /// No line leads to a lease, and by the initial position its records are wanted.
    Wanted,
    /// No line leads to a lease, and its records lie before the initial position.
    Skipped,
}

struct Walk<'a> {
    shards: BTreeMap<&'a ShardId, &'a Shard>,
    with_lease: BTreeSet<&'a ShardId>,
    position: InitialPosition,
    verdicts: BTreeMap<&'a ShardId, Verdict>,
    create: BTreeMap<&'a ShardId, Checkpoint>,
}

impl<'a> Walk<'a> {
    /// Depth first, each shard once.
    fn visit(&mut self, shard: &'a Shard) -> Verdict {
        if let Some(verdict) = self.verdicts.get(&shard.id) {
            return *verdict;
        }
        // Against a listing that names a shard as its own ancestor: the second visit finds this.
        self.verdicts.insert(&shard.id, Verdict::Skipped);
        let verdict = if self.with_lease.contains(&shard.id) { Verdict::Covered } else { self.judge(shard) };
        self.verdicts.insert(&shard.id, verdict);
        verdict
    }

    fn judge(&mut self, shard: &'a Shard) -> Verdict {
        // Parents that the stream no longer lists have no records left.
        let parents: Vec<&'a Shard> = shard.parents().filter_map(|id| self.shards.get(id).copied()).collect();
        let verdicts: Vec<Verdict> = parents.iter().map(|parent| self.visit(parent)).collect();
        if verdicts.iter().all(|verdict| *verdict == Verdict::Skipped) {
            return match self.position {
                InitialPosition::Latest => Verdict::Skipped,
                InitialPosition::TrimHorizon | InitialPosition::AtTimestamp(_) => Verdict::Wanted,
            };
        }
        for (parent, verdict) in parents.into_iter().zip(verdicts) {
            let needed = verdict != Verdict::Covered && !self.with_lease.contains(&parent.id);
            if needed {
                self.create.entry(&parent.id).or_insert(self.position.checkpoint());
            }
        }
        Verdict::Covered
    }
}

/// Whether any of these parents of a shard, which has no lease itself, has no lease *yet*. Shards and leases are those of one stream.
///
/// The lease of a child may not be created before: a parent without a lease blocks nobody, so the child of a merge would be
/// read before a parent that nobody has begun. A finished parent keeps its lease until the child has one, and one that the stream no
/// longer lists has no records left; so a parent that is listed and has no lease is one that a sync or the end of its own parent will
/// give one. Whoever does, or finishes it, comes back to the child. (The KCL retries here until both parents have a lease.)
pub fn awaits_parent_lease<'a>(
    mut parents: impl Iterator<Item = &'a ShardId>,
    all_shards: &[Shard],
    leases: &[Lease],
) -> bool {
    parents.any(|id| {
        let is_listed = all_shards.iter().any(|shard| shard.id == *id);
        is_listed && !leases.iter().any(|lease| lease.shard == *id)
    })
}

/// The leases of the children that a shard of `stream` named at its end: from their beginning, since all before it is done.
pub fn child_leases(stream: Option<&str>, children: &[ChildShard]) -> Vec<Lease> {
    children
        .iter()
        .map(|child| {
            let mut lease = Lease::in_stream(stream, child.id.clone(), Checkpoint::TrimHorizon);
            lease.parents = child.parents.iter().cloned().collect();
            lease.hash_key_range = Some(child.hash_key_range);
            lease
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard(id: u64, parents: &[u64], open: bool) -> Shard {
        Shard {
            id: format!("{id}").into(),
            parent: parents.first().map(|id| format!("{id}").into()),
            adjacent_parent: parents.get(1).map(|id| format!("{id}").into()),
            hash_key_range: HashKeyRange::FULL,
            starting_sequence_number: (id * 10).into(),
            ending_sequence_number: (!open).then(|| (id * 10 + 9).into()),
        }
    }

    /// 0 and 1 merged into 6, 2 and 3 into 7, 6 and 7 into 8; 4 is open; 5 was split into 9 and 10.
    fn documented_example() -> Vec<Shard> {
        vec![
            shard(0, &[], false),
            shard(1, &[], false),
            shard(2, &[], false),
            shard(3, &[], false),
            shard(4, &[], true),
            shard(5, &[], false),
            shard(6, &[0, 1], false),
            shard(7, &[2, 3], false),
            shard(8, &[6, 7], true),
            shard(9, &[5], true),
            shard(10, &[5], true),
        ]
    }

    fn id(id: u64) -> ShardId {
        format!("{id}").into()
    }

    fn leases(ids: &[u64]) -> Vec<Lease> {
        ids.iter().map(|shard| Lease::new(id(*shard), Checkpoint::TrimHorizon)).collect()
    }

    fn created(leases: &[Lease]) -> Vec<(&str, Checkpoint)> {
        leases.iter().map(|lease| (lease.shard.as_str(), lease.checkpoint)).collect()
    }

    #[test]
    fn the_kcls_example_comes_out_the_same() {
        let (shards, present) = (documented_example(), leases(&[4, 5, 7]));
        let time = Timestamp::from_millis(1);
        for (position, expected) in [
            (InitialPosition::Latest, vec![("6", Checkpoint::Latest)]),
            (InitialPosition::TrimHorizon, vec![("0", Checkpoint::TrimHorizon), ("1", Checkpoint::TrimHorizon)]),
            (InitialPosition::AtTimestamp(time), vec![("0", Checkpoint::AtTimestamp), ("1", Checkpoint::AtTimestamp)]),
        ] {
            assert_eq!(created(&missing_leases(None, &shards, &present, position)), expected, "{position:?}");
        }
    }

    #[test]
    fn children_of_a_finished_shard_get_a_lease() {
        let mut present = leases(&[4, 5, 6, 7]);
        present[1].checkpoint = Checkpoint::ShardEnd;
        let new = missing_leases(None, &documented_example(), &present, InitialPosition::Latest);
        assert_eq!(created(&new), [("9", Checkpoint::TrimHorizon), ("10", Checkpoint::TrimHorizon)]);
    }

    #[test]
    fn a_merged_child_awaits_the_lease_of_each_parent() {
        // 1 was split into 2 and 3, and 0 and 2 were merged into 4.
        let shards = vec![
            shard(0, &[], false),
            shard(1, &[], false),
            shard(2, &[1], false),
            shard(3, &[1], true),
            shard(4, &[0, 2], true),
        ];
        let awaits = |present: &[Lease]| awaits_parent_lease(shards[4].parents(), &shards, present);
        let mut present = leases(&[0, 1]);
        present[0].checkpoint = Checkpoint::ShardEnd;
        assert!(awaits(&present), "1 will bring the lease of 2");
        assert!(missing_leases(None, &shards, &present, InitialPosition::TrimHorizon).is_empty());
        assert!(!awaits(&leases(&[0, 2])), "2 has its lease");
        assert!(awaits(&leases(&[0])), "a sync will create one that leads to 2");
        assert!(!awaits_parent_lease([0, 7].map(id).iter(), &shards, &leases(&[0])), "7 is no longer listed");
        present[1].checkpoint = Checkpoint::ShardEnd;
        let new = missing_leases(None, &shards, &present, InitialPosition::TrimHorizon);
        assert_eq!(created(&new), [("2", Checkpoint::TrimHorizon), ("3", Checkpoint::TrimHorizon)], "4 comes after 2");
    }

    /// Found by the simulator: writes were throttled when the leases were created, so one was missing; its shard was merged.
    #[test]
    fn a_parent_that_never_got_its_lease_comes_before_the_child() {
        let shards = [shard(0, &[], false), shard(1, &[], false), shard(2, &[0, 1], true)];
        let mut present = leases(&[0]);
        present[0].checkpoint = Checkpoint::ShardEnd;
        for (created_next, checkpoint) in [("1", Checkpoint::Latest), ("2", Checkpoint::TrimHorizon)] {
            let new = missing_leases(None, &shards, &present, InitialPosition::Latest);
            assert_eq!(created(&new), [(created_next, checkpoint)]);
            present.extend(new);
        }
    }

    #[test]
    fn a_new_lease_knows_its_parents_and_range() {
        let lease = &missing_leases(None, &documented_example(), &leases(&[4, 5, 7]), InitialPosition::Latest)[0];
        assert_eq!(lease.parents, ["0".into(), "1".into()].into());
        assert_eq!(lease.hash_key_range, Some(HashKeyRange::FULL));
    }

    #[test]
    fn leases_of_one_of_several_streams_name_it() {
        let stream = Some("1:flights:2");
        let shards = documented_example();
        let children = [ChildShard { id: "9".into(), parents: vec!["5".into()], hash_key_range: HashKeyRange::FULL }];
        let present: Vec<Lease> =
            [4, 5, 7].map(|id: u64| Lease::in_stream(stream, format!("{id}").into(), Checkpoint::TrimHorizon)).into();
        for leases in [
            first_leases(stream, &shards, InitialPosition::Latest),
            missing_leases(stream, &shards, &present, InitialPosition::TrimHorizon),
            child_leases(stream, &children),
        ] {
            assert!(!leases.is_empty());
            for lease in leases {
                assert_eq!(lease.stream.as_deref(), stream);
                assert_eq!(lease.key.as_str(), format!("1:flights:2:{}", lease.shard));
                assert_eq!(lease.key_of(&"5".into()).as_str(), "1:flights:2:5", "of a parent");
            }
        }
    }

    #[test]
    fn a_listing_with_a_cycle_ends() {
        let mut shards = vec![shard(0, &[1], true), shard(1, &[0], false)];
        shards[0].hash_key_range = HashKeyRange::FULL;
        assert!(!missing_leases(None, &shards, &[], InitialPosition::TrimHorizon).is_empty());
    }

    #[test]
    fn coverage_sees_holes_overlaps_and_the_ends() {
        let ranged = |ranges: &[(u128, u128)]| -> Vec<HashKeyRange> {
            ranges.iter().map(|(start, end)| HashKeyRange::new(*start, *end).expect("ordered")).collect()
        };
        let max = u128::MAX;
        assert!(cover_every_hash_key(ranged(&[(0, max)])));
        assert!(cover_every_hash_key(ranged(&[(6, max), (0, 5)])));
        assert!(cover_every_hash_key(ranged(&[(0, 9), (3, 5), (8, max)])));
        assert!(!cover_every_hash_key(ranged(&[(0, 5), (7, max)])));
        assert!(!cover_every_hash_key(ranged(&[(1, max)])));
        assert!(!cover_every_hash_key(ranged(&[(0, max - 1)])));
        assert!(!cover_every_hash_key([]));
    }

    /// A random history of splits and merges, as a listing.
    fn history() -> impl Strategy<Value = Vec<Shard>> {
        prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..12)
            .prop_map(|steps| {
                let mut shards = vec![shard(0, &[], true), shard(1, &[], true)];
                for (split, a, b) in steps {
                    let open: Vec<usize> = (0..shards.len()).filter(|i| shards[*i].is_open()).collect();
                    let (a, b) = (open[a.index(open.len())], open[b.index(open.len())]);
                    let next = shards.len() as u64;
                    let close = |shards: &mut Vec<Shard>, i: usize| {
                        shards[i].ending_sequence_number = Some((i as u64 * 10 + 9).into());
                    };
                    if split || a == b {
                        close(&mut shards, a);
                        shards.extend([shard(next, &[a as u64], true), shard(next + 1, &[a as u64], true)]);
                    } else {
                        close(&mut shards, a);
                        close(&mut shards, b);
                        shards.push(shard(next, &[a as u64, b as u64], true));
                    }
                }
                shards
            })
    }

    proptest! {
        /// After a sync every open shard has a lease, or a line of ancestors on which every shard is reached from a
        /// lease in the end; no child comes before a parent; and in the end a sync has nothing to do.
        #[test]
        fn nothing_is_missing_after_a_sync(
            shards in history(),
            keep in prop::collection::vec(any::<bool>(), 30),
            finished in prop::collection::vec(any::<bool>(), 30),
        ) {
            let mut present: Vec<Lease> = shards
                .iter()
                .zip(keep.iter().zip(&finished))
                .filter(|(_, (keep, _))| **keep)
                .map(|(shard, (_, finished))| {
                    let is_finished = *finished && !shard.is_open();
                    let checkpoint = if is_finished { Checkpoint::ShardEnd } else { Checkpoint::TrimHorizon };
                    Lease::new(shard.id.clone(), checkpoint)
                })
                .collect();
            for position in [InitialPosition::TrimHorizon, InitialPosition::Latest] {
                for syncs in 0.. {
                    prop_assert!(syncs <= shards.len(), "it comes to an end");
                    let new = missing_leases(None, &shards, &present, position);
                    if new.is_empty() {
                        break;
                    }
                    for lease in &new {
                        prop_assert!(!present.iter().any(|other| other.key == lease.key), "created twice");
                        let has_lease = |id: &ShardId| present.iter().any(|lease| lease.shard == *id);
                        let with_lease = lease.parents.iter().filter(|id| has_lease(id)).count();
                        prop_assert!([0, lease.parents.len()].contains(&with_lease), "a child before a parent");
                    }
                    present.extend(new);
                }
                let reachable = |id: &ShardId| {
                    let mut queue = vec![id.clone()];
                    while let Some(id) = queue.pop() {
                        if present.iter().any(|lease| lease.shard == id) {
                            return true;
                        }
                        queue.extend(shards.iter().find(|s| s.id == id).into_iter().flat_map(Shard::parents).cloned());
                    }
                    false
                };
                for open in shards.iter().filter(|shard| shard.is_open()) {
                    prop_assert!(reachable(&open.id), "{} has no lease in its line", open.id);
                }
            }
        }
    }
}
