//! The seam to letters that can be read back, and the life of a letter there.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;

use super::{DeadLetter, DeadReason, LetterId, SinkError};
use crate::{PartitionKey, ShardId, Timestamp, WorkerId};

/// Reads dead letters back, and gives them out for another try.
///
/// Letters of one application may be used by many processes at once. A [`claim`](Self::claim) is exclusive until it is
/// resolved or its time is over.
///
/// Every method is bounded by a time-out of the archive's own, and writes are durable when they are answered.
#[async_trait]
pub trait DeadLetterArchive: fmt::Debug + Send + Sync {
    /// The letters that match, in the order of their identities, a page at a time: at most `limit` (0 is taken as 1) from
    /// behind `after` on. A page can be shorter, or empty, and not the last one, where letters cannot be read.
    async fn letters(
        &self,
        query: &LetterQuery,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<LetterPage, SinkError>;

    /// One letter.
    async fn letter(&self, id: &LetterId) -> Result<Option<ArchivedLetter>, SinkError>;

    /// Asks for another try of every letter that matches and is [`LetterState::Dead`] or [`LetterState::Parked`]; answers
    /// how many that were. The next worker that looks takes them. The rounds of a parked letter begin anew.
    async fn request_redrive(&self, query: &LetterQuery, at: Timestamp) -> Result<u64, SinkError>;

    /// Gives out letters of an application and stream for another try, at most `limit`, oldest position first: those that
    /// were requested, and those of claims whose time is over at `now`. They are `worker`'s until `until`.
    ///
    /// Letters of one partition key are given out in order and to one worker at a time: none while another one of the key
    /// is claimed by another worker. Positions are compared over all shards, so that the order of a key holds across a
    /// reshard. Letters that cannot be read are passed over.
    async fn claim(&self, claim: &Claim) -> Result<Vec<ArchivedLetter>, SinkError>;

    /// Says how another try ended, if the letter is still claimed by `worker`; answers whether it was. A claim whose time is
    /// over counts until another worker takes the letter.
    async fn resolve(&self, id: &LetterId, worker: &WorkerId, resolution: &Resolution) -> Result<bool, SinkError>;

    /// Marks letters as redriven that went another way, back into the stream say: whatever their state is. Answers whether
    /// it was there.
    async fn mark_redriven(&self, id: &LetterId, at: Timestamp) -> Result<bool, SinkError>;

    /// The partition keys of an application and stream with a letter that is not redriven.
    async fn dead_keys(&self, application: &str, stream: &str) -> Result<BTreeSet<PartitionKey>, SinkError>;
}

/// Who wants letters for another try, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The application.
    pub application: String,
    /// The stream.
    pub stream: String,
    /// The worker that will try.
    pub worker: WorkerId,
    /// The time now: claims that end at or before it are over.
    pub now: Timestamp,
    /// When this claim is over.
    pub until: Timestamp,
    /// How many letters at most.
    pub limit: usize,
}

/// Which letters are meant. Every part that is given must match; the default matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterQuery {
    /// Of this application.
    pub application: Option<String>,
    /// Of this stream.
    pub stream: Option<String>,
    /// Of this shard.
    pub shard: Option<ShardId>,
    /// Of this partition key.
    pub partition_key: Option<PartitionKey>,
    /// Dead for this reason.
    pub reason: Option<DeadReason>,
    /// With this text in the error or its causes, upper and lower case alike for ASCII.
    pub error: Option<String>,
    /// Dead at this time or later.
    pub since: Option<Timestamp>,
    /// Dead before this time.
    pub before: Option<Timestamp>,
    /// In one of these states; empty for any.
    pub states: BTreeSet<LetterState>,
    /// This very letter.
    pub id: Option<LetterId>,
}

/// Where a letter is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LetterState {
    /// It waits for somebody to look at it.
    Dead,
    /// Somebody asked for another try.
    Requested,
    /// A worker tries.
    Redriving,
    /// It failed in every round: nobody tries again unless asked to.
    Parked,
    /// It was processed, or put back into the stream.
    Redriven,
}

impl LetterState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Dead, Self::Requested, Self::Redriving, Self::Parked, Self::Redriven];

    /// The name in archives and tools.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Requested => "requested",
            Self::Redriving => "redriving",
            Self::Parked => "parked",
            Self::Redriven => "redriven",
        }
    }

    /// The inverse of [`as_str`](Self::as_str).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// The state after a letter with the same identity was put again. What waits stays where it is; what was redriven has
    /// died once more.
    #[must_use]
    pub const fn put_again(self) -> Self {
        match self {
            Self::Redriven => Self::Dead,
            Self::Dead | Self::Requested | Self::Redriving | Self::Parked => self,
        }
    }
}

