//! Records of which the process dies, in a process with several shards.

use std::collections::BTreeSet;

use proptest::prelude::*;
use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{BurialOutcome, Verdict};

use super::properties::died_alone_before;
use super::rules::Rules;
use super::script::record;
use super::world::{Entry, Fate, Flight, World};

/// Several shards in one process that dies of some records.
struct Process {
    shards: Vec<World>,
    /// By shard.
    deadly: Vec<BTreeSet<usize>>,
    /// Shards and lanes with a batch that is being processed.
    running: BTreeSet<(usize, u32)>,
    /// The shard that has the process for itself.
    alone: Option<usize>,
    /// Whether what ran alone is over, which is not stored yet.
    clearing: bool,
    /// Of a thousand steps, how many kill the process for no reason.
    kills: usize,
    /// Whether checkpoints are stored now and then, and not only where it must be.
    renews: bool,
    seed: u64,
    /// How often the process died, and how often it did of a record.
    deaths: usize,
    aborts: usize,
    /// Where the checkpoints were when it last died, and how often they were at other places than before.
    checkpoints: Vec<usize>,
    progresses: usize,
}

impl Process {
    fn new(shards: Vec<World>, deadly: Vec<BTreeSet<usize>>, kills: usize, seed: u64) -> Self {
        let (running, alone) = (BTreeSet::new(), None);
        let seed = seed | 1;
        let checkpoints = vec![0; shards.len()];
        let (clearing, renews) = (false, true);
        let (deaths, aborts, progresses) = (0, 0, 0);
        let mut process = Self {
            shards,
            deadly,
            running,
            alone,
            clearing,
            kills,
            renews,
            seed,
            deaths,
            aborts,
            checkpoints,
            progresses,
        };
        process.shards.iter_mut().for_each(|shard| shard.stores_alone = false);
        process
    }

