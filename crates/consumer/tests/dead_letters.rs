//! Records that cannot be processed: found, given up, kept, and tried again. Nothing else is lost or delayed for them.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Reaction, Running, World, millis, secs};
use shardwell_consumer::{
    BuildError, DeliveryPolicy, FusePolicy, OnSinkFailure, WorkerBuilder, WorkerError, WorkerPhase,
};
use shardwell_core::aggregation::{Aggregator, Limits};
use shardwell_core::dead_letter::{DeadLetterArchive, DeadReason, LetterQuery, LetterState};
use shardwell_core::memory::MemoryDeadLetters;
use shardwell_core::{Env, EnvExt};
use shardwell_sim::{Fault, FaultyDeadLetterSink};

/// A worker that keeps its dead, with a few retries.
fn keeping(world: &World, policy: DeliveryPolicy) -> WorkerBuilder {
    let builder = world.builder("w", &world.process(1)).dead_letters(world.letters.clone());
    builder.delivery(policy).redrive_interval(secs(1))
}

/// A sink that is there, and takes nothing.
fn refuse_letters(method: &str) -> Fault {
    if method == "put" { Fault::Refuse } else { Fault::None }
}

fn policy() -> DeliveryPolicy {
    DeliveryPolicy::default().with_batch_records(50).with_max_retries(Some(2))
}

/// Waits until everything that was put is processed or dead, and gives the numbers of the dead.
async fn settled(world: &World, worker: &Running) -> Vec<u64> {
    let put = usize::try_from(world.put_so_far()).expect("a small number");
    for _ in 0..100_000 {
        let dead = world.dead_numbers().await;
        if world.log.distinct() + dead.len() == put {
            return dead;
        }
        assert_ne!(worker.handle.status().phase, WorkerPhase::Stopped);
        world.env.sleep(millis(10)).await;
    }
    panic!("it does not come to an end; dead: {:?}", world.dead_numbers().await);
}

