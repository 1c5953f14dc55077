//! Tells those who wait what became of their records: the last step of the way, outside the lock of the pipeline, since there may be
//! many of them, and the hooks are the caller's.

use std::sync::Arc;

use shardwell_core::{ExtendedSequenceNumber, PutEntry};
use tokio::sync::oneshot;

use crate::budget::Budget;
use crate::failure::PutFailure;
use crate::hooks::{Hooks, SettledRecord};
use crate::metrics;
use crate::pipeline::{Fate, Settled, Told};
use crate::ticket::Landed;

/// Whoever tells, and of which stream.
#[derive(Clone, Copy)]
pub(crate) struct Teller<'a> {
    pub(crate) stream: &'a Arc<str>,
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) hooks: &'a Hooks,
}

impl Teller<'_> {
    /// Resolves the tickets of all members of these records.
    pub(crate) fn tell(self, mut settled: Vec<Settled>) -> Told {
        metrics::settled(self.stream, &settled);
        // There is room again before anybody hears of it: who waits for the answer may put the next one at once.
        self.budget.give_back_all(settled.iter_mut().flat_map(|settled| settled.record.unit.permits()));
        let mut told = Told::default();
        settled.into_iter().for_each(|settled| self.tell_members(settled, &mut told));
        told
    }

    fn tell_members(self, Settled { record, fate }: Settled, told: &mut Told) {
        let is_aggregated = record.unit.is_aggregated();
        match fate {
            Fate::Failed(kind) => {
                for (entry, member) in record.into_user_records() {
                    let failure = PutFailure::new(kind, member.attempts, Some(entry));
                    self.answer(None, Err(failure), member.answer);
                    told.count(member.generation);
                }
            }
            Fate::Landed(placed) => {
                // What the members are is looked at only if somebody asks.
                let entries = if self.hooks.are_set() { record.user_records() } else { Vec::new() };
                let mut entries = entries.into_iter();
                let members = record.unit.into_members();
                // The last one gets the id itself: most records that are not aggregated have one member.
                let shards = std::iter::repeat_n(placed.shard, members.len());
                for (place, (member, shard)) in (0_u64..).zip(members.into_iter().zip(shards)) {
                    let position = ExtendedSequenceNumber::new(placed.sequence_number, place);
                    let landed = Landed { shard, position, is_aggregated, attempts: member.attempts };
                    self.answer(entries.next().as_ref(), Ok(landed), member.answer);
                    told.count(member.generation);
                }
            }
        }
    }

    fn answer(
        self,
        landed: Option<&PutEntry>,
        answer: Result<Landed, PutFailure>,
        waiting: oneshot::Sender<Result<Landed, PutFailure>>,
    ) {
        let failed = || answer.as_ref().err().and_then(PutFailure::record);
        if let Some(record) = landed.or_else(failed) {
            let settled = SettledRecord { stream: self.stream, record, result: answer.as_ref() };
            self.hooks.call(|hooks| hooks.user_record_settled(&settled));
        }
        // Nobody has to wait.
        drop(waiting.send(answer));
    }
}
