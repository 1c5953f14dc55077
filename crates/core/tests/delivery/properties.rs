//! What holds under every schedule: see the checks of [`World`].

use std::time::Duration;

use proptest::prelude::*;
use shardwell_core::delivery::{BurialOutcome, ErrorClass, Verdict};
use shardwell_core::{ExtendedSequenceNumber, Timestamp};

use super::rules::Rules;
use super::script::{Kind, Report, Script, failure, record};
use super::world::{Entry, Fate, Flight, World};

/// What a processor says, whatever the length of the batch.
#[derive(Clone, Copy, Debug)]
enum Say {
    Done,
    Failed(ErrorClass),
    /// From this place on; the length of the batch is one too far.
    From(u8, ErrorClass),
    /// The bits say which; the flag adds a place that is not there.
    Exactly(u64, ErrorClass, bool),
    NotInvoked,
}

impl Say {
    fn verdict(self, len: usize) -> Verdict {
        match self {
            Self::Done => Verdict::Done,
            Self::Failed(class) => Verdict::Failed(failure(class)),
            Self::From(at, class) => {
                Verdict::FailedFrom { index: usize::from(at) % (len + 1), failure: failure(class) }
            }
            Self::Exactly(bits, class, foreign) => {
                let named = (0..len).rev().filter(|at| bits >> (at % 64) & 1 == 1).chain(foreign.then_some(len));
                Verdict::FailedExactly(named.map(|at| (at, failure(class))).collect())
            }
            Self::NotInvoked => Verdict::NotInvoked,
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Arrive(usize),
    Finish(u8, Say),
    Bury(u8, BurialOutcome),
    Sleep,
    Advance(u32),
    /// The wall clock alone.
    Jump(i32),
    Pause(bool),
    Store,
    Ask,
    Answer,
    Redrive(u8),
    /// With so many lanes, records to a batch, and this filter.
    Crash(u32, usize, usize),
}

fn class() -> impl Strategy<Value = ErrorClass> {
    prop_oneof![4 => Just(ErrorClass::Retryable), 1 => Just(ErrorClass::Transient), 1 => Just(ErrorClass::Permanent)]
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![
        4 => Just(Say::Done),
        2 => class().prop_map(Say::Failed),
        2 => (any::<u8>(), class()).prop_map(|(at, class)| Say::From(at, class)),
        2 => (any::<u64>(), class(), prop::bool::weighted(0.1)).prop_map(|(bits, class, foreign)| {
            Say::Exactly(bits, class, foreign)
        }),
        1 => Just(Say::NotInvoked),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        4 => Just(BurialOutcome::Kept),
        1 => Just(BurialOutcome::Failed),
        1 => Just(BurialOutcome::NotTried),
        1 => Just(BurialOutcome::Withheld),
    ];
    prop_oneof![
        4 => (1usize..20).prop_map(Op::Arrive),
        12 => (any::<u8>(), say()).prop_map(|(lane, say)| Op::Finish(lane, say)),
        4 => (any::<u8>(), outcome).prop_map(|(lane, outcome)| Op::Bury(lane, outcome)),
        4 => Just(Op::Sleep),
        1 => (0u32..3000).prop_map(Op::Advance),
        1 => (-100_000i32..100_000).prop_map(Op::Jump),
        1 => any::<bool>().prop_map(Op::Pause),
        2 => Just(Op::Store),
        1 => Just(Op::Ask),
        1 => Just(Op::Answer),
        1 => (0u8..6).prop_map(Op::Redrive),
        2 => (1u32..9, 1usize..12, 0usize..4).prop_map(|(lanes, records, filter)| Op::Crash(lanes, records, filter)),
    ]
}

fn key(number: u8) -> String {
    format!("key-{number}")
}

fn entries(len: impl Into<prop::collection::SizeRange>, keys: u8) -> impl Strategy<Value = Vec<Entry>> {
    // How many sub-records follow, key, arrival, size, whether it can be read.
    let entry =
        (0usize..3, prop::option::weighted(0.8, 0..keys), -90_000i64..1000, 0usize..40, prop::bool::weighted(0.05));
    prop::collection::vec(entry, len).prop_map(|entries| {
        let mut log = Vec::new();
        for (number, (subs, key_number, arrival, size, undecodable)) in entries.into_iter().enumerate() {
            for sub in 0..=subs {
                let mut record = record(number, key_number.map(key).as_deref());
                record.position = ExtendedSequenceNumber::new(record.position.sequence_number, sub as u64);
                record.arrival = Timestamp::from_millis(arrival);
                record.data = vec![b'x'; size].into();
                log.push(Entry { record, undecodable });
            }
        }
        log
    })
}

fn rules() -> impl Strategy<Value = Rules> {
    let limits =
        (1u32..9, 1usize..12, 1usize..200, prop_oneof![Just(0u64), 1..2000u64], prop::option::weighted(0.9, 0u32..4));
    let choices =
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.9));
    let rare = (
        prop::option::weighted(0.3, 60_000u64..100_000),
        prop::option::weighted(0.3, 20usize..40),
        prop_oneof![Just(256usize), 257..1024usize],
        0usize..4,
    );
    (limits, choices, rare).prop_map(|(limits, choices, rare)| {
        let (lanes, records, bytes, window, retries) = limits;
        let (bisect, isolate, lambda, discard_on_failure, quarantine, can_bury) = choices;
        let (age, max_record_bytes, state_bytes, filter) = rare;
        let (window, age) = (Duration::from_millis(window), age.map(Duration::from_millis));
        let quarantine = quarantine && can_bury;
        Rules {
            lanes,
            records,
            bytes,
            window,
            retries,
            age,
            bisect,
            isolate,
            lambda,
            discard_on_failure,
            quarantine,
            can_bury,
            max_record_bytes,
            state_bytes,
            filter,
        }
    })
}

