//! Letters are found: in order, by pages, by everything that a query can say.

use std::sync::Arc;

use super::fixtures::{all, archive, at, claim_by, claimed, letter, number, put, put_and_request, shard, stored};
use crate::dead_letter::{
    ArchivedLetter, DeadLetter, DeadLetterSink, DeadReason, LetterId, LetterPage, LetterQuery, LetterState,
};
use crate::{ExtendedSequenceNumber, MAX_SEQUENCE_NUMBER_DIGITS, PartitionKey, SequenceNumber};

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: DeadLetterSink + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    an_empty_archive_has_nothing(&*make().await).await;
    what_was_put_is_dead(&*make().await).await;
    letters_come_in_the_order_of_their_identities(&*make().await).await;
    pages_add_up(&*make().await).await;
    pages_go_on_behind_letters_that_are_not_there(&*make().await).await;
    queries_find_by_every_field(&*make().await).await;
    queries_find_errors_literally(&*make().await).await;
    dead_keys_are_those_that_are_not_redriven(&*make().await).await;
}

async fn an_empty_archive_has_nothing<S: DeadLetterSink + ?Sized>(sink: &S) {
    let archive = archive(sink);
    let any = LetterQuery::default();
    assert_eq!(archive.letters(&any, None, 10).await.expect("a page"), LetterPage::default());
    assert_eq!(archive.letter(&letter(1).id()).await.expect("an answer"), None);
    assert_eq!(archive.request_redrive(&any, at(1)).await.expect("an answer"), 0);
    assert!(claimed(archive, &claim_by("a", 1, 2)).await.is_empty());
    assert!(!archive.mark_redriven(&letter(1).id(), at(1)).await.expect("an answer"));
    assert!(archive.dead_keys("delays", "flights").await.expect("an answer").is_empty());
}

async fn what_was_put_is_dead<S: DeadLetterSink + ?Sized>(sink: &S) {
    put(sink, &[letter(5)]).await;
    let expected =
        ArchivedLetter { letter: letter(5), state: LetterState::Dead, rounds: 0, changed_at: letter(5).died_at };
    assert_eq!(stored(archive(sink), &letter(5).id()).await, expected);
    assert_eq!(all(archive(sink), &LetterQuery::default(), 10).await, [expected]);
    assert_eq!(archive(sink).letter(&letter(6).id()).await.expect("an answer"), None);
}

/// Letters whose identities differ in every part, with numbers of every length.
fn many() -> Vec<DeadLetter> {
    let numbers = ["0", "9", "10", "99", "100", "18446744073709551616", &"9".repeat(MAX_SEQUENCE_NUMBER_DIGITS)];
    let mut letters = Vec::new();
    for application in ["", "A", "a", "a/b", "ä", "aa"] {
        for (n, stream) in ["flights", "trains"].into_iter().enumerate() {
            for (i, text) in numbers.iter().enumerate() {
                let mut letter = letter(i as u64);
                letter.application = application.into();
                letter.stream = stream.into();
                letter.shard = shard((i % 3) as u64 * 11);
                let number: SequenceNumber = text.parse().expect("a sequence number");
                letter.record.position = ExtendedSequenceNumber::new(number, (n * i) as u64);
                letters.push(letter);
            }
        }
    }
    letters
}

async fn letters_come_in_the_order_of_their_identities<S: DeadLetterSink + ?Sized>(sink: &S) {
    let mut letters = many();
    letters.reverse();
    put(sink, &letters).await;
    letters.sort_by_key(DeadLetter::id);
    let listed = all(archive(sink), &LetterQuery::default(), 1000).await;
    let ids = |letters: Vec<DeadLetter>| letters.iter().map(DeadLetter::id).collect::<Vec<_>>();
    assert_eq!(ids(listed.into_iter().map(|archived| archived.letter).collect()), ids(letters));
}

