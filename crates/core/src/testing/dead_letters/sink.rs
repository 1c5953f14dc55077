//! What is put is there, once, and stays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, join_all, select};

use super::Place;
use super::fixtures::{at, letter, put, shard};
use crate::dead_letter::{Attempt, DeadLetter, DeadReason};
use crate::{ExtendedSequenceNumber, MAX_SEQUENCE_NUMBER_DIGITS, SequenceNumber};

pub(super) async fn exercise<P, M, F>(make: &M)
where
    P: Place,
    M: Fn() -> F + Sync,
    F: Future<Output = P> + Send,
{
    preparing_again_keeps_what_is_there(make().await).await;
    every_field_round_trips(make().await).await;
    payloads_of_every_size_round_trip(make().await).await;
    exotic_text_round_trips(make().await).await;
    all_letters_of_a_batch_are_kept(make().await).await;
    a_letter_takes_the_place_of_an_older_one(make().await).await;
    every_part_of_an_identity_counts(make().await).await;
    letters_outlive_the_sink(make().await).await;
    many_put_at_the_same_time(make().await).await;
    a_dropped_put_spoils_nothing(make().await).await;
}

/// Asserts that exactly these letters are kept.
async fn keeps<P: Place>(place: &P, mut expected: Vec<DeadLetter>) {
    let mut kept = place.kept().await;
    kept.sort_by_key(DeadLetter::id);
    expected.sort_by_key(DeadLetter::id);
    let ids = |letters: &[DeadLetter]| letters.iter().map(|letter| letter.id().to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&kept), ids(&expected), "one letter for each identity");
    for (kept, expected) in kept.iter().zip(&expected) {
        // Payloads are not shown by `Debug`, and need not be here: the difference is said in words.
        assert_eq!(kept, expected, "payloads alike: {}", kept.record.data == expected.record.data);
    }
}

async fn preparing_again_keeps_what_is_there<P: Place>(place: P) {
    let sink = place.open().await;
    sink.prepare().await.expect("it is made ready");
    keeps(&place, Vec::new()).await;
    put(&*sink, &[letter(1)]).await;
    sink.prepare().await.expect("it is made ready again");
    place.open().await.prepare().await.expect("by somebody else too");
    keeps(&place, vec![letter(1)]).await;
}

async fn every_field_round_trips<P: Place>(place: P) {
    let sink = place.open().await;
    let mut expected = Vec::new();
    for (n, reason) in DeadReason::ALL.into_iter().enumerate() {
        let mut letter = letter(n as u64);
        letter.reason = reason;
        letter.record.position.sub_sequence_number = 17;
        letter.record.explicit_hash_key = [None, Some(0), Some(u128::MAX)][n % 3];
        letter.record.arrival = at(1_357_017_300_007);
        letter.attempts = (0..n)
            .map(|n| Attempt { at: at(n as i64), error: vec![format!("attempt {n}"), "because".into()] })
            .collect();
        letter.error = (0..n).map(|n| format!("error {n}")).collect();
        letter.batch.id = 99;
        letter.batch.invocations = n as u32;
        letter.batch.size = 10_000;
        letter.batch.first = ExtendedSequenceNumber::new(3u64.into(), 4);
        letter.batch.last = ExtendedSequenceNumber::new(5u64.into(), 6);
        letter.batch.first_arrival = at(7);
        letter.batch.last_arrival = at(8);
        letter.batch.partial = n % 2 == 0;
        letter.lane = n as u32;
        letter.died_at = at(1_357_017_300_999);
        put(&*sink, std::slice::from_ref(&letter)).await;
        expected.push(letter);
    }
    // Before 1970 and behind 9999 too: clocks can be wrong.
    for (n, time) in [(100, -5), (101, 253_402_300_799_999), (102, 253_402_300_800_000), (103, 4_000_000_000_000_000)] {
        let mut letter = letter(n);
        letter.record.arrival = at(time);
        letter.died_at = at(time);
        letter.attempts[0].at = at(time);
        expected.push(letter.clone());
        put(&*sink, &[letter]).await;
    }
    let mut longest = letter(0);
    let number: SequenceNumber = "9".repeat(MAX_SEQUENCE_NUMBER_DIGITS).parse().expect("a sequence number");
    longest.record.position = ExtendedSequenceNumber::new(number, i64::MAX as u64);
    (longest.batch.first, longest.batch.last) = (longest.record.position, longest.record.position);
    expected.push(longest.clone());
    put(&*sink, &[longest]).await;
    keeps(&place, expected).await;
}

async fn payloads_of_every_size_round_trip<P: Place>(place: P) {
    let sink = place.open().await;
    let mut expected = Vec::new();
    for (n, size) in [0, 1, 2, 3, 1000, 1 << 20].into_iter().enumerate() {
        let mut letter = letter(n as u64);
        letter.record.data = (0..size).map(|i| (i * 7 % 251) as u8).collect::<Bytes>();
        expected.push(letter);
    }
    put(&*sink, &expected).await;
    keeps(&place, expected).await;
}

