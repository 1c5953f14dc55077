//! What a dead letter holds.

use std::fmt;
use std::str::FromStr;

use crate::{ExtendedSequenceNumber, ShardId, Timestamp, UserRecord, WorkerId};

/// Which record a letter is about: the same record has the same identity however often it dies, and whoever writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LetterId {
    /// The application.
    pub application: String,
    /// The stream, as the worker names it.
    pub stream: String,
    /// The shard.
    pub shard: ShardId,
    /// The position of the record.
    pub position: ExtendedSequenceNumber,
}

/// `application/stream/shard/sequence number/sub-sequence number`: what commands take and print.
impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { application, stream, shard, position } = self;
        write!(f, "{application}/{stream}/{shard}/{position}")
    }
}

/// Text that is not the identity of a letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a dead letter: `application/stream/shard/sequence number/sub-sequence number` is")]
pub struct InvalidLetterId {
    /// The text that was given, cut after 400 characters.
    pub text: String,
}

/// What [`Display`](fmt::Display) prints. Read from the right, since the name of an application may hold slashes; a stream
/// may be an ARN, which holds one.
impl FromStr for LetterId {
    type Err = InvalidLetterId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_id(text).ok_or_else(|| InvalidLetterId { text: text.chars().take(400).collect() })
    }
}

fn parse_id(text: &str) -> Option<LetterId> {
    let (rest, sub_sequence_number) = text.rsplit_once('/')?;
    let (rest, sequence_number) = rest.rsplit_once('/')?;
    let (names, shard) = rest.rsplit_once('/')?;
    // Digits alone, since `parse` takes a sign too.
    let sub_sequence_number = Some(sub_sequence_number).filter(|sub| sub.bytes().all(|byte| byte.is_ascii_digit()))?;
    let position = ExtendedSequenceNumber::new(sequence_number.parse().ok()?, sub_sequence_number.parse().ok()?);
    let (application, stream) = split_at_arn(names).or_else(|| names.rsplit_once('/'))?;
    Some(LetterId { application: application.into(), stream: stream.into(), shard: shard.into(), position })
}

/// Splits `application/arn:aws:kinesis:region:account:stream/name`.
fn split_at_arn(names: &str) -> Option<(&str, &str)> {
    let (resource, name) = names.rsplit_once('/')?;
    let (application, resource) = resource.rsplit_once('/')?;
    let parts: Vec<&str> = resource.split(':').collect();
    let is_arn = matches!(parts[..], ["arn", _, "kinesis", _, _, "stream"]) && !name.is_empty();
    is_arn.then(|| (application, &names[application.len() + 1..]))
}

/// Why a record is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// It failed more often than the policy allows. The name is Lambda's.
    RetryAttemptsExhausted,
    /// It became older than the policy allows. The name is Lambda's.
    RecordAgeExceeded,
    /// The processor called the error permanent.
    Permanent,
    /// It claims to be aggregated and cannot be read.
    Undecodable,
    /// Its payload is larger than the policy allows.
    Oversize,
    /// The process died whenever it was processed, alone.
    CrashLoop,
    /// An earlier record of its partition key is dead, and the policy keeps the order of keys.
    Quarantined,
}

impl DeadReason {
    /// Every reason.
    pub const ALL: [Self; 7] = [
        Self::RetryAttemptsExhausted,
        Self::RecordAgeExceeded,
        Self::Permanent,
        Self::Undecodable,
        Self::Oversize,
        Self::CrashLoop,
        Self::Quarantined,
    ];

    /// The name in documents, metrics and tools.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
            Self::Permanent => "Permanent",
            Self::Undecodable => "Undecodable",
            Self::Oversize => "Oversize",
            Self::CrashLoop => "CrashLoop",
            Self::Quarantined => "Quarantined",
        }
    }

    /// The inverse of [`as_str`](Self::as_str).
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it ended.
    pub at: Timestamp,
    /// The error and its causes, outermost first; never empty.
    pub error: Vec<String>,
}

/// The batch that was buried with a record: all of its records in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInfo {
    /// What the batch was called in the worker; the same for every attempt at it. Unique within the term of a lease.
    pub id: u64,
    /// How often it was handed to the processor. 0 where it never was.
    pub invocations: u32,
    /// How many records it had.
    pub size: u32,
    /// Its first record.
    pub first: ExtendedSequenceNumber,
    /// Its last record.
    pub last: ExtendedSequenceNumber,
    /// When its first record arrived.
    pub first_arrival: Timestamp,
    /// When its last record arrived.
    pub last_arrival: Timestamp,
    /// Whether the processor said which records failed, so that no call as a whole failed.
    pub partial: bool,
}