async fn pages_add_up<S: DeadLetterSink + ?Sized>(sink: &S) {
    put(sink, &many()).await;
    let streams = [None, Some("trains".to_owned())];
    for query in streams.map(|stream| LetterQuery { stream, ..LetterQuery::default() }) {
        let whole = all(archive(sink), &query, 1000).await;
        let expected = many().into_iter().filter(|letter| query.matches(&ArchivedLetter::new(letter.clone())));
        assert_eq!(whole.len(), expected.count());
        for limit in [0, 1, 2, 7, whole.len() - 1, whole.len(), whole.len() + 1, usize::MAX] {
            assert_eq!(all(archive(sink), &query, limit).await, whole, "by pages of {limit}");
        }
    }
}

async fn pages_go_on_behind_letters_that_are_not_there<S: DeadLetterSink + ?Sized>(sink: &S) {
    put(sink, &[letter(2), letter(9), letter(10)]).await;
    let behind = |id: LetterId| async move {
        let page = archive(sink).letters(&LetterQuery::default(), Some(&id), 10).await.expect("a page");
        page.letters.iter().map(|archived| number(&archived.letter)).collect::<Vec<_>>()
    };
    assert_eq!(behind(letter(1).id()).await, [2, 9, 10]);
    assert_eq!(behind(letter(2).id()).await, [9, 10]);
    assert_eq!(behind(letter(5).id()).await, [9, 10]);
    assert_eq!(behind(letter(10).id()).await, [0; 0]);
    let last_sub = ExtendedSequenceNumber::new(9u64.into(), u64::MAX);
    assert_eq!(behind(LetterId { position: last_sub, ..letter(9).id() }).await, [10]);
    assert_eq!(behind(LetterId { application: "z".into(), ..letter(0).id() }).await, [0; 0]);
    assert_eq!(behind(LetterId { shard: "".into(), ..letter(99).id() }).await, [2, 9, 10]);
}

/// Six letters that differ in what can be asked for, in different states.
async fn varied<S: DeadLetterSink + ?Sized>(sink: &S) {
    let mut letters: Vec<_> = (0..6).map(letter).collect();
    letters[0].application = "other".into();
    letters[1].stream = "other".into();
    letters[2].shard = shard(7);
    letters[3].record.partition_key = None;
    letters[4].reason = DeadReason::Permanent;
    letters[5].error = vec!["outer".into(), "Duplicate KEY".into()];
    put(sink, &letters[..2]).await;
    put_and_request(sink, &letters[2..4]).await;
    assert_eq!(claimed(archive(sink), &claim_by("a", 1, 2)).await, [2, 3]);
    put_and_request(sink, &letters[4..5]).await;
    put(sink, &letters[5..]).await;
    assert!(archive(sink).mark_redriven(&letters[5].id(), at(1)).await.expect("an answer"));
}

