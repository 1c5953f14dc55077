//! Which records reach a processor, and when: L3, L5, P3 to P11, P13, P14.

use std::fmt;

use shardwell_core::dead_letter::{DeadLetter, DeadReason};
use shardwell_core::{LeaseKey, Monotonic, Timestamp};

use super::TermId;
use crate::fleet::tally::Invariant;
use crate::fleet::weather::ProcessId;
use crate::fleet::world::State;

/// What a processor is about to handle.
#[derive(Clone, Debug)]
pub(crate) struct Handled {
    pub(crate) process: ProcessId,
    pub(crate) shard: LeaseKey,
    pub(crate) lane: u32,
    pub(crate) batch: u64,
    pub(crate) attempt: u32,
    pub(crate) records: Vec<usize>,
    /// The wall clock of the process.
    pub(crate) wall: Timestamp,
}

/// A batch of a process.
pub(crate) type BatchId = (ProcessId, LeaseKey, u32);

impl State {
    /// A processor begins to handle a batch.
    pub(crate) fn begins(&mut self, handled: &Handled) -> Option<TermId> {
        self.log_of(
            handled.process,
            format_args!(
                "processes {} lane {} {:?}, attempt {}",
                Short(&handled.shard),
                handled.lane,
                handled.records,
                handled.attempt
            ),
        );
        self.check_batch(handled);
        self.check_stream(handled);
        let lane: BatchId = (handled.process, handled.shard.clone(), handled.lane);
        self.tally.exercise(Invariant::P4);
        if !self.running.insert(lane) {
            self.violated(Invariant::P4, format!("two calls at a time: {handled:?}"));
        }
        let term = self.leases.term_of(&handled.shard, handled.process);
        match term {
            Some(term) => self.check_attempt(handled, term),
            None if self.has_handed_over(&handled.shard, handled.process) => {
                self.tally.exercise(Invariant::L5);
                self.violated(Invariant::L5, format!("the lease is handed over: {handled:?}"));
            }
            None => {}
        }
        for number in &handled.records {
            self.check_record(*number, handled, term);
        }
        term
    }

    /// Whatever became of it.
    pub(crate) fn ends(&mut self, handled: &Handled) {
        self.running.remove(&(handled.process, handled.shard.clone(), handled.lane));
    }

    /// Whoever ceases to consume a stream is done with it by the deadline.
    fn check_stream(&mut self, handled: &Handled) {
        let Some((stream, since)) = &self.processes[handled.process].without else { return };
        let time = self.now.since(*since);
        if stream.has(&handled.shard) && self.has_been_quiet() && time > 2 * self.scenario.handoff_deadline {
            self.fail(None, format!("for {time:?} this stream has not been consumed: {handled:?}"));
        }
    }

    fn check_batch(&mut self, handled: &Handled) {
        self.tally.exercise(Invariant::P9);
        if handled.records.len() > self.scenario.batch_records {
            self.violated(Invariant::P9, format!("{} records in {handled:?}", handled.records.len()));
        }
        self.tally.exercise(Invariant::P6);
        let allowed = self.scenario.max_retries.map(|retries| retries + 1);
        if allowed.is_some_and(|allowed| handled.attempt > allowed) {
            self.violated(Invariant::P6, format!("attempt {} of {handled:?}", handled.attempt));
        }
    }

    /// P8. That two attempts do not overlap is P4; that they come one by one is seen here. One that failed for an outage counts
    /// as none, and comes again under its number.
    fn check_attempt(&mut self, handled: &Handled, term: TermId) {
        let before = self.attempts.insert((term, handled.batch), handled.attempt);
        if let Some(before) = before {
            self.tally.exercise(Invariant::P8);
            if handled.attempt != before && handled.attempt != before + 1 {
                self.violated(Invariant::P8, format!("attempt {before} came before {handled:?}"));
            }
        }
    }

