//! The leases that this worker holds, and how long each may be trusted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shardwell_core::leasing::LeaseTiming;
use shardwell_core::{Lease, LeaseKey, Monotonic, Renewal, ShardId, WriteToken};

use crate::CheckpointMode;
use crate::lock::lock;
use crate::records::watermark::Progress;
use crate::watch::Watched;
use crate::worker::ConsumedStream;
use crate::worker::status::Activity;

/// How the consumer of a held lease is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Start nothing new, let what is running finish until the deadline, and end.
    Drain { deadline: Monotonic },
    /// The lease is lost: end at once, checkpoint nothing.
    Lost,
}

/// A lease from the moment it was taken up until it is handed over, finished or lost.
#[derive(Debug)]
pub(crate) struct HeldLease {
    stream: Arc<ConsumedStream>,
    key: LeaseKey,
    shard: ShardId,
    /// What the records' side has done, and what is stored of it.
    progress: Progress,
    /// What the consumer is doing, for the status.
    activity: Activity,
    /// The row as last seen, and what follows from it. Written by the renewer alone once the lease is held.
    term: Mutex<Term>,
    /// Tells the consumer to stop.
    stop: Watched<Option<Stop>>,
}

#[derive(Debug)]
struct Term {
    /// The row after the newest write that is known to be applied.
    image: Lease,
    trusted_until: Monotonic,
    next_renewal: Monotonic,
    /// The token of a write of unknown outcome: the next one repeats it.
    unresolved: Option<WriteToken>,
}

impl Term {
    fn newest(&self, shown: Lease) -> Option<Lease> {
        if shown.counter < self.image.counter {
            return Some(self.image.clone());
        }
        let token = shown.token?;
        (self.unresolved == Some(token) || self.image.token == Some(token)).then_some(shown)
    }
}

impl HeldLease {
    /// A lease that was taken up with a write that started at `attempt` and left the row `image`.
    pub(crate) fn new(
        stream: Arc<ConsumedStream>,
        image: Lease,
        attempt: Monotonic,
        timing: LeaseTiming,
        mode: CheckpointMode,
        now: Monotonic,
    ) -> Self {
        Self {
            stream,
            key: image.key.clone(),
            shard: image.shard.clone(),
            progress: Progress::new(mode, &image, now),
            activity: Activity::default(),
            term: Mutex::new(Term {
                trusted_until: timing.trusted_until(attempt),
                next_renewal: attempt.plus(timing.renew_interval()),
                unresolved: None,
                image,
            }),
            stop: Watched::new(None),
        }
    }

    /// The stream of the shard.
    pub(crate) const fn stream(&self) -> &Arc<ConsumedStream> {
        &self.stream
    }

    pub(crate) const fn key(&self) -> &LeaseKey {
        &self.key
    }

    pub(crate) const fn shard(&self) -> &ShardId {
        &self.shard
    }

    pub(crate) const fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(crate) const fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(crate) fn image(&self) -> Lease {
        lock(&self.term).image.clone()
    }

    /// The one answer to "may I still process?".
    pub(crate) fn may_process(&self, now: Monotonic) -> bool {
        !self.is_lost() && now < self.trusted_until()
    }

    pub(crate) fn trusted_until(&self) -> Monotonic {
        lock(&self.term).trusted_until
    }

    pub(crate) fn next_renewal(&self) -> Monotonic {
        lock(&self.term).next_renewal
    }

    /// The write to make now. `fresh` becomes its token, unless an earlier write is unresolved: then this repeats it.
    /// `refresh` is how old the stored time of the tip may become.
    pub(crate) fn renewal(&self, now: Monotonic, fresh: WriteToken, refresh: Duration) -> Renewal {
        let mut term = lock(&self.term);
        let token = *term.unresolved.get_or_insert(fresh);
        Renewal {
            key: self.key.clone(),
            counter: term.image.counter,
            token,
            throughput_kbps: self.progress.take_throughput(now),
            checkpoint: self.progress.to_store(refresh),
        }
    }

