//! What the tests of the suites share.

use crate::dead_letter::{
    ArchivedLetter, Attempt, BatchInfo, Claim, DeadLetter, DeadLetterArchive, DeadLetterSink, DeadReason, LetterId,
    LetterQuery, LetterState,
};
use crate::{ExtendedSequenceNumber, ShardId, Timestamp, UserRecord, WorkerId};

pub(super) const APPLICATION: &str = "delays";
pub(super) const STREAM: &str = "flights";

pub(super) fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(super) fn shard(n: u64) -> ShardId {
    ShardId::from(format!("shardId-{n:012}"))
}

pub(super) fn worker(name: &str) -> WorkerId {
    WorkerId::from(name)
}

/// A letter about the record at sequence number `n` of the first shard, with a key of its own, dead at `n` ms.
pub fn letter(n: u64) -> DeadLetter {
    let position = ExtendedSequenceNumber::from(crate::SequenceNumber::from(n));
    let time = at(n.try_into().unwrap_or(i64::MAX));
    let error = vec!["the database said no".to_owned(), format!("constraint {n}")];
    DeadLetter {
        application: APPLICATION.into(),
        stream: STREAM.into(),
        shard: shard(0),
        record: UserRecord {
            position,
            partition_key: Some(format!("key-{n}").into()),
            explicit_hash_key: None,
            arrival: time,
            data: format!("payload {n}").into(),
        },
        reason: DeadReason::RetryAttemptsExhausted,
        error: error.clone(),
        attempts: vec![Attempt { at: time, error }],
        batch: BatchInfo {
            id: n,
            invocations: 1,
            size: 1,
            first: position,
            last: position,
            first_arrival: time,
            last_arrival: time,
            partial: false,
        },
        lane: 0,
        worker: worker("host:1:0123456789abcdef"),
        died_at: time,
    }
}

/// The same with a key that others may have too.
pub(super) fn keyed(n: u64, key: &str) -> DeadLetter {
    let mut letter = letter(n);
    letter.record.partition_key = Some(key.into());
    letter
}

/// The archive that the suite is about.
pub(super) fn archive<S: DeadLetterSink + ?Sized>(sink: &S) -> &dyn DeadLetterArchive {
    sink.archive().expect("the sink says that letters can be read back")
}

/// A claim for some worker, with all the room there is.
pub(super) fn claim_by(name: &str, now: i64, until: i64) -> Claim {
    Claim {
        application: APPLICATION.into(),
        stream: STREAM.into(),
        worker: worker(name),
        now: at(now),
        until: at(until),
        limit: 1000,
    }
}

/// Claims, and gives the sequence numbers as they came.
pub(super) async fn claimed(archive: &dyn DeadLetterArchive, claim: &Claim) -> Vec<u64> {
    let letters = archive.claim(claim).await.expect("an answer");
    for given in &letters {
        assert_eq!((given.state, given.changed_at), (LetterState::Redriving, claim.now), "as it is from now on");
        assert_eq!(stored(archive, &given.letter.id()).await, *given, "the answer shows the letter as it is");
    }
    letters.iter().map(|given| number(&given.letter)).collect()
}

/// The sequence number of a letter of these tests.
pub(super) fn number(letter: &DeadLetter) -> u64 {
    letter.record.position.sequence_number.to_string().parse().expect("small in these tests")
}

/// The letter, which must be there.
pub(super) async fn stored(archive: &dyn DeadLetterArchive, id: &LetterId) -> ArchivedLetter {
    archive.letter(id).await.expect("an answer").unwrap_or_else(|| panic!("{id} is there"))
}

/// Puts letters, which must work.
pub(super) async fn put<S: DeadLetterSink + ?Sized>(sink: &S, letters: &[DeadLetter]) {
    sink.put(letters).await.expect("the letters are put");
}

/// Puts letters and asks for another try of all of them.
pub(super) async fn put_and_request<S: DeadLetterSink + ?Sized>(sink: &S, letters: &[DeadLetter]) {
    put(sink, letters).await;
    for letter in letters {
        let this = LetterQuery { id: Some(letter.id()), ..LetterQuery::default() };
        assert_eq!(archive(sink).request_redrive(&this, at(0)).await.expect("an answer"), 1);
    }
}

/// Everything that is there, by pages of a size.
pub(super) async fn all(archive: &dyn DeadLetterArchive, query: &LetterQuery, limit: usize) -> Vec<ArchivedLetter> {
    let (mut letters, mut after) = (Vec::new(), None);
    loop {
        let page = archive.letters(query, after.as_ref(), limit).await.expect("a page");
        assert_eq!(page.unreadable, 0);
        assert!(page.letters.len() <= limit.max(1), "a page of {limit} has {} letters", page.letters.len());
        assert_eq!(page.next, page.next.as_ref().and(page.letters.last()).map(|last| last.letter.id()));
        letters.extend(page.letters);
        match page.next {
            Some(next) => after = Some(next),
            None => return letters,
        }
    }
}