async fn exotic_text_round_trips<P: Place>(place: P) {
    const TEXTS: [&str; 9] = [
        "größer als 飛行機 ✈ \u{1f6eb}",
        "two\nlines\r\nand a tab\t.",
        "a NUL \0 in the middle",
        "\"quoted\" 'twice' \\ `so`",
        "'; DROP TABLE letters; --",
        "100 % of _ and *",
        "\u{2028}\u{feff}\u{202e}\u{7f}",
        "{\"json\": [1]}",
        " ",
    ];
    let sink = place.open().await;
    let mut expected = Vec::new();
    for (n, text) in TEXTS.into_iter().enumerate() {
        let mut letter = letter(n as u64);
        letter.application = text.into();
        letter.stream = text.into();
        letter.shard = text.into();
        letter.worker = text.into();
        letter.record.partition_key = Some(text.into());
        letter.record.data = text.into();
        letter.error = vec![text.into(), String::new(), text.repeat(100)];
        letter.attempts = vec![Attempt { at: at(1), error: vec![text.into()] }];
        expected.push(letter);
    }
    let mut without_key = letter(1000);
    without_key.record.partition_key = None;
    expected.push(without_key);
    put(&*sink, &expected).await;
    keeps(&place, expected).await;
}

async fn all_letters_of_a_batch_are_kept<P: Place>(place: P) {
    let sink = place.open().await;
    let letters: Vec<_> = (0..500).map(letter).collect();
    put(&*sink, &letters).await;
    keeps(&place, letters).await;
}

async fn a_letter_takes_the_place_of_an_older_one<P: Place>(place: P) {
    let (sink, other) = (place.open().await, place.open().await);
    put(&*sink, &[letter(1), letter(2), letter(3)]).await;
    put(&*sink, &[letter(1), letter(2), letter(3)]).await;
    keeps(&place, vec![letter(1), letter(2), letter(3)]).await;

    let mut again = letter(2);
    again.worker = "another".into();
    again.reason = DeadReason::CrashLoop;
    again.error = vec!["killed".into()];
    again.died_at = at(99);
    put(&*other, &[again.clone()]).await;
    keeps(&place, vec![letter(1), again.clone(), letter(3)]).await;

    let mut last = again.clone();
    last.lane = 7;
    put(&*sink, &[again, last.clone()]).await;
    keeps(&place, vec![letter(1), last, letter(3)]).await;
}

async fn every_part_of_an_identity_counts<P: Place>(place: P) {
    let sink = place.open().await;
    let mut letters = vec![letter(1); 6];
    letters[1].application = "other".into();
    letters[2].stream = "other".into();
    letters[3].shard = shard(1);
    letters[4].record.position.sub_sequence_number = 1;
    letters[5].record.position.sequence_number = 10u64.into();
    put(&*sink, &letters).await;
    keeps(&place, letters).await;
}

async fn letters_outlive_the_sink<P: Place>(place: P) {
    let mut expected = Vec::new();
    for n in 0..4 {
        let sink = place.open().await;
        sink.prepare().await.expect("it is made ready");
        put(&*sink, &[letter(2 * n), letter(2 * n + 1)]).await;
        drop(sink);
        expected.extend([letter(2 * n), letter(2 * n + 1)]);
        keeps(&place, expected.clone()).await;
    }
}

/// Some through one handle and some through another, some identities by several.
async fn many_put_at_the_same_time<P: Place>(place: P) {
    const TASKS: u64 = 8;
    const PUTS: u64 = 12;
    let sinks = [place.open().await, place.open().await, place.open().await];
    let put_some = |task: u64| {
        let sink = Arc::clone(&sinks[task as usize % sinks.len()]);
        async move {
            for n in 0..PUTS {
                // The last one is the same for all.
                put(&*sink, &[letter(task * 100 + n), letter(task * 100 + 50 + n), letter(9999)]).await;
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a test harness on real threads, outside of any `Env`")]
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(put_some(task))).collect();
    for joined in join_all(tasks).await {
        joined.expect("a task does not panic");
    }
    let mine = |task: u64| (0..PUTS).flat_map(move |n| [letter(task * 100 + n), letter(task * 100 + 50 + n)]);
    keeps(&place, (0..TASKS).flat_map(mine).chain([letter(9999)]).collect()).await;
}

/// Dropped after more and more turns, then put again.
async fn a_dropped_put_spoils_nothing<P: Place>(place: P) {
    let sink = place.open().await;
    let mut expected = Vec::new();
    for n in 0..25u64 {
        let letters = [letter(10 * n), letter(10 * n + 1)];
        let give_up = async {
            for _ in 0..n * 3 {
                tokio::task::yield_now().await;
            }
        };
        if let Either::Left((answered, _)) = select(sink.put(&letters), std::pin::pin!(give_up)).await {
            answered.expect("the letters are put");
        }
        put(&*sink, &letters).await;
        expected.extend(letters);
    }
    keeps(&place, expected).await;
    let slow = Duration::from_secs(60);
    #[expect(clippy::disallowed_methods, reason = "a test harness on real time, outside of any `Env`")]
    let reopened = tokio::time::timeout(slow, async { put(&*place.open().await, &[letter(1)]).await });
    reopened.await.expect("no lock is left behind");
}
