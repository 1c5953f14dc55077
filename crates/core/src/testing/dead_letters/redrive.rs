//! The life of a letter after its record died.

use std::sync::Arc;

use super::fixtures::{archive, at, claim_by, claimed, keyed, letter, put, put_and_request, shard, stored, worker};
use crate::dead_letter::{
    Claim, DeadLetter, DeadLetterSink, DeadReason, LetterQuery, LetterState, MAX_ATTEMPTS_KEPT, Resolution,
};

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: DeadLetterSink + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    only_what_waits_can_be_requested(&*make().await).await;
    only_what_was_requested_is_given_out(&*make().await).await;
    what_is_given_out_is_of_the_application_and_stream(&*make().await).await;
    letters_are_given_out_by_position(&*make().await).await;
    a_claim_is_exclusive_until_its_time_is_over(&*make().await).await;
    a_letter_that_succeeds_is_redriven(&*make().await).await;
    a_letter_that_fails_is_dead_again_or_parked(&*make().await).await;
    of_many_failures_the_first_and_the_newest_are_kept(&*make().await).await;
    a_released_round_does_not_count(&*make().await).await;
    only_the_claimer_resolves(&*make().await).await;
    a_key_is_given_to_one_worker_at_a_time(&*make().await).await;
    a_key_is_free_again_when_its_claim_ends(&*make().await).await;
    what_has_no_key_waits_for_nobody(&*make().await).await;
    a_letter_put_again_stays_where_it_is(&*make().await).await;
    a_redriven_letter_put_again_is_dead_again(&*make().await).await;
    any_letter_can_be_marked_as_redriven(&*make().await).await;
}

fn redriven(millis: i64) -> Resolution {
    Resolution::Redriven { at: at(millis) }
}

fn failed(millis: i64, park: bool) -> Resolution {
    Resolution::Failed { at: at(millis), error: vec!["still no".into(), format!("at {millis}")], park }
}

fn released(millis: i64, requested: bool) -> Resolution {
    Resolution::Released { at: at(millis), requested }
}

fn this(letter: &DeadLetter) -> LetterQuery {
    LetterQuery { id: Some(letter.id()), ..LetterQuery::default() }
}

async fn state<S: DeadLetterSink + ?Sized>(sink: &S, letter: &DeadLetter) -> (LetterState, u32, i64) {
    let archived = stored(archive(sink), &letter.id()).await;
    (archived.state, archived.rounds, archived.changed_at.as_millis())
}

async fn resolve<S: DeadLetterSink + ?Sized>(sink: &S, letter: &DeadLetter, by: &str, end: Resolution) -> bool {
    archive(sink).resolve(&letter.id(), &worker(by), &end).await.expect("an answer")
}

async fn request<S: DeadLetterSink + ?Sized>(sink: &S, query: &LetterQuery, millis: i64) -> u64 {
    archive(sink).request_redrive(query, at(millis)).await.expect("an answer")
}

/// Brings letters 1 to 5 into the five states in the order of [`LetterState::ALL`], claimed by `a` until 1000.
async fn in_every_state<S: DeadLetterSink + ?Sized>(sink: &S) -> Vec<DeadLetter> {
    let letters: Vec<_> = (1..=5).map(letter).collect();
    put_and_request(sink, &letters[2..5]).await;
    assert_eq!(claimed(archive(sink), &claim_by("a", 10, 1000)).await, [3, 4, 5]);
    assert!(resolve(sink, &letters[3], "a", failed(20, true)).await);
    assert!(resolve(sink, &letters[4], "a", redriven(20)).await);
    put(sink, &letters[..2]).await;
    assert_eq!(request(sink, &this(&letters[1]), 20).await, 1);
    for (letter, expected) in letters.iter().zip(LetterState::ALL) {
        assert_eq!(state(sink, letter).await.0, expected);
    }
    letters
}

async fn only_what_waits_can_be_requested<S: DeadLetterSink + ?Sized>(sink: &S) {
    let letters = in_every_state(sink).await;
    assert_eq!(
        request(sink, &LetterQuery::default(), 30).await,
        2,
        "what is dead and what is parked, whose rounds begin anew"
    );
    let expected = [
        (LetterState::Requested, 0, 30),
        (LetterState::Requested, 0, 20),
        (LetterState::Redriving, 1, 10),
        (LetterState::Requested, 0, 30),
        (LetterState::Redriven, 1, 20),
    ];
    for (letter, expected) in letters.iter().zip(expected) {
        assert_eq!(state(sink, letter).await, expected);
    }
    assert_eq!(request(sink, &LetterQuery::default(), 40).await, 0);
    assert_eq!(state(sink, &letters[0]).await, expected[0], "nothing changes");
}