    fn check_record(&mut self, number: usize, handled: &Handled, term: Option<TermId>) {
        let record = self.truth.records[number].clone();
        if self.truth.shard_at(record.shard).key != handled.shard {
            self.violated(Invariant::L8, format!("record {number} was put into another shard: {handled:?}"));
        }
        if self.scenario.filter {
            self.tally.exercise(Invariant::P13);
            if record.nature == crate::fleet::truth::Nature::Unwanted {
                self.violated(Invariant::P13, format!("record {number} is not wanted"));
            }
        }
        if let Some(limit) = self.scenario.max_record_age {
            self.tally.exercise(Invariant::P7);
            if handled.wall.since(record.arrival) >= limit {
                self.violated(Invariant::P7, format!("record {number} is too old: {handled:?}"));
            }
        }
        self.tally.exercise(Invariant::L3);
        if let Some(parent) = self.truth.unsettled_parent(record.shard) {
            let what = format!("record {number} of {} is processed before its parent {parent} is done", handled.shard);
            self.violated(Invariant::L3, what);
        }
        self.tally.exercise(Invariant::P3);
        if let Some(earlier) = self.truth.unsettled_before(number, &handled.records) {
            let what = format!("record {number} is processed before {earlier} of the same key: {handled:?}");
            self.violated(Invariant::P3, what);
        }
        if let Some(term) = term {
            self.tally.exercise(Invariant::P10);
            let began_behind = self.leases.terms[term].began_behind;
            if began_behind.position().is_some_and(|position| record.position <= position) {
                let what = format!("record {number} lies before {began_behind}, where the term began: {handled:?}");
                self.violated(Invariant::P10, what);
            }
        }
        match record.done {
            Some((Some(earlier), at)) => self.check_repeated(number, earlier, at, handled),
            Some((None, _)) => self.tally.repeated += 1,
            None => {}
        }
    }

    /// A record that somebody was done with comes again. After a planned move, and within a term, it must not.
    fn check_repeated(&mut self, number: usize, earlier: TermId, at: Monotonic, handled: &Handled) {
        self.tally.repeated += 1;
        self.tally.exercise(Invariant::L5);
        let term = &self.leases.terms[earlier];
        let excused = match term.end {
            None => self.leases.term_of(&term.key, handled.process) != Some(earlier),
            // What was done after the end, or when the deadline came, was running at the deadline.
            Some(end) => !end.in_order || at >= end.at || end.at_deadline,
        };
        let key = term.key.clone();
        if !excused && !self.leases.lease(&key).had_foreign_checkpoint {
            let end = self.leases.terms[earlier].end;
            let what = format!(
                "record {number} was done in term {earlier}, which ended {end:?}, and comes again: {handled:?}"
            );
            self.violated(Invariant::L5, what);
        }
    }

    /// A process writes letters.
    pub(crate) fn writes_letters(&mut self, process: ProcessId, letters: &[DeadLetter]) {
        for letter in letters {
            self.tally.exercise(Invariant::P14);
            let key = self.key(&letter.stream, &letter.shard);
            // An operator who deletes a lease does not ask its owner, who hears of it when it renews.
            let is_cut_off = self.leases.lease(&key).had_foreign_checkpoint;
            if self.leases.holder(&key).is_some_and(|holder| holder != process) && !is_cut_off {
                let what = format!("{} writes a letter about {}, whose lease another one has", self.name(process), key);
                self.violated(Invariant::P14, what);
            }
        }
    }

    /// Letters of a process are durable.
    pub(crate) fn letters_kept(&mut self, process: ProcessId, letters: &[DeadLetter]) {
        for letter in letters {
            let Some(number) = number_of(&letter.record.data) else { continue };
            self.log_of(process, format_args!("buries {number}: {}", letter.reason));
            let record = self.truth.records[number].clone();
            self.check_innocence(number, letter);
            self.tally.exercise(Invariant::P5);
            let term = self.leases.term_of(&self.key(&letter.stream, &letter.shard), process);
            if let (Some((Some(done_in), _)), Some(term)) = (record.done, term)
                && done_in == term
            {
                self.violated(Invariant::P5, format!("record {number} was done, and has a letter: {}", letter.reason));
            }
            self.truth.letter(number);
        }
    }

    fn check_innocence(&mut self, number: usize, letter: &DeadLetter) {
        use crate::fleet::truth::Nature;
        self.tally.exercise(Invariant::P11);
        let nature = self.truth.records[number].nature;
        match (letter.reason, nature) {
            (DeadReason::CrashLoop, Nature::Fine) => self.tally.condemned += 1,
            (DeadReason::CrashLoop, _) | (_, Nature::Poison(_)) => {}
            (DeadReason::RecordAgeExceeded, _) if self.scenario.max_record_age.is_some() => {}
            (reason, nature) => {
                let error = letter.error_line();
                self.violated(Invariant::P11, format!("record {number} is {nature:?} and died: {reason}, {error}"));
            }
        }
    }
}

/// The number of a record, from its payload.
pub(crate) fn number_of(data: &[u8]) -> Option<usize> {
    std::str::from_utf8(data.get(1..)?).ok()?.parse().ok()
}

/// A shard by its stream, where there are several, and its number.
pub(super) struct Short<'a>(pub(super) &'a LeaseKey);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stream, shard) = self.0.as_str().rsplit_once(':').unwrap_or(("", self.0.as_str()));
        if let Some(name) = stream.split(':').nth(1) {
            write!(f, "{name}-")?;
        }
        let number = shard.trim_start_matches("shardId-").trim_start_matches('0');
        write!(f, "s{}", if number.is_empty() { "0" } else { number })
    }
}
