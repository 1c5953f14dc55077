//! Many at once: a letter is given to one, and a key to one at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;

use super::fixtures::{all, archive, at, claim_by, keyed, number, put};
use crate::dead_letter::{ArchivedLetter, Claim, DeadLetterSink, LetterId, LetterQuery, LetterState, Resolution};
use crate::{PartitionKey, WorkerId};

const COMPETITORS: usize = 8;
const LETTERS: u64 = 120;
const KEYS: u64 = 10;

/// How often a competitor looks before it says that something is wrong: where another one has failed, it would look for
/// ever.
const LOOKS: usize = 20_000;

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: DeadLetterSink + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    claims_never_overlap(make().await).await;
    requests_count_each_letter_once(make().await).await;
    putting_and_redriving_do_not_get_in_each_others_way(make().await).await;
}

/// Runs a future per competitor, all at once, and gives their answers in order.
async fn compete<S, T, F>(sink: &Arc<S>, run: impl Fn(usize, Arc<S>) -> F) -> Vec<T>
where
    S: DeadLetterSink + ?Sized,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "a test harness on real threads, outside of any `Env`")]
    let tasks: Vec<_> = (0..COMPETITORS).map(|i| tokio::spawn(run(i, Arc::clone(sink)))).collect();
    join_all(tasks).await.into_iter().map(|joined| joined.expect("a competitor does not panic")).collect()
}

/// Who has what, as the competitors tell each other.
#[derive(Default)]
struct Ledger {
    letters: BTreeMap<LetterId, WorkerId>,
    keys: BTreeMap<PartitionKey, (WorkerId, usize)>,
    newest: BTreeMap<PartitionKey, u64>,
    done: u64,
}

impl Ledger {
    fn take(&mut self, given: &ArchivedLetter, me: &WorkerId) {
        let (id, key) = (given.letter.id(), given.letter.record.partition_key.clone().expect("they have keys"));
        assert_eq!(self.letters.insert(id, me.clone()), None, "a letter is given to one");
        let holder = self.keys.entry(key.clone()).or_insert_with(|| (me.clone(), 0));
        assert_eq!(holder.0, *me, "a key is given to one worker at a time");
        holder.1 += 1;
        let number = number(&given.letter);
        let earlier = self.newest.insert(key, number);
        assert!(earlier.is_none_or(|earlier| earlier < number), "the letters of a key are given out in order");
    }

    /// To be called before the letter is resolved: as soon as it is, it may be another's.
    fn give_back(&mut self, given: &ArchivedLetter) {
        let key = given.letter.record.partition_key.clone().expect("they have keys");
        let holder = self.keys.get_mut(&key).expect("it was taken");
        holder.1 -= 1;
        if holder.1 == 0 {
            self.keys.remove(&key);
        }
        self.done += 1;
    }
}

async fn claims_never_overlap<S: DeadLetterSink + ?Sized>(sink: Arc<S>) {
    let letters: Vec<_> = (0..LETTERS).map(|n| keyed(n, &format!("key-{}", n * 7 % KEYS))).collect();
    put(&*sink, &letters).await;
    let any = LetterQuery::default();
    assert_eq!(archive(&*sink).request_redrive(&any, at(1)).await.expect("an answer"), LETTERS);
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let workers = compete(&sink, |i, sink| {
        let ledger = Arc::clone(&ledger);
        async move {
            let claim = Claim { limit: 1 + i % 4, ..claim_by(&format!("worker-{i}"), 10, 1_000_000) };
            for _ in 0..LOOKS {
                let given = archive(&*sink).claim(&claim).await.expect("an answer");
                {
                    let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
                    given.iter().for_each(|letter| ledger.take(letter, &claim.worker));
                    if ledger.done == LETTERS {
                        return;
                    }
                }
                for letter in given {
                    ledger.lock().unwrap_or_else(PoisonError::into_inner).give_back(&letter);
                    let end = Resolution::Redriven { at: at(20) };
                    let id = letter.letter.id();
                    assert!(archive(&*sink).resolve(&id, &claim.worker, &end).await.expect("an answer"));
                }
                tokio::task::yield_now().await;
            }
            panic!("not every letter is given out");
        }
    });
    workers.await;
    for archived in all(archive(&*sink), &any, 1000).await {
        assert_eq!((archived.state, archived.rounds), (LetterState::Redriven, 1), "each once");
    }
}

async fn requests_count_each_letter_once<S: DeadLetterSink + ?Sized>(sink: Arc<S>) {
    put(&*sink, &(0..40).map(|n| keyed(n, "x")).collect::<Vec<_>>()).await;
    let counts = compete(&sink, |_, sink| async move {
        archive(&*sink).request_redrive(&LetterQuery::default(), at(1)).await.expect("an answer")
    });
    assert_eq!(counts.await.iter().sum::<u64>(), 40);
}

/// Half of them put, the other half redrive what is there. In the end everything was redriven.
async fn putting_and_redriving_do_not_get_in_each_others_way<S: DeadLetterSink + ?Sized>(sink: Arc<S>) {
    const EACH: u64 = 30;
    let total = EACH * COMPETITORS as u64 / 2;
    let redriven = Arc::new(Mutex::new(0));
    let run = |i: usize, sink: Arc<S>| {
        let redriven = Arc::clone(&redriven);
        async move {
            let archive = archive(&*sink);
            if i.is_multiple_of(2) {
                for n in 0..EACH {
                    put(&*sink, &[keyed(i as u64 * 1000 + n, &format!("key-{}", n % KEYS))]).await;
                }
                return;
            }
            let claim = Claim { limit: 5, ..claim_by(&format!("worker-{i}"), 10, 1_000_000) };
            for _ in 0..LOOKS {
                if *redriven.lock().unwrap_or_else(PoisonError::into_inner) == total {
                    return;
                }
                archive.request_redrive(&LetterQuery::default(), at(1)).await.expect("an answer");
                for letter in archive.claim(&claim).await.expect("an answer") {
                    let end = Resolution::Redriven { at: at(20) };
                    assert!(archive.resolve(&letter.letter.id(), &claim.worker, &end).await.expect("an answer"));
                    *redriven.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                }
                tokio::task::yield_now().await;
            }
            panic!("not every letter is redriven");
        }
    };
    compete(&sink, run).await;
    let letters = all(archive(&*sink), &LetterQuery::default(), 1000).await;
    assert_eq!(letters.len() as u64, total);
    assert!(letters.iter().all(|archived| archived.state == LetterState::Redriven && archived.rounds == 1));
}