async fn only_what_was_requested_is_given_out<S: DeadLetterSink + ?Sized>(sink: &S) {
    in_every_state(sink).await;
    assert_eq!(claimed(archive(sink), &claim_by("b", 30, 1000)).await, [2]);
    assert_eq!(claimed(archive(sink), &claim_by("b", 40, 1000)).await, [0; 0]);
}

async fn what_is_given_out_is_of_the_application_and_stream<S: DeadLetterSink + ?Sized>(sink: &S) {
    let mut letters = [letter(1), letter(2), letter(3)];
    letters[0].application = "other".into();
    letters[1].stream = "other".into();
    put_and_request(sink, &letters).await;
    assert_eq!(claimed(archive(sink), &claim_by("a", 10, 1000)).await, [3]);
    let other = Claim { application: "other".into(), ..claim_by("a", 10, 1000) };
    assert_eq!(claimed(archive(sink), &other).await, [1]);
}

async fn letters_are_given_out_by_position<S: DeadLetterSink + ?Sized>(sink: &S) {
    let mut letters: Vec<_> = [100, 9, 30, 2, 10].map(letter).into();
    // A later shard may hold earlier positions.
    letters[3].shard = shard(5);
    letters[1].shard = shard(3);
    put_and_request(sink, &letters).await;
    let some = Claim { limit: 2, ..claim_by("a", 10, 1000) };
    assert_eq!(claimed(archive(sink), &Claim { limit: 0, ..some.clone() }).await, [0; 0]);
    for expected in [vec![2, 9], vec![10, 30], vec![100], vec![]] {
        assert_eq!(claimed(archive(sink), &some).await, expected);
    }
}

async fn a_claim_is_exclusive_until_its_time_is_over<S: DeadLetterSink + ?Sized>(sink: &S) {
    put_and_request(sink, &[letter(1)]).await;
    assert_eq!(claimed(archive(sink), &claim_by("a", 10, 1000)).await, [1]);
    assert_eq!(state(sink, &letter(1)).await, (LetterState::Redriving, 1, 10));
    for name in ["a", "b"] {
        assert_eq!(claimed(archive(sink), &claim_by(name, 999, 2000)).await, [0; 0], "not yet");
    }
    assert_eq!(claimed(archive(sink), &claim_by("b", 1000, 2000)).await, [1]);
    assert_eq!(state(sink, &letter(1)).await, (LetterState::Redriving, 2, 1000));
    assert!(!resolve(sink, &letter(1), "a", redriven(1001)).await, "it is another's by now");
    assert_eq!(claimed(archive(sink), &claim_by("b", 2500, 3000)).await, [1], "the same worker may take it again");
    assert!(resolve(sink, &letter(1), "b", redriven(4000)).await, "late, but nobody took it");
}

async fn a_letter_that_succeeds_is_redriven<S: DeadLetterSink + ?Sized>(sink: &S) {
    put_and_request(sink, &[letter(1)]).await;
    assert_eq!(claimed(archive(sink), &claim_by("a", 10, 1000)).await, [1]);
    assert!(resolve(sink, &letter(1), "a", redriven(20)).await);
    assert_eq!(state(sink, &letter(1)).await, (LetterState::Redriven, 1, 20));
    assert_eq!(stored(archive(sink), &letter(1).id()).await.letter, letter(1), "the letter itself is as it was");
    assert!(!resolve(sink, &letter(1), "a", redriven(30)).await, "once");
    assert_eq!(claimed(archive(sink), &claim_by("b", 2000, 3000)).await, [0; 0]);
}

async fn a_letter_that_fails_is_dead_again_or_parked<S: DeadLetterSink + ?Sized>(sink: &S) {
    put_and_request(sink, &[letter(1)]).await;
    let mut expected = letter(1);
    // What was parked begins anew.
    for (time, round, park) in [(1, 1, false), (2, 2, true), (3, 1, false)] {
        let now = time * 10_000;
        assert_eq!(claimed(archive(sink), &claim_by("a", now, now + 100)).await, [1]);
        assert!(resolve(sink, &letter(1), "a", failed(now + 1, park)).await);
        let archived = stored(archive(sink), &letter(1).id()).await;
        let waits = if park { LetterState::Parked } else { LetterState::Dead };
        assert_eq!((archived.state, archived.rounds, archived.changed_at), (waits, round, at(now + 1)));
        expected.error = vec!["still no".into(), format!("at {}", now + 1)];
        let attempt = crate::dead_letter::Attempt { at: at(now + 1), error: expected.error.clone() };
        expected.attempts.push(attempt);
        assert_eq!(archived.letter, expected, "with the newest error and all attempts");
        assert_eq!(claimed(archive(sink), &claim_by("b", now + 200, now + 300)).await, [0; 0], "nobody asked again");
        let by_error = LetterQuery { error: Some("STILL".into()), ..LetterQuery::default() };
        assert_eq!(request(sink, &by_error, now + 400).await, 1, "found by its newest error");
    }
}

