//! What must hold in every step.

use std::collections::BTreeSet;

use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{Batch, Burial, Command, ErrorClass, Event, Finished, FinishedRecords, ResumeState};

use super::super::rules::Rules;
use super::{Books, Fate, Flight, Outcome, World};

impl World {
    /// An event, and what of it goes into the books.
    pub(super) fn step(&mut self, event: Event, expected: &Books) {
        let random = self.random();
        self.step_with(event, expected, random);
    }

    pub(super) fn step_with(&mut self, event: Event, expected: &Books, random: u64) {
        let commands = self.machine.step(event, self.clock, random, self.may_deliver);
        let mut books = Books::default();
        for command in commands {
            match command {
                Command::Invoke { lane, batch, attempt, alone } => self.invoked(lane, &batch, attempt, alone),
                Command::Bury { lane, burial } => self.burying(lane, &burial),
                Command::Settled(settled) => {
                    books.done += settled.done;
                    books.dead += settled.dead;
                    books.weight += settled.weight;
                }
            }
        }
        assert_eq!(&books, expected, "the books are wrong");
        self.weight -= books.weight;
        self.check();
    }

    fn invoked(&mut self, lane: u32, batch: &Batch, attempt: u32, alone: bool) {
        let records = self.indices(batch);
        self.may_start(lane, &records);
        for (at, index) in records.iter().enumerate() {
            assert!(!self.is_too_old(*index), "P7: {index} is too old");
            let doomed = self.log[*index].undecodable && self.rules.can_bury;
            assert!(!doomed && !self.is_oversize(*index) && !self.rules.filters(*index), "P13: {index} is no one's");
            let Some(key) = self.key(*index) else { continue };
            assert!(!self.rules.quarantine || !self.held.contains(key), "{index} is held back");
            for earlier in (self.base..*index).filter(|earlier| self.key(*earlier) == Some(key)) {
                let before = self.fates[earlier].is_terminal() || records[..at].contains(&earlier);
                assert!(before, "P3: {index} overtakes {earlier}");
            }
        }
        let bytes: usize = batch.records().iter().map(|record| record.data.len()).sum();
        let fits = records.len() <= self.rules.records && bytes <= self.rules.bytes;
        assert!(fits || records.len() == 1, "P9: {} records, {bytes} bytes", records.len());
        let limit = self.rules.retries.filter(|_| self.rules.can_bury);
        assert!(limit.is_none_or(|retries| attempt <= retries + 1), "P6: attempt {attempt}");
        self.waited(batch.id(), attempt);
        self.flights.insert(lane, Flight::Call { id: batch.id(), attempt, records, alone });
        if alone {
            let calls = self.flights.values().filter(|flight| matches!(flight, Flight::Call { .. })).count();
            assert_eq!(calls, 1, "not alone");
            if self.stores_alone {
                self.machine.announce(lane);
                self.store();
            }
        }
    }

    /// P4, P14, and no record is anywhere twice.
    fn may_start(&self, lane: u32, records: &[usize]) {
        assert!(self.may_deliver, "P14: not now");
        assert!(!self.flights.contains_key(&lane), "P4: lane {lane} is busy");
        assert!(!records.is_empty() && records.is_sorted_by(|a, b| a < b), "{records:?}");
        for index in records {
            assert_eq!(self.fates[*index], Fate::Pending, "P1, P10: {index} is not pending");
        }
    }

    /// P6 and P8: attempts go up by one with each failure that counts, and each waits for its time.
    fn waited(&self, id: u64, attempt: u32) {
        let Some(last) = self.outcomes.get(&id) else { return };
        let waited = self.clock.monotonic.since(last.at);
        match last.class {
            Some(ErrorClass::Retryable) => {
                assert_eq!(attempt, last.attempt + 1, "P6: a failure counts once");
                let delay = Rules::backoff().delay(last.attempt, last.random).expect("unlimited");
                assert!(waited >= delay, "P8: {waited:?} instead of {delay:?}");
            }
            Some(ErrorClass::Transient) => {
                assert_eq!(attempt, last.attempt, "P6: an outage does not count");
                let delay = Rules::outage_backoff().delay(1, last.random).expect("unlimited");
                assert!(waited >= delay, "P8: {waited:?} instead of {delay:?}");
            }
            Some(ErrorClass::Permanent) => panic!("T7: tried again"),
            None => assert_eq!(attempt, last.attempt, "P6: what was not invoked does not count"),
        }
    }

