//! Waiting for room in the worker's byte budget.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use metrics::gauge;
use shardwell_core::fetching::{Admission, Budget, Slot};
use tokio::sync::oneshot;

use crate::lock::lock;
use crate::metrics::BUFFERED;

/// The budget, and those who wait for room in it, first come first.
#[derive(Debug)]
pub(crate) struct SharedBudget {
    application: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    budget: Budget,
    waiting: VecDeque<Waiting>,
    peak: usize,
}

#[derive(Debug)]
struct Waiting {
    room: Arc<Room>,
    bytes: usize,
    granted: oneshot::Sender<Reservation>,
}

/// One shard's part of the budget. Leaves it, with all that it holds, when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    shared: Arc<SharedBudget>,
    slot: Slot,
}

/// Room for a read that is about to happen. Gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    room: Arc<Room>,
    bytes: usize,
}

impl SharedBudget {
    pub(crate) fn new(total: usize, application: String) -> Self {
        let state = State { budget: Budget::new(total), waiting: VecDeque::new(), peak: 0 };
        Self { application, state: Mutex::new(state) }
    }

    /// A part for another shard.
    pub(crate) fn join(self: &Arc<Self>) -> Arc<Room> {
        let slot = lock(&self.state).budget.join();
        Arc::new(Room { shared: self.clone(), slot })
    }

    /// What is held now, and the most that ever was.
    pub(crate) fn held_and_peak(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.budget.held(), state.peak)
    }

    /// Changes the budget, and grants what has become possible.
    fn change(&self, change: impl FnOnce(&mut Budget)) {
        let mut unwanted = Unwanted::default();
        {
            let mut state = lock(&self.state);
            change(&mut state.budget);
            state.grant(&mut unwanted);
            state.peak = state.peak.max(state.budget.held());
            gauge!(BUFFERED, "application" => self.application.clone()).set(state.budget.held() as f64);
        }
        // Dropped here, since giving back takes the lock again.
        drop(unwanted);
    }
}

/// What nobody waits for any more.
#[derive(Debug, Default)]
struct Unwanted {
    waiting: Vec<Waiting>,
    granted: Vec<Reservation>,
}

impl State {
    /// Grants what can be granted. Whoever waits only for its own progress is passed over; whoever waits for room in the
    /// total keeps those behind it waiting, so that small reads do not starve a large one.
    fn grant(&mut self, unwanted: &mut Unwanted) {
        let mut still_waiting = VecDeque::with_capacity(self.waiting.len());
        let mut blocked = false;
        while let Some(waiting) = self.waiting.pop_front() {
            if waiting.granted.is_closed() {
                unwanted.waiting.push(waiting);
                continue;
            }
            if blocked {
                still_waiting.push_back(waiting);
                continue;
            }
            match self.budget.reserve(waiting.room.slot, waiting.bytes) {
                Admission::Granted => {
                    let Waiting { room, bytes, granted } = waiting;
                    unwanted.granted.extend(granted.send(Reservation { room, bytes }).err());
                }
                Admission::OverShare => still_waiting.push_back(waiting),
                Admission::OverTotal => {
                    blocked = true;
                    still_waiting.push_back(waiting);
                }
            }
        }
        self.waiting = still_waiting;
    }
}

impl Room {
    /// What this shard may hold.
    pub(crate) fn share(&self) -> usize {
        lock(&self.shared.state).budget.fair_share()
    }

    /// Room for a read, if there is some and nobody waited for it before.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut state = lock(&self.shared.state);
        let granted = state.waiting.is_empty() && state.budget.reserve(self.slot, bytes) == Admission::Granted;
        if granted {
            state.peak = state.peak.max(state.budget.held());
        }
        granted.then(|| Reservation { room: self.clone(), bytes })
    }

    /// Waits for room for a read.
    pub(crate) async fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        loop {
            let (granted, wait) = oneshot::channel();
            let waiting = Waiting { room: self.clone(), bytes, granted };
            lock(&self.shared.state).waiting.push_back(waiting);
            self.shared.change(|_| {});
            if let Ok(reservation) = wait.await {
                return reservation;
            }
        }
    }

    /// Gives back the room of records that are done.
    pub(crate) fn release(&self, bytes: usize) {
        self.shared.change(|budget| budget.release(self.slot, bytes));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.change(|budget| budget.leave(self.slot));
    }
}

impl Reservation {
    /// Keeps what the answer weighs, until it is released.
    pub(crate) fn settle(mut self, actual: usize) {
        let reserved = std::mem::take(&mut self.bytes);
        self.room.shared.change(|budget| budget.settle(self.room.slot, reserved, actual));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn budget(total: usize) -> Arc<SharedBudget> {
        Arc::new(SharedBudget::new(total, "test".into()))
    }

    #[test]
    fn those_who_wait_are_served_in_order_and_only_when_there_is_room() {
        let budget = budget(100);
        let (a, b, c) = (budget.join(), budget.join(), budget.join());
        let held = a.try_reserve(90).expect("there is room");
        let mut large = Box::pin(b.reserve(80));
        let mut small = Box::pin(c.reserve(10));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(small.as_mut().now_or_never().is_none(), "it came after the large one");
        assert!(c.try_reserve(1).is_none(), "nobody jumps the queue");
        held.settle(20);
        let large = large.now_or_never().expect("there is room now");
        assert!(small.as_mut().now_or_never().is_none(), "100 are held");
        drop(large);
        assert!(small.now_or_never().is_some());
        assert_eq!(budget.held_and_peak(), (20, 100));
    }

    #[test]
    fn a_wait_that_is_given_up_holds_nothing() {
        let budget = budget(100);
        let (a, b, c) = (budget.join(), budget.join(), budget.join());
        let held = a.try_reserve(100).expect("there is room");
        let mut given_up = Box::pin(b.reserve(50));
        assert!(given_up.as_mut().now_or_never().is_none());
        drop(given_up);
        drop(held);
        assert_eq!(budget.held_and_peak().0, 0);
        assert!(c.try_reserve(100).is_some());
    }

    #[test]
    fn a_shard_that_leaves_gives_everything_back() {
        let budget = budget(100);
        let (a, b) = (budget.join(), budget.join());
        a.try_reserve(60).expect("there is room").settle(70);
        assert_eq!(budget.held_and_peak().0, 70);
        let mut waiting = Box::pin(b.reserve(50));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(a);
        assert!(waiting.now_or_never().is_some());
    }
}
