use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn worker(number: usize) -> WorkerId {
    format!("worker-{number:03}").into()
}

fn planned(number: usize) -> PlannedWorker {
    PlannedWorker { id: worker(number), is_busy: false, is_draining: false, streams: None }
}

fn workers(numbers: impl IntoIterator<Item = usize>) -> Vec<PlannedWorker> {
    numbers.into_iter().map(planned).collect()
}

fn lease(number: usize, kbps: f64, held: Held) -> PlannedLease {
    let key = format!("shardId-{number:012}").as_str().into();
    PlannedLease { key, stream: None, throughput_kbps: Some(kbps), held }
}

/// The leases after a plan was carried out.
fn carried_out(leases: &[PlannedLease], plan: &Plan) -> Vec<PlannedLease> {
    let moves: BTreeMap<_, _> = plan.moves.iter().map(|change| (&change.key, change)).collect();
    let after = |lease: &PlannedLease| match (moves.get(&lease.key), &lease.held) {
        (Some(change), _) => PlannedLease { held: Held::By(change.to.clone()), ..lease.clone() },
        (None, Held::HandedTo(to)) => PlannedLease { held: Held::By(to.clone()), ..lease.clone() },
        (None, Held::Free | Held::By(_) | Held::Overdue(_) | Held::ByLeaving) => lease.clone(),
    };
    leases.iter().map(after).collect()
}

fn counts(leases: &[PlannedLease]) -> BTreeMap<WorkerId, usize> {
    let mut counts = BTreeMap::new();
    for lease in leases {
        if let Held::By(owner) | Held::HandedTo(owner) = &lease.held {
            *counts.entry(owner.clone()).or_default() += 1;
        }
    }
    counts
}

fn loads(leases: &[PlannedLease], workers: &[PlannedWorker], settings: &PlanSettings) -> BTreeMap<WorkerId, f64> {
    let mut loads: BTreeMap<WorkerId, f64> = workers.iter().map(|worker| (worker.id.clone(), 0.0)).collect();
    for lease in leases {
        if let Held::By(owner) = &lease.held {
            let kbps = lease.throughput_kbps.unwrap_or(0.0).max(settings.floor_kbps);
            *loads.entry(owner.clone()).or_default() +=
                if settings.strategy == PlanStrategy::Count { 1.0 } else { kbps };
        }
    }
    loads
}

#[test]
fn a_new_fleet_is_even_at_once() {
    let leases: Vec<_> = (0..64).map(|n| lease(n, 0.0, Held::Free)).collect();
    let plan = plan(&leases, &workers(0..5), &PlanSettings::default());
    assert!(plan.moves.iter().all(|change| change.kind == MoveKind::Free));
    let counts: BTreeSet<_> = counts(&carried_out(&leases, &plan)).into_values().collect();
    assert_eq!(counts, BTreeSet::from([12, 13]));
}

#[test]
fn whoever_joins_gets_its_share_and_nothing_else_moves() {
    let leases: Vec<_> = (0..60).map(|n| lease(n, 5.0, Held::By(worker(n % 5)))).collect();
    let plan = plan(&leases, &workers(0..6), &PlanSettings::default());
    assert_eq!(plan.moves.len(), 10, "60 leases over 6 workers");
    assert!(plan.moves.iter().all(|change| change.to == worker(5)));
}

#[test]
fn what_a_dead_worker_had_is_spread_and_nothing_else_moves() {
    let held = |n| if n % 5 == 4 { Held::Free } else { Held::By(worker(n % 5)) };
    let leases: Vec<_> = (0..60).map(|n| lease(n, 5.0, held(n))).collect();
    let plan = plan(&leases, &workers(0..4), &PlanSettings::default());
    assert_eq!(plan.moves.len(), 12);
    assert!(counts(&carried_out(&leases, &plan)).into_values().all(|count| count == 15));
}

#[test]
fn one_hot_shard_is_not_passed_around() {
    let mut leases: Vec<_> = (0..9).map(|n| lease(n, 1.0, Held::By(worker(n % 3)))).collect();
    leases.push(lease(9, 2000.0, Held::By(worker(0))));
    let settings = PlanSettings::default();
    let first = plan(&leases, &workers(0..3), &settings);
    let leases = carried_out(&leases, &first);
    assert!(leases.iter().filter(|lease| lease.held == Held::By(worker(0))).count() == 1, "it has nothing else to do");
    assert_eq!(plan(&leases, &workers(0..3), &settings), Plan::default());
}

