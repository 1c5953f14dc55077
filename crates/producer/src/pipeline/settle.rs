//! What becomes of the records of a request that was answered.

use shardwell_core::aggregation::HashKeyRange;
use shardwell_core::{Monotonic, Placed, ShardId};

use super::collect::Sent;
use super::outer::OuterRecord;
use super::verdict::Verdict;
use super::{Pipeline, Request, Routing};
use crate::failure::PutFailureKind;
use crate::ticket::{AttemptError, AttemptErrorKind};

/// The code of an attempt that got a record into a wrong shard; the service has none for it.
pub(crate) const WRONG_SHARD: &str = "WrongShard";

/// A record whose fate is decided. Nobody was told yet.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) record: OuterRecord,
    pub(crate) fate: Fate,
}

/// What becomes of a record, with all its user records.
#[derive(Debug)]
pub(crate) enum Fate {
    Landed(Placed),
    Failed(PutFailureKind),
}

/// A record that is in a shard that may not be its.
#[derive(Debug)]
pub(super) struct Misplaced {
    id: u64,
    pub(super) record: OuterRecord,
    placed: Placed,
    expected: Option<ShardId>,
    sent: Monotonic,
    answered: Monotonic,
}

impl Misplaced {
    pub(super) const fn shard(&self) -> &ShardId {
        &self.placed.shard
    }
}

/// Where a record is that has landed.
enum Place {
    Right,
    Wrong,
    /// The shards must be listed to tell.
    Unclear,
}

impl Pipeline {
    /// A request was answered. `random` spreads the retries.
    pub(crate) fn settle(
        &mut self,
        now: Monotonic,
        request: Request,
        verdicts: Vec<Verdict>,
        mut random: impl FnMut() -> u64,
    ) {
        self.requests_in_flight = self.requests_in_flight.saturating_sub(1);
        let (is_alone, sent_at) = (request.records() == 1, request.sent);
        // Those that come back join the front of their lanes: the last one first, so that they keep their order.
        for (sent, verdict) in request.into_records().zip(verdicts).rev() {
            match verdict {
                Verdict::Landed(placed) => self.landed(now, sent_at, sent, placed),
                Verdict::Retry(error) => self.retry(now, sent_at, sent, error, random()),
                Verdict::Refused(kind, error) => self.refused(now, sent_at, sent, kind, error, is_alone),
            }
        }
    }

    fn landed(&mut self, now: Monotonic, sent_at: Monotonic, sent: Sent, placed: Placed) {
        let Sent { id, record, shard } = sent;
        if self.routing.is_by_shard() && self.known.range(&placed.shard).is_none() {
            self.wants_listing = true;
        }
        let landed = Misplaced { id, record, placed, expected: shard, sent: sent_at, answered: now };
        match self.place(&landed) {
            Place::Right => self.arrived(landed),
            Place::Wrong => self.write_again(now, landed),
            Place::Unclear => {
                self.wants_listing = true;
                self.misplaced.push(landed);
            }
        }
    }

    /// An aggregated record is accepted or written again as a whole: a consumer like the KCL drops it whole if one of its members does
    /// not belong to the shard.
    fn place(&self, landed: &Misplaced) -> Place {
        let is_free = !landed.record.unit.is_aggregated() || matches!(self.routing, Routing::Automatic);
        if is_free || landed.expected.as_ref() == Some(&landed.placed.shard) {
            return Place::Right;
        }
        let belongs = |range: HashKeyRange| landed.record.unit.belongs_to(range);
        match self.known.range(&landed.placed.shard).map(belongs) {
            Some(true) => Place::Right,
            // That the shard is not the expected one is explained: that one is closed.
            Some(false) if !self.lanes.iter().any(|lane| lane.shard == landed.expected) => Place::Wrong,
            Some(false) | None => Place::Unclear,
        }
    }

    fn arrived(&mut self, landed: Misplaced) {
        let Misplaced { id, mut record, placed, sent, answered, .. } = landed;
        self.resolve(id);
        record.unit.attempted(sent, answered, None);
        self.settled.push(Settled { record, fate: Fate::Landed(placed) });
    }

