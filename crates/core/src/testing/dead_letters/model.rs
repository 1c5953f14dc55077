//! Random operations, answered by the archive under test and by the one in memory.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::fixtures::{all, archive, at, claim_by, letter, shard, worker};
use crate::dead_letter::{
    Claim, DeadLetter, DeadLetterSink, DeadReason, LetterId, LetterQuery, LetterState, Resolution,
};
use crate::memory::MemoryDeadLetters;
use crate::{PartitionKey, Timestamp, WorkerId};

const RECORDS: u64 = 12;
const ERRORS: [&str; 3] = ["Duplicate key", "no such airport", "timed out (100%)"];

/// One call, with its arguments.
#[derive(Debug)]
enum Operation {
    Put(Vec<DeadLetter>),
    Request(LetterQuery, Timestamp),
    Claim(Claim),
    Resolve(LetterId, WorkerId, Resolution),
    MarkRedriven(LetterId, Timestamp),
    List(LetterQuery, Option<LetterId>, usize),
    DeadKeys(&'static str, &'static str),
}

/// Runs `steps` random operations on an empty archive and on [`MemoryDeadLetters`]: every answer and, after each step,
/// every letter must be equal. The same seed gives the same operations.
///
/// # Panics
/// At the first difference, with the seed, the step and the operation.
pub async fn agrees_with_the_model<S: DeadLetterSink + ?Sized>(sink: &S, seed: u64, steps: usize) {
    let model = MemoryDeadLetters::new();
    let mut random = Rng::with_seed(seed);
    let mut now = 1000;
    for step in 0..steps {
        now += random.i64(0..20);
        let operation = draw(&mut random, now);
        let (expected, answer) = (run(&model, &operation).await, run(sink, &operation).await);
        assert_eq!(answer, expected, "seed {seed}, step {step}: the answer to {operation:#?}");
        let everything = all(archive(sink), &LetterQuery::default(), 1000).await;
        assert_eq!(everything, model.all(), "seed {seed}, step {step}: the letters after {operation:#?}");
    }
}

/// Carries an operation out and gives the answer as text.
async fn run<S: DeadLetterSink + ?Sized>(sink: &S, operation: &Operation) -> String {
    let archive = archive(sink);
    match operation {
        Operation::Put(letters) => format!("{:?}", sink.put(letters).await.expect("the letters are put")),
        Operation::Request(query, at) => archive.request_redrive(query, *at).await.expect("an answer").to_string(),
        Operation::Claim(claim) => format!("{:#?}", archive.claim(claim).await.expect("an answer")),
        Operation::Resolve(id, by, end) => archive.resolve(id, by, end).await.expect("an answer").to_string(),
        Operation::MarkRedriven(id, at) => archive.mark_redriven(id, *at).await.expect("an answer").to_string(),
        Operation::List(query, after, limit) => {
            format!("{:#?}", archive.letters(query, after.as_ref(), *limit).await.expect("a page"))
        }
        Operation::DeadKeys(application, stream) => {
            let keys = archive.dead_keys(application, stream).await.expect("an answer");
            keys.iter().map(|key| format!("{key} ")).collect()
        }
    }
}

/// Requests and claims are likely, so that letters move on.
fn draw(random: &mut Rng, now: i64) -> Operation {
    match random.u8(..20) {
        0..5 => Operation::Put((0..random.usize(1..4)).map(|_| draw_letter(random, now)).collect()),
        5..8 => Operation::Request(draw_query(random, now), at(now)),
        8..12 => {
            let stream = draw_stream(random).into();
            let limit = random.usize(..4);
            let claim = claim_by(draw_worker(random), now, now + random.i64(0..60));
            Operation::Claim(Claim { application: draw_application(random).into(), stream, limit, ..claim })
        }
        12..16 => {
            Operation::Resolve(draw_record(random).id(), worker(draw_worker(random)), draw_resolution(random, now))
        }
        16..17 => Operation::MarkRedriven(draw_record(random).id(), at(now)),
        17..19 => {
            let after = random.bool().then(|| draw_record(random).id());
            Operation::List(draw_query(random, now), after, random.usize(..6))
        }
        _ => Operation::DeadKeys(draw_application(random), draw_stream(random)),
    }
}

fn draw_worker(random: &mut Rng) -> &'static str {
    ["a", "b", "c"][random.usize(..3)]
}

fn draw_application(random: &mut Rng) -> &'static str {
    if random.u8(..8) > 0 { "delays" } else { "other" }
}

fn draw_stream(random: &mut Rng) -> &'static str {
    if random.u8(..8) > 0 { "flights" } else { "trains" }
}

fn draw_key(random: &mut Rng) -> Option<PartitionKey> {
    (random.u8(..4) > 0).then(|| ["x", "y", "Y"][random.usize(..3)].into())
}

fn draw_reason(random: &mut Rng) -> DeadReason {
    DeadReason::ALL[random.usize(..DeadReason::ALL.len())]
}

/// One of few records, so that letters are put again. Its key is its own: a record does not change.
fn draw_record(random: &mut Rng) -> DeadLetter {
    let n = random.u64(..RECORDS);
    let mut letter = letter(n * 7);
    letter.application = draw_application(random).into();
    letter.stream = draw_stream(random).into();
    letter.shard = shard(n % 3);
    letter.record.position.sub_sequence_number = n % 2;
    letter.record.partition_key = draw_key(&mut Rng::with_seed(n));
    letter
}

fn draw_letter(random: &mut Rng, now: i64) -> DeadLetter {
    let mut letter = draw_record(random);
    letter.reason = draw_reason(random);
    letter.error = (0..random.usize(..3)).map(|_| ERRORS[random.usize(..3)].to_owned()).collect();
    letter.lane = random.u32(..4);
    letter.worker = worker(draw_worker(random));
    letter.died_at = at(now);
    letter
}

fn draw_resolution(random: &mut Rng, now: i64) -> Resolution {
    match random.u8(..3) {
        0 => Resolution::Redriven { at: at(now) },
        1 => {
            let error = vec![ERRORS[random.usize(..3)].to_owned()];
            Resolution::Failed { at: at(now), error, park: random.bool() }
        }
        _ => Resolution::Released { at: at(now), requested: random.bool() },
    }
}

/// Each part now and then, so that what is asked for is often there.
fn draw_query(random: &mut Rng, now: i64) -> LetterQuery {
    let mut rarely = {
        let mut random = random.fork();
        move || random.u8(..5) == 0
    };
    let near = |random: &mut Rng| at(now - random.i64(0..100));
    let error = |random: &mut Rng| ["KEY", "airport", "%", "e", ""][random.usize(..5)].to_owned();
    let states = |random: &mut Rng| LetterState::ALL.into_iter().filter(|_| random.bool()).collect::<BTreeSet<_>>();
    LetterQuery {
        application: rarely().then(|| draw_application(random).into()),
        stream: rarely().then(|| draw_stream(random).into()),
        shard: rarely().then(|| shard(random.u64(..3))),
        partition_key: if rarely() { draw_key(random) } else { None },
        reason: rarely().then(|| draw_reason(random)),
        error: rarely().then(|| error(random)),
        since: rarely().then(|| near(random)),
        before: rarely().then(|| near(random)),
        states: if rarely() { states(random) } else { BTreeSet::new() },
        id: rarely().then(|| draw_record(random).id()),
    }
}
