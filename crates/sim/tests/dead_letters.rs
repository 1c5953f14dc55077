//! Faults come as planned, and otherwise the sink is the one it is around.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shardwell_core::dead_letter::{DeadLetterSink, LetterQuery, SinkErrorKind};
use shardwell_core::memory::MemoryDeadLetters;
use shardwell_core::testing::dead_letters::{exercise_archive, letter};
use shardwell_core::{Env, EnvExt, Timestamp};
use shardwell_sim::{Fault, FaultyDeadLetterSink, SimEnv};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_faults_it_conforms() {
    exercise_archive(|| async {
        Arc::new(FaultyDeadLetterSink::new(Arc::new(MemoryDeadLetters::new()), |_| Fault::None))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn faults_come_as_planned() {
    let (inner, calls) = (MemoryDeadLetters::new(), AtomicUsize::new(0));
    let plan = move |method: &'static str| match (method, calls.fetch_add(1, Ordering::Relaxed)) {
        ("put", 0) => Fault::Refuse,
        ("put", 1) => Fault::LoseReply,
        ("put", 2) => Fault::Hang,
        ("letters", _) => Fault::Refuse,
        _ => Fault::None,
    };
    let sink = FaultyDeadLetterSink::new(Arc::new(inner.clone()), plan).with_refusal(SinkErrorKind::Refused);
    assert_eq!(sink.put(&[letter(0)]).await.expect_err("refused").kind(), SinkErrorKind::Refused);
    assert_eq!(inner.all().len(), 0);
    assert_eq!(sink.put(&[letter(0)]).await.expect_err("lost").kind(), SinkErrorKind::Unavailable);
    assert_eq!(inner.all().len(), 1);

    let env = SimEnv::new(1, Timestamp::default());
    let deadline = env.now().plus(Duration::from_secs(60));
    env.deadline(deadline, sink.put(&[letter(1)])).await.expect_err("it hangs");
    assert_eq!(inner.all().len(), 2);
    sink.put(&[letter(2)]).await.expect("put");
    assert_eq!(inner.all().len(), 3);
    let archive = sink.archive().expect("an archive");
    archive.letters(&LetterQuery::default(), None, 1).await.expect_err("refused");
    assert!(archive.letter(&letter(2).id()).await.expect("an answer").is_some());
}
