//! What may be in a producer at a time, in bytes and in user records. Whoever wants more waits its turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::lock::lock;

/// A budget that several streams may share.
#[derive(Debug)]
pub(crate) struct Budget {
    max_bytes: usize,
    max_records: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    records: usize,
    /// First come, first served: a large record is not passed over for ever.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    bytes: usize,
    permit: oneshot::Sender<Permit>,
}

/// Room for one user record. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// Nothing, if it was given back already.
    bytes: usize,
    budget: Arc<Budget>,
}

impl Budget {
    pub(crate) fn new(max_bytes: usize, max_records: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, max_records, state: Mutex::default() })
    }

    /// What is taken, in bytes and in user records.
    pub(crate) fn taken(&self) -> (usize, usize) {
        let state = lock(&self.state);
        (state.bytes, state.records)
    }

    /// Room for a record, if there is some now and nobody waits.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let mut state = lock(&self.state);
        (state.waiting.is_empty() && self.has_room(&state, bytes)).then(|| self.give(&mut state, bytes))
    }

    /// Room for a record that is no larger than the budget, as soon as there is some.
    ///
    /// # Cancel safety
    /// Whoever stops waiting has taken nothing.
    pub(crate) async fn take(self: &Arc<Self>, bytes: usize) -> Permit {
        loop {
            let waiting = {
                let mut state = lock(&self.state);
                if state.waiting.is_empty() && self.has_room(&state, bytes) {
                    return self.give(&mut state, bytes);
                }
                let (permit, waiting) = oneshot::channel();
                state.waiting.push_back(Waiting { bytes, permit });
                waiting
            };
            // The sender is kept until it is used, so this cannot fail; if it did, waiting anew would be right.
            if let Ok(permit) = waiting.await {
                return permit;
            }
        }
    }

    const fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.records < self.max_records && state.bytes + bytes <= self.max_bytes
    }

    fn give(self: &Arc<Self>, state: &mut State, bytes: usize) -> Permit {
        state.bytes += bytes;
        state.records += 1;
        Permit { bytes, budget: self.clone() }
    }

    fn give_back(self: &Arc<Self>, bytes: usize, records: usize) {
        let somebody_waits = {
            let mut state = lock(&self.state);
            state.bytes -= bytes;
            state.records -= records;
            !state.waiting.is_empty()
        };
        if somebody_waits {
            self.serve();
        }
    }

    /// Gives back many permits at once, of this budget.
    pub(crate) fn give_back_all<'a>(self: &Arc<Self>, permits: impl Iterator<Item = &'a mut Permit>) {
        let sizes = permits.map(|permit| std::mem::take(&mut permit.bytes)).filter(|bytes| *bytes > 0);
        let (bytes, records) = sizes.fold((0, 0), |(bytes, records), size| (bytes + size, records + 1));
        self.give_back(bytes, records);
    }

    /// Gives what is free to those who wait. A permit that nobody takes any more comes back here, so the lock must be free then.
    fn serve(self: &Arc<Self>) {
        loop {
            let served = {
                let mut state = lock(&self.state);
                let Some(next) = state.waiting.front() else { return };
                if !next.permit.is_closed() && !self.has_room(&state, next.bytes) {
                    return;
                }
                let Some(next) = state.waiting.pop_front() else { return };
                (!next.permit.is_closed()).then(|| (self.give(&mut state, next.bytes), next.permit))
            };
            if let Some((permit, waiting)) = served {
                drop(waiting.send(permit));
            }
        }
    }
}

impl Permit {
    /// For how many bytes it is.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is more than `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        if surplus > 0 {
            self.budget.give_back(surplus, 0);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.give_back(self.bytes, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn nobody_gets_more_than_there_is_and_those_who_wait_are_served_in_order() {
        let budget = Budget::new(10, 2);
        let first = budget.try_take(6).expect("room");
        assert!(budget.try_take(5).is_none(), "too many bytes");
        let (mut large, mut small) = (Box::pin(budget.take(10)), Box::pin(budget.take(1)));
        assert!((&mut large).now_or_never().is_none() && (&mut small).now_or_never().is_none());
        assert!(budget.try_take(1).is_none(), "others were here before");
        drop(first);
        let large = large.now_or_never().expect("the first who waited");
        assert!((&mut small).now_or_never().is_none());
        drop(large);
        let small = small.now_or_never().expect("the second");
        assert_eq!((small.bytes(), budget.taken()), (1, (1, 1)));
        let other = budget.try_take(1).expect("room");
        assert!(budget.try_take(1).is_none(), "too many records");
        drop((small, other));
        assert_eq!(budget.taken(), (0, 0));
    }

    #[test]
    fn what_is_not_needed_of_a_permit_is_given_back() {
        let budget = Budget::new(10, 10);
        let mut large = budget.try_take(10).expect("room");
        let mut waits = Box::pin(budget.take(6));
        assert!((&mut waits).now_or_never().is_none());
        large.shrink_to(4);
        assert!(waits.now_or_never().is_some_and(|permit| permit.bytes() == 6));
        assert_eq!((large.bytes(), budget.taken()), (4, (4, 1)));
    }

    #[test]
    fn many_are_given_back_at_once_and_once() {
        let budget = Budget::new(100, 10);
        let mut permits: Vec<Permit> = (1..=4).map(|bytes| budget.try_take(bytes).expect("room")).collect();
        let mut waits = Box::pin(budget.take(95));
        assert!((&mut waits).now_or_never().is_none());
        budget.give_back_all(permits[1..].iter_mut());
        assert_eq!(waits.now_or_never().expect("there is room").bytes(), 95);
        drop(permits);
        assert_eq!(budget.taken(), (0, 0));
    }

    #[test]
    fn who_stops_waiting_takes_nothing() {
        let budget = Budget::new(10, 10);
        let all = budget.try_take(10).expect("room");
        let (mut gives_up, mut waits) = (Box::pin(budget.take(10)), Box::pin(budget.take(10)));
        assert!((&mut gives_up).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        drop(gives_up);
        drop(all);
        assert!(waits.now_or_never().is_some());
        assert_eq!(budget.taken(), (0, 0));
    }

    #[test]
    fn a_permit_that_arrives_too_late_comes_back() {
        let budget = Budget::new(10, 10);
        let all = budget.try_take(10).expect("room");
        let (mut served, mut waits) = (Box::pin(budget.take(10)), Box::pin(budget.take(10)));
        assert!((&mut served).now_or_never().is_none() && (&mut waits).now_or_never().is_none());
        drop(all);
        drop(served);
        assert!(waits.now_or_never().is_some());
    }
}