    fn burying(&mut self, lane: u32, burial: &Burial) {
        let records = self.indices(&burial.batch);
        self.may_start(lane, &records);
        assert!(self.rules.can_bury, "nothing can be buried");
        let (reason, last) = (burial.doom.reason, self.outcomes.get(&burial.batch.id()));
        for index in &records {
            let is_right = match reason {
                DeadReason::RecordAgeExceeded => self.is_too_old(*index) || self.aged.contains(index),
                DeadReason::Oversize => self.is_oversize(*index),
                DeadReason::Undecodable => self.log[*index].undecodable,
                DeadReason::CrashLoop => self.alone_deaths.get(index).is_some_and(|deaths| *deaths >= 3),
                DeadReason::Quarantined => self.key(*index).is_some(),
                DeadReason::RetryAttemptsExhausted => {
                    let last_attempt = self.rules.retries.map(|retries| retries + 1);
                    let failed = |last: &Outcome| last.class == Some(ErrorClass::Retryable);
                    last.is_some_and(|last| failed(last) && Some(last.attempt) == last_attempt)
                }
                // The culprit in a batch is buried under a name of its own.
                DeadReason::Permanent => last.is_none_or(|last| last.class == Some(ErrorClass::Permanent)),
                other => panic!("an unknown reason: {other}"),
            };
            assert!(is_right, "{index} does not die of {reason}");
        }
        if reason == DeadReason::RecordAgeExceeded {
            self.aged.extend(&records);
        }
        self.flights.insert(lane, Flight::Burial { id: burial.batch.id(), records, reason });
    }

    /// What holds after every step.
    fn check(&self) {
        assert!(!self.machine.is_misled(), "everything is what it was");
        let pending = (self.base..self.read).filter(|index| !self.rules.filters(*index));
        let pending: Vec<usize> = pending.filter(|index| !self.fates[*index].is_terminal()).collect();
        assert_eq!(self.weight, self.weigh(&pending), "what is settled gives its room back");
        assert_eq!(self.machine.is_complete(), self.ended && pending.is_empty());
        let is_confirmed = self.restored.last().is_none_or(|index| self.read > *index);
        let settled = (self.base..self.read).find(|index| !self.fates[*index].is_terminal()).unwrap_or(self.read);
        let expected = (is_confirmed && settled > self.base).then(|| self.log[settled - 1].record.position);
        assert_eq!(self.machine.watermark(), expected, "P10, P13");
        self.check_state(is_confirmed.then_some(settled));
        if self.may_deliver {
            let wake = self.machine.wake_at();
            assert!(wake.is_none_or(|at| at > self.clock.monotonic), "something is due and was not started: it spins");
            assert!(wake.is_some() || !self.flights.is_empty() || pending.is_empty(), "P12: it is stuck");
        }
    }

    /// What would be stored; `settled` is where the watermark is, if that may be told.
    fn check_state(&self, settled: Option<usize>) {
        let resume = self.encoded().map(|state| ResumeState::decode(&state).expect("decodes")).unwrap_or_default();
        let Some(settled) = settled else {
            let restored = self.finished(&resume, self.base);
            assert_eq!(restored, self.restored, "nothing new is stored before it is confirmed");
            return;
        };
        let finished = self.finished(&resume, settled);
        let is_settled = |index: &usize| self.fates[*index].is_terminal();
        assert!(finished.iter().all(is_settled), "the finished set has what is not finished");
        if let Some(Finished { records: FinishedRecords::Ordinals(_), .. }) = resume.finished {
            // Whatever does not fit is cut off at the end.
            let last = finished.last().map_or(settled, |last| last + 1);
            let all: BTreeSet<usize> = (settled..last).filter(is_settled).collect();
            assert_eq!(finished, all, "the finished set is not what is finished");
        }
    }
}
