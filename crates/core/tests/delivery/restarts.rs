//! What a restart may and may not believe, and cases that once went wrong.

use std::time::Duration;

use proptest::prelude::*;
use shardwell_core::delivery::{
    Command, CrashRecord, Delivery, DeliveryPolicy, ErrorClass, Event, FailedBatch, Intake, Now, ResumeState,
    StoredPosition, Verdict,
};
use shardwell_core::{Checkpoint, CheckpointState, ExtendedSequenceNumber, SequenceNumber, UserRecord};

use super::rules::Rules;
use super::script::{failure, index_of, record};
use super::world::{Entry, Fate, Flight, World};

fn log(keys: &[&str]) -> Vec<Entry> {
    let entry = |(index, key): (usize, &&str)| Entry { record: record(index, Some(key)), undecodable: false };
    keys.iter().enumerate().map(entry).collect()
}

/// Two keys that take different lanes of two.
fn two_keys() -> [String; 2] {
    let lane = |key: &str| {
        let mut world = World::new(log(&[key]), Rules { lanes: 2, ..Rules::default() }, 1);
        world.arrive(1);
        *world.flights.keys().next().expect("an invocation")
    };
    let first = "key-0".to_owned();
    let other = (1..).map(|n| format!("key-{n}")).find(|key| lane(key) != lane(&first));
    [first, other.expect("keys take all lanes")]
}

/// Record 0 is pending, records 1 and 3 of the other lane are done, record 2 is pending behind 0.
fn with_gaps() -> World {
    let [a, b] = two_keys();
    let mut world = World::new(log(&[&a, &b, &a, &b, &a]), Rules { lanes: 2, records: 1, ..Rules::default() }, 1);
    world.arrive(4);
    for _ in 0..2 {
        let lane =
            world.flights.keys().copied().find(|lane| world.call(*lane).is_some_and(|records| records[0] % 2 == 1));
        world.finish(lane.expect("the other lane"), Verdict::Done);
    }
    world
}

/// Everything that a machine does with these records, at once: what it invoked, and what is in its books.
fn feed(machine: &mut Delivery, records: impl Iterator<Item = UserRecord>) -> Vec<usize> {
    let mut delivered = Vec::new();
    for record in records {
        let mut commands = machine.step(Event::Arrived(vec![Intake::Record(record)]), Now::default(), 0, true);
        while let Some(command) = commands.pop() {
            if let Command::Invoke { lane, batch, .. } = command {
                delivered.extend(batch.records().iter().map(index_of));
                let event = Event::Finished { lane, verdict: Verdict::Done };
                commands.extend(machine.step(event, Now::default(), 0, true));
            }
        }
    }
    delivered
}

#[test]
fn what_is_finished_is_not_delivered_again_and_the_rest_is() {
    let mut world = with_gaps();
    world.store();
    let mut machine = Delivery::new(world.rules.policy(), &world.stored.resume());
    assert_eq!(feed(&mut machine, (0..5).map(|n| world.log[n].record.clone())), [0, 2, 4]);
    assert_eq!(machine.watermark(), Some(world.log[4].record.position));
}

/// The stored ordinals belong to other records: the first one has gone.
#[test]
fn a_set_that_begins_with_another_record_is_forgotten() {
    let mut world = with_gaps();
    world.store();
    let mut machine = Delivery::new(world.rules.policy(), &world.stored.resume());
    assert_eq!(feed(&mut machine, (1..5).map(|n| world.log[n].record.clone())), [1, 2, 3, 4]);
    assert!(!machine.is_misled());
    assert_eq!(machine.watermark(), Some(world.log[4].record.position));
}

/// A record in the middle has gone, so that some may have been passed over: nothing is told of that.
#[test]
fn a_set_that_ends_with_another_record_misleads_and_is_noticed_before_anything_is_stored() {
    let mut world = with_gaps();
    world.store();
    let resume = world.stored.resume();
    let mut machine = Delivery::new(world.rules.policy(), &resume);
    feed(&mut machine, [0, 1, 2].into_iter().map(|n| world.log[n].record.clone()));
    assert!(!machine.is_misled());
    feed(&mut machine, std::iter::once(world.log[4].record.clone()));
    assert!(machine.is_misled());
    assert_eq!((machine.watermark(), machine.resume().finished), (None, resume.finished.clone()));
    let mut again = Delivery::new(world.rules.policy(), &resume.without_records());
    assert_eq!(feed(&mut again, [0, 1, 2, 4].into_iter().map(|n| world.log[n].record.clone())), [0, 1, 2, 4]);
}

#[test]
fn a_shard_that_ends_before_the_set_does_misleads_and_is_not_complete() {
    let mut world = with_gaps();
    world.store();
    let mut machine = Delivery::new(world.rules.policy(), &world.stored.resume());
    feed(&mut machine, [0, 1].into_iter().map(|n| world.log[n].record.clone()));
    machine.step(Event::ShardEnded, Now::default(), 0, true);
    assert!(machine.is_misled() && !machine.is_complete());
}