async fn of_many_failures_the_first_and_the_newest_are_kept<S: DeadLetterSink + ?Sized>(sink: &S) {
    put_and_request(sink, &[letter(1)]).await;
    for round in 1..40 {
        assert_eq!(claimed(archive(sink), &claim_by("a", round, 1000)).await, [1]);
        assert!(resolve(sink, &letter(1), "a", failed(round, false)).await);
        assert_eq!(request(sink, &this(&letter(1)), round).await, 1);
    }
    let archived = stored(archive(sink), &letter(1).id()).await;
    assert_eq!(archived.letter.attempts.len(), MAX_ATTEMPTS_KEPT);
    assert_eq!(archived.letter.attempts.first(), letter(1).attempts.first());
    assert_eq!(archived.letter.attempts.last().map(|attempt| attempt.at), Some(at(39)));
    assert_eq!(archived.rounds, 39);
}

async fn a_released_round_does_not_count<S: DeadLetterSink + ?Sized>(sink: &S) {
    put_and_request(sink, &[letter(1), letter(2)]).await;
    assert_eq!(claimed(archive(sink), &claim_by("a", 10, 1000)).await, [1, 2]);
    assert!(resolve(sink, &letter(1), "a", released(20, true)).await);
    assert!(resolve(sink, &letter(2), "a", released(21, false)).await);
    assert_eq!(state(sink, &letter(1)).await, (LetterState::Requested, 0, 20));
    assert_eq!(state(sink, &letter(2)).await, (LetterState::Dead, 0, 21));
    assert_eq!(stored(archive(sink), &letter(2).id()).await.letter, letter(2), "nothing is noted");
    assert_eq!(claimed(archive(sink), &claim_by("b", 30, 1000)).await, [1], "for the next worker at once");
    assert_eq!(state(sink, &letter(1)).await, (LetterState::Redriving, 1, 30));
}

async fn only_the_claimer_resolves<S: DeadLetterSink + ?Sized>(sink: &S) {
    let letters = in_every_state(sink).await;
    for (letter, state_before) in letters.iter().zip(LetterState::ALL) {
        for (by, end) in [("b", redriven(50)), ("b", failed(50, true)), ("", released(50, true))] {
            assert!(!resolve(sink, letter, by, end).await);
        }
        if state_before != LetterState::Redriving {
            assert!(!resolve(sink, letter, "a", redriven(50)).await, "{state_before} is not claimed");
        }
        assert_eq!(state(sink, letter).await.0, state_before);
    }
    assert!(!resolve(sink, &letter(99), "a", redriven(50)).await, "there is no such letter");
    assert!(resolve(sink, &letters[2], "a", redriven(50)).await);
}

async fn a_key_is_given_to_one_worker_at_a_time<S: DeadLetterSink + ?Sized>(sink: &S) {
    let mut letters = [keyed(1, "x"), keyed(2, "y"), keyed(3, "x"), keyed(4, "y"), keyed(5, "x"), keyed(6, "z")];
    // After a reshard the records of a key go on in another shard.
    letters[2].shard = shard(1);
    put_and_request(sink, &letters).await;
    let mut elsewhere = keyed(7, "x");
    elsewhere.stream = "other".into();
    put_and_request(sink, &[elsewhere]).await;

    assert_eq!(claimed(archive(sink), &Claim { limit: 1, ..claim_by("a", 10, 1000) }).await, [1]);
    assert_eq!(claimed(archive(sink), &Claim { limit: 2, ..claim_by("b", 10, 1000) }).await, [2, 4], "not x");
    assert_eq!(claimed(archive(sink), &claim_by("c", 10, 1000)).await, [6], "neither x nor y");
    let other = Claim { stream: "other".into(), ..claim_by("c", 10, 1000) };
    assert_eq!(claimed(archive(sink), &other).await, [7], "another stream's keys are other keys");
    assert_eq!(
        claimed(archive(sink), &claim_by("a", 11, 1000)).await,
        [3, 5],
        "who has the key gets the rest, in order"
    );
}

