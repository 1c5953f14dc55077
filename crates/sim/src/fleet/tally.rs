//! What was exercised.

use std::collections::BTreeMap;

use super::kind::Kind;
use super::named::named;

named! {
    /// What must hold, whatever happens: of leases (L) and of delivery (P).
    Invariant {
        /// After a lease changes hands, no checkpoint by an earlier owner succeeds.
        L1,
        /// A checkpoint never moves backwards.
        L2,
        /// No record of a child reaches a processor before every parent's records are done or dead.
        L3,
        /// No shard with work is without a consumer for longer than the bound.
        L4,
        /// A planned move delivers nothing twice, other than what was running at the deadline.
        L5,
        /// A fleet at rest moves nothing.
        L6,
        /// Loads are even within three rounds after the fleet changed.
        L7,
        /// No record is lost.
        L8,
        /// A record is done or dead or left out or waits, and is never two of these.
        P1,
        /// Everything at or before a stored checkpoint is done or has a letter.
        P2,
        /// Of one key, everything before a record is done or dead when it is processed.
        P3,
        /// One call at a time for each lane.
        P4,
        /// One letter for each dead record, and none for one that was done in the same term.
        P5,
        /// No more attempts than allowed.
        P6,
        /// Nothing is processed that is too old.
        P7,
        /// An attempt begins after the one before has ended.
        P8,
        /// No batch is too large.
        P9,
        /// A new term begins behind the checkpoint.
        P10,
        /// Nothing dies but what is poison.
        P11,
        /// In the end everything is done or dead.
        P12,
        /// What is filtered reaches no processor.
        P13,
        /// Whoever lost a lease writes no letter.
        P14,
    }
}

/// How often what happened, in one run or in many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often each invariant was put to the test.
    pub exercised: BTreeMap<Invariant, u64>,
    /// In how many seeds each kind of thing happened.
    pub happened: BTreeMap<Kind, u64>,
    /// Virtual seconds.
    pub virtual_seconds: f64,
    /// Records put.
    pub records: u64,
    /// Records that were delivered more than once.
    pub repeated: u64,
    /// Leases handed over by their owner.
    pub planned_moves: u64,
    /// Leases taken from their owner.
    pub forced_moves: u64,
    /// Records that nothing is wrong with and that died because processes were killed over them.
    pub condemned: u64,
}

impl Tally {
    pub(crate) fn exercise(&mut self, invariant: Invariant) {
        *self.exercised.entry(invariant).or_default() += 1;
    }

    pub(crate) fn happened(&mut self, kind: Kind) {
        self.happened.insert(kind, 1);
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (invariant, count) in &other.exercised {
            *self.exercised.entry(*invariant).or_default() += count;
        }
        for (kind, count) in &other.happened {
            *self.happened.entry(*kind).or_default() += count;
        }
        self.virtual_seconds += other.virtual_seconds;
        self.records += other.records;
        self.repeated += other.repeated;
        self.planned_moves += other.planned_moves;
        self.forced_moves += other.forced_moves;
        self.condemned += other.condemned;
    }

    /// What these runs, `seeds` of them, left untested: invariants that were never exercised, and kinds of faults that came in
    /// fewer than 5 % of the seeds.
    pub fn untested(&self, seeds: u64) -> Vec<String> {
        let invariants = Invariant::ALL.iter().filter(|invariant| !self.exercised.contains_key(invariant));
        let invariants = invariants.map(|invariant| format!("{invariant} was never exercised"));
        let kinds = Kind::ALL.iter().map(|kind| (kind, self.happened.get(kind).copied().unwrap_or(0)));
        let rare = kinds.filter(|(_, count)| count * 20 < seeds);
        let rare = rare.map(|(kind, count)| format!("{kind} happened in {count} of {seeds} seeds only"));
        invariants.chain(rare).collect()
    }
}