#[test]
fn noise_below_the_floor_and_within_the_tolerance_moves_nothing() {
    let leases: Vec<_> = (0..6).map(|n| lease(n, (n * 3) as f64, Held::By(worker(n % 3)))).collect();
    assert_eq!(plan(&leases, &workers(0..3), &PlanSettings::default()), Plan::default());
    let busy: Vec<_> = (0..30).map(|n| lease(n, 100.0 + (n % 3) as f64 * 5.0, Held::By(worker(n % 3)))).collect();
    assert_eq!(plan(&busy, &workers(0..3), &PlanSettings::default()), Plan::default());
}

#[test]
fn handoffs_are_left_alone_until_they_are_overdue() {
    let leases = [lease(0, 1.0, Held::HandedTo(worker(1))), lease(1, 1.0, Held::By(worker(0)))];
    assert_eq!(plan(&leases, &workers(0..2), &PlanSettings::default()), Plan::default());
    let overdue = [lease(0, 1.0, Held::Overdue(worker(1))), lease(1, 1.0, Held::By(worker(0)))];
    let moves = plan(&overdue, &workers(0..2), &PlanSettings::default()).moves;
    assert_eq!(moves, [Move { key: overdue[0].key.clone(), to: worker(1), kind: MoveKind::Overdue }]);
}

#[test]
fn a_worker_that_nobody_knows_keeps_what_it_renews() {
    let leases: Vec<_> = (0..4).map(|n| lease(n, 1.0, Held::By(worker(9)))).collect();
    assert_eq!(plan(&leases, &workers(0..2), &PlanSettings::default()), Plan::default());
}

#[test]
fn what_nobody_has_room_for_is_told() {
    let leases: Vec<_> = (0..10).map(|n| lease(n, 1.0, Held::Free)).collect();
    let settings = PlanSettings { max_leases_for_worker: 3, ..PlanSettings::default() };
    let plan = plan(&leases, &workers(0..2), &settings);
    assert_eq!((plan.moves.len(), plan.spillover), (6, 4));
    assert_eq!(super::plan(&leases, &[], &settings).spillover, 10, "without workers too");
}

#[test]
fn a_busy_worker_gets_nothing_while_others_have_room() {
    let mut fleet = workers(0..3);
    fleet[0].is_busy = true;
    let leases: Vec<_> = (0..8).map(|n| lease(n, 1.0, Held::Free)).collect();
    let some = plan(&leases, &fleet, &PlanSettings { max_leases_for_worker: 4, ..PlanSettings::default() });
    assert!(some.moves.iter().all(|change| change.to != worker(0)));
    let all = plan(&leases, &fleet, &PlanSettings { max_leases_for_worker: 3, ..PlanSettings::default() });
    assert_eq!((all.moves.len(), all.spillover), (8, 0));
}

#[test]
fn nothing_is_balanced_while_a_worker_hands_over_what_it_has() {
    let mut leases: Vec<_> = (0..6).map(|n| lease(n, 1.0, Held::By(worker(0)))).collect();
    leases.push(lease(6, 1.0, Held::ByLeaving));
    leases.push(lease(7, 1.0, Held::Free));
    let moves = plan(&leases, &workers(0..2), &PlanSettings::default()).moves;
    assert_eq!(moves, [Move { key: leases[7].key.clone(), to: worker(1), kind: MoveKind::Free }]);
    leases.remove(6);
    assert!(plan(&leases, &workers(0..2), &PlanSettings::default()).moves.len() > 1);
}

#[test]
fn a_worker_that_is_drained_hands_over_all_it_has_and_gets_nothing() {
    let mut fleet = workers(0..3);
    fleet[0].is_draining = true;
    let leases: Vec<_> = (0..9).map(|n| lease(n, 1.0, Held::By(worker(n % 3)))).collect();
    let drained = plan(&leases, &fleet, &PlanSettings::default());
    assert_eq!(drained.moves.len(), 3);
    assert!(drained.moves.iter().all(|change| change.kind == MoveKind::Drain { from: worker(0) }));
    let after = carried_out(&leases, &drained);
    assert_eq!(counts(&after).get(&worker(0)), None);
    assert_eq!(plan(&after, &fleet, &PlanSettings::default()), Plan::default());
    let full = PlanSettings { max_leases_for_worker: 3, ..PlanSettings::default() };
    assert_eq!(plan(&leases, &fleet, &full), Plan::default(), "there is no room elsewhere");
}

fn consuming(number: usize, streams: &[&str]) -> PlannedWorker {
    PlannedWorker { streams: Some(streams.iter().map(|stream| (*stream).to_owned()).collect()), ..planned(number) }
}