    fn random(&mut self, below: usize) -> usize {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 16) as usize % below
    }

    fn is_done(&self) -> bool {
        self.shards.iter().all(|shard| shard.machine.is_complete() && shard.stored.settled == shard.log.len())
    }

    /// Runs to the end; `limit` steps are far more than it should take.
    fn run(&mut self, limit: usize) {
        for _ in 0..limit {
            if self.is_done() {
                return;
            }
            if self.kills > 0 && self.random(1000) < self.kills && !self.shards.iter().any(died_alone_before) {
                self.die();
            }
            let shard = self.random(self.shards.len());
            match self.random(20) {
                0 if self.renews || self.shards[shard].machine.is_complete() => self.shards[shard].store(),
                0 => {}
                1..3 => {
                    let count = self.random(30);
                    self.shards[shard].arrive(count);
                }
                3 => self.shards[shard].end(),
                4..12 => self.begin(shard),
                12..19 => self.finish(shard),
                _ => drop(self.shards[shard].sleep()),
            }
        }
        panic!("it never ends: {} deaths", self.deaths);
    }

    /// A batch that waits for its place gets it, or a burial takes place.
    fn begin(&mut self, shard: usize) {
        let flights = &self.shards[shard].flights;
        let waiting = flights.iter().filter(|(lane, _)| !self.running.contains(&(shard, **lane)));
        let waiting: Vec<(u32, Flight)> = waiting.map(|(lane, flight)| (*lane, flight.clone())).collect();
        if waiting.is_empty() {
            return;
        }
        let (lane, flight) = waiting[self.random(waiting.len())].clone();
        // Whoever wants to be alone is let in first, as by a fair semaphore.
        let wants =
            |shard: &World| shard.flights.values().any(|flight| matches!(flight, Flight::Call { alone: true, .. }));
        match flight {
            Flight::Burial { .. } => self.bury(shard, lane),
            Flight::Call { alone: false, .. } if self.shards.iter().any(wants) || self.alone.is_some() => {}
            Flight::Call { alone: true, .. } if !self.running.is_empty() || self.alone.is_some() => {}
            Flight::Call { alone, .. } => {
                self.running.insert((shard, lane));
                if alone {
                    self.alone = Some(shard);
                    self.shards[shard].machine.announce(lane);
                    self.shards[shard].store();
                }
            }
        }
    }

    /// Under suspicion it is stored that something was buried before anything else is tried.
    fn bury(&mut self, shard: usize, lane: u32) {
        let world = &mut self.shards[shard];
        world.may_deliver = world.machine.suspicion().is_none();
        world.buried(lane, BurialOutcome::Kept);
        if !world.may_deliver {
            world.store();
            world.may_deliver = true;
            world.tick();
        }
    }

    /// A batch is processed, or the process dies of it, or what ran alone is cleared.
    fn finish(&mut self, shard: usize) {
        if self.clearing && self.alone == Some(shard) {
            (self.clearing, self.alone) = (false, None);
            let world = &mut self.shards[shard];
            world.store();
            world.may_deliver = true;
            return world.tick();
        }
        let running: Vec<u32> = self.running.iter().filter(|(at, _)| *at == shard).map(|(_, lane)| *lane).collect();
        if running.is_empty() {
            return;
        }
        let lane = running[self.random(running.len())];
        let records = self.shards[shard].call(lane).expect("a batch that runs");
        if records.iter().any(|index| self.deadly[shard].contains(index)) {
            self.aborts += 1;
            return self.die();
        }
        self.running.remove(&(shard, lane));
        let world = &mut self.shards[shard];
        self.clearing = self.alone == Some(shard);
        world.may_deliver = !self.clearing;
        world.finish(lane, Verdict::Done);
    }

    fn die(&mut self) {
        self.deaths += 1;
        let checkpoints: Vec<usize> = self.shards.iter().map(|shard| shard.stored.settled).collect();
        self.progresses += usize::from(checkpoints != self.checkpoints);
        self.checkpoints = checkpoints;
        (self.clearing, self.alone) = (false, None);
        self.running.clear();
        for shard in &mut self.shards {
            shard.may_deliver = true;
            shard.crash(shard.rules.clone());
        }
    }

    /// Exactly the deadly are dead, and of that.
    fn check(&self) {
        for (shard, deadly) in self.shards.iter().zip(&self.deadly) {
            for (index, fate) in shard.fates.iter().enumerate() {
                let expected = if deadly.contains(&index) { Fate::Dead(DeadReason::CrashLoop) } else { Fate::Done };
                assert_eq!(*fate, expected, "record {index}");
            }
            assert!(shard.letters.keys().eq(deadly), "{:?}", shard.letters);
        }
    }
}

fn shard(len: usize, keys: usize, rules: &Rules, seed: u64) -> World {
    // Keys are skewed: some lanes have far more to do than others.
    let key = |index: usize| format!("key-{}", (index * index / 3 + index) % keys);
    let log = (0..len).map(|index| Entry { record: record(index, Some(&key(index))), undecodable: false }).collect();
    World::new(log, rules.clone(), seed)
}

fn deadly(picks: &[prop::sample::Index], len: usize) -> BTreeSet<usize> {
    picks.iter().filter(|_| len > 0).map(|pick| pick.index(len)).collect()
}

/// Of a record, a process dies three times before it is suspicious, once with a batch and three times with the record alone; and
/// up to three times more between two checkpoints, since a new checkpoint is no reason for suspicion.
const DEATHS_PER_RECORD: usize = 7;
const DEATHS_PER_CHECKPOINT: usize = 4;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// In any number of lanes and shards, and with random kills beside.
    #[test]
    fn the_deadly_die_and_nothing_else(
        picks in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..4),
        len in 1usize..100,
        lanes in prop_oneof![Just(1u32), 2..9u32],
        records in 1usize..40,
        kills in prop_oneof![Just(0usize), 1..50usize],
        seed: u64,
    ) {
        let rules = Rules { lanes, records, ..Rules::default() };
        let deadly: Vec<_> = picks.iter().map(|picks| deadly(picks, len)).collect();
        let shards = (0..picks.len()).map(|n| shard(len, 12, &rules, seed.wrapping_add(n as u64))).collect();
        let mut process = Process::new(shards, deadly, kills, seed);
        process.run(1_000_000);
        process.check();
        let (aborts, count) = (process.aborts, process.deadly.iter().map(BTreeSet::len).sum::<usize>());
        let most = DEATHS_PER_RECORD * count + DEATHS_PER_CHECKPOINT * process.progresses;
        prop_assert!(aborts <= most, "{aborts} deaths of {count} records, {} checkpoints", process.progresses);
        prop_assert!(count > 0 || kills > 0 || process.deaths == 0);
    }
}

