//! What befalls a fleet: processes are killed, paused, stopped and started, and shards are split and merged.

use std::time::Duration;

use shardwell_core::{EnvExt, Monotonic};

use super::World;
use super::member::{End, Member};
use super::settling::last_words;
use crate::common::PATIENCE;

/// How many workers there are when nothing befalls them.
const SEATS: usize = 4;

/// After so many faults the shards change.
const FAULTS_PER_RESHARD: u32 = 10;

/// A worker is missing for so long at most.
const LONGEST_ABSENCE: Duration = Duration::from_millis(1500);

/// What befalls a process.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// Longer than a lease holds.
    Pause,
    Stop,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FaultTally {
    pub(crate) starts: u32,
    pub(crate) kills: u32,
    pub(crate) pauses: u32,
    pub(crate) stops: u32,
    /// The longest time that a worker took to stop that was not paused meanwhile.
    pub(crate) longest_stop: Duration,
}

/// Four workers, each of which is replaced when it has ended.
pub(crate) struct Fleet {
    seats: Vec<Seat>,
    random: fastrand::Rng,
    pub(crate) tally: FaultTally,
}

enum Seat {
    Empty {
        until: Monotonic,
    },
    Taken {
        member: Box<Member>,
        /// When its pause ends, if it is paused.
        paused_until: Option<Monotonic>,
        was_paused: bool,
    },
}

impl Fleet {
    /// A fleet of workers that are about to start.
    pub(crate) fn new(random: fastrand::Rng) -> Self {
        let seats = (0..SEATS).map(|_| Seat::Empty { until: Monotonic::ZERO }).collect();
        Self { seats, random, tally: FaultTally::default() }
    }

    /// Lets faults happen for as long as the stream is written: one every `pause`, more or less.
    pub(crate) async fn live_through_faults(&mut self, world: &mut World, pause: Duration) {
        let mut faults = 0;
        let mut next = world.env.now().plus(pause * 4);
        while world.is_being_written() {
            self.go_on(world);
            if world.env.now() >= next {
                next = world.env.now().plus(Duration::from_millis(self.random.u64(0..2 * pause.as_millis() as u64)));
                faults += 1;
                if faults % FAULTS_PER_RESHARD == 0 {
                    world.order_reshard();
                } else {
                    self.befall(world);
                }
            }
            world.env.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets what has begun come to its end, and gives four workers that nothing befalls any more.
    pub(crate) async fn calm_down(mut self, world: &mut World) -> (Vec<Member>, FaultTally) {
        let deadline = world.env.now().plus(PATIENCE);
        loop {
            self.go_on(world);
            if self.seats.iter().all(Seat::is_undisturbed) {
                break;
            }
            if world.env.now() >= deadline {
                panic!("no calm within {PATIENCE:?}: {}", last_words(self.members()));
            }
            world.env.sleep(Duration::from_millis(5)).await;
        }
        let members = self.seats.into_iter().filter_map(|seat| match seat {
            Seat::Taken { member, .. } => Some(*member),
            Seat::Empty { .. } => None,
        });
        (members.collect(), self.tally)
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.seats.iter().filter_map(|seat| match seat {
            Seat::Taken { member, .. } => Some(&**member),
            Seat::Empty { .. } => None,
        })
    }

    /// Does what is due at each seat.
    fn go_on(&mut self, world: &mut World) {
        for index in 0..self.seats.len() {
            let now = world.env.now();
            match &mut self.seats[index] {
                Seat::Empty { until } if now >= *until => {
                    self.tally.starts += 1;
                    let member = Box::new(world.start_member());
                    self.seats[index] = Seat::Taken { member, paused_until: None, was_paused: false };
                }
                Seat::Empty { .. } => {}
                Seat::Taken { member, paused_until, .. } => {
                    if paused_until.is_some_and(|until| now >= until) {
                        member.resume();
                        *paused_until = None;
                    }
                    world.take_news(member);
                    if let Some(end) = member.ended() {
                        self.leave(world, index, end);
                    }
                }
            }
        }
    }

    /// Empties the seat of a process that has ended.
    fn leave(&mut self, world: &mut World, index: usize, end: End) {
        let now = world.env.now();
        let absence = Duration::from_millis(self.random.u64(0..LONGEST_ABSENCE.as_millis() as u64));
        let seat = std::mem::replace(&mut self.seats[index], Seat::Empty { until: now.plus(absence) });
        let Seat::Taken { member, was_paused, .. } = seat else { return };
        if let (End::Stopped, Some(told), false) = (end, member.told_to_end(), was_paused) {
            self.tally.longest_stop = self.tally.longest_stop.max(now.since(told));
        }
        world.bury(*member, end);
    }

    /// Something befalls one of the processes: any, also one that is paused or about to stop.
    fn befall(&mut self, world: &mut World) {
        let taken = self.seats.iter_mut().enumerate().filter_map(|(index, seat)| match seat {
            Seat::Taken { member, paused_until, was_paused } => Some((index, member, paused_until, was_paused)),
            Seat::Empty { .. } => None,
        });
        let fault = [Fault::Kill, Fault::Pause, Fault::Stop][self.random.usize(0..3)];
        let Some((index, member, paused_until, was_paused)) = self.random.choice(taken.collect::<Vec<_>>()) else {
            return;
        };
        let now = world.env.now();
        match fault {
            Fault::Pause if !member.is_paused() => {
                let lease = world.settings.lease_duration;
                let pause = lease + lease.mul_f64(0.1 + 1.4 * self.random.f64());
                member.pause();
                (*paused_until, *was_paused) = (Some(now.plus(pause)), true);
                self.tally.pauses += 1;
            }
            Fault::Stop if member.told_to_end().is_none() => {
                member.terminate(now);
                self.tally.stops += 1;
            }
            _ => {
                let end = member.kill();
                self.tally.kills += u32::from(end == End::Killed);
                self.leave(world, index, end);
            }
        }
    }
}

impl Seat {
    /// Whether a worker sits there that is to stay.
    fn is_undisturbed(&self) -> bool {
        match self {
            Self::Empty { .. } => false,
            Self::Taken { member, paused_until, .. } => paused_until.is_none() && member.told_to_end().is_none(),
        }
    }
}
