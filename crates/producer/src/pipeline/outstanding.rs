//! The user records that nobody has been told about yet, by the flush that they belong to.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

/// How many user records are under way, by generation: a flush begins a new one, and waits for those before it.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    generation: u64,
    count: BTreeMap<u64, usize>,
    /// Who waits until nothing of an earlier generation is left.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    counts: Counts,
}

/// What happened in the pipeline.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// User records that were taken.
    pub(crate) received: u64,
    /// Records that are in a wrong shard.
    pub(crate) wrong_shard: u64,
}

/// How many user records' tickets were resolved, by generation.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<(u64, usize)>);

impl Told {
    /// One more.
    pub(crate) fn count(&mut self, generation: u64) {
        match self.0.last_mut() {
            Some((same, count)) if *same == generation => *count += 1,
            _ => self.0.push((generation, 1)),
        }
    }
}

impl Outstanding {
    /// One more is under way. Gives its generation.
    pub(crate) fn begin(&mut self) -> u64 {
        self.counts.received += 1;
        *self.count.entry(self.generation).or_default() += 1;
        self.generation
    }

    /// Whoever waits for these user records knows what became of them.
    pub(crate) fn told(&mut self, told: Told) {
        for (generation, count) in told.0 {
            let left = self.count.entry(generation).or_default();
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.count.remove(&generation);
            }
        }
        self.wake();
    }

    /// A record is in a wrong shard.
    pub(crate) fn wrong_shard(&mut self) {
        self.counts.wrong_shard += 1;
    }

    /// Begins a new generation. What it gives is ready when all that were put before are settled.
    pub(crate) fn barrier(&mut self) -> oneshot::Receiver<()> {
        self.generation += 1;
        let (waiting, settled) = oneshot::channel();
        self.waiting.push((self.generation, waiting));
        self.wake();
        settled
    }

    /// What happened since this was asked last.
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
