//! To other lanes: after a reshard, or when it becomes known where records go.

use std::collections::BTreeMap;

use shardwell_core::aggregation::{HashKeyRange, ShardMap};
use shardwell_core::{Monotonic, ShardId};

use super::lane::Lane;
use super::outer::OuterRecord;
use super::{Listing, Pipeline, Routing};

impl Pipeline {
    /// The shards were listed. What waits goes to where it belongs now, in its order.
    pub(crate) fn install(&mut self, now: Monotonic, listing: Listing) {
        self.wants_listing = false;
        match listing {
            Listing::Shards { open, closed } => {
                self.known.learn(&closed);
                self.install_shards(now, &open);
            }
            Listing::Automatic => self.install_single(now, Routing::Automatic),
            // Old shards are better than none.
            Listing::Unknown if self.routing.is_by_shard() => {}
            Listing::Unknown => self.install_single(now, Routing::Unknown),
        }
        self.block_anew();
        self.judge_misplaced(now);
    }

    fn install_shards(&mut self, now: Monotonic, shards: &[(HashKeyRange, ShardId)]) {
        let indexes = shards.iter().map(|(range, _)| *range).zip(0..);
        let Ok(map) = ShardMap::new(indexes) else { return };
        self.known.learn(shards);
        let mut old: BTreeMap<ShardId, Lane> = BTreeMap::new();
        let mut rest = Vec::new();
        for lane in std::mem::take(&mut self.lanes) {
            match lane.shard.clone() {
                Some(shard) => drop(old.insert(shard, lane)),
                None => rest.push(lane),
            }
        }
        let lane = |(range, shard): &(HashKeyRange, ShardId)| {
            old.remove(shard).unwrap_or_else(|| Lane::of_shard(shard.clone(), *range, &self.settings, now))
        };
        self.lanes = shards.iter().map(lane).collect();
        self.routing = Routing::Shards(map);
        rest.extend(old.into_values());
        self.move_all(now, rest);
    }

    /// All goes one way.
    fn install_single(&mut self, now: Monotonic, routing: Routing) {
        let lane = Lane::of_stream(&self.settings);
        let is_single = matches!(&self.lanes[..], [only] if only.shard.is_none());
        self.routing = routing;
        if !is_single {
            let old = std::mem::replace(&mut self.lanes, vec![lane]);
            self.move_all(now, old);
        }
    }

    /// What is in old lanes goes to the end of the present ones.
    fn move_all(&mut self, now: Monotonic, old: Vec<Lane>) {
        for record in old.into_iter().flat_map(|mut lane| lane.drain(now)) {
            if let Some(lane) = self.whole(&record) {
                self.lanes[lane].push(record);
                continue;
            }
            let due = record.unit.due;
            for (entry, member) in record.into_user_records() {
                let lane = self.lane_of(member.hash_key);
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.add(entry, member, due, due);
                }
            }
        }
    }

    /// A record comes back to the front of its lane; in parts, if its members belong to several now.
    pub(super) fn put_back(&mut self, now: Monotonic, record: OuterRecord) {
        if let Some(lane) = self.whole(&record) {
            let keeps_order = self.keeps_order();
            self.lanes[lane].retry(record, keeps_order);
            return;
        }
        let not_before = record.unit.not_before;
        let mut parts: BTreeMap<usize, Lane> = BTreeMap::new();
        for (entry, member) in record.into_user_records() {
            let lane = self.lane_of(member.hash_key);
            let part = parts.entry(lane).or_insert_with(|| self.lanes[lane].like());
            part.add(entry, member, now, now);
        }
        for (lane, mut part) in parts {
            let mut records = part.drain(now);
            records.iter_mut().for_each(|record| record.unit.not_before = not_before);
            self.lanes[lane].put_back(records);
        }
    }

    /// The lane that a record may go to as it is.
    fn whole(&self, record: &OuterRecord) -> Option<usize> {
        let lane = self.lane_of(record.unit.hash_keys()?.start());
        let takes = self.lanes.get(lane)?;
        // What nobody has tried yet can still be aggregated.
        let could_join = takes.aggregates() && !record.unit.is_aggregated() && record.unit.attempts() == 0;
        let must_part = matches!(self.routing, Routing::Automatic) && record.unit.is_aggregated();
        (record.unit.belongs_to(takes.range) && !could_join && !must_part).then_some(lane)
    }
}
