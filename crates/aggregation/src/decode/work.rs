//! Counts what decoding does, so that a test can see that it is linear in the input.

use std::cell::Cell;

thread_local! {
    static WORK: Cell<u64> = const { Cell::new(0) };
}

/// A field was begun, or the bytes of a key were checked or hashed.
pub(crate) fn add(steps: usize) {
    WORK.set(WORK.get() + steps as u64);
}

/// The steps that a computation takes on this thread.
pub(crate) fn of<T>(compute: impl FnOnce() -> T) -> (T, u64) {
    let before = WORK.get();
    let result = compute();
    (result, WORK.get() - before)
}
