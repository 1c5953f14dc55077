//! Who holds a lease, and what may be written to it: L1, L2, P2, P10.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardwell_core::{Checkpoint, ExtendedSequenceNumber, Lease, LeaseKey, Monotonic};

use super::records::Short;
use crate::fleet::tally::Invariant;
use crate::fleet::weather::ProcessId;
use crate::fleet::world::{Life, State};

/// A process that has not renewed a lease for longer has stopped working on it, or will before anybody else begins.
const TRUSTED: Duration = Duration::from_millis(8500);

/// A number for each time that a process took a lease up.
pub(crate) type TermId = usize;

/// A write to a lease's row that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Renewal { with_checkpoint: bool },
    Assignment,
    Eviction,
    HandoffStart,
}

/// All leases.
#[derive(Debug, Default)]
pub(crate) struct LeaseChecks {
    leases: BTreeMap<LeaseKey, LeaseTruth>,
    pub(crate) terms: Vec<Term>,
    /// What processes have looked up of their own leases and not written since.
    looked_up: BTreeSet<(ProcessId, LeaseKey)>,
}

/// What is known of a lease beside its row.
#[derive(Debug, Default)]
pub(crate) struct LeaseTruth {
    /// The process that took it up last, if nobody was given it since.
    holder: Option<TermId>,
    /// Whether somebody wrote a checkpoint who knows nothing of ours.
    pub(crate) had_foreign_checkpoint: bool,
}

/// The time of a lease with one process.
#[derive(Debug)]
pub(crate) struct Term {
    pub(crate) key: LeaseKey,
    pub(crate) process: ProcessId,
    /// The checkpoint that it began with.
    pub(crate) began_behind: Checkpoint,
    /// When it was last renewed.
    renewed: Monotonic,
    /// Since when the process is asked to hand it over.
    drain_since: Option<Monotonic>,
    pub(crate) end: Option<TermEnd>,
}

/// How a term ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TermEnd {
    pub(crate) at: Monotonic,
    /// Whether its process handed it over.
    pub(crate) in_order: bool,
    /// Whether it took until the deadline, so that batches may have been cut off.
    pub(crate) at_deadline: bool,
}

impl LeaseChecks {
    /// The term in which a process holds a lease.
    pub(crate) fn term_of(&self, key: &LeaseKey, process: ProcessId) -> Option<TermId> {
        let term = self.leases.get(key)?.holder?;
        (self.terms[term].process == process).then_some(term)
    }

    /// The process that holds a lease.
    pub(crate) fn holder(&self, key: &LeaseKey) -> Option<ProcessId> {
        Some(self.terms[self.leases.get(key)?.holder?].process)
    }

    /// Since when the holder of a lease is asked to hand it over.
    pub(crate) fn drain_since(&self, key: &LeaseKey) -> Option<Monotonic> {
        self.terms[self.leases.get(key)?.holder?].drain_since
    }

    pub(crate) fn lease(&mut self, key: &LeaseKey) -> &mut LeaseTruth {
        self.leases.entry(key.clone()).or_default()
    }

    /// A process is to hand over whatever it holds.
    pub(crate) fn drains(&mut self, process: ProcessId, now: Monotonic) {
        let held = self.leases.values().filter_map(|lease| lease.holder);
        for term in held.collect::<Vec<_>>() {
            if self.terms[term].process == process {
                self.terms[term].drain_since.get_or_insert(now);
            }
        }
    }
}

impl State {
    /// A process wrote to a row.
    pub(crate) fn wrote(&mut self, process: ProcessId, write: Write, before: &Lease, after: &Lease) {
        self.time_of_write(process, write, before, after);
        if self.is_logged() {
            self.log_of(process, format_args!("{write:?} {}", show(after)));
        }
        match write {
            Write::Renewal { with_checkpoint } => self.renewed(process, with_checkpoint, before, after),
            Write::Assignment | Write::Eviction => self.given(process, write, before),
            Write::HandoffStart => {
                if let Some(term) = self.leases.lease(&before.key).holder {
                    self.leases.terms[term].drain_since.get_or_insert(self.now);
                }
            }
        }
        self.checkpointed(before, after);
        self.trap(process, write, before, after);
    }

    fn renewed(&mut self, process: ProcessId, with_checkpoint: bool, before: &Lease, after: &Lease) {
        self.tally.exercise(Invariant::L1);
        let id = &self.processes[process].id;
        if before.actual_owner() != Some(id) {
            let what = format!("{} wrote to {}, which is not its own", self.name(process), show(before));
            return self.violated(Invariant::L1, what);
        }
        let looked_up = self.leases.looked_up.remove(&(process, before.key.clone()));
        let taken_up = looked_up && !with_checkpoint;
        if let Some(term) = self.leases.term_of(&before.key, process).filter(|_| !taken_up) {
            self.leases.terms[term].renewed = self.now;
            return;
        }
        if with_checkpoint {
            let what =
                format!("{} stored a checkpoint of {}, which it did not take up", self.name(process), show(before));
            return self.violated(Invariant::L1, what);
        }
        self.begin_term(process, after);
    }

    fn begin_term(&mut self, process: ProcessId, row: &Lease) {
        self.end_term(&row.key, false);
        let term = self.leases.terms.len();
        self.leases.terms.push(Term {
            key: row.key.clone(),
            process,
            began_behind: row.checkpoint,
            renewed: self.now,
            drain_since: (row.handoff_requested() || self.processes[process].stopping).then_some(self.now),
            end: None,
        });
        self.leases.lease(&row.key).holder = Some(term);
    }

