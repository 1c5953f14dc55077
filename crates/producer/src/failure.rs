//! Why a user record is not taken, or did not get into the stream.

use std::fmt;

use shardwell_core::PutEntry;

use crate::ticket::{Attempt, Attempts};

/// Why a user record was not taken. It is not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// Its partition key is empty.
    #[error("the partition key is empty; a record needs one of 1 to 256 characters")]
    EmptyPartitionKey,
    /// Its partition key is too long.
    #[error("the partition key has {characters} characters; a record may have one of 1 to 256")]
    PartitionKeyTooLong {
        /// How many characters it has.
        characters: usize,
    },
    /// It is larger than a record may be.
    #[error(
        "the record has {bytes} bytes, its partition key included, and `max_record_bytes` is {limit}; a stream can be set to take up to \
         10 MiB"
    )]
    TooLarge {
        /// Payload and partition key.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// It is larger than what was reserved for it.
    #[error("the record needs {bytes} bytes and {reserved} were reserved for it")]
    BeyondReservation {
        /// What it needs.
        bytes: usize,
        /// What was reserved.
        reserved: usize,
    },
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

/// Why a user record was not taken at once.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryPutError {
    /// There is no room for it now. Here it is again.
    #[error("the producer holds as much as it may; wait, or put less")]
    Full(PutEntry),
    /// It cannot be taken.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// Why a user record did not get into the stream, or may not have.
#[derive(Clone)]
pub struct PutFailure(Box<Failure>);

#[derive(Clone, Debug)]
struct Failure {
    kind: PutFailureKind,
    attempts: Attempts,
    record: Option<PutEntry>,
}

/// What to do about a [`PutFailure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PutFailureKind {
    /// Its time (`record_ttl`) was over before it succeeded. The last attempt says what was in the way.
    Expired,
    /// The credentials do not allow it: grant `kinesis:PutRecords` on the stream.
    Denied,
    /// There is no such stream: create it, or mend the name.
    NoSuchStream,
    /// The service says that the request is wrong. The last attempt has its words.
    Invalid,
    /// The producer, or the runtime under it, ended before it was known what became of the record.
    Abandoned,
}

impl PutFailure {
    pub(crate) fn new(kind: PutFailureKind, attempts: Attempts, record: Option<PutEntry>) -> Self {
        Self(Box::new(Failure { kind, attempts, record }))
    }

    /// Nobody is left who knows.
    pub(crate) fn abandoned() -> Self {
        Self::new(PutFailureKind::Abandoned, Attempts::default(), None)
    }

    /// What to do about it.
    pub fn kind(&self) -> PutFailureKind {
        self.0.kind
    }

    /// What was tried.
    pub fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }

    /// Whether the same record may be taken later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self.kind() {
            PutFailureKind::Expired | PutFailureKind::Abandoned => true,
            PutFailureKind::Denied | PutFailureKind::NoSuchStream | PutFailureKind::Invalid => false,
        }
    }

    /// Whether the record may be in the stream all the same: putting it again may write it twice.
    pub fn may_have_been_written(&self) -> bool {
        self.kind() == PutFailureKind::Abandoned || self.0.attempts.may_have_written()
    }

    /// The user record as it was put; none where the producer is gone.
    pub fn record(&self) -> Option<&PutEntry> {
        self.0.record.as_ref()
    }

    /// The user record as it was put, for whoever wants to put it again or set it aside; none where the producer is gone.
    pub fn into_record(self) -> Option<PutEntry> {
        self.0.record
    }
}

impl fmt::Display for PutFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.attempts.count();
        f.write_str(match self.kind() {
            PutFailureKind::Expired if count == 0 => "the record's time was over before it could be sent",
            PutFailureKind::Expired => "the record's time was over",
            PutFailureKind::Denied => "the credentials do not allow to put records into the stream",
            PutFailureKind::NoSuchStream => "there is no such stream",
            PutFailureKind::Invalid => "the service refused the record",
            PutFailureKind::Abandoned => "the producer ended; it is not known what became of the record",
        })?;
        if count > 1 {
            write!(f, " (after {count} attempts)")?;
        }
        let mut errors = self.0.attempts.iter().filter_map(|attempt: &Attempt| attempt.error.as_ref());
        if let Some(error) = errors.next_back() {
            write!(f, ": {error}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for PutFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for PutFailure {}
