//! When a batch is closed.

use std::time::Duration;

use shardwell_core::delivery::Verdict;

use super::rules::Rules;
use super::script::record;
use super::world::{Entry, World};

/// Records of so many bytes.
fn world(sizes: &[usize], rules: Rules) -> World {
    let entry = |(index, size): (usize, &usize)| {
        let mut record = record(index, Some("key"));
        record.data = vec![b'x'; *size].into();
        Entry { record, undecodable: false }
    };
    World::new(sizes.iter().enumerate().map(entry).collect(), rules, 1)
}

fn pass(world: &mut World, millis: u64) {
    world.advance(Duration::from_millis(millis));
    world.tick();
}

fn with_window() -> Rules {
    Rules { records: 3, bytes: 10, window: Duration::from_secs(1), ..Rules::default() }
}

#[test]
fn a_window_begins_when_something_is_there_and_the_lane_is_idle() {
    let mut world = world(&[1; 9], with_window());
    world.arrive(1);
    pass(&mut world, 999);
    assert_eq!(world.call(0), None);
    world.arrive(1);
    pass(&mut world, 1);
    assert_eq!(world.call(0), Some(vec![0, 1]), "the second record does not make it wait longer");
    world.arrive(1);
    pass(&mut world, 5000);
    world.finish(0, Verdict::Done);
    assert_eq!(world.call(0), None, "the next window begins when the invocation ends");
    pass(&mut world, 999);
    assert_eq!(world.call(0), None);
    pass(&mut world, 1);
    assert_eq!(world.call(0), Some(vec![2]));
    // Nothing came meanwhile: the window begins with the next record, not with the end of the invocation.
    world.finish(0, Verdict::Done);
    pass(&mut world, 5000);
    world.arrive(1);
    pass(&mut world, 999);
    assert_eq!(world.call(0), None);
    assert!(world.sleep());
    assert_eq!(world.call(0), Some(vec![3]));
}

#[test]
fn a_batch_that_is_full_does_not_wait() {
    let mut by_count = world(&[1; 4], with_window());
    by_count.arrive(4);
    assert_eq!(by_count.call(0), Some(vec![0, 1, 2]));
    let mut by_bytes = world(&[4, 4, 4], with_window());
    by_bytes.arrive(2);
    assert_eq!(by_bytes.call(0), None);
    by_bytes.arrive(1);
    assert_eq!(by_bytes.call(0), Some(vec![0, 1]));
}

#[test]
fn one_record_always_fits() {
    let mut world = world(&[1, 50, 1, 10, 1], Rules { window: Duration::ZERO, ..with_window() });
    world.arrive(5);
    for batch in [[0], [1], [2], [3], [4]] {
        assert_eq!(world.call(0), Some(batch.to_vec()));
        world.finish(0, Verdict::Done);
    }
}

#[test]
fn the_end_of_the_shard_ends_the_window() {
    let mut world = world(&[1; 2], with_window());
    world.arrive(2);
    assert_eq!(world.call(0), None);
    world.end();
    assert_eq!(world.call(0), Some(vec![0, 1]));
}

#[test]
fn a_pause_starts_nothing_and_costs_no_window() {
    let mut world = world(&[1; 2], with_window());
    world.may_deliver = false;
    world.arrive(2);
    pass(&mut world, 5000);
    world.may_deliver = true;
    world.tick();
    assert_eq!(world.call(0), None, "the lane was not idle but paused");
    assert!(world.sleep());
    assert_eq!(world.call(0), Some(vec![0, 1]));
}