    /// A process looks a lease up. If it is its own, and the next write takes it up, then it had lost it to time, and found that
    /// nobody else had taken it. (Whoever looks for the parents of a shard does so too, and then this errs on the safe side.)
    pub(crate) fn looked_up(&mut self, process: ProcessId, row: &Lease) {
        if row.actual_owner() == Some(&self.processes[process].id) {
            self.leases.looked_up.insert((process, row.key.clone()));
        }
    }

    fn given(&mut self, process: ProcessId, write: Write, before: &Lease) {
        let holder = self.leases.holder(&before.key);
        let in_order = self.is_handed_over(process, write, &before.key);
        match holder {
            Some(_) if in_order => self.tally.planned_moves += 1,
            Some(holder) => {
                self.tally.forced_moves += 1;
                if holder != process {
                    self.check_taken(process, holder, before);
                }
            }
            None => {}
        }
        self.end_term(&before.key, in_order);
    }

    /// L6: whoever renews a lease keeps it, unless it takes too long to hand it over.
    fn check_taken(&mut self, process: ProcessId, holder: ProcessId, before: &Lease) {
        let Some(term) = self.leases.term_of(&before.key, holder).map(|term| &self.leases.terms[term]) else { return };
        let renews = self.processes[holder].state == Life::Running && self.now.since(term.renewed) < TRUSTED;
        let overdue = term.drain_since.is_some_and(|since| self.now.since(since) > self.scenario.handoff_deadline);
        self.tally.exercise(Invariant::L6);
        // A finished lease is nobody's any more: the next process of an id gives it back while the one before it stops.
        if renews && !overdue && !before.is_finished() && before.actual_owner() == Some(&self.processes[holder].id) {
            let what = format!("{} takes a lease from one who renews it: {}", self.name(process), show(before));
            self.violated(Invariant::L6, what);
        }
    }

    /// Whether a process has handed a lease over, and not got it back.
    pub(super) fn has_handed_over(&self, key: &LeaseKey, process: ProcessId) -> bool {
        let last = self.leases.terms.iter().rev().find(|term| term.key == *key && term.process == process);
        last.and_then(|term| term.end).is_some_and(|end| end.in_order)
    }

    /// Whether a write of a process gives away what it holds itself, as it was asked to. A leader also gives away what it has
    /// lost to time, and so does a worker that finds out that such a lease is its own still and has no use for it.
    pub(super) fn is_handed_over(&self, process: ProcessId, write: Write, key: &LeaseKey) -> bool {
        let term = self.leases.term_of(key, process).map(|term| &self.leases.terms[term]);
        let is_asked = |term: &Term| term.drain_since.is_some() || write == Write::Eviction;
        let looked_up = self.leases.looked_up.contains(&(process, key.clone()));
        !looked_up && term.is_some_and(|term| is_asked(term) && self.now.since(term.renewed) < TRUSTED)
    }

    fn end_term(&mut self, key: &LeaseKey, in_order: bool) {
        let Some(term) = self.leases.lease(key).holder.take() else { return };
        let deadline = self.scenario.handoff_deadline.mul_f64(0.8);
        let term = &mut self.leases.terms[term];
        let at_deadline = term.drain_since.is_some_and(|since| self.now.since(since) > deadline);
        term.end = Some(TermEnd { at: self.now, in_order, at_deadline });
    }

    /// L2 and P2, whoever wrote.
    fn checkpointed(&mut self, before: &Lease, after: &Lease) {
        if before.checkpoint == after.checkpoint {
            return;
        }
        self.tally.exercise(Invariant::L2);
        if after.checkpoint < before.checkpoint {
            let what = format!("from {} to {}", show(before), show(after));
            self.violated(Invariant::L2, what);
        }
        self.tally.exercise(Invariant::P2);
        self.tally.exercise(Invariant::P1);
        let unsettled = match after.checkpoint {
            Checkpoint::ShardEnd => self.truth.unsettled_up_to(&after.key, None),
            checkpoint => match checkpoint.position() {
                Some(position) => self.truth.unsettled_up_to(&after.key, Some(position)),
                None => None,
            },
        };
        if let Some(number) = unsettled {
            let what = format!("record {number} is neither done nor dead, and lies before {}", show(after));
            self.violated(Invariant::P2, what);
        }
    }

    /// Somebody who is not one of us takes a lease.
    pub(crate) fn foreign_takes(&mut self, lease: &Lease) {
        self.end_term(&lease.key, false);
        self.forget_service(&lease.key);
    }

    /// Somebody who is not one of us is done with the next records of a shard. Gives the position of the last.
    pub(crate) fn foreign_processes(
        &mut self,
        shard: &LeaseKey,
        position: ExtendedSequenceNumber,
        count: usize,
    ) -> Option<ExtendedSequenceNumber> {
        let numbers: Vec<usize> = self.truth.behind(shard, position).take(count).collect();
        for number in &numbers {
            self.truth.done(*number, None, self.now);
        }
        numbers.last().map(|number| self.truth.records[*number].position)
    }

    /// Somebody who is not one of us stored a checkpoint.
    pub(crate) fn foreign_checkpoint(&mut self, before: &Lease, after: &Lease) {
        self.end_term(&before.key, false);
        self.leases.lease(&before.key).had_foreign_checkpoint = true;
        self.checkpointed(before, after);
    }
}

/// A lease in a line.
pub(crate) fn show(lease: &Lease) -> String {
    let owner = |id: &Option<shardwell_core::WorkerId>| id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let handoff = lease.checkpoint_owner.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
    let (shard, counter, checkpoint) = (Short(&lease.key), lease.counter, lease.checkpoint);
    format!("{shard} {}{handoff} #{counter} at {checkpoint}", owner(&lease.owner))
}