/// The `pick`-th lane with a flight of the right kind.
fn lane(world: &World, pick: u8, is_right: impl Fn(&Flight) -> bool) -> Option<u32> {
    let lanes: Vec<u32> = world.flights.iter().filter(|(_, flight)| is_right(flight)).map(|(lane, _)| *lane).collect();
    lanes.get(usize::from(pick) % lanes.len().max(1)).copied()
}

fn apply(world: &mut World, op: &Op) {
    match *op {
        Op::Arrive(count) => world.arrive(count),
        Op::Finish(pick, say) => {
            if let Some(lane) = lane(world, pick, |flight| matches!(flight, Flight::Call { .. })) {
                let len = world.call(lane).map_or(0, |records| records.len());
                world.finish(lane, say.verdict(len));
            }
        }
        Op::Bury(pick, outcome) => {
            if let Some(lane) = lane(world, pick, |flight| matches!(flight, Flight::Burial { .. })) {
                world.buried(lane, outcome);
            }
        }
        Op::Sleep => drop(world.sleep()),
        Op::Advance(millis) => {
            world.advance(Duration::from_millis(millis.into()));
            world.tick();
        }
        Op::Jump(millis) => {
            world.clock.timestamp = Timestamp::from_millis(world.clock.timestamp.as_millis() + i64::from(millis));
            world.tick();
        }
        Op::Pause(paused) => {
            world.may_deliver = !paused;
            world.tick();
        }
        Op::Store => world.store(),
        Op::Ask => world.ask(),
        Op::Answer => world.answer(),
        Op::Redrive(number) => world.redrive(&key(number).as_str().into()),
        Op::Crash(lanes, records, filter) => {
            let rules = Rules { lanes, records, filter, ..world.rules.clone() };
            world.crash(rules);
        }
    }
}

/// Nothing goes wrong any more: the end must come, within so many steps.
fn run_to_the_end(world: &mut World, mut verdict: impl FnMut(&[usize]) -> Verdict) {
    world.may_deliver = true;
    world.tick();
    for _ in 0..20_000 {
        if let Some((lane, flight)) = world.flights.first_key_value() {
            let (lane, flight) = (*lane, flight.clone());
            match flight {
                Flight::Call { records, .. } => world.finish(lane, verdict(&records)),
                Flight::Burial { .. } => world.buried(lane, BurialOutcome::Kept),
            }
        } else if world.read < world.log.len() {
            world.arrive(7);
        } else if world.machine.is_complete() {
            world.store();
            return;
        } else {
            world.end();
            world.sleep();
        }
    }
    panic!("P12: it never ends");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(700))]

    /// P1 to P10, P12 to P14: whatever processors, sinks, clocks and processes do.
    #[test]
    fn whatever_happens(
        log in entries(0..24usize, 5),
        rules in rules(),
        ops in prop::collection::vec(op(), 0..120),
        seed: u64,
    ) {
        let mut world = World::new(log, rules, seed);
        for op in ops {
            apply(&mut world, &op);
        }
        run_to_the_end(&mut world, |_| Verdict::Done);
        prop_assert!(world.fates.iter().all(|fate| fate.is_terminal()));
        prop_assert_eq!(world.stored.settled, world.log.len());
    }
}

