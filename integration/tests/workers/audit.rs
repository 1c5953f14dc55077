//! What must hold of the leases, proven from the history of the table and from what each process says that it wrote.
//!
//! # Why this proves that no worker checkpoints a lease that it has lost
//!
//! The history has every write to a lease, in the order in which they took effect (`audit.sql`). A renewal leaves a random
//! token in the row. Before a process sends one, it notes token, counter and checkpoint in a log of its own, so a token
//! leads to the process that wrote, and to the very line of its log. This module walks through the history of each lease
//! and asserts, of every write:
//!
//! 1. It goes on where the write before ended, so the walk misses nothing.
//! 2. It is lawful (`LeaseWrite::kind`): the counter rises by one with everything that renews or changes hands, and a
//!    checkpoint comes with a renewal alone, which changes no hands.
//! 3. If it is a renewal, its token leads to the process that *held the lease in the row just before*, and to a line that
//!    asks for this counter and this checkpoint.
//!
//! By 2 every checkpoint is a renewal's, and by 3 every renewal is the present holder's. So no earlier holder has written
//! one, whether it was slow, or asleep, or wrong about the time. The counter adds that a renewal of an earlier term of the
//! *same* worker is none either: it asks for a counter that the row never has again.
//!
//! 4. If it moves the checkpoint, the process had handled every record from the old one to the new one, in earlier lines of
//!    its log. So what is checkpointed is done, by the very holder who says so; and nothing is passed over.
//! 5. If a holder passes a lease on before it expires, all that it handled in this term is stored: the next one repeats
//!    nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use shardwell_core::{Checkpoint, ExtendedSequenceNumber, ShardId, WorkerId};
use shardwell_integration::{Event, EventKind};

use super::deliveries::{Ledger, Life};
use super::history::{LeaseWrite, Row, WriteKind};

/// What the history amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) renewals: usize,
    /// Of these, those that moved the checkpoint.
    pub(crate) checkpoints: usize,
    /// Requests to hand a lease over.
    pub(crate) handoffs: usize,
    /// Leases that their holder passed on by itself.
    pub(crate) passed_on: usize,
    /// Leases that somebody else took from their holder.
    pub(crate) taken: usize,
}

impl Ledger {
    /// All that holds for the leases of every run.
    pub(crate) fn assert_leases(&self) -> Tally {
        let audit = Audit::new(self);
        let mut tally = Tally::default();
        let mut terms: BTreeMap<&ShardId, Term<'_>> = BTreeMap::new();
        for (index, write) in self.history.iter().enumerate() {
            let term = terms.entry(&write.lease).or_default();
            audit.judge(term, write, &mut tally).unwrap_or_else(|why| panic!("write {index}, {write:#?}: {why}"));
        }
        for lease in &self.leases {
            assert!(terms.contains_key(&lease.shard), "{} has no history", lease.key);
        }
        tally
    }
}

/// A lease in the hands of one holder.
#[derive(Default)]
struct Term<'a> {
    /// The row after the newest write.
    row: Option<&'a Row>,
    /// The counter with which the term began.
    since: u64,
    /// Whether there was a row that is gone now.
    is_over: bool,
}

/// Where the records are, and what each process wrote down.
struct Audit<'a> {
    records: BTreeMap<&'a ShardId, BTreeMap<ExtendedSequenceNumber, u64>>,
    positions: BTreeMap<u64, ExtendedSequenceNumber>,
    testimonies: BTreeMap<&'a WorkerId, Testimony<'a>>,
    lease_duration: Duration,
}

/// A process's log, ready to be asked. Lines are counted from 0.
struct Testimony<'a> {
    /// What it did to each lease, by line.
    leases: BTreeMap<&'a ShardId, Vec<(usize, &'a Event)>>,
    /// In which line each record was handled first.
    handled: BTreeMap<u64, usize>,
}

impl<'a> Testimony<'a> {
    fn new(life: &'a Life) -> Self {
        let mut testimony = Self { leases: BTreeMap::new(), handled: BTreeMap::new() };
        for (line, event) in life.events.iter().enumerate() {
            if let EventKind::Record { number, .. } = &event.kind {
                testimony.handled.entry(*number).or_insert(line);
            }
            testimony.leases.entry(&event.shard).or_default().push((line, event));
        }
        testimony
    }

