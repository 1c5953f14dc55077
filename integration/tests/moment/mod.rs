//! When a process is killed.

use std::time::Duration;

/// A moment in the life of a process.
pub(crate) enum Moment {
    /// So long after its start: it may not have a single lease yet.
    AfterStart(Duration),
    /// So long after the first record that it handled.
    AfterFirstRecord(Duration),
}

impl Moment {
    /// A random moment. Most lie where there is something to lose.
    pub(crate) fn random(random: &mut fastrand::Rng) -> Self {
        match random.u32(0..4) {
            0 => Self::AfterStart(Duration::from_millis(random.u64(0..1800))),
            _ => Self::AfterFirstRecord(Duration::from_millis(random.u64(0..1000))),
        }
    }
}
