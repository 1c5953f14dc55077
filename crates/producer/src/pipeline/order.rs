//! The order of a partition key: at most one record of unknown fate for each hash key.

use std::collections::BTreeMap;

use shardwell_core::aggregation::HashKeyRange;

use super::{Pipeline, Routing};

/// Of each record whose fate is not known, from the least to the greatest hash key of its members. Kept where the order is.
///
/// Each lane knows how many of them have hash keys of its own; after a reshard they may be another lane's, or several lanes'.
#[derive(Debug, Default)]
pub(super) struct Unresolved(BTreeMap<u64, HashKeyRange>);

impl Pipeline {
    /// A record is sent.
    pub(super) fn begin(&mut self, id: u64, hash_keys: HashKeyRange) {
        self.unresolved.0.insert(id, hash_keys);
        self.block(hash_keys);
    }

    /// The fate of a record is known.
    pub(super) fn resolve(&mut self, id: u64) {
        if let Some(hash_keys) = self.unresolved.0.remove(&id) {
            for lane in self.lanes_of(hash_keys) {
                self.lanes[lane].blockers -= 1;
            }
        }
    }

    /// The lanes are others now.
    pub(super) fn block_anew(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.blockers = 0);
        let unresolved: Vec<HashKeyRange> = self.unresolved.0.values().copied().collect();
        unresolved.into_iter().for_each(|hash_keys| self.block(hash_keys));
    }

    fn block(&mut self, hash_keys: HashKeyRange) {
        for lane in self.lanes_of(hash_keys) {
            self.lanes[lane].blockers += 1;
        }
    }

    fn lanes_of(&self, hash_keys: HashKeyRange) -> Vec<usize> {
        if let Routing::Shards(map) = &self.routing
            && let Some(lane) = map.find(hash_keys.start()).copied()
            && self.lanes[lane].range.contains(hash_keys.end())
        {
            return vec![lane];
        }
        let overlaps = |lane: &usize| self.lanes[*lane].range.overlaps(&hash_keys);
        (0..self.lanes.len()).filter(overlaps).collect()
    }
}