    fn find(&self, lease: &ShardId, is_it: impl Fn(&EventKind) -> bool) -> Option<(usize, &'a Event)> {
        self.of(lease).iter().find(|(_, event)| is_it(&event.kind)).copied()
    }

    fn of(&self, lease: &ShardId) -> &[(usize, &'a Event)] {
        self.leases.get(lease).map_or(&[], Vec::as_slice)
    }

    /// The line in which it says that it is about to make this renewal.
    fn renewal(&self, lease: &ShardId, before: &Row, after: &Row) -> Option<usize> {
        let is_it = |kind: &EventKind| match kind {
            EventKind::Renewing { counter, token, checkpoint } => {
                (*counter, Some(*token)) == (before.counter, after.token)
                    && checkpoint.unwrap_or(before.checkpoint) == after.checkpoint
            }
            _ => false,
        };
        self.find(lease, is_it).map(|(line, _)| line)
    }

    /// The line in which it says that it is about to give this lease to somebody else or to nobody, while it holds it.
    fn passing(&self, lease: &ShardId, before: &Row, after: &Row, duration: Duration) -> Option<usize> {
        // Who takes a lease away during a handoff leaves it to the worker that was to have it.
        let left_to = before.checkpoint_owner.as_ref().and(before.owner.as_ref());
        let is_it = |kind: &EventKind| match kind {
            EventKind::Passing { counter: Some(counter), to } => {
                *counter == before.counter && to.as_ref().or(left_to) == after.owner.as_ref()
            }
            _ => false,
        };
        let is_last = |kind: &EventKind| match kind {
            EventKind::Renewing { token, .. } => Some(*token) == before.token,
            _ => false,
        };
        let (line, passing) = self.find(lease, is_it)?;
        // If it leads the fleet, it may as well have given away what it had let expire.
        let has_expired =
            self.find(lease, is_last).is_some_and(|(_, renewal)| passing.at.since(renewal.at) >= duration);
        (!has_expired).then_some(line)
    }

    /// The records that it handled before a line, since it first renewed the lease with this counter or a higher one, and
    /// since it last let go of the lease because it could not renew it in time: from then on it began anew.
    fn handled_in_term(&self, lease: &ShardId, since: u64, before: usize) -> impl Iterator<Item = u64> {
        let is_first = |event: &Event| matches!(event.kind, EventKind::Renewing { counter, .. } if counter >= since);
        let lines = self.of(lease);
        let lines = &lines[..lines.partition_point(|(line, _)| *line < before)];
        let begin = lines.iter().position(|(_, event)| is_first(event)).unwrap_or(lines.len());
        let lost = lines.iter().rposition(|(_, event)| event.kind == EventKind::LeaseLost).unwrap_or(0);
        lines[begin.max(lost)..].iter().filter_map(|(_, event)| match event.kind {
            EventKind::Record { number, .. } => Some(number),
            _ => None,
        })
    }
}

impl<'a> Audit<'a> {
    fn new(ledger: &'a Ledger) -> Self {
        let mut records: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for put in &ledger.puts {
            records.entry(&put.shard).or_default().insert(put.position, put.number);
        }
        let positions = ledger.puts.iter().map(|put| (put.number, put.position)).collect();
        let testimonies = ledger.lives.iter().map(|life| (&life.worker, Testimony::new(life))).collect();
        Self { records, positions, testimonies, lease_duration: ledger.lease_duration }
    }