#[tokio::test(start_paused = true)]
async fn poison_is_found_whatever_the_processor_says_and_nothing_else_dies() {
    for reaction in [Reaction::Fail, Reaction::FailHere, Reaction::Report, Reaction::Permanent, Reaction::Panic] {
        let said = reaction.clone();
        let world = World::new(2).with_script(move |_, number, _| match number % 100 {
            37 => said.clone(),
            _ => Reaction::Fine,
        });
        world.put(600, 17);
        let worker = world.start(keeping(&world, policy()));
        assert_eq!(settled(&world, &worker).await, [37, 137, 237, 337, 437, 537], "{reaction:?}");
        world.log.assert_key_order();
        let reason = match reaction {
            Reaction::Permanent => DeadReason::Permanent,
            _ => DeadReason::RetryAttemptsExhausted,
        };
        for (number, archived) in world.dead().await {
            let letter = archived.letter;
            assert_eq!(letter.reason, reason);
            let attempts = if reason == DeadReason::Permanent { 1 } else { 3 };
            assert_eq!((letter.attempts.len(), letter.batch.size), (attempts, 1), "{reaction:?}");
            assert!(letter.error_line().contains(&format!("record {number}")), "{letter:?}");
            assert_eq!((&*letter.application, letter.worker.as_str()), ("test", "w"));
        }
        worker.stop().await.expect("a clean stop");
        for lease in world.leases().await {
            assert!(lease.checkpoint.position().is_some(), "the watermark is past the dead");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_time_and_no_record() {
    let out_of_order = Arc::new(AtomicBool::new(true));
    let is_down = out_of_order.clone();
    let world = World::new(2).with_script(move |_, _, _| match is_down.load(Ordering::Relaxed) {
        true => Reaction::Outage,
        false => Reaction::Fine,
    });
    world.put(300, 17);
    let worker = world.start(keeping(&world, policy().with_max_retries(Some(0))));
    world.env.sleep(secs(600)).await;
    assert_eq!((world.log.distinct(), world.dead_numbers().await.len()), (0, 0));
    out_of_order.store(false, Ordering::Relaxed);
    world.until_all_seen(secs(61)).await;
    assert_eq!(world.dead_numbers().await, [0u64; 0]);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_a_failure_and_the_processor_is_replaced() {
    let world = World::new(1).with_script(|_, number, _| match number {
        42 => Reaction::Take(secs(3600)),
        _ => Reaction::Fine,
    });
    world.put(100, 5);
    let worker = world.start(keeping(&world, policy().with_processor_timeout(Some(secs(2)))));
    assert_eq!(settled(&world, &worker).await, [42]);
    let (_, letter) = world.dead().await.remove(0);
    assert_eq!(letter.letter.error_line(), "the processor took longer than 2s");
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_too_old_is_dead_and_those_beside_it_are_not() {
    let world = World::new(1);
    world.put(5, 1);
    world.env.sleep(secs(90)).await;
    world.put(5, 1);
    let worker = world.start(keeping(&world, policy().with_max_record_age(Some(secs(60)))));
    assert_eq!(settled(&world, &worker).await, [0, 1, 2, 3, 4]);
    assert_eq!(worker.handle.status().shards[0].dead, 5);
    assert!(world.dead().await.iter().all(|(_, letter)| letter.letter.reason == DeadReason::RecordAgeExceeded));
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_too_large_or_cannot_be_read_is_dead() {
    use shardwell_consumer::OnUndecodable;
    let world = World::new(1);
    world.put(12, 1);
    let mut aggregator = Aggregator::new(Limits::default());
    aggregator.try_add("key", None, b"7").expect("it fits");
    aggregator.try_add("key", None, b"8").expect("it fits");
    let policy = policy().with_max_record_bytes(Some(1)).with_on_undecodable(OnUndecodable::DeadLetter);
    let worker = world.start(keeping(&world, policy));
    assert_eq!(settled(&world, &worker).await, [10, 11]);
    assert!(world.dead().await.iter().all(|(_, letter)| letter.letter.reason == DeadReason::Oversize));
    // Magic, a body that is no message, and its right digest.
    let broken: &[u8] = b"\xf3\x89\x9a\xc2\xff\x00\xe0\xe8\xbf\xaf\xbb\x06\x89\x56\x3b\x2f\xba\x78\x9c\x97\xb3\xcc";
    world.stream.append("key", broken).expect("the stream takes it");
    for _ in 0..1000 {
        world.env.sleep(millis(10)).await;
        let page = world.letters.letters(&LetterQuery::default(), None, 100).await.expect("it answers");
        if let Some(last) = page.letters.iter().find(|letter| letter.letter.reason == DeadReason::Undecodable) {
            assert_eq!(last.letter.record.data, broken);
            worker.stop().await.expect("a clean stop");
            return;
        }
    }
    panic!("the broken record is not dead");
}

#[tokio::test(start_paused = true)]
async fn what_is_filtered_reaches_no_processor_and_moves_the_checkpoint() {
    let world = World::new(1).with_script(|_, _, _| Reaction::Fine);
    world.put(1000, 10);
    let builder = keeping(&world, policy()).filter(|record| record.data.ends_with(b"0"));
    let worker = world.start(builder);
    world.until("every tenth is seen", secs(10), || world.log.distinct() == 100).await;
    world.put(5, 10);
    world.env.sleep(secs(10)).await;
    worker.stop().await.expect("a clean stop");
    assert!(world.log.numbers().iter().all(|number| number % 10 == 0));
    let checkpoint = world.leases().await.remove(0).checkpoint;
    let again = world.start(world.builder("again", &world.process(2)));
    world.put(1, 1);
    world.until("the last one is seen", secs(10), || world.log.numbers().contains(&1005)).await;
    let seen = world.log.numbers();
    assert_eq!(seen.iter().filter(|number| **number > 1000).count(), 1, "1001 to 1004 were passed: {checkpoint}");
    again.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn while_no_sink_takes_a_letter_the_record_waits_and_other_shards_go_on() {
    let world =
        World::new(8).with_script(|_, number, _| if number == 0 { Reaction::Permanent } else { Reaction::Fine });
    let works = Arc::new(AtomicBool::new(false));
    let sink = FaultyDeadLetterSink::new(Arc::new(world.letters.clone()), {
        let works = works.clone();
        move |method| if works.load(Ordering::Relaxed) { Fault::None } else { refuse_letters(method) }
    });
    world.put(1, 1);
    world.put(800, 100);
    let builder = world.builder("w", &world.process(1)).dead_letters(sink).delivery(policy());
    let worker = world.start(builder);
    world.until("most are seen", secs(30), || world.log.distinct() > 600).await;
    world.env.sleep(secs(300)).await;
    assert!(world.log.distinct() < 800);
    assert_eq!(world.dead_numbers().await, [0u64; 0]);
    works.store(true, Ordering::Relaxed);
    world.until("all others are seen", secs(61), || world.log.distinct() == 800).await;
    assert_eq!(world.dead_numbers().await, [0]);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn the_next_sink_takes_what_the_first_does_not() {
    let world =
        World::new(1).with_script(|_, number, _| if number == 3 { Reaction::Permanent } else { Reaction::Fine });
    world.put(10, 2);
    let broken = FaultyDeadLetterSink::new(Arc::new(MemoryDeadLetters::new()), refuse_letters);
    let builder = world.builder("w", &world.process(1)).dead_letters(broken).dead_letters(world.letters.clone());
    let worker = world.start(builder);
    assert_eq!(settled(&world, &worker).await, [3]);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn what_no_sink_takes_is_given_up_if_the_policy_says_so() {
    let world =
        World::new(1).with_script(|_, number, _| if number == 3 { Reaction::Permanent } else { Reaction::Fine });
    world.put(10, 2);
    let broken = FaultyDeadLetterSink::new(Arc::new(MemoryDeadLetters::new()), refuse_letters);
    let policy = policy().with_on_sink_failure(OnSinkFailure::Discard);
    let worker = world.start(world.builder("w", &world.process(1)).dead_letters(broken).delivery(policy));
    world.until("the others are seen", secs(10), || world.log.distinct() == 9).await;
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn the_fuse_pauses_or_stops_before_a_stream_is_drained_into_the_dead_letters() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let world = World::new(1).with_script(move |_, _, _| match is_broken.load(Ordering::Relaxed) {
        true => Reaction::Permanent,
        false => Reaction::Fine,
    });
    world.put(100, 5);
    let stop = policy().with_fuse(Some(FusePolicy::stop(5, secs(60))));
    let error = world.start(keeping(&world, stop)).ended().await.expect_err("the fuse has blown");
    assert!(matches!(error, WorkerError::FuseBlown { .. }), "{error}");
    assert!(error.to_string().contains("is not to my taste"), "{error}");
    assert_eq!(world.dead_numbers().await, [0, 1, 2, 3, 4]);

    let pause = policy().with_fuse(Some(FusePolicy::pause(5, secs(60))));
    let worker = world.start(keeping(&world, pause));
    world.until("it pauses", secs(30), || worker.handle.status().phase == WorkerPhase::Paused).await;
    assert!(worker.handle.status().paused_because.expect("a reason").contains("the fuse has blown"));
    assert_eq!(world.dead_numbers().await.len(), 10);
    broken.store(false, Ordering::Relaxed);
    worker.handle.resume();
    world.until("the rest is seen", secs(30), || world.log.distinct() == 90).await;
    assert_eq!(worker.handle.status().paused_because, None);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn letters_come_back_when_asked_for_and_are_parked_after_the_last_round() {
    let fixed = Arc::new(AtomicBool::new(false));
    let is_fixed = fixed.clone();
    let world = World::new(1).with_script(move |_, number, _| match number % 10 {
        3 if !is_fixed.load(Ordering::Relaxed) => Reaction::Permanent,
        _ => Reaction::Fine,
    });
    world.put(30, 30);
    let worker = world.start(keeping(&world, policy().with_redrive_rounds(2)));
    assert_eq!(settled(&world, &worker).await, [3, 13, 23]);
    let redrive = || async {
        let asked = world.letters.request_redrive(&LetterQuery::default(), world.env.timestamp()).await.expect("asked");
        world.env.sleep(secs(5)).await;
        let states: Vec<_> = world.dead().await.into_iter().map(|(_, letter)| (letter.state, letter.rounds)).collect();
        (asked, states)
    };
    assert_eq!(redrive().await, (3, vec![(LetterState::Dead, 1); 3]));
    assert_eq!(redrive().await, (3, vec![(LetterState::Parked, 2); 3]));
    fixed.store(true, Ordering::Relaxed);
    world.env.sleep(secs(60)).await;
    assert_eq!(world.log.distinct(), 27, "nobody tries what nobody asked for");
    let (asked, states) = redrive().await;
    assert_eq!((asked, states[0].0), (3, LetterState::Redriven));
    assert_eq!(world.log.distinct(), 30);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn with_quarantine_the_later_records_of_a_dead_key_wait_for_its_letter() {
    let fixed = Arc::new(AtomicBool::new(false));
    let is_fixed = fixed.clone();
    let world = World::new(1).with_script(move |_, number, _| match number {
        14 if !is_fixed.load(Ordering::Relaxed) => Reaction::Permanent,
        _ => Reaction::Fine,
    });
    world.put(50, 10);
    let policy = policy().with_lanes(3).with_quarantine(true);
    let worker = world.start(keeping(&world, policy.clone()));
    assert_eq!(settled(&world, &worker).await, [14, 24, 34, 44]);
    worker.stop().await.expect("a clean stop");
    // Another worker knows it from the archive.
    world.put(10, 10);
    let worker = world.start(keeping(&world, policy));
    assert_eq!(settled(&world, &worker).await, [14, 24, 34, 44, 54]);
    fixed.store(true, Ordering::Relaxed);
    world.letters.request_redrive(&LetterQuery::default(), world.env.timestamp()).await.expect("asked");
    world.until("all are seen", secs(30), || world.log.distinct() == 60).await;
    world.log.assert_key_order();
    world.env.sleep(secs(10)).await;
    world.put(10, 10);
    world.until_all_seen(secs(10)).await;
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_a_place_for_the_dead_is_refused() {
    let world = World::new(1);
    let refused = |policy: DeliveryPolicy| match world.builder("w", &world.process(1)).delivery(policy).build() {
        Err(BuildError::Invalid(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(refused(DeliveryPolicy::default().with_max_retries(Some(3))).contains("dead_letters"));
    assert!(refused(DeliveryPolicy::default().with_quarantine(true)).contains("quarantine"));
    assert!(refused(DeliveryPolicy::default().with_lanes(0)).contains("lanes"));
}
