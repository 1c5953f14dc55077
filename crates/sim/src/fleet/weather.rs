//! What is out of order just now.

use std::time::Duration;

use fastrand::Rng;
use shardwell_core::Monotonic;

use super::kind::Kind;

/// The index of a process.
pub(crate) type ProcessId = usize;

/// Something that is out of order for a while.
#[derive(Clone, Debug)]
struct Trouble {
    kind: Kind,
    until: Monotonic,
    /// Whom it befalls; everybody, if nobody is named.
    process: Option<ProcessId>,
    /// How often it strikes, from 0 to 1.
    chance: f64,
}

/// All that is out of order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather(Vec<Trouble>);

/// Whether a call to the lease table reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Write,
}

/// What befalls a call to the lease table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// The way there, and the way back.
    pub(crate) there: Duration,
    pub(crate) back: Duration,
    pub(crate) end: End,
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As it should.
    Well,
    /// Refused before anything was done.
    Throttled,
    /// Failed; nothing was done.
    Failed,
    /// Done, and reported as failed.
    ReplyLost,
}

impl Weather {
    pub(crate) fn begin(&mut self, kind: Kind, until: Monotonic, process: Option<ProcessId>, chance: f64) {
        self.0.push(Trouble { kind, until, process, chance });
    }

    /// What is over is forgotten; tells whether something is left.
    pub(crate) fn is_bad(&mut self, now: Monotonic) -> bool {
        self.0.retain(|trouble| now < trouble.until);
        !self.0.is_empty()
    }

    /// Whether leases cannot be written as they should.
    pub(crate) fn keeps_from_writing(&self) -> bool {
        let of_processors = |kind: Kind| {
            use Kind::{FailingProcessor, HungProcessor, PanickingProcessor, SlowProcessor};
            matches!(kind, SlowProcessor | HungProcessor | FailingProcessor | PanickingProcessor)
        };
        self.0.iter().any(|trouble| !of_processors(trouble.kind))
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether a kind of trouble is there for a process.
    pub(crate) fn has(&self, kind: Kind, process: ProcessId, now: Monotonic) -> bool {
        self.find(kind, process, now).is_some()
    }

    /// Whether it strikes.
    pub(crate) fn strikes(&self, kind: Kind, process: ProcessId, now: Monotonic, random: &mut Rng) -> bool {
        self.find(kind, process, now).is_some_and(|trouble| random.f64() < trouble.chance)
    }

    fn find(&self, kind: Kind, process: ProcessId, now: Monotonic) -> Option<&Trouble> {
        let here = |trouble: &&Trouble| trouble.process.is_none_or(|only| only == process);
        self.0.iter().filter(|trouble| trouble.kind == kind && now < trouble.until).find(here)
    }

    /// What befalls a call of a process to the lease table.
    pub(crate) fn store(&self, call: Call, process: ProcessId, now: Monotonic, random: &mut Rng) -> Fate {
        let mut way = || Duration::from_micros(random.u64(500..8000));
        let (mut there, mut back) = (way(), way());
        if self.strikes(Kind::StoreSlow, process, now, random) {
            there += Duration::from_millis(random.u64(100..1500));
            back += Duration::from_millis(random.u64(100..1500));
        }
        let is_over_limit = self.strikes(Kind::StoreThrottled, process, now, random)
            || call == Call::Write && self.strikes(Kind::WritesThrottled, process, now, random);
        let end = if is_over_limit {
            End::Throttled
        } else if self.strikes(Kind::StoreFailing, process, now, random) {
            End::Failed
        } else if self.strikes(Kind::LostReplies, process, now, random) {
            End::ReplyLost
        } else {
            End::Well
        };
        Fate { there, back, end }
    }
}