    /// Judges one write, and takes the term on to after it.
    fn judge<'w>(&self, term: &mut Term<'w>, write: &'w LeaseWrite, tally: &mut Tally) -> Result<(), String> {
        if write.before.as_ref() != term.row {
            return Err(format!("the write before left {:#?}", term.row));
        }
        if term.is_over {
            return Err("a lease that was removed came back".into());
        }
        match (write.kind()?, &write.before, &write.after) {
            (WriteKind::Renewed, Some(before), Some(after)) => {
                self.judge_renewal(&write.lease, before, after)?;
                tally.renewals += 1;
                tally.checkpoints += usize::from(before.checkpoint != after.checkpoint);
            }
            (WriteKind::Passed, Some(before), Some(after)) => {
                let by_holder = self.judge_passing(&write.lease, term.since, before, after)?;
                tally.passed_on += usize::from(by_holder);
                tally.taken += usize::from(!by_holder && before.holder().is_some());
                term.since = after.counter;
            }
            (WriteKind::HandoffStarted, ..) => tally.handoffs += 1,
            (WriteKind::Removed, ..) => term.is_over = true,
            _ => {}
        }
        term.row = write.after.as_ref();
        Ok(())
    }

    /// Rules 3 and 4.
    fn judge_renewal(&self, lease: &ShardId, before: &Row, after: &Row) -> Result<(), String> {
        let holder = before.holder().ok_or("nobody holds what was renewed")?;
        let testimony = self.testimonies.get(holder).ok_or("nobody is called so")?;
        let Some(line) = testimony.renewal(lease, before, after) else {
            let writers = self.testimonies.iter().filter(|(_, other)| other.renewal(lease, before, after).is_some());
            let writers: Vec<_> = writers.map(|(worker, _)| worker).collect();
            return Err(format!("{holder} held the lease and did not write this; it was written by {writers:?}"));
        };
        let is_handled = |number: &u64| testimony.handled.get(number).is_some_and(|handled| *handled < line);
        let skipped: BTreeSet<u64> =
            self.between(lease, before.checkpoint, after.checkpoint).filter(|number| !is_handled(number)).collect();
        match skipped.is_empty() {
            true => Ok(()),
            false => Err(format!("{holder} had not handled {skipped:?} when it wrote that they are done")),
        }
    }

    /// Rule 5. Answers whether it was the holder who passed the lease on.
    fn judge_passing(&self, lease: &ShardId, since: u64, before: &Row, after: &Row) -> Result<bool, String> {
        let Some(testimony) = before.holder().and_then(|holder| self.testimonies.get(holder)) else { return Ok(false) };
        let Some(line) = testimony.passing(lease, before, after, self.lease_duration) else { return Ok(false) };
        let is_stored = |number: &u64| Checkpoint::At(self.positions[number]) <= before.checkpoint;
        let handled = testimony.handled_in_term(lease, since, line);
        let repeated: Vec<u64> = handled.filter(|number| !is_stored(number)).collect();
        match repeated.is_empty() {
            true => Ok(true),
            false => Err(format!("it was passed on without a checkpoint of {repeated:?}, which were handled")),
        }
    }