fn of_stream(stream: &str, lease: PlannedLease) -> PlannedLease {
    PlannedLease { key: format!("{stream}:{}", lease.key).into(), stream: Some(stream.to_owned()), ..lease }
}

#[test]
fn a_lease_of_a_stream_that_nobody_consumes_waits() {
    let leases: Vec<_> =
        ["a", "b", "c"].iter().flat_map(|s| (0..4).map(|n| of_stream(s, lease(n, 1.0, Held::Free)))).collect();
    let fleet = [consuming(0, &["a"]), consuming(1, &["a", "b"])];
    let plan = plan(&leases, &fleet, &PlanSettings::default());
    assert_eq!((plan.moves.len(), plan.spillover), (8, 4));
    let to_first =
        |stream: &str| plan.moves.iter().filter(|c| c.to == worker(0) && c.key.as_str().starts_with(stream)).count();
    assert_eq!((to_first("a"), to_first("b")), (4, 0), "all of a: the other one has all of b");
    assert_eq!(super::plan(&leases, &[planned(0)], &PlanSettings::default()).moves.len(), 12, "one that consumes any");
    assert_eq!(
        super::plan(&[lease(0, 1.0, Held::Free)], &fleet, &PlanSettings::default()).spillover,
        1,
        "of no stream"
    );
}

#[test]
fn a_worker_with_little_to_do_does_not_keep_others_from_being_evened_out() {
    let held = |stream, n, owner| of_stream(stream, lease(n, 100.0, Held::By(worker(owner))));
    let mut leases: Vec<_> = (0..8).map(|n| held("b", n, 1)).collect();
    leases.push(held("a", 0, 0));
    let fleet = [consuming(0, &["a"]), consuming(1, &["a", "b"]), consuming(2, &["a", "b"])];
    let moves = plan(&leases, &fleet, &PlanSettings::default()).moves;
    assert_eq!(moves.len(), 4);
    assert!(moves.iter().all(|change| change.to == worker(2)));
}

#[test]
fn noise_moves_nothing_between_workers_whose_streams_keep_loads_apart() {
    let mut leases = vec![of_stream("a", lease(0, 16.0, Held::By(worker(0))))];
    leases.extend((0..40).map(|n| of_stream("b", lease(n, 16.0 + (n % 2) as f64, Held::By(worker(1 + n % 2))))));
    let fleet = [consuming(0, &["a"]), consuming(1, &["b"]), consuming(2, &["b"])];
    assert_eq!(plan(&leases, &fleet, &PlanSettings::default()), Plan::default());
}

const STREAMS: [&str; 3] = ["a", "b", "c"];

prop_compose! {
    /// Fleets of which each worker consumes some of three streams.
    fn specialists()(
        sets in prop::collection::vec(prop::sample::subsequence(STREAMS.to_vec(), 1..=3), 1..7),
        leases in prop::collection::vec((0u8..4, 0usize..12, 0usize..3, 0.0..500.0), 0..60),
    ) -> (Vec<PlannedWorker>, Vec<PlannedLease>) {
        let workers: Vec<_> = sets.iter().enumerate().map(|(n, set)| consuming(n, set)).collect();
        let planned = leases.iter().enumerate().map(|(n, (kind, owner, stream, kbps))| {
            let takers: Vec<_> = (0..sets.len()).filter(|w| sets[*w].contains(&STREAMS[*stream])).collect();
            let held = match (kind, takers.get(owner % takers.len().max(1))) {
                (0, _) | (_, None) => Held::Free,
                (1, Some(owner)) => Held::HandedTo(worker(*owner)),
                (_, Some(owner)) => Held::By(worker(*owner)),
            };
            of_stream(STREAMS[*stream], lease(n, *kbps, held))
        });
        let leases = planned.collect();
        (workers, leases)
    }
}

proptest! {
    #[test]
    fn leases_go_to_those_alone_who_consume_their_stream_and_come_to_rest((workers, leases) in specialists()) {
        let settings = PlanSettings::default();
        let consumed = |stream: &Option<String>| {
            workers.iter().filter(|w| w.streams.as_ref().is_some_and(|s| s.contains(stream.as_ref().expect("one")))).count()
        };
        let first = plan(&leases, &workers, &settings);
        let nobody = leases.iter().filter(|lease| consumed(&lease.stream) == 0).count();
        prop_assert_eq!(first.spillover, nobody);
        for change in &first.moves {
            let lease = leases.iter().find(|lease| lease.key == change.key).expect("it is there");
            let to = workers.iter().find(|worker| worker.id == change.to).expect("it is there");
            let streams = to.streams.as_ref().expect("it consumes some");
            prop_assert!(streams.contains(lease.stream.as_ref().expect("it is of one")));
        }
        let after = carried_out(&leases, &first);
        let second = plan(&after, &workers, &settings);
        let after = carried_out(&after, &second);
        prop_assert_eq!(plan(&after, &workers, &settings).moves, Vec::new());
    }
}

