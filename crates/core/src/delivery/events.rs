//! What happens to a delivery, and what it asks for.

use std::sync::Arc;

use super::{Batch, Verdict};
use crate::dead_letter::{Attempt, DeadReason};
use crate::{ExtendedSequenceNumber, Monotonic, PartitionKey, Timestamp, UserRecord};

/// A record as it comes from the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// To be delivered.
    Record(UserRecord),
    /// Not to be delivered, and done with: filtered, or empty.
    Passed(ExtendedSequenceNumber),
    /// Dead as it is, for this reason.
    Doomed(UserRecord, Doom),
}

/// Why records are given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doom {
    /// The reason.
    pub reason: DeadReason,
    /// The error and its causes, outermost first.
    pub error: Arc<[String]>,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// Records came in from the stream, in order.
    Arrived(Vec<Intake>),
    /// The shard has ended; nothing more will arrive.
    ShardEnded,
    /// The invocation in flight in a lane is over.
    Finished {
        /// The lane.
        lane: u32,
        /// How it ended.
        verdict: Verdict,
    },
    /// The burial in a lane is over.
    Buried {
        /// The lane.
        lane: u32,
        /// How it ended.
        outcome: BurialOutcome,
    },
    /// The keys with a dead record, as an archive has them. Keys that died here since `asked_at` (see
    /// [`Delivery::quarantine_clock`](super::Delivery::quarantine_clock)) are kept as well.
    DeadKeys {
        /// The keys.
        keys: Vec<PartitionKey>,
        /// What the clock said when the archive was asked.
        asked_at: u64,
    },
    /// Time passed, or the driver may deliver again.
    Tick,
}

/// How a burial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurialOutcome {
    /// The letters are durable, or to be discarded on purpose.
    Kept,
    /// No sink took them.
    Failed,
    /// Nobody tried; ask again.
    NotTried,
    /// Too many die, so these may not: the processor gets them again, with all of their retries, when the driver delivers
    /// again. What is dead for what it is (too old, too large) stays dead.
    Withheld,
}

/// The time, on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For delays.
    pub monotonic: Monotonic,
    /// For the age of records.
    pub timestamp: Timestamp,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Call the lane's processor with this batch, and answer with [`Event::Finished`].
    Invoke {
        /// The lane.
        lane: u32,
        /// The batch.
        batch: Batch,
        /// Which attempt this is, from 1.
        attempt: u32,
        /// The process may die of this batch. Let nothing else run in the process; then
        /// [`announce`](super::Delivery::announce) it and store [`resume`](super::Delivery::resume) before the call; and after
        /// [`Event::Finished`] store that again before anything else runs.
        alone: bool,
    },
    /// Make dead letters durable, and answer with [`Event::Buried`]. Under [suspicion](super::Delivery::suspicion), store
    /// [`resume`](super::Delivery::resume) after that before anything else runs: if the process dies of what comes next, nothing
    /// else tells the next process that it came so far.
    Bury {
        /// The lane.
        lane: u32,
        /// The records, and why.
        burial: Burial,
    },
    /// Records are settled; for the books.
    Settled(Settled),
}

/// Records that are given up, and everything that is known of their end.
#[derive(Clone, Debug)]
pub struct Burial {
    /// The records.
    pub batch: Batch,
    /// Why.
    pub doom: Doom,
    /// The failed attempts: of many the first and the newest.
    pub attempts: Vec<Attempt>,
    /// How often the processor was called with this batch.
    pub invocations: u32,
    /// Whether the processor named the records.
    pub partial: bool,
}

/// Records that are settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many are done.
    pub done: usize,
    /// How many are dead, with letters or on purpose without.
    pub dead: usize,
    /// How many of the dead no sink took.
    pub discarded: usize,
    /// Why they are dead.
    pub reason: Option<DeadReason>,
    /// What they weigh ([`UserRecord::weight`]).
    pub weight: usize,
    /// When the newest of them had arrived.
    pub newest: Option<Timestamp>,
}