    /// The records after a checkpoint, up to and including another one that is not before it.
    fn between(&self, shard: &ShardId, from: Checkpoint, to: Checkpoint) -> impl Iterator<Item = u64> {
        let bounds = match (from.position(), to.position()) {
            _ if from == to || from.is_shard_end() => None,
            (from, Some(to)) => Some((from.map_or(Bound::Unbounded, Bound::Excluded), Bound::Included(to))),
            (from, None) if to.is_shard_end() => {
                Some((from.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
            }
            (_, None) => None,
        };
        let records = self.records.get(shard).zip(bounds);
        records.into_iter().flat_map(|(records, bounds)| records.range(bounds)).map(|(_, number)| *number)
    }
}

#[cfg(test)]
mod tests {
    use shardwell_core::{Timestamp, WriteToken};

    use super::*;
    use crate::flights::producer::Put;
    use crate::workers::member::End;

    const LEASE: &str = "shard";
    const A: Option<&str> = Some("a");
    const B: Option<&str> = Some("b");

    fn position(number: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new((number + 50).into(), 0)
    }

    fn row(owner: Option<&str>, checkpoint_owner: Option<&str>, counter: u64, done: Option<u64>, token: u64) -> Row {
        Row {
            owner: owner.map(Into::into),
            checkpoint_owner: checkpoint_owner.map(Into::into),
            counter,
            checkpoint: done.map_or(Checkpoint::TrimHorizon, |number| Checkpoint::At(position(number))),
            token: (token > 0).then(|| WriteToken::new(token)),
        }
    }

    fn event(kind: EventKind) -> Event {
        Event { at: Timestamp::from_millis(0), shard: LEASE.into(), kind }
    }

    fn record(number: u64) -> Event {
        let sequence_number = position(number).sequence_number;
        event(EventKind::Record { sequence_number, number, key: "key".into() })
    }

    fn renewing(counter: u64, token: u64, done: Option<u64>) -> Event {
        let checkpoint = done.map(|number| Checkpoint::At(position(number)));
        event(EventKind::Renewing { counter, token: WriteToken::new(token), checkpoint })
    }

    fn life(worker: &str, events: Vec<Event>) -> Life {
        Life { worker: worker.into(), events, end: End::Stopped, took: Duration::ZERO }
    }

    /// A lease of two records in the hands of worker a, which does the first and hands over to b, which does the second.
    fn run() -> Ledger {
        let rows = [
            row(None, None, 0, None, 0),
            row(A, None, 1, None, 0),
            row(A, None, 2, None, 1),
            row(A, None, 3, Some(0), 2),
            row(B, A, 3, Some(0), 2),
            row(B, A, 4, Some(0), 3),
            row(B, None, 5, Some(0), 0),
            row(B, None, 6, Some(0), 4),
            row(B, None, 7, Some(1), 5),
        ];
        let passing = event(EventKind::Passing { counter: Some(4), to: B.map(Into::into) });
        let a = vec![renewing(1, 1, None), record(0), renewing(2, 2, Some(0)), renewing(3, 3, None), passing];
        let b = vec![renewing(5, 4, None), record(1), renewing(6, 5, Some(1))];
        let before = std::iter::once(None).chain(rows.iter().cloned().map(Some));
        let write = |(before, after): (Option<Row>, &Row)| LeaseWrite {
            lease: LEASE.into(),
            before,
            after: Some(after.clone()),
        };
        Ledger {
            flights: Vec::new().into(),
            puts: (0..2).map(|number| Put { number, shard: LEASE.into(), position: position(number) }).collect(),
            reshards: 0,
            settled_within: Duration::ZERO,
            shards: Vec::new(),
            lives: vec![life("a", a), life("b", b)],
            history: before.zip(&rows).map(write).collect(),
            leases: Vec::new(),
            lease_duration: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_good_run_is_judged_good() {
        let tally = run().assert_leases();
        assert_eq!(tally, Tally { renewals: 5, checkpoints: 2, handoffs: 1, passed_on: 1, taken: 0 });
    }

    #[test]
    #[should_panic(expected = "b held the lease and did not write this; it was written by [\"a\"]")]
    fn a_checkpoint_by_a_fenced_worker_is_found() {
        let mut ledger = run();
        let line = ledger.lives[1].events.pop().expect("the last renewal");
        ledger.lives[0].events.extend([record(1), line]);
        ledger.assert_leases();
    }

    #[test]
    #[should_panic(expected = "b had not handled {1} when it wrote that they are done")]
    fn a_checkpoint_beyond_what_is_done_is_found() {
        let mut ledger = run();
        ledger.lives[1].events.swap(1, 2);
        ledger.assert_leases();
    }

    #[test]
    #[should_panic(expected = "without a checkpoint of [1]")]
    fn a_lease_that_is_passed_on_with_something_unstored_is_found() {
        let mut ledger = run();
        ledger.lives[0].events.insert(4, record(1));
        ledger.assert_leases();
    }

    #[test]
    #[should_panic(expected = "the checkpoint went back")]
    fn a_checkpoint_that_goes_back_is_found() {
        let mut ledger = run();
        let back = row(B, None, 7, Some(0), 5);
        let before = ledger.history[8].after.clone();
        ledger.history.push(LeaseWrite { lease: LEASE.into(), before, after: Some(back) });
        ledger.assert_leases();
    }

    #[test]
    #[should_panic(expected = "the write before left")]
    fn a_write_that_is_missing_in_the_history_is_found() {
        let mut ledger = run();
        ledger.history.remove(5);
        ledger.assert_leases();
    }
}
