//! From the lanes into requests.

use shardwell_core::{Monotonic, PutEntry, ShardId};

use super::outer::{OuterRecord, Unit, bytes_of};
use super::{Pipeline, Routing};

/// A set of records that go out together.
#[derive(Debug)]
pub(crate) struct Request {
    /// What is put, side by side as the stream takes it.
    entries: Vec<PutEntry>,
    /// What is known of each.
    units: Vec<SentUnit>,
    pub(crate) sent: Monotonic,
}

#[derive(Debug)]
struct SentUnit {
    id: u64,
    unit: Box<Unit>,
    shard: Option<ShardId>,
}

/// A record in a request.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) record: OuterRecord,
    /// Where it is expected to land.
    pub(super) shard: Option<ShardId>,
}

impl Request {
    /// What is to be put.
    pub(crate) fn entries(&self) -> &[PutEntry] {
        &self.entries
    }

    pub(super) fn into_records(self) -> impl DoubleEndedIterator<Item = Sent> + ExactSizeIterator {
        let sent = |(entry, SentUnit { id, unit, shard })| Sent { id, record: OuterRecord { entry, unit }, shard };
        self.entries.into_iter().zip(self.units).map(sent)
    }

    /// What is known of each record, its bytes, and the shard that it is expected to land in.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Unit, usize, Option<&ShardId>)> {
        let sent = self.entries.iter().zip(&self.units);
        sent.map(|(entry, sent)| (&*sent.unit, bytes_of(entry), sent.shard.as_ref()))
    }

    fn push(&mut self, Sent { id, record, shard }: Sent) {
        self.entries.push(record.entry);
        self.units.push(SentUnit { id, unit: record.unit, shard });
    }

    /// How many records it holds.
    pub(crate) const fn records(&self) -> usize {
        self.entries.len()
    }
}

impl Pipeline {
    /// The next request, if one is to be sent now: something is due by a time, or there is enough for a full one.
    pub(super) fn collect(&mut self, now: Monotonic, by: Monotonic) -> Option<Request> {
        if self.requests_in_flight >= self.settings.max_requests_in_flight || !self.is_time(now, by) {
            return None;
        }
        let mut request = Request { entries: Vec::new(), units: Vec::new(), sent: now };
        let mut bytes = 0;
        let first = self.first_lane;
        self.first_lane = (first + 1) % self.lanes.len().max(1);
        // A record of each lane in turn, so that no lane takes all the room.
        let mut lanes: Vec<usize> = (first..self.lanes.len()).chain(0..first.min(self.lanes.len())).collect();
        while !lanes.is_empty() && request.has_room(self.settings.max_request_records) {
            let before = request.records();
            lanes.retain(|lane| {
                request.has_room(self.settings.max_request_records) && self.take(now, *lane, &mut request, &mut bytes)
            });
            if request.records() == before {
                break;
            }
        }
        let is_empty = request.records() == 0;
        self.requests_in_flight += usize::from(!is_empty);
        (!is_empty).then_some(request)
    }

    fn is_time(&mut self, now: Monotonic, by: Monotonic) -> bool {
        let (mut records, mut bytes) = (0, 0);
        for lane in 0..self.lanes.len() {
            let Some(front) = self.lanes[lane].sendable(now) else { continue };
            if front.unit.due <= by {
                return true;
            }
            records += self.lanes[lane].queued();
            bytes += self.lanes[lane].queued_bytes(self.settings.max_request_bytes);
        }
        records >= self.settings.max_request_records || bytes >= self.settings.max_request_bytes
    }

    /// Takes a record of a lane into a request. Gives whether the lane may have more for it.
    fn take(&mut self, now: Monotonic, lane: usize, request: &mut Request, bytes: &mut usize) -> bool {
        let keeps_order = self.keeps_order();
        let lane = &mut self.lanes[lane];
        let room = self.settings.max_request_bytes.saturating_sub(*bytes);
        let may_join =
            |record: &OuterRecord| record.bytes() <= room && (!record.unit.is_suspect || request.records() == 0);
        if !lane.sendable(now).is_some_and(may_join) {
            return false;
        }
        let Some(record) = lane.take() else { return false };
        *bytes += record.bytes();
        let id = self.next_id;
        self.next_id += 1;
        let (shard, hash_keys) = (lane.shard.clone(), keeps_order.then(|| record.unit.hash_keys()).flatten());
        request.push(Sent { id, record, shard });
        if let Some(hash_keys) = hash_keys {
            self.begin(id, hash_keys);
        }
        !keeps_order
    }
}

impl Request {
    fn has_room(&self, max_records: usize) -> bool {
        self.records() < max_records && !self.units.first().is_some_and(|sent| sent.unit.is_suspect)
    }
}

impl Routing {
    /// Whether a lane is the lane of a shard.
    pub(super) const fn is_by_shard(&self) -> bool {
        matches!(self, Self::Shards(_))
    }
}
