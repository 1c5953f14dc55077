//! Records over which the process dies.
//!
//! A record that aborts the process can be neither retried nor counted by the process that it kills. So every term of a
//! lease begins with a write that counts starts without progress. After three of them the shard is under suspicion:
//! what is about to be processed is written down first, in small batches, with nothing else running in the process. What
//! was running alone when the process died is known to the next one; a record that died alone three times is condemned.

use serde::{Deserialize, Serialize};

use super::resume::StoredPosition;
use crate::ExtendedSequenceNumber;

/// What is stored about crashes with a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// How many terms of the lease began at this checkpoint and did not end in order.
    pub starts: u32,
    /// How many ordinals from the checkpoint on are under suspicion. 0: none.
    pub zone: u64,
    /// How many records may be processed at once in the zone.
    pub unit: u32,
    /// How many zones there were since the last term that ended in order. Each is twice as long as the one before.
    pub zones: u32,
    /// What is being processed now, with nothing else running in the process.
    pub running: Option<Suspect>,
    /// Records that were running alone when the process died, and how often; the newest first.
    pub deaths: Vec<(StoredPosition, u32)>,
}

/// A batch that is processed alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspect {
    /// Its first record.
    pub first: StoredPosition,
    /// How many records it has.
    pub records: u32,
}

/// Starts without progress that raise no suspicion yet: processes are also killed for other reasons.
const UNSUSPICIOUS_STARTS: u32 = 3;
/// Records at once in a zone in which none has died yet.
const FIRST_UNIT: u32 = 32;
/// How often a zone is doubled at most.
const MAX_DOUBLINGS: u32 = 16;
/// How often a record may die alone. It is the first to run again after a restart, so whoever kills processes for another
/// reason may well hit it twice.
const DEATHS_TO_CONDEMN: u32 = 3;
/// How many records are remembered to have died alone. There is one at a time; more stay only where positions changed.
const MAX_DEATHS_KEPT: usize = 8;

impl CrashRecord {
    /// The record as a new term of the lease begins: what is to be stored before anything is processed. `reach` is how far
    /// beyond the checkpoint, in records, anything can have been in flight.
    #[must_use]
    pub fn at_start(&self, reach: u64) -> Self {
        let mut now = self.clone();
        now.starts = self.starts.saturating_add(1);
        now.running = None;
        match &self.running {
            Some(suspect) if suspect.records == 1 => now.died(&suspect.first),
            Some(_) => now.unit = 1,
            None => {}
        }
        if now.zone == 0 && self.starts >= UNSUSPICIOUS_STARTS {
            // The checkpoint may have been far behind what was in flight. If so, the first zone is too short.
            now.zone = reach.saturating_mul(1 << self.zones.min(MAX_DOUBLINGS));
            now.zones = self.zones.saturating_add(1);
            now.unit = FIRST_UNIT;
        }
        now
    }

    fn died(&mut self, place: &StoredPosition) {
        self.unit = 1;
        let known = self.deaths.iter().position(|(known, _)| known == place).map(|at| self.deaths.remove(at));
        self.deaths.truncate(MAX_DEATHS_KEPT - 1);
        self.deaths.insert(0, (place.clone(), known.map_or(1, |(_, count)| count.saturating_add(1))));
    }

    /// Whether the shard is under suspicion.
    pub const fn is_suspicious(&self) -> bool {
        self.zone > 0
    }

    /// The records that are dead because the process dies of them.
    pub fn condemned(&self) -> impl Iterator<Item = ExtendedSequenceNumber> {
        let condemned = self.deaths.iter().filter(|(_, count)| *count >= DEATHS_TO_CONDEMN);
        condemned.filter_map(|(place, _)| place.position())
    }

    /// A term ended in order.
    pub(super) fn stopped_in_order(&mut self) {
        self.starts = 0;
        self.zones = 0;
        self.running = None;
    }

    /// Forgets the deaths of a record that is settled.
    pub fn settled(&mut self, position: ExtendedSequenceNumber) {
        self.deaths.retain(|(place, _)| place.position() != Some(position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> StoredPosition {
        ExtendedSequenceNumber::new(number.into(), 0).into()
    }

    fn died_over(record: &CrashRecord, first: u64, records: u32) -> CrashRecord {
        CrashRecord { running: Some(Suspect { first: place(first), records }), ..record.clone() }.at_start(500)
    }

    #[test]
    fn suspicion_begins_with_the_fourth_start_without_progress() {
        let mut record = CrashRecord::default();
        for starts in 1..=3 {
            record = record.at_start(500);
            assert_eq!((record.starts, record.is_suspicious()), (starts, false));
        }
        record = record.at_start(500);
        assert_eq!((record.starts, record.zone, record.unit), (4, 500, FIRST_UNIT));
    }

    #[test]
    fn each_zone_is_twice_as_long_as_the_one_before() {
        let zone = |zones| CrashRecord { starts: 3, zones, ..CrashRecord::default() }.at_start(500).zone;
        assert_eq!([0, 1, 2, 16, 17, u32::MAX].map(zone), [500, 1000, 2000, 500 << 16, 500 << 16, 500 << 16]);
        let mut stopped = CrashRecord { starts: 3, zones: 5, ..CrashRecord::default() };
        stopped.stopped_in_order();
        assert_eq!(stopped, CrashRecord::default());
    }

    #[test]
    fn a_batch_that_died_is_taken_apart_and_a_record_is_condemned_the_third_time() {
        let suspicious = CrashRecord { starts: 4, zone: 500, unit: FIRST_UNIT, ..CrashRecord::default() };
        let apart = died_over(&suspicious, 7, 32);
        assert_eq!((apart.unit, apart.condemned().count()), (1, 0));
        let once = died_over(&apart, 9, 1);
        assert_eq!(once.condemned().count(), 0);
        let other = died_over(&once, 8, 1);
        assert_eq!(other.condemned().count(), 0);
        let twice = died_over(&other, 9, 1);
        assert_eq!(twice.condemned().count(), 0);
        let mut thrice = died_over(&twice, 9, 1);
        assert_eq!(thrice.condemned().collect::<Vec<_>>(), place(9).position().into_iter().collect::<Vec<_>>());
        thrice.settled(ExtendedSequenceNumber::new(9u64.into(), 0));
        assert_eq!(thrice.condemned().count(), 0);
        assert_eq!(thrice.deaths, [(place(8), 1)]);
    }

    #[test]
    fn deaths_do_not_pile_up() {
        let record = (0..100).fold(CrashRecord::default(), |record, n| died_over(&record, n, 1));
        assert_eq!(record.deaths.len(), MAX_DEATHS_KEPT);
        assert_eq!(record.deaths[0], (place(99), 1));
    }
}