/// What a restored record weighs had been reserved for it again.
#[test]
fn what_comes_again_and_is_finished_gives_its_room_back() {
    let mut world = with_gaps();
    world.store();
    world.crash(world.rules.clone());
    // The world checks the books.
    world.arrive(4);
}

/// A record was done under one filter and passed under the next: it is not delivered under a third.
#[test]
fn a_filter_that_comes_and_goes_does_not_bring_finished_records_back() {
    let mut world = with_gaps();
    world.store();
    for filter in [3, 0] {
        world.crash(Rules { filter, ..world.rules.clone() });
        world.arrive(5);
        world.store();
        assert_eq!(world.fates[3], Fate::Done, "with filter {filter}");
    }
}

fn fail_once(world: &mut World) {
    world.finish(0, Verdict::Failed(failure(ErrorClass::Retryable)));
}

fn failures(world: &World) -> Vec<FailedBatch> {
    world.stored.resume().failed
}

/// A new term writes before it has read anything, and may die then; the attempts must not start over.
#[test]
fn failures_outlive_terms_that_read_nothing_and_terms_that_form_nothing() {
    let mut world = World::new(log(&["a"]), Rules::default(), 1);
    world.arrive(1);
    fail_once(&mut world);
    let failed = [FailedBatch { first: 0, records: 1, failures: 1 }];
    world.store();
    for arrives in [false, true, true] {
        world.crash(world.rules.clone());
        assert_eq!(failures(&world), failed, "as the term begins");
        world.may_deliver = false;
        world.arrive(usize::from(arrives));
        world.store();
        assert_eq!(failures(&world), failed, "while it is paused");
        world.may_deliver = true;
    }
    world.tick();
    fail_once(&mut world);
    world.store();
    assert_eq!(failures(&world), [FailedBatch { failures: 2, ..failed[0] }]);
}

/// A batch that had failed is formed again as it was, also if its records come into another lane, behind others.
#[test]
fn a_batch_that_failed_is_formed_again_also_in_another_lane() {
    let [a, b] = two_keys();
    let mut world = World::new(log(&[&a, &a, &b, &b, &a]), Rules { lanes: 2, ..Rules::default() }, 1);
    world.arrive(5);
    let lane = world.flights.keys().copied().find(|lane| world.call(*lane) == Some(vec![2, 3])).expect("the lane of b");
    world.finish(lane, Verdict::Failed(failure(ErrorClass::Transient)));
    world.crash(Rules { lanes: 1, ..world.rules.clone() });
    world.arrive(5);
    assert_eq!(world.call(0), Some(vec![0, 1, 2, 3, 4]), "an outage is forgotten");

    world.crash(Rules { lanes: 2, bisect: false, ..world.rules.clone() });
    world.arrive(5);
    world.finish(lane, Verdict::Failed(failure(ErrorClass::Retryable)));
    world.store();
    assert_eq!(failures(&world), [FailedBatch { first: 2, records: 2, failures: 1 }]);
    world.crash(Rules { lanes: 1, ..world.rules.clone() });
    world.arrive(5);
    assert_eq!(world.call(0), Some(vec![0, 1]));
    world.finish(0, Verdict::Done);
    assert_eq!(world.call(0), Some(vec![2, 3]));
    assert!(matches!(world.flights[&0], Flight::Call { attempt: 2, .. }));
    world.finish(0, Verdict::Done);
    assert_eq!(world.call(0), Some(vec![4]));
}

/// Process restarts grant no new attempts: P6 over all terms together.
#[test]
fn a_record_has_its_attempts_once_and_not_with_every_start() {
    let mut world = World::new(log(&["a", "a", "a"]), Rules { retries: Some(4), ..Rules::default() }, 1);
    let mut attempts = 0;
    while world.letters.is_empty() {
        assert!(attempts <= 5, "new attempts with every start");
        world.arrive(3);
        if world.flights.is_empty() {
            world.sleep();
        }
        match world.call(0) {
            // The others are behind it.
            Some(records) if records == [0] => {
                attempts += 1;
                fail_once(&mut world);
            }
            Some(_) => world.finish(0, Verdict::FailedFrom { index: 0, failure: failure(ErrorClass::Retryable) }),
            None => world.buried(0, shardwell_core::delivery::BurialOutcome::Kept),
        }
        world.store();
        if attempts > 0 && world.letters.is_empty() && world.flights.is_empty() {
            world.machine.stopped_in_order();
            world.store();
            world.crash(world.rules.clone());
        }
    }
    assert_eq!(attempts, 5);
}

/// What is settled while the restored set is not confirmed is not stored, so it is no progress either.
#[test]
fn a_crash_loop_before_the_set_is_confirmed_is_noticed() {
    let mut world = with_gaps();
    world.store();
    for starts in 2..6 {
        world.crash(world.rules.clone());
        world.arrive(3);
        let lane = world.flights.keys().next().copied().expect("record 0");
        world.finish(lane, Verdict::Done);
        world.store();
        let crashes = world.stored.resume().crashes;
        assert_eq!((crashes.starts, crashes.zone > 0), (starts, starts > 3));
        assert_eq!(crashes.zone % 2, 0, "what is not stored does not shorten it");
    }
}