prop_compose! {
    fn fleets()(
        count in 1usize..9,
        leases in prop::collection::vec((0u8..5, 0usize..12, prop_oneof![Just(0.0), 0.0..20.0, 0.0..2000.0]), 0..60),
    ) -> (Vec<PlannedWorker>, Vec<PlannedLease>) {
        let held = |(kind, owner, _): &(u8, usize, f64)| match kind {
            0 => Held::Free,
            1 => Held::HandedTo(worker(owner % count)),
            2 => Held::Overdue(worker(*owner)),
            _ => Held::By(worker(owner % count)),
        };
        let leases = leases.iter().enumerate().map(|(n, planned)| lease(n, planned.2, held(planned))).collect();
        (workers(0..count), leases)
    }
}

proptest! {
    /// L6: with a stable fleet and stable load the plan is empty, and L7: that takes one round.
    #[test]
    fn one_round_makes_loads_even_and_the_next_changes_nothing(
        (workers, leases) in fleets(),
        strategy in prop_oneof![Just(PlanStrategy::Utilisation), Just(PlanStrategy::Count)],
    ) {
        let settings = PlanSettings { strategy, ..PlanSettings::default() };
        let first = plan(&leases, &workers, &settings);
        let after = carried_out(&leases, &first);
        prop_assert!(after.iter().all(|lease| matches!(lease.held, Held::By(_))), "somebody has every lease");
        let second = plan(&after, &workers, &settings);
        // What was being handed over in the first round could not move.
        let after = carried_out(&after, &second);
        prop_assert_eq!(plan(&after, &workers, &settings), Plan::default());
        let loads = loads(&after, &workers, &settings);
        let mean = loads.values().sum::<f64>() / loads.len() as f64;
        let least = loads.values().copied().fold(f64::INFINITY, f64::min);
        for (owner, load) in &loads {
            let weight = |lease: &PlannedLease| match strategy {
                PlanStrategy::Count => 1.0,
                PlanStrategy::Utilisation => lease.throughput_kbps.unwrap_or(0.0).max(settings.floor_kbps),
            };
            let mine = after.iter().filter(|lease| lease.held == Held::By(owner.clone()));
            let lightest = mine.map(weight).fold(f64::INFINITY, f64::min);
            let is_even = load - mean <= mean * settings.tolerance + 1e-6 || load - least <= lightest + 1e-2;
            prop_assert!(is_even, "{} of {:?}", load, loads);
        }
    }

    #[test]
    fn limits_are_kept_and_nothing_moves_without_need(
        (workers, leases) in fleets(),
        max_leases_for_worker in 1usize..20,
    ) {
        let settings = PlanSettings { max_leases_for_worker, ..PlanSettings::default() };
        let plan = plan(&leases, &workers, &settings);
        let before = counts(&leases);
        for (owner, count) in counts(&carried_out(&leases, &plan)) {
            let had = before.get(&owner).copied().unwrap_or(0);
            prop_assert!(count <= max_leases_for_worker.max(had), "{} has {}", owner, count);
        }
        for change in &plan.moves {
            let lease = leases.iter().find(|lease| lease.key == change.key).expect("it is there");
            prop_assert!(lease.held != Held::By(change.to.clone()), "it is there already");
        }
        let without = leases.iter().filter(|lease| matches!(lease.held, Held::Free | Held::Overdue(_))).count();
        let placed = plan.moves.iter().filter(|change| !matches!(change.kind, MoveKind::Balance { .. })).count();
        prop_assert_eq!(placed + plan.spillover, without);
    }

    #[test]
    fn the_order_of_what_is_told_does_not_matter((mut workers, mut leases) in fleets(), seed: u64) {
        let settings = PlanSettings::default();
        let first = plan(&leases, &workers, &settings);
        let mut random = fastrand::Rng::with_seed(seed);
        random.shuffle(&mut workers);
        random.shuffle(&mut leases);
        prop_assert_eq!(plan(&leases, &workers, &settings), first);
    }
}