/// The worst that can be: a record far beyond the checkpoint, and the process never lives long enough to store one. Each
/// zone that is too short costs four deaths, and zones double.
#[test]
fn a_record_far_beyond_the_checkpoint_is_found_all_the_same() {
    for (lanes, records, place) in [(1, 10, 15), (1, 10, 395), (1, 1, 300), (4, 5, 390)] {
        let rules = Rules { lanes, records, ..Rules::default() };
        let mut process = Process::new(vec![shard(400, 30, &rules, 9)], vec![BTreeSet::from([place])], 0, 77);
        process.renews = false;
        process.run(1_000_000);
        process.check();
        let zones = (place / (lanes as usize * records) + 1).next_power_of_two().trailing_zeros() as usize;
        let most = DEATHS_PER_RECORD + DEATHS_PER_CHECKPOINT * zones;
        assert!(process.deaths <= most, "{} deaths instead of {most}", process.deaths);
    }
}

/// A record takes its time before it kills, and meanwhile other lanes get on, and that is stored: this is no progress of
/// the checkpoint, and must not hide the crash loop.
#[test]
fn progress_of_other_lanes_does_not_hide_a_crash_loop() {
    let rules = Rules { lanes: 2, records: 1, ..Rules::default() };
    let log = (0..400).map(|index| {
        let key = if index == 0 { "slow" } else { "busy" };
        Entry { record: record(index, Some(key)), undecodable: false }
    });
    let mut world = World::new(log.collect(), rules, 1);
    let lane_of = |world: &World, slow: bool| {
        let is_right = |lane: &u32| world.call(*lane).is_some_and(|records| (records == [0]) == slow);
        world.flights.keys().copied().find(is_right)
    };
    let mut crashes = 0;
    while !world.machine.is_complete() {
        assert!(crashes < 10, "nobody suspects anything");
        world.arrive(400);
        world.end();
        // Twenty records of the other lane are done before the slow one kills.
        for _ in 0..20 {
            if let Some(lane) = lane_of(&world, false) {
                world.finish(lane, Verdict::Done);
            }
        }
        world.store();
        if lane_of(&world, true).is_some() {
            crashes += 1;
            world.crash(world.rules.clone());
        } else if let Some(lane) = world.flights.keys().copied().find(|lane| world.call(*lane).is_none()) {
            world.buried(lane, BurialOutcome::Kept);
        }
    }
    assert_eq!(world.letters.keys().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(crashes, 6, "three starts, and three times alone");
}

/// A process that is killed again and again, and gets on in between: nothing is suspicious about that.
#[test]
fn a_checkpoint_that_moves_is_no_crash_loop() {
    let mut world = shard(40, 5, &Rules { records: 1, ..Rules::default() }, 3);
    for _ in 0..20 {
        world.arrive(40);
        world.finish(0, Verdict::Done);
        world.store();
        world.crash(world.rules.clone());
        let crashes = world.stored.resume().crashes;
        assert_eq!((crashes.starts, crashes.is_suspicious()), (1, false));
    }
}

/// Neither is a process that stops in order, however often.
#[test]
fn stops_in_order_are_not_counted() {
    let mut world = shard(40, 5, &Rules::default(), 3);
    for _ in 0..20 {
        world.arrive(40);
        world.machine.stopped_in_order();
        world.store();
        assert_eq!(world.stored.resume().crashes.starts, 0);
        world.crash(world.rules.clone());
        assert_eq!(world.stored.resume().crashes.starts, 1);
    }
}
