//! The order within a key outlives the death of one of its records.

use shardwell_core::PartitionKey;
use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{BurialOutcome, ErrorClass, Verdict};

use super::rules::Rules;
use super::script::{failure, record};
use super::world::{Entry, Fate, Flight, World};

/// Records of these keys, in batches of two.
fn world(keys: &[&str]) -> World {
    let entry = |(index, key): (usize, &&str)| {
        let key = Some(*key).filter(|key| !key.is_empty());
        Entry { record: record(index, key), undecodable: false }
    };
    let log = keys.iter().enumerate().map(entry).collect();
    World::new(log, Rules { quarantine: true, records: 2, retries: Some(0), ..Rules::default() }, 5)
}

fn calls(world: &World) -> Vec<Vec<usize>> {
    world.flights.keys().filter_map(|lane| world.call(*lane)).collect()
}

/// Carries everything out; `bad` fails for good. Answers what was delivered.
fn run(world: &mut World, bad: &[usize]) -> Vec<usize> {
    let mut delivered = Vec::new();
    while let Some((lane, flight)) = world.flights.first_key_value().map(|(lane, flight)| (*lane, flight.clone())) {
        match flight {
            Flight::Burial { .. } => world.buried(lane, BurialOutcome::Kept),
            Flight::Call { records, .. } => {
                let index = records.iter().position(|record| bad.contains(record));
                delivered.extend(&records[..index.unwrap_or(records.len())]);
                let failed = |index| Verdict::FailedFrom { index, failure: failure(ErrorClass::Permanent) };
                world.finish(lane, index.map_or(Verdict::Done, failed));
            }
        }
    }
    delivered
}

fn is_quarantined(world: &World, index: usize) -> bool {
    world.fates[index] == Fate::Dead(DeadReason::Quarantined)
}

#[test]
fn later_records_of_a_dead_key_are_held_back_and_others_are_not() {
    let mut world = world(&["a", "b", "a", "", "b", "a", ""]);
    world.arrive(7);
    assert_eq!(run(&mut world, &[0]), [1, 3, 4, 6]);
    assert_eq!(world.fates[0], Fate::Dead(DeadReason::Permanent));
    assert!(is_quarantined(&world, 2) && is_quarantined(&world, 5));
    assert!(world.letters.keys().eq(&[0, 2, 5]));
}

#[test]
fn a_key_is_free_again_once_its_letters_are_gone() {
    let mut world = world(&["a", "a", "a", "a", "b"]);
    world.arrive(2);
    run(&mut world, &[0]);
    assert!(is_quarantined(&world, 1));
    world.ask();
    world.answer();
    world.arrive(1);
    assert_eq!(run(&mut world, &[]), [0; 0], "the letters are still there");
    world.redrive(&PartitionKey::from("a"));
    world.ask();
    world.answer();
    world.arrive(2);
    assert_eq!(run(&mut world, &[]), [3, 4]);
}

/// The archive was asked before the record died, so its answer does not know the key.
#[test]
fn a_key_that_dies_while_the_archive_is_asked_stays_held_back() {
    let mut world = world(&["a", "a", "a", "a"]);
    world.arrive(1);
    world.ask();
    run(&mut world, &[0]);
    world.answer();
    world.arrive(1);
    run(&mut world, &[]);
    assert!(is_quarantined(&world, 1));
    // The next answer knows of it; were its letters gone, the key would be free.
    world.redrive(&PartitionKey::from("a"));
    world.ask();
    world.answer();
    world.arrive(2);
    assert_eq!(run(&mut world, &[]), [2, 3]);
}

#[test]
fn keys_are_held_back_by_the_next_owner_too() {
    let mut world = world(&["a", "b", "a", "b"]);
    world.arrive(2);
    run(&mut world, &[0]);
    world.store();
    world.crash(world.rules.clone());
    world.arrive(2);
    assert_eq!(run(&mut world, &[]), [3]);
    assert!(is_quarantined(&world, 2));
}

/// What is with the processor already is not called back; what was to be retried is.
#[test]
fn an_answer_holds_back_what_waits_for_its_retry() {
    let mut world = world(&["a", "b"]);
    world.rules.retries = Some(5);
    let rules = world.rules.clone();
    world.crash(rules);
    world.arrive(2);
    assert_eq!(calls(&world), [[0, 1]]);
    world.finish(0, Verdict::FailedFrom { index: 0, failure: failure(ErrorClass::Retryable) });
    assert_eq!(calls(&world), [[0]], "isolated");
    world.finish(0, Verdict::Failed(failure(ErrorClass::Retryable)));
    world.letters.insert(0, DeadReason::Quarantined);
    world.ask();
    world.letters.clear();
    world.answer();
    world.sleep();
    assert_eq!(run(&mut world, &[]), [1]);
    assert!(is_quarantined(&world, 0));
}

#[test]
fn without_a_letter_no_key_is_held_back() {
    let mut world = world(&["a", "a"]);
    world.rules.discard_on_failure = true;
    let rules = world.rules.clone();
    world.crash(rules);
    world.arrive(1);
    world.finish(0, Verdict::Failed(failure(ErrorClass::Permanent)));
    world.buried(0, BurialOutcome::Failed);
    world.arrive(1);
    assert_eq!(calls(&world), [[1]], "there would be nothing to redrive");
}