/// A record that was given up on, and everything that is known of its end.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The application.
    pub application: String,
    /// The stream, as the worker names it.
    pub stream: String,
    /// The shard.
    pub shard: ShardId,
    /// The record: position, keys, arrival and payload.
    pub record: UserRecord,
    /// Why it is dead.
    pub reason: DeadReason,
    /// The last error and its causes, outermost first.
    pub error: Vec<String>,
    /// The failed attempts: of many the first and the newest.
    pub attempts: Vec<Attempt>,
    /// The batch it was buried with.
    pub batch: BatchInfo,
    /// The lane it was in.
    pub lane: u32,
    /// The worker that gave up.
    pub worker: WorkerId,
    /// When it did.
    pub died_at: Timestamp,
}

/// How many attempts a letter keeps.
pub const MAX_ATTEMPTS_KEPT: usize = 16;

/// Adds an attempt, forgetting one in the middle where there are too many: how it began and how it ended say most.
pub(crate) fn push_attempt(attempts: &mut Vec<Attempt>, attempt: Attempt) {
    if attempts.len() >= MAX_ATTEMPTS_KEPT {
        attempts.remove(MAX_ATTEMPTS_KEPT / 2);
    }
    attempts.push(attempt);
}

impl DeadLetter {
    /// Which record it is about.
    pub fn id(&self) -> LetterId {
        LetterId {
            application: self.application.clone(),
            stream: self.stream.clone(),
            shard: self.shard.clone(),
            position: self.record.position,
        }
    }

    /// Notes another failed attempt.
    pub(super) fn failed_again(&mut self, at: Timestamp, error: &[String]) {
        self.error = error.to_vec();
        push_attempt(&mut self.attempts, Attempt { at, error: error.to_vec() });
    }

    /// The error and its causes in one line.
    pub fn error_line(&self) -> String {
        self.error.join(": ")
    }
}

/// Lengths in place of payload and keys, which can be private. Errors are shown: they are what one looks for.
impl fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("id", &self.id().to_string())
            .field("record", &self.record)
            .field("reason", &self.reason)
            .field("error", &self.error)
            .field("attempts", &self.attempts.len())
            .field("batch", &self.batch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dead_letter::json::tests::any_position;

    proptest! {
        #[test]
        fn identities_round_trip_as_text(
            application in "[a-z/. -]{0,12}",
            stream in "[a-zA-Z0-9_.-]{1,8}|arn:aws(-cn)?:kinesis:[a-z]{2}-north-1:[0-9]{12}:stream/[a-zA-Z0-9_.-]{1,8}",
            shard in "shardId-[0-9]{12}",
            position in any_position(),
        ) {
            let id = LetterId { application, stream, shard: shard.into(), position };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn reading_an_identity_never_panics(text in "\\PC*|[a-z0-9/:]*") {
            if let Ok(id) = text.parse::<LetterId>() {
                prop_assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }

    #[test]
    fn slashes_and_arns_are_told_apart() {
        let id = |text: &str| text.parse::<LetterId>().map(|id| (id.application, id.stream));
        assert_eq!(id("team/delays/flights/shardId-000000000000/7/0"), Ok(("team/delays".into(), "flights".into())));
        let arn = "arn:aws:kinesis:eu-west-1:111122223333:stream/flights";
        assert_eq!(id(&format!("team/delays/{arn}/shardId-000000000000/7/0")), Ok(("team/delays".into(), arn.into())));
        for text in
            ["", "flights/shard/7/0", "a/b/c/7", "a/b/c/07/0", "a/b/c/7/-1", "a/b/c/7/+1", "a/b/c/7/", "a/b/c/x/0"]
        {
            assert_eq!(id(text), Err(InvalidLetterId { text: text.into() }));
        }
    }

    #[test]
    fn of_many_attempts_the_first_and_the_newest_are_kept() {
        let attempt = |n: i64| Attempt { at: Timestamp::from_millis(n), error: vec![n.to_string()] };
        let mut attempts = Vec::new();
        for n in 0..100 {
            push_attempt(&mut attempts, attempt(n));
        }
        let kept: Vec<i64> = attempts.iter().map(|attempt| attempt.at.as_millis()).collect();
        let half = MAX_ATTEMPTS_KEPT as i64 / 2;
        let expected: Vec<i64> = (0..half).chain(100 - half..100).collect();
        assert_eq!(kept, expected);
    }

    #[test]
    fn reasons_are_found_by_name() {
        for reason in DeadReason::ALL {
            assert_eq!(DeadReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(DeadReason::parse("permanent"), None);
    }
}