/// What the definition says is found, and there is something to be found and something not.
async fn queries_find_by_every_field<S: DeadLetterSink + ?Sized>(sink: &S) {
    varied(sink).await;
    let any = LetterQuery::default;
    let key = |key: &str| Some(PartitionKey::from(key));
    let states = |states: &[LetterState]| states.iter().copied().collect();
    let queries: Vec<(LetterQuery, &[u64])> = vec![
        (any(), &[0, 1, 2, 3, 4, 5]),
        (LetterQuery { application: Some("delays".into()), ..any() }, &[1, 2, 3, 4, 5]),
        (LetterQuery { application: Some("Delays".into()), ..any() }, &[]),
        (LetterQuery { stream: Some("other".into()), ..any() }, &[1]),
        (LetterQuery { shard: Some(shard(7)), ..any() }, &[2]),
        (LetterQuery { partition_key: key("key-4"), ..any() }, &[4]),
        (LetterQuery { partition_key: key("key-3"), ..any() }, &[]),
        (LetterQuery { reason: Some(DeadReason::Permanent), ..any() }, &[4]),
        (LetterQuery { error: Some("constraint".into()), ..any() }, &[0, 1, 2, 3, 4]),
        (LetterQuery { error: Some("dUPLICATE key".into()), ..any() }, &[5]),
        (LetterQuery { error: Some(String::new()), ..any() }, &[0, 1, 2, 3, 4, 5]),
        (LetterQuery { since: Some(at(4)), ..any() }, &[4, 5]),
        (LetterQuery { before: Some(at(4)), ..any() }, &[0, 1, 2, 3]),
        (LetterQuery { since: Some(at(2)), before: Some(at(4)), ..any() }, &[2, 3]),
        (LetterQuery { states: states(&[LetterState::Dead]), ..any() }, &[0, 1]),
        (LetterQuery { states: states(&[LetterState::Redriving]), ..any() }, &[2, 3]),
        (LetterQuery { states: states(&[LetterState::Requested, LetterState::Redriven]), ..any() }, &[4, 5]),
        (LetterQuery { states: states(&[LetterState::Parked]), ..any() }, &[]),
        (LetterQuery { states: states(&LetterState::ALL), ..any() }, &[0, 1, 2, 3, 4, 5]),
        (LetterQuery { id: Some(letter(4).id()), ..any() }, &[4]),
        (LetterQuery { id: Some(letter(2).id()), ..any() }, &[]),
        (LetterQuery { id: Some(letter(4).id()), stream: Some("other".into()), ..any() }, &[]),
    ];
    for (query, expected) in queries {
        let mut found: Vec<_> =
            all(archive(sink), &query, 4).await.iter().map(|archived| number(&archived.letter)).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{query:?}");
    }
}

async fn queries_find_errors_literally<S: DeadLetterSink + ?Sized>(sink: &S) {
    let errors = ["100% broken", "1000 broken", "a_b", "axb", "it's \"so\"", "größer", "GRÖSSER", "[a-z]*"];
    for (n, error) in errors.into_iter().enumerate() {
        let mut letter = letter(n as u64);
        letter.error = vec!["top".into(), error.into()];
        put(sink, &[letter]).await;
    }
    let mut silent = letter(99);
    silent.error = Vec::new();
    put(sink, &[silent]).await;
    for (text, expected) in [
        ("0% b", vec![0]),
        ("A_B", vec![2]),
        ("\"SO\"", vec![4]),
        ("'s \"", vec![4]),
        ("gRÖ", vec![6]),
        ("größ", vec![5]),
        ("[A-Z]*", vec![7]),
        // Not across the borders of two texts, nor in the marks between them.
        ("top,", vec![]),
        ("[\"", vec![]),
        ("", vec![0, 1, 2, 3, 4, 5, 6, 7]),
    ] {
        let query = LetterQuery { error: Some(text.into()), ..LetterQuery::default() };
        let found = all(archive(sink), &query, 100).await;
        let found: Vec<_> = found.iter().map(|archived| number(&archived.letter)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

async fn dead_keys_are_those_that_are_not_redriven<S: DeadLetterSink + ?Sized>(sink: &S) {
    let archive = archive(sink);
    let mut letters: Vec<_> = (0..6).map(letter).collect();
    letters[0].application = "other".into();
    letters[1].stream = "other".into();
    letters[2].record.partition_key = None;
    letters[3].record.partition_key = letters[4].record.partition_key.clone();
    put(sink, &letters).await;
    let keys = || async {
        let keys = archive.dead_keys("delays", "flights").await.expect("an answer");
        keys.iter().map(|key| key.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys().await, ["key-4", "key-5"]);
    for (n, left) in [(3, vec!["key-4", "key-5"]), (5, vec!["key-4"]), (4, vec![])] {
        assert!(archive.mark_redriven(&letters[n].id(), at(1)).await.expect("an answer"));
        assert_eq!(keys().await, left);
    }
    put(sink, &letters[5..]).await;
    assert_eq!(keys().await, ["key-5"], "it died again");
}
