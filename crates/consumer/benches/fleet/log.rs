//! What the processors of a fleet saw, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shardwell_core::{Monotonic, ShardId, WorkerId};

/// What the processors of a fleet saw. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// By shard, in the order in which they ended.
    batches: BTreeMap<ShardId, Vec<Processed>>,
    /// The numbers of the records.
    distinct: BTreeSet<u64>,
    delivered: u64,
}

/// A batch that was processed.
#[derive(Clone, Debug)]
struct Processed {
    worker: WorkerId,
    began: Monotonic,
    ended: Monotonic,
}

/// A time in which nobody processed a shard.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    /// Who processed the shard before.
    pub(crate) from: WorkerId,
    /// Who processed it afterwards.
    pub(crate) to: WorkerId,
    /// When it was processed again.
    pub(crate) until: Monotonic,
    pub(crate) length: Duration,
}

impl Log {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch with the records of these numbers was processed.
    pub(crate) fn processed(
        &self,
        shard: &ShardId,
        worker: &WorkerId,
        began: Monotonic,
        ended: Monotonic,
        numbers: &[u64],
    ) {
        let mut seen = self.seen();
        seen.delivered += numbers.len() as u64;
        seen.distinct.extend(numbers);
        seen.batches.entry(shard.clone()).or_default().push(Processed { worker: worker.clone(), began, ended });
    }

    /// How many different records were seen.
    pub(crate) fn distinct(&self) -> u64 {
        self.seen().distinct.len() as u64
    }

    /// How many records were seen that had been seen before.
    pub(crate) fn duplicates(&self) -> u64 {
        let seen = self.seen();
        seen.delivered - seen.distinct.len() as u64
    }

    /// The shards whose newest batch began after `since`, by whom.
    pub(crate) fn active_since(&self, since: Monotonic) -> BTreeMap<ShardId, WorkerId> {
        let seen = self.seen();
        let newest = seen.batches.iter().filter_map(|(shard, batches)| Some((shard, batches.last()?)));
        newest
            .filter(|(_, batch)| batch.began > since)
            .map(|(shard, batch)| (shard.clone(), batch.worker.clone()))
            .collect()
    }

    /// For every shard, when it was first processed after `since`, by somebody who is not `gone`.
    pub(crate) fn first_since(&self, since: Monotonic, gone: &[WorkerId]) -> Vec<Monotonic> {
        let counts = |batch: &&Processed| batch.began > since && !gone.contains(&batch.worker);
        let seen = self.seen();
        seen.batches.values().filter_map(|batches| batches.iter().find(counts)).map(|batch| batch.began).collect()
    }

    /// The times between batches of a shard that ended after `since`.
    pub(crate) fn gaps_since(&self, since: Monotonic) -> Vec<Gap> {
        let gap = |pair: &[Processed]| Gap {
            from: pair[0].worker.clone(),
            to: pair[1].worker.clone(),
            until: pair[1].began,
            length: pair[1].began.since(pair[0].ended),
        };
        let seen = self.seen();
        let pairs = seen.batches.values().flat_map(|batches| batches.windows(2));
        pairs.filter(|pair| pair[1].began > since).map(gap).collect()
    }

    /// The gaps after `since` in which a shard changed hands.
    pub(crate) fn moves_since(&self, since: Monotonic) -> Vec<Gap> {
        self.gaps_since(since).into_iter().filter(|gap| gap.from != gap.to).collect()
    }
}
