//! A value that others watch.
//!
//! As `tokio::sync::watch`, but for one thing: that one wakes those who wait in an order that it draws at random, and two runs of
//! one seed would differ. Here they wake in the order in which they began to wait.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;

use crate::lock::lock;

/// A value that is watched. Whoever watches keeps it alive.
#[derive(Debug)]
pub(crate) struct Watched<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    /// The value, and how often it has changed.
    value: Mutex<(T, u64)>,
    changed: Notify,
}

/// Somebody who watches a value.
#[derive(Debug)]
pub(crate) struct Watcher<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, for a look. Not to be held over an await, nor while the value is changed.
pub(crate) struct Look<'a, T>(MutexGuard<'a, (T, u64)>);

impl<T> Deref for Look<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

impl<T> Watched<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Shared { value: Mutex::new((value, 0)), changed: Notify::new() }))
    }

    /// Somebody who has seen the value as it is now.
    pub(crate) fn watch(&self) -> Watcher<T> {
        Watcher { seen: lock(&self.0.value).1, shared: self.0.clone() }
    }

    pub(crate) fn look(&self) -> Look<'_, T> {
        Look(lock(&self.0.value))
    }

    /// Sets the value, and wakes all who watch, also if it is the same.
    pub(crate) fn set(&self, value: T) {
        self.change(|old| {
            *old = value;
            true
        });
    }

    /// Changes the value, and wakes all who watch if `change` says that it did.
    pub(crate) fn change(&self, change: impl FnOnce(&mut T) -> bool) {
        let changed = {
            let mut value = lock(&self.0.value);
            let changed = change(&mut value.0);
            value.1 += u64::from(changed);
            changed
        };
        if changed {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Watcher<T> {
    /// The value, which counts as seen.
    pub(crate) fn look(&mut self) -> Look<'_, T> {
        let value = lock(&self.shared.value);
        self.seen = value.1;
        Look(value)
    }

    /// Waits until the value has changed since it was last seen.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            let notified = self.shared.changed.notified();
            tokio::pin!(notified);
            // From here on no change is missed.
            notified.as_mut().enable();
            let changes = lock(&self.shared.value).1;
            if changes != self.seen {
                self.seen = changes;
                return;
            }
            notified.await;
        }
    }

    /// Waits until the value is as wanted.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&T) -> bool) {
        while !wanted(&self.look()) {
            self.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    #[test]
    fn a_change_is_seen_once_by_each() {
        let value = Watched::new(1);
        let (mut first, mut second) = (value.watch(), value.watch());
        assert_eq!(first.changed().now_or_never(), None);
        value.set(2);
        value.set(3);
        assert_eq!((first.changed().now_or_never(), *first.look()), (Some(()), 3));
        assert_eq!(first.changed().now_or_never(), None, "seen");
        assert_eq!(*second.look(), 3);
        assert_eq!(second.changed().now_or_never(), None, "a look is enough");
        value.change(|_| false);
        assert_eq!(value.watch().changed().now_or_never(), None, "nothing before it began to watch");
    }

    #[tokio::test]
    async fn those_who_wait_wake_in_the_order_in_which_they_began() {
        let (value, order) = (Watched::new(0), Mutex::new(Vec::new()));
        let wait = |number: usize| {
            let (mut watcher, order) = (value.watch(), &order);
            async move {
                watcher.until(|value| *value == 1).await;
                lock(order).push(number);
            }
        };
        let all = join_all((0..20).map(wait));
        tokio::pin!(all);
        assert!(all.as_mut().now_or_never().is_none());
        value.set(1);
        all.await;
        assert_eq!(*lock(&order), (0..20).collect::<Vec<_>>());
    }
}