/// Ops of a schedule in which the processor is deterministic.
fn calm_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1usize..20).prop_map(Op::Arrive),
        14 => any::<u8>().prop_map(|lane| Op::Finish(lane, Say::Done)),
        4 => any::<u8>().prop_map(|lane| Op::Bury(lane, BurialOutcome::Kept)),
        1 => any::<u8>().prop_map(|lane| Op::Bury(lane, BurialOutcome::Failed)),
        4 => Just(Op::Sleep),
        3 => Just(Op::Store),
        2 => (1u32..9, 1usize..12).prop_map(|(lanes, records)| Op::Crash(lanes, records, 0)),
    ]
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let kind = prop_oneof![
        12 => Just(Kind::Good),
        1 => Just(Kind::Poison),
        1 => (1u32..3).prop_map(Kind::Flaky),
        1 => (1u32..3).prop_map(Kind::Outage),
        1 => Just(Kind::Permanent),
    ];
    prop::collection::vec(kind, 64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// P11 and crash equivalence: whatever crashes there are, and in however many lanes, the dead are those that a
    /// processor never gets over.
    #[test]
    fn the_dead_are_the_poison(
        log in entries(0..20usize, 5),
        kinds in kinds(),
        report in prop_oneof![Just(Report::Whole), Just(Report::Prefix), Just(Report::Exact)],
        lanes in 1u32..9,
        (bisect, isolate) in prop_oneof![Just((true, false)), Just((true, true))],
        ops in prop::collection::vec(calm_op(), 0..100),
        seed: u64,
    ) {
        let log: Vec<Entry> = log.into_iter().map(|entry| Entry { undecodable: false, ..entry }).collect();
        let rules = Rules { lanes, bisect, isolate, retries: Some(2), ..Rules::default() };
        let mut script = Script::new(kinds, report);
        let mut world = World::new(log, rules, seed);
        for op in ops {
            match op {
                Op::Finish(pick, _) => {
                    if let Some(lane) = lane(&world, pick, |flight| matches!(flight, Flight::Call { .. })) {
                        let records = world.call(lane).unwrap_or_default();
                        let verdict = script.process(&records);
                        world.finish(lane, verdict);
                    }
                }
                // A record that was alone twice when the process died is taken for the cause.
                Op::Crash(..) if died_alone_before(&world) => {}
                op => apply(&mut world, &op),
            }
        }
        run_to_the_end(&mut world, |records| script.process(records));
        for (index, fate) in world.fates.iter().enumerate() {
            let lethal = matches!(script.kinds[index], Kind::Poison | Kind::Permanent);
            prop_assert_eq!(matches!(fate, Fate::Dead(_)), lethal, "{} is {:?}", index, fate);
            prop_assert_eq!(world.letters.contains_key(&index), lethal, "P5: {}", index);
        }
    }
}

pub(crate) fn died_alone_before(world: &World) -> bool {
    let Some(position) = world.stored.alone() else { return false };
    world.alone_deaths.keys().any(|index| world.log[*index].record.position == position)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With more lanes than their marks have room for, lanes stop before what is finished beyond the watermark takes too many
    /// bytes, so that all of it is known to the next owner. What is in flight when they stop must fit beside it, so batches
    /// are small here.
    #[test]
    fn many_lanes_stop_before_the_state_overflows(
        log in entries(600..700usize, 200),
        lanes in 20u32..30,
        picks in prop::collection::vec(any::<u8>(), 600..700),
        seed: u64,
    ) {
        let rules = Rules { lanes, records: 1, state_bytes: 280, can_bury: false, ..Rules::default() };
        let mut world = World::new(log, rules, seed);
        world.arrive(1000);
        let mut stopped = 0;
        for pick in picks {
            let calls = world.flights.keys().copied();
            let Some(oldest) = calls.min_by_key(|lane| world.call(*lane)) else { break };
            let others: Vec<u32> = world.flights.keys().copied().filter(|lane| *lane != oldest).collect();
            stopped += usize::from(others.is_empty());
            let lane = others.get(usize::from(pick) % others.len().max(1));
            world.finish(lane.copied().unwrap_or(oldest), Verdict::Done);
            prop_assert_eq!(world.forgotten(), 0);
        }
        prop_assert!(stopped > 0, "it never came to that");
    }

    /// Few lanes are never stopped by one that is stuck, however far ahead they are and however little may be stored; and
    /// all that they finished is known to the next owner.
    #[test]
    fn a_stuck_lane_stops_no_other(log in entries(600..700usize, 200), lanes in 4u32..12, seed: u64) {
        let rules = Rules { lanes, records: 3, state_bytes: 280, can_bury: false, ..Rules::default() };
        let mut world = World::new(log, rules, seed);
        world.arrive(1000);
        let stuck = world.flights.keys().copied().min_by_key(|lane| world.call(*lane)).expect("something is there");
        while let Some(lane) = world.flights.keys().copied().find(|lane| *lane != stuck) {
            world.finish(lane, Verdict::Done);
            prop_assert_eq!(world.forgotten(), 0);
        }
        let waiting = world.fates.iter().filter(|fate| matches!(fate, Fate::Pending)).count();
        prop_assert!(2 * waiting < world.log.len(), "{waiting} wait: the others did not go on to the end");
    }
}