    /// What is known to be newest, given a row of this worker's id that a refused write showed: that row, if this process wrote it,
    /// be that answered or not; or a later one, if the refusal was overtaken by the answer to a renewal. `None` if another
    /// process has the id, and the lease.
    pub(crate) fn newest(&self, shown: Lease) -> Option<Lease> {
        lock(&self.term).newest(shown)
    }

    /// A write that started at `attempt` was applied and left this row.
    pub(crate) fn renewed(&self, image: Lease, attempt: Monotonic, timing: LeaseTiming, now: Monotonic) {
        self.progress.stored(&image, now);
        let mut term = lock(&self.term);
        term.image = image;
        term.unresolved = None;
        term.trusted_until = timing.trusted_until(attempt);
        term.next_renewal = attempt.plus(timing.renew_interval());
    }

    /// Sets the time of the next renewal.
    pub(crate) fn renew_at(&self, at: Monotonic) {
        lock(&self.term).next_renewal = at;
    }

    /// Tells the consumer to stop. A loss is final; a drain keeps its first deadline.
    pub(crate) fn tell(&self, stop: Stop) {
        self.stop.change(|current| {
            let stronger = matches!((*current, stop), (None, _) | (Some(Stop::Drain { .. }), Stop::Lost));
            if stronger {
                *current = Some(stop);
            }
            stronger
        });
    }

    /// Waits until the consumer is to stop, and says how.
    pub(crate) async fn told_to_stop(&self) -> Stop {
        let mut stop = self.stop.watch();
        loop {
            if let Some(stop) = *stop.look() {
                return stop;
            }
            stop.changed().await;
        }
    }

    /// Waits until the lease is lost.
    pub(crate) async fn told_lost(&self) {
        self.stop.watch().until(|stop| *stop == Some(Stop::Lost)).await;
    }

    pub(crate) fn is_lost(&self) -> bool {
        *self.stop.look() == Some(Stop::Lost)
    }
}

/// All leases that this worker holds, by key.
#[derive(Debug, Default)]
pub(crate) struct HeldLeases(Mutex<BTreeMap<LeaseKey, Arc<HeldLease>>>);

impl HeldLeases {
    pub(crate) fn insert(&self, lease: Arc<HeldLease>) {
        lock(&self.0).insert(lease.key().clone(), lease);
    }

    pub(crate) fn remove(&self, key: &LeaseKey) {
        lock(&self.0).remove(key);
    }

    pub(crate) fn get(&self, key: &LeaseKey) -> Option<Arc<HeldLease>> {
        lock(&self.0).get(key).cloned()
    }

    pub(crate) fn contains(&self, key: &LeaseKey) -> bool {
        lock(&self.0).contains_key(key)
    }

    pub(crate) fn all(&self) -> Vec<Arc<HeldLease>> {
        lock(&self.0).values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

#[cfg(test)]
mod tests {
    use shardwell_core::Checkpoint;

    use super::*;

    #[test]
    fn a_row_of_another_process_is_told_from_an_older_one_of_this() {
        let row = |counter, token: u64| {
            let mut row = Lease::new("s".into(), Checkpoint::Latest);
            (row.counter, row.owner, row.token) = (counter, Some("w".into()), Some(WriteToken::new(token)));
            row
        };
        let mut term = Term {
            image: row(7, 70),
            trusted_until: Monotonic::ZERO,
            next_renewal: Monotonic::ZERO,
            unresolved: Some(WriteToken::new(80)),
        };
        assert_eq!(term.newest(row(7, 70)), Some(row(7, 70)), "as it is known");
        assert_eq!(term.newest(row(8, 80)), Some(row(8, 80)), "a renewal was on its way");
        assert_eq!(term.newest(row(8, 81)), None, "another process renewed");
        let mut given = row(8, 0);
        given.token = None;
        assert_eq!(term.newest(given), None, "somebody gave it to the next process");
        // The answer to that renewal was faster than the refusal, which shows what was before it.
        (term.image, term.unresolved) = (row(8, 80), None);
        assert_eq!(term.newest(row(7, 70)), Some(row(8, 80)));
    }
}
