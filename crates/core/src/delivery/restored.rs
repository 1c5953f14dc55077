//! What an earlier term of the lease left behind, while its records come in again.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{FailedBatch, FinishedRecords, LaneMarks, ResumeState, StoredPosition};
use crate::{ExtendedSequenceNumber, PartitionKey};

/// What was finished beyond the checkpoint, and what had failed.
///
/// Ordinals are believed only if the first and the last record they cover are the same as then. Until the last one has
/// come, or the first where none is finished, nothing new is stored, so that nothing is lost if it turns out to be another.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// The state as it was read, until it is confirmed.
    unconfirmed: Option<ResumeState>,
    finished: Coming,
    first: Option<ExtendedSequenceNumber>,
    last: Option<(u64, ExtendedSequenceNumber)>,
    /// By their first ordinals.
    failed: BTreeMap<u64, FailedBatch>,
    refuted: bool,
}

/// What was finished and has not come yet.
#[derive(Debug)]
enum Coming {
    /// Ordinals in ascending runs; the next one last.
    Runs(Vec<Range<u64>>),
    Lanes(LaneMarks),
}

impl Default for Coming {
    fn default() -> Self {
        Self::Runs(Vec::new())
    }
}

impl Coming {
    /// Whether the next record is finished.
    fn take(&mut self, ordinal: u64, key: Option<&PartitionKey>) -> bool {
        match self {
            Self::Runs(runs) => {
                if runs.last().is_some_and(|run| run.end <= ordinal) {
                    runs.pop();
                }
                runs.last().is_some_and(|run| run.contains(&ordinal))
            }
            Self::Lanes(lanes) => lanes.contains(ordinal, key),
        }
    }
}

impl Restored {
    pub(super) fn new(resume: &ResumeState) -> Self {
        let Some(first) = resume.first.as_ref().and_then(StoredPosition::position) else { return Self::default() };
        let failed = resume.failed.iter().map(|batch| (batch.first, *batch)).collect();
        let restored = Self { unconfirmed: Some(resume.clone()), first: Some(first), failed, ..Self::default() };
        let Some(finished) = &resume.finished else { return restored };
        let coming = match &finished.records {
            FinishedRecords::Ordinals(ordinals) => {
                let mut runs = ordinals.runs();
                runs.reverse();
                Coming::Runs(runs)
            }
            FinishedRecords::Lanes(lanes) => Coming::Lanes(lanes.clone()),
        };
        match finished.last.1.position() {
            Some(position) => Self { finished: coming, last: Some((finished.last.0, position)), ..restored },
            None => restored,
        }
    }

    /// A record came in. Answers whether it is finished.
    pub(super) fn arrived(
        &mut self,
        ordinal: u64,
        position: ExtendedSequenceNumber,
        key: Option<&PartitionKey>,
    ) -> bool {
        if ordinal == 0 && self.first.is_some_and(|first| first != position) {
            // Records were trimmed, or the checkpoint is another one: nothing was passed over yet, so this is no harm.
            *self = Self::default();
            return false;
        }
        let Some((last_ordinal, last)) = self.last else {
            // The first record is the right one, and nothing is said of others.
            self.unconfirmed = self.unconfirmed.take().filter(|_| self.refuted);
            return false;
        };
        if ordinal == last_ordinal {
            self.last = None;
            self.refuted = position != last;
            if !self.refuted {
                self.unconfirmed = None;
            }
        }
        self.finished.take(ordinal, key)
    }

    /// The batch that begins here, if it has failed.
    pub(super) fn failed(&self, first: u64) -> Option<&FailedBatch> {
        self.failed.get(&first)
    }

    /// Where a batch that begins at an ordinal must end, so that another one that has failed begins there.
    pub(super) fn boundary(&self, first: u64) -> Option<u64> {
        self.failed.range(first + 1..).next().map(|(boundary, _)| *boundary)
    }

    /// The batch that begins here is formed, and knows what had failed.
    pub(super) fn formed(&mut self, first: u64) {
        self.failed.remove(&first);
    }

    /// The batches that had failed and are not formed again, as seen from `base`.
    pub(super) fn not_formed(&self, base: u64) -> impl Iterator<Item = FailedBatch> + '_ {
        self.failed.range(base..).map(move |(first, batch)| FailedBatch { first: first - base, ..*batch })
    }

    pub(super) const fn unconfirmed(&self) -> Option<&ResumeState> {
        self.unconfirmed.as_ref()
    }

    pub(super) const fn is_confirmed(&self) -> bool {
        self.unconfirmed.is_none()
    }

    pub(super) const fn is_refuted(&self) -> bool {
        self.refuted
    }
}
