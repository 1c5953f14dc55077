//! The leader lock: watched, taken, kept, given up.

use shardwell_core::leasing::{LeaderTiming, LockWatch};
use shardwell_core::{LeaderLock, Monotonic, StoreError, WorkerId};

use crate::worker::Shared;

/// One worker's view of the leader lock.
#[derive(Debug)]
pub(super) struct Lock {
    timing: LeaderTiming,
    watch: LockWatch,
    /// Until when this worker leads, unless it writes the lock again. The lock as it wrote it is the one that was last seen.
    held_until: Option<Monotonic>,
    next_turn: Monotonic,
}

impl Lock {
    pub(super) fn new(timing: LeaderTiming) -> Self {
        Self { timing, watch: LockWatch::default(), held_until: None, next_turn: Monotonic::ZERO }
    }

    /// When the lock is to be read or written next.
    pub(super) const fn next_turn(&self) -> Monotonic {
        self.next_turn
    }

    /// Has the lock written at once, because what stands in it is out of date.
    pub(super) const fn hurry(&mut self) {
        self.next_turn = Monotonic::ZERO;
    }

    /// Whether this worker leads.
    pub(super) fn is_held(&self, now: Monotonic) -> bool {
        now < self.held_until()
    }

    /// Until when this worker leads, unless it writes the lock again.
    pub(super) fn held_until(&self) -> Monotonic {
        self.held_until.unwrap_or(Monotonic::ZERO)
    }

    /// Whether the leader asks this worker to watch the leases.
    pub(super) fn is_standby(&self, worker: &WorkerId) -> bool {
        self.watch.is_standby(worker)
    }

    /// Whether another worker was the leader when it was last looked.
    pub(super) fn is_led_by_another(&self, worker: &WorkerId) -> bool {
        self.watch.lock().is_some_and(|lock| lock.owner != *worker && !lock.released)
    }

    /// Reads the lock, and writes it where this worker has it or may take it.
    pub(super) async fn turn(
        &mut self,
        shared: &Shared,
        may_lead: bool,
        standbys: &[WorkerId],
    ) -> Result<(), StoreError> {
        let asked = shared.env.now();
        self.next_turn = asked.plus(self.timing.heartbeat());
        if self.is_held(asked) {
            if self.write(shared, standbys).await? {
                return Ok(());
            }
            // Somebody else has it, or a write of which no answer came was applied.
            self.held_until = None;
        }
        let lock = shared.bounded(shared.store.leader_lock()).await?;
        self.watch.observe(lock, asked);
        let free_at = self.watch.free_at(&shared.worker, self.timing.heartbeat());
        let now = shared.env.now();
        if may_lead && free_at <= now {
            self.write(shared, standbys).await?;
        } else if free_at > now {
            self.next_turn = self.next_turn.min(free_at);
        }
        Ok(())
    }

    /// Writes the lock if it still is as it was last seen: to take it, and for the heartbeat. Tells whether it was.
    async fn write(&mut self, shared: &Shared, standbys: &[WorkerId]) -> Result<bool, StoreError> {
        let attempt = shared.env.now();
        let lock = self.fresh(shared, standbys);
        let written = self.swap(shared, &lock).await?;
        if written {
            self.held_until = Some(self.timing.leads_until(attempt));
            self.watch.observe(Some(lock), attempt);
        }
        Ok(written)
    }

    async fn swap(&self, shared: &Shared, lock: &LeaderLock) -> Result<bool, StoreError> {
        let seen = self.watch.lock().map(|lock| lock.version.as_str());
        shared.bounded(shared.store.swap_leader_lock(seen, Some(lock))).await
    }

    fn fresh(&self, shared: &Shared, standbys: &[WorkerId]) -> LeaderLock {
        LeaderLock {
            owner: shared.worker.clone(),
            duration: self.timing.duration(),
            version: format!("{:016x}{:016x}", shared.env.random(), shared.env.random()),
            released: false,
            standbys: standbys.to_vec(),
        }
    }

    /// Marks the lock as given up. The standbys stay in it: they go first.
    pub(super) async fn give_up(&mut self, shared: &Shared) -> Result<(), StoreError> {
        if self.held_until.take().is_none() {
            return Ok(());
        }
        let standbys = self.watch.lock().map(|lock| lock.standbys.clone()).unwrap_or_default();
        let lock = LeaderLock { released: true, ..self.fresh(shared, &standbys) };
        if self.swap(shared, &lock).await? {
            return Ok(());
        }
        // A heartbeat that was abandoned on its way was applied all the same.
        let asked = shared.env.now();
        self.watch.observe(shared.bounded(shared.store.leader_lock()).await?, asked);
        if self.watch.lock().is_some_and(|lock| lock.owner == shared.worker) {
            self.swap(shared, &lock).await?;
        }
        Ok(())
    }
}
