//! The way of a user record, as a pure state machine: nothing here waits, sends or asks what time it is.
//!
//! ```text
//! add ──► lane of its shard ──► aggregated ──► queued ──► paced ──► collected ──► request
//!           (routing.rs)          (lane.rs)                (pace.rs)  (collect.rs)     │
//! ticket ◄── settled ◄── landed / failed ◄── verdict ◄──────────────────── answer ◄────┘
//!                                               │ to be tried again
//!                                               └──► back to the front of its lane, by the shards of that time
//! ```

mod collect;
mod lane;
mod order;
mod outer;
mod outstanding;
mod pace;
mod reroute;
mod routing;
mod settle;
mod verdict;

use std::time::Duration;

use shardwell_core::aggregation::effective_hash_key;
use shardwell_core::{Monotonic, PutEntry, ShardId};
use tokio::sync::oneshot;

use crate::budget::Permit;
use crate::failure::{PutFailure, PutFailureKind};
use crate::hot_keys::HotKeys;
use crate::settings::{Ordering, Settings};
use crate::ticket::{Attempts, Landed};

use lane::Lane;
use order::Unresolved;
use outer::Member;
use outstanding::Outstanding;
use routing::{KnownShards, Routing};
use settle::Misplaced;

pub(crate) use collect::Request;
pub(crate) use outer::{OuterRecord, bytes_of};
pub(crate) use outstanding::{Counts, Told};
pub(crate) use routing::Listing;
pub(crate) use settle::{Fate, Settled, WRONG_SHARD};
pub(crate) use verdict::{Verdict, verdicts, with_causes};

/// Everything that is under way to one stream.
#[derive(Debug)]
pub(crate) struct Pipeline {
    settings: Settings,
    routing: Routing,
    lanes: Vec<Lane>,
    known: KnownShards,
    outstanding: Outstanding,
    pub(crate) hot_keys: HotKeys,
    unresolved: Unresolved,
    next_id: u64,
    requests_in_flight: usize,
    /// Records that are in a shard that may not be theirs, until the shards are listed again.
    misplaced: Vec<Misplaced>,
    /// Records whose fate is decided, for whoever tells.
    settled: Vec<Settled>,
    /// Whether something suggests that the shards are not what they were.
    wants_listing: bool,
    /// Where collecting begins, so that every lane has its turn.
    first_lane: usize,
    /// How many records are queued, about: counted when they were last collected, and since.
    queued: usize,
    /// When the driver comes by itself.
    wake_at: Option<Monotonic>,
}

/// What is to be done now.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) requests: Vec<Request>,
    /// When to come again, if nothing happens before.
    pub(crate) wake_at: Option<Monotonic>,
    pub(crate) wants_listing: bool,
}

/// What goes to a shard.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ShardLoad {
    /// The shard; none where the producer does not know which shard records go to.
    pub shard: Option<ShardId>,
    /// Records for Kinesis that wait to be sent. Many of them: the shard is too slow for what is put.
    pub queued_records: usize,
    /// The share of the shard's limits that is used, from 0 to 1. Below 1 the shard has throttled lately: others write to it too, or its
    /// keys are hot.
    pub pace: f64,
}

impl Pipeline {
    pub(crate) fn new(settings: Settings) -> Self {
        let lanes = vec![Lane::of_stream(&settings)];
        Self {
            settings,
            routing: Routing::Awaited,
            lanes,
            known: KnownShards::default(),
            outstanding: Outstanding::default(),
            hot_keys: HotKeys::default(),
            unresolved: Unresolved::default(),
            next_id: 0,
            requests_in_flight: 0,
            misplaced: Vec::new(),
            settled: Vec::new(),
            wants_listing: true,
            first_lane: 0,
            queued: 0,
            wake_at: None,
        }
    }

    /// A user record joins. Gives whether that cannot wait until the driver comes by itself.
    pub(crate) fn add(
        &mut self,
        now: Monotonic,
        entry: PutEntry,
        hash_key: u128,
        permit: Permit,
        answer: oneshot::Sender<Result<Landed, PutFailure>>,
    ) -> bool {
        self.hot_keys.count(hash_key, &entry.partition_key, entry.data.len());
        let generation = self.outstanding.begin();
        let (is_explicit, attempts) = (entry.explicit_hash_key.is_some(), Attempts::default());
        let member = Member { answer, permit, hash_key, is_explicit, arrived: now, generation, attempts };
        let (due, soon) = (now.plus(self.settings.linger), now.plus(self.slack()));
        let lane = self.lane_of(hash_key);
        let Some(lane) = self.lanes.get_mut(lane) else { return true };
        let queued = lane.add(entry, member, due, soon);
        self.queued += queued;
        let due = if queued > 0 && lane.aggregates() { soon } else { due };
        self.queued >= self.settings.max_request_records || self.wake_at.is_none_or(|at| due < at)
    }