    fn write_again(&mut self, now: Monotonic, landed: Misplaced) {
        let record = self.misplaced_record(landed);
        self.try_again(now, record);
    }

    /// A record of which it is known that it is in a wrong shard, or taken to be.
    fn misplaced_record(&mut self, landed: Misplaced) -> OuterRecord {
        let Misplaced { id, mut record, placed, sent, answered, .. } = landed;
        self.resolve(id);
        record.unit.attempted(sent, answered, Some(wrong_shard(&placed)));
        self.outstanding.wrong_shard();
        record
    }

    /// The shards were listed anew, so it may be known where the misplaced ones are.
    pub(super) fn judge_misplaced(&mut self, now: Monotonic) {
        for landed in std::mem::take(&mut self.misplaced).into_iter().rev() {
            let is_known = self.known.range(&landed.placed.shard).is_some();
            match self.place(&landed) {
                Place::Right => self.arrived(landed),
                Place::Wrong => self.write_again(now, landed),
                // The listing is newer than the answer, so it is not for a split that it is where it is.
                Place::Unclear if is_known => self.write_again(now, landed),
                Place::Unclear => self.misplaced.insert(0, landed),
            }
        }
        self.wants_listing |= !self.misplaced.is_empty();
    }

    pub(super) fn expire_misplaced(&mut self, oldest: Monotonic) {
        let is_over = |landed: &Misplaced| landed.record.unit.arrived().is_some_and(|arrived| arrived <= oldest);
        let (over, left) = std::mem::take(&mut self.misplaced).into_iter().partition(is_over);
        self.misplaced = left;
        let over: Vec<Misplaced> = over;
        for landed in over {
            let record = self.misplaced_record(landed);
            self.fail(record, PutFailureKind::Expired);
        }
    }

    fn retry(&mut self, now: Monotonic, sent_at: Monotonic, sent: Sent, error: AttemptError, random: u64) {
        let Sent { id, mut record, shard } = sent;
        self.resolve(id);
        if error.kind == AttemptErrorKind::Throttled
            && let Some(pace) = self.lanes.iter_mut().find(|lane| lane.shard == shard).and_then(|lane| lane.pace_mut())
        {
            pace.throttled(now);
        }
        record.unit.attempted(sent_at, now, Some(error));
        let failures = u32::try_from(record.unit.attempts()).unwrap_or(u32::MAX);
        let Some(delay) = self.settings.retry.delay(failures, random) else {
            return self.fail(record, PutFailureKind::Expired);
        };
        record.unit.not_before = now.plus(delay);
        self.try_again(now, record);
    }

    fn refused(
        &mut self,
        now: Monotonic,
        sent_at: Monotonic,
        sent: Sent,
        kind: PutFailureKind,
        error: AttemptError,
        is_alone: bool,
    ) {
        let Sent { id, mut record, .. } = sent;
        self.resolve(id);
        record.unit.attempted(sent_at, now, Some(error));
        if kind == PutFailureKind::Invalid && !is_alone {
            // One of them is to blame; the others are not to suffer for it.
            record.unit.is_suspect = true;
            self.try_again(now, record);
        } else {
            self.fail(record, kind);
        }
    }

    /// Puts a record back, unless its time is over.
    fn try_again(&mut self, now: Monotonic, record: OuterRecord) {
        let is_over = |ttl| record.unit.arrived().is_some_and(|arrived| now.since(arrived) >= ttl);
        if self.settings.record_ttl.is_some_and(is_over) {
            self.fail(record, PutFailureKind::Expired);
        } else {
            self.put_back(now, record);
        }
    }

    /// A record is given up.
    pub(super) fn fail(&mut self, record: OuterRecord, kind: PutFailureKind) {
        self.settled.push(Settled { record, fate: Fate::Failed(kind) });
    }
}

fn wrong_shard(placed: &Placed) -> AttemptError {
    let message = format!("it landed in {}, which does not own all of its hash keys", placed.shard);
    AttemptError { kind: AttemptErrorKind::WrongShard, code: WRONG_SHARD.to_owned(), message }
}