/// Numbers as large as Kinesis's, sub-sequence numbers and all that can be said of crashes.
#[test]
fn the_largest_state_fits_into_the_smallest_limit() {
    let number = |n: u64| SequenceNumber::from_limbs([u64::MAX, u64::MAX, u64::MAX - n]);
    let position = |n: u64| ExtendedSequenceNumber::new(number(1000 - n), u64::MAX - 1);
    let place = |n: u64| StoredPosition::from(position(n));
    let crashes = CrashRecord { starts: 3, deaths: (0..8).map(|n| (place(n), 1)).collect(), ..CrashRecord::default() };
    let policy = DeliveryPolicy::default().with_lanes(1024).with_max_state_bytes(256).resolve(true).expect("valid");
    let resume = ResumeState { crashes, ..ResumeState::default() };
    let mut machine = Delivery::new(policy, &resume);
    machine.begin();
    let user_record = |n: u64| UserRecord { position: position(n), ..record(0, Some(&format!("key-{n}"))) };
    let records = (0..500).map(|n| Intake::Record(user_record(n))).collect();
    let mut commands = machine.step(Event::Arrived(records), Now::default(), u64::MAX, true);
    let mut now = Now::default();
    let mut steps = 0;
    while let Some(command) = commands.pop() {
        if let Command::Invoke { lane, batch, .. } = command {
            machine.announce(lane);
            let resume = machine.resume();
            assert!(resume.crashes.running.is_some() && !resume.crashes.deaths.is_empty());
            let times = ResumeState { caught_up_at: Some(i64::MIN), opened_at: Some(i64::MIN), ..resume };
            let (version, data) = times.encode().expect("something");
            assert!(data.len() <= 256, "{} bytes", data.len());
            let state = CheckpointState { belongs_to: Checkpoint::Latest, version, data };
            assert_eq!(ResumeState::decode(&state), Some(times));
            // The first record fails for ever.
            let fails = batch.records().iter().any(|record| record.position == position(0));
            let verdict = if fails { Verdict::Failed(failure(ErrorClass::Retryable)) } else { Verdict::Done };
            now.monotonic = now.monotonic.plus(Duration::from_millis(10));
            commands.extend(machine.step(Event::Finished { lane, verdict }, now, u64::MAX, true));
            steps += 1;
        }
    }
    assert!(steps > 10, "{steps}: there is room for some, until only the oldest may go on");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever was stored, by whomever: nothing panics, nothing spins, and what is misled is noticed or delivers all.
    #[test]
    fn any_state_is_harmless(
        runs in prop::collection::vec((1u64..9, 1u64..9), 0..6),
        first in 0u64..4,
        last in 0usize..40,
        failed in prop::collection::vec((0u64..40, 0u32..9, any::<u32>()), 0..5),
        crashes in (any::<u32>(), 0u64..60, 0u32..40, any::<u32>()),
        lanes in 1u32..5,
    ) {
        let mut at = 0;
        let runs: Vec<_> = runs.iter().map(|(gap, length)| {
            let start = at + gap;
            at = start + length;
            start..at
        }).collect();
        let position = |index: usize| record(index, None).position;
        let (starts, zone, unit, zones) = crashes;
        let resume = ResumeState {
            first: (first > 0).then(|| position(usize::try_from(first).expect("small") - 1).into()),
            finished: Some(shardwell_core::delivery::Finished {
                records: shardwell_core::delivery::FinishedRecords::Ordinals(
                    shardwell_core::delivery::OrdinalSet::encode(&runs, 100).0,
                ),
                last: (runs.last().map_or(0, |run| run.end - 1), position(last).into()),
            }),
            failed: failed.iter().map(|(first, records, failures)| {
                FailedBatch { first: *first, records: *records, failures: *failures }
            }).collect(),
            crashes: CrashRecord { starts, zone, unit, zones, ..CrashRecord::default() },
            ..ResumeState::default()
        };
        let policy = Rules { lanes, ..Rules::default() }.policy();
        let mut machine = Delivery::new(policy, &resume);
        let mut delivered = feed(&mut machine, (0..40).map(|n| record(n, Some(&format!("key-{}", n % 7)))));
        machine.step(Event::ShardEnded, Now::default(), 0, true);
        prop_assert!(machine.is_misled() != machine.is_complete());
        if machine.is_complete() {
            let trusted = (first == 1).then(|| runs.iter().cloned().flatten().collect::<Vec<_>>());
            let trusted = trusted.unwrap_or_default();
            delivered.sort_unstable();
            let expected: Vec<usize> = (0..40).filter(|n| !trusted.contains(&(*n as u64))).collect();
            prop_assert_eq!(delivered, expected);
            prop_assert_eq!(machine.watermark(), Some(position(39)));
        } else {
            prop_assert_eq!(machine.watermark(), None);
        }
    }
}