async fn a_key_is_free_again_when_its_claim_ends<S: DeadLetterSink + ?Sized>(sink: &S) {
    let letters = [keyed(1, "x"), keyed(2, "x"), keyed(3, "x"), keyed(4, "x")];
    put_and_request(sink, &letters).await;
    let one = |name, now, until| Claim { limit: 1, ..claim_by(name, now, until) };
    assert_eq!(claimed(archive(sink), &one("a", 10, 1000)).await, [1]);
    assert!(resolve(sink, &letters[0], "a", redriven(20)).await);
    assert_eq!(claimed(archive(sink), &one("b", 20, 500)).await, [2], "it is resolved");
    assert_eq!(claimed(archive(sink), &claim_by("c", 499, 1000)).await, [0; 0]);
    assert_eq!(claimed(archive(sink), &one("c", 500, 1000)).await, [2], "its time is over: the earliest goes first");
    assert!(resolve(sink, &letters[1], "c", released(600, false)).await);
    assert_eq!(claimed(archive(sink), &one("d", 600, 1000)).await, [3], "it is released");
    assert!(archive(sink).mark_redriven(&letters[2].id(), at(700)).await.expect("an answer"));
    assert_eq!(claimed(archive(sink), &one("e", 700, 1000)).await, [4], "it went another way");
}

async fn what_has_no_key_waits_for_nobody<S: DeadLetterSink + ?Sized>(sink: &S) {
    let without_key = |n| {
        let mut letter = letter(n);
        letter.record.partition_key = None;
        letter
    };
    put_and_request(sink, &[without_key(1), without_key(2), keyed(3, "")]).await;
    let one = |name| Claim { limit: 1, ..claim_by(name, 10, 1000) };
    for (name, expected) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(claimed(archive(sink), &one(name)).await, [expected]);
    }
}

/// Another worker wrote it again, after a crash say.
async fn a_letter_put_again_stays_where_it_is<S: DeadLetterSink + ?Sized>(sink: &S) {
    let letters = in_every_state(sink).await;
    for letter in &letters[..4] {
        let before = stored(archive(sink), &letter.id()).await;
        let mut again = letter.clone();
        again.error = vec!["anew".into()];
        again.reason = DeadReason::CrashLoop;
        again.died_at = at(77);
        again.record.data = "as it came again".into();
        put(sink, std::slice::from_ref(&again)).await;
        let after = stored(archive(sink), &letter.id()).await;
        assert_eq!((after.state, after.rounds, after.changed_at), (before.state, before.rounds, before.changed_at));
        assert_eq!(after.letter, again, "the letter itself is the newer one");
        let by_what_is_new = LetterQuery { reason: Some(DeadReason::CrashLoop), since: Some(at(77)), ..this(letter) };
        let found = archive(sink).letters(&by_what_is_new, None, 2).await.expect("a page");
        assert_eq!(found.letters, [after]);
    }
    assert!(resolve(sink, &letters[2], "a", redriven(80)).await, "the claim stays too");
}

async fn a_redriven_letter_put_again_is_dead_again<S: DeadLetterSink + ?Sized>(sink: &S) {
    let letters = in_every_state(sink).await;
    let mut again = letters[4].clone();
    again.died_at = at(77);
    put(sink, &[again.clone()]).await;
    assert_eq!(state(sink, &again).await, (LetterState::Dead, 1, 77), "its rounds count on");
    assert_eq!(request(sink, &this(&again), 80).await, 1);
    assert_eq!(claimed(archive(sink), &claim_by("b", 90, 1000)).await, [2, 5]);
    assert_eq!(state(sink, &again).await, (LetterState::Redriving, 2, 90));
}

async fn any_letter_can_be_marked_as_redriven<S: DeadLetterSink + ?Sized>(sink: &S) {
    let letters = in_every_state(sink).await;
    for letter in &letters {
        let rounds = state(sink, letter).await.1;
        assert!(archive(sink).mark_redriven(&letter.id(), at(60)).await.expect("an answer"));
        assert_eq!(state(sink, letter).await, (LetterState::Redriven, rounds, 60));
    }
    assert!(!resolve(sink, &letters[2], "a", failed(70, false)).await, "the claim is over");
    assert!(
        !archive(sink).mark_redriven(&letter(99).id(), at(60)).await.expect("an answer"),
        "there is no such letter"
    );
    assert_eq!(request(sink, &LetterQuery::default(), 80).await, 0);
    assert_eq!(claimed(archive(sink), &claim_by("b", 5000, 9000)).await, [0; 0]);
}