impl fmt::Display for LetterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A letter, and what became of it in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// Where it is in its life.
    pub state: LetterState,
    /// How often it was given out for another try, since it died or was taken out of the parking lot.
    pub rounds: u32,
    /// When its state last changed.
    pub changed_at: Timestamp,
}

/// A page of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterPage {
    /// The letters, in the order of their identities.
    pub letters: Vec<ArchivedLetter>,
    /// The `after` of the next page; `None` when this is the last one.
    pub next: Option<LetterId>,
    /// How many letters were passed over because they cannot be read: written by something newer, or damaged.
    pub unreadable: u64,
}

/// How another try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// The record is processed.
    Redriven {
        /// When.
        at: Timestamp,
    },
    /// It failed again.
    Failed {
        /// When.
        at: Timestamp,
        /// The error and its causes, outermost first.
        error: Vec<String>,
        /// Whether that was the last round.
        park: bool,
    },
    /// It was not tried: the worker stops, or an earlier letter of its key failed. The round does not count.
    Released {
        /// When.
        at: Timestamp,
        /// Whether it waits for the next worker, or for somebody to ask again.
        requested: bool,
    },
}

impl ArchivedLetter {
    /// A letter that was just put.
    pub const fn new(letter: DeadLetter) -> Self {
        let changed_at = letter.died_at;
        Self { letter, state: LetterState::Dead, rounds: 0, changed_at }
    }

    /// Takes the place of an older letter with the same identity. The older one's rounds count on.
    #[must_use]
    pub fn replacing(letter: DeadLetter, older: &Self) -> Self {
        let state = older.state.put_again();
        let changed_at = if state == older.state { older.changed_at } else { letter.died_at };
        Self { letter, state, rounds: older.rounds, changed_at }
    }

    /// The letter after somebody asked for another try; `None` where it is neither dead nor parked. The rounds of one that
    /// was parked begin anew: whoever asks has looked at it.
    #[must_use]
    pub fn requested(self, at: Timestamp) -> Option<Self> {
        let rounds = match self.state {
            LetterState::Dead => self.rounds,
            LetterState::Parked => 0,
            LetterState::Requested | LetterState::Redriving | LetterState::Redriven => return None,
        };
        Some(Self { state: LetterState::Requested, rounds, changed_at: at, ..self })
    }

    /// The letter after it was given out for another try.
    #[must_use]
    pub fn claimed(self, now: Timestamp) -> Self {
        Self { state: LetterState::Redriving, rounds: self.rounds.saturating_add(1), changed_at: now, ..self }
    }

    /// The letter after it was redriven another way.
    #[must_use]
    pub fn marked_redriven(self, at: Timestamp) -> Self {
        Self { state: LetterState::Redriven, changed_at: at, ..self }
    }

    /// The letter after another try. Not for one that is not [`LetterState::Redriving`].
    #[must_use]
    pub fn resolved(mut self, resolution: &Resolution) -> Self {
        (self.state, self.changed_at) = match resolution {
            Resolution::Redriven { at } => (LetterState::Redriven, *at),
            Resolution::Failed { at, error, park } => {
                self.letter.failed_again(*at, error);
                (if *park { LetterState::Parked } else { LetterState::Dead }, *at)
            }
            Resolution::Released { at, requested } => {
                self.rounds = self.rounds.saturating_sub(1);
                (if *requested { LetterState::Requested } else { LetterState::Dead }, *at)
            }
        };
        self
    }
}

impl LetterQuery {
    /// Whether a letter matches.
    pub fn matches(&self, archived: &ArchivedLetter) -> bool {
        let letter = &archived.letter;
        let error =
            || letter.error.iter().any(|text| contains_ignoring_case(text, self.error.as_deref().unwrap_or("")));
        self.application.as_ref().is_none_or(|wanted| *wanted == letter.application)
            && self.stream.as_ref().is_none_or(|wanted| *wanted == letter.stream)
            && self.shard.as_ref().is_none_or(|wanted| *wanted == letter.shard)
            && self.partition_key.as_ref().is_none_or(|wanted| Some(wanted) == letter.record.partition_key.as_ref())
            && self.reason.is_none_or(|wanted| wanted == letter.reason)
            && (self.error.is_none() || error())
            && self.since.is_none_or(|since| letter.died_at >= since)
            && self.before.is_none_or(|before| letter.died_at < before)
            && (self.states.is_empty() || self.states.contains(&archived.state))
            && self.id.as_ref().is_none_or(|wanted| *wanted == letter.id())
    }
}

/// By bytes, which for UTF-8 is the same as by characters; only ASCII letters have a case here.
fn contains_ignoring_case(text: &str, wanted: &str) -> bool {
    text.to_ascii_lowercase().contains(&wanted.to_ascii_lowercase())
}