    /// The lane of a hash key. Where a listing was incomplete there may be none.
    fn lane_of(&self, hash_key: u128) -> usize {
        match &self.routing {
            Routing::Shards(map) => map.find(hash_key).copied().unwrap_or_default(),
            Routing::Awaited | Routing::Unknown | Routing::Automatic => 0,
        }
    }

    /// What is to be done now.
    pub(crate) fn poll(&mut self, now: Monotonic) -> Step {
        self.expire(now);
        let mut requests = Vec::new();
        if !matches!(self.routing, Routing::Awaited) {
            // Records that are due soon go with those that are due now, so that a request takes more of them.
            let is_time = self.lanes.iter().filter_map(Lane::due).any(|due| due <= now);
            let by = if is_time { now.plus(self.slack()) } else { now };
            self.lanes.iter_mut().for_each(|lane| lane.advance(now, by));
            while let Some(request) = self.collect(now, by) {
                requests.push(request);
            }
        }
        self.queued = self.lanes.iter().map(Lane::queued).sum();
        self.wake_at = self.next(now);
        Step { requests, wake_at: self.wake_at, wants_listing: self.wants_listing }
    }

    /// How soon is soon.
    fn slack(&self) -> Duration {
        self.settings.linger / 5
    }

    /// When something is to be done next, other than what an answer brings.
    fn next(&mut self, now: Monotonic) -> Option<Monotonic> {
        let may_send =
            self.requests_in_flight < self.settings.max_requests_in_flight && !matches!(self.routing, Routing::Awaited);
        let next = self.lanes.iter_mut().filter_map(|lane| lane.next(now, may_send && !lane.is_blocked())).min();
        let next = next.filter(|_| !matches!(self.routing, Routing::Awaited));
        // Always a little later, or the driver would not rest.
        let least = now.plus(Duration::from_millis(1));
        [next, self.next_expiry()].into_iter().flatten().min().map(|next| next.max(least))
    }

    /// Where the service spreads the records of a key over the shards there is no order to keep.
    fn keeps_order(&self) -> bool {
        self.wants_order() && !matches!(self.routing, Routing::Automatic)
    }

    /// Whether the caller wants the order of each key to be kept.
    pub(crate) fn wants_order(&self) -> bool {
        self.settings.ordering == Ordering::PerKey
    }

    fn next_expiry(&self) -> Option<Monotonic> {
        let ttl = self.settings.record_ttl?;
        let queued = self.lanes.iter().filter_map(Lane::oldest);
        let misplaced = self.misplaced.iter().filter_map(|misplaced| misplaced.record.unit.arrived());
        queued.chain(misplaced).min().map(|oldest| oldest.plus(ttl))
    }

    /// Gives up what is too old.
    fn expire(&mut self, now: Monotonic) {
        let Some(ttl) = self.settings.record_ttl.filter(|ttl| now.since_origin() >= *ttl) else { return };
        let oldest = now.minus(ttl);
        let over: Vec<OuterRecord> = self.lanes.iter_mut().flat_map(|lane| lane.expire(oldest)).collect();
        over.into_iter().for_each(|record| self.fail(record, PutFailureKind::Expired));
        self.expire_misplaced(oldest);
    }

    /// Everything is to be sent as soon as possible. What this gives is ready when all that was put before is settled.
    pub(crate) fn flush(&mut self, now: Monotonic) -> oneshot::Receiver<()> {
        self.lanes.iter_mut().for_each(|lane| lane.flush(now));
        self.outstanding.barrier()
    }

    /// Whether closed shards must be listed too: a record is in one that was closed before anybody saw it open.
    pub(crate) fn wants_closed_shards(&self) -> bool {
        self.misplaced.iter().any(|misplaced| self.known.range(misplaced.shard()).is_none())
    }

    /// The records whose fate was decided since this was asked last.
    pub(crate) fn take_settled(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.settled)
    }

    /// Whoever waits for these user records knows.
    pub(crate) fn told(&mut self, told: Told) {
        self.outstanding.told(told);
    }

    /// What happened since this was asked last.
    pub(crate) fn take_counts(&mut self) -> Counts {
        self.outstanding.take_counts()
    }

    /// Whether nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// What goes to each shard.
    pub(crate) fn loads(&self) -> Vec<ShardLoad> {
        let load = |lane: &Lane| {
            let (queued_records, pace) = lane.load();
            ShardLoad { shard: lane.shard.clone(), queued_records, pace }
        };
        self.lanes.iter().map(load).collect()
    }
}

/// Where a user record belongs.
pub(crate) fn hash_key_of(entry: &PutEntry) -> u128 {
    effective_hash_key(entry.partition_key.as_str(), entry.explicit_hash_key)
}
