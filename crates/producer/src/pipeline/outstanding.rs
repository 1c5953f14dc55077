//! The user records that nobody has been told about yet, by the flush that they belong to.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use super::outer::Member;
use crate::failure::PutFailure;
use crate::ticket::Landed;

/// How many user records are under way, by generation: a flush begins a new one, and waits for those before it.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    generation: u64,
    count: BTreeMap<u64, usize>,
    /// Who waits until nothing of an earlier generation is left.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    counts: Counts,
}

/// How many user records were taken, and what became of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) landed: u64,
    pub(crate) failed: u64,
}

impl Outstanding {
    /// One more is under way. Gives its generation.
    pub(crate) fn begin(&mut self) -> u64 {
        self.counts.received += 1;
        *self.count.entry(self.generation).or_default() += 1;
        self.generation
    }

    /// Tells whoever waits for a user record what became of it. Nobody has to wait.
    pub(crate) fn settle(&mut self, member: Member, answer: Result<Landed, PutFailure>) {
        let Member { answer: waiting, permit, generation, .. } = member;
        let count = if answer.is_ok() { &mut self.counts.landed } else { &mut self.counts.failed };
        *count += 1;
        // There is room again before anybody hears of it: who waits for the answer may put the next one at once.
        drop(permit);
        drop(waiting.send(answer));
        let left = self.count.entry(generation).or_default();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.count.remove(&generation);
            self.wake();
        }
    }

    /// Begins a new generation. What it gives is ready when all that were put before are settled.
    pub(crate) fn barrier(&mut self) -> oneshot::Receiver<()> {
        self.generation += 1;
        let (waiting, settled) = oneshot::channel();
        self.waiting.push((self.generation, waiting));
        self.wake();
        settled
    }

    /// How many were taken and settled since this was asked last.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.is_empty()
    }

    fn wake(&mut self) {
        let oldest = self.count.keys().next().copied().unwrap_or(u64::MAX);
        let (done, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(generation, _)| *generation <= oldest);
        self.waiting = waiting;
        let done: Vec<(u64, oneshot::Sender<()>)> = done;
        for (_, waiting) in done {
            // Whoever flushed may have stopped waiting.
            let _ = waiting.send(());
        }
    }
}
