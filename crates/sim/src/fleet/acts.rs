//! Things happen.

use std::time::Duration;

use futures_util::FutureExt;
use shardwell_core::delivery::ResumeState;
use shardwell_core::{Assignment, Checkpoint, Conditional, Eviction, Lease, LeaseStore, Shard, ShardFilter};

use super::kind::Kind;
use super::processes::Fleet;
use super::scenario::LONG_PAUSE;
use super::seams::SimStream;
use super::world::{SimulatedStream, Trap, Victim};

/// What goes on beside the others, and will be over: when, and what is to be done then.
pub(crate) type Later = (Duration, Then);

/// What is to be done later.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Thaw(usize),
    Join,
    Stop(usize),
    Resume(usize),
    Undrain(usize),
    ConsumeAgain(usize),
    Foreign { tries: u32 },
    ForeignCheckpoint(usize),
}

impl Fleet {
    /// Does a thing now. Gives what has to be done later, and how much later.
    pub(crate) fn act(&mut self, kind: Kind) -> Vec<Later> {
        let secs = Duration::from_secs;
        let done = match kind {
            Kind::Crash => self.crash(self.any_live()),
            Kind::LeaderDeath => self.crash(self.leader()),
            Kind::Freeze => self.any_live().map(|process| {
                self.freeze(process);
                vec![(secs(self.between(12, 40)), Then::Thaw(process))]
            }),
            Kind::Join => {
                self.join();
                Some(Vec::new())
            }
            Kind::DeathInHandoff => Some(self.set_trap()),
            Kind::Leave => self.leave(),
            Kind::StopTogether => Some(self.stop_together()),
            Kind::RollingDeploy => Some(self.roll()),
            Kind::Drain => self.drain(),
            Kind::StreamLeft => self.leave_stream(),
            Kind::DuplicateId => self.any_live().map(|process| {
                let id = self.world.state().processes[process].id.clone();
                self.start(id, true);
                Vec::new()
            }),
            Kind::ForeignWorker => self.foreign_worker(FOREIGN_TRIES),
            Kind::LostLease => self.lose_lease(),
            Kind::ExpiredIterators => self.any_live().map(|process| {
                self.world.state().disturb();
                self.world.state().processes[process].handle.pause();
                vec![(LONG_PAUSE, Then::Resume(process))]
            }),
            Kind::SlowProcessor
            | Kind::HungProcessor
            | Kind::FailingProcessor
            | Kind::PanickingProcessor
            | Kind::FailingSink
            | Kind::StoreThrottled
            | Kind::WritesThrottled
            | Kind::StoreFailing
            | Kind::StoreSlow
            | Kind::LostReplies
            | Kind::StaleReads
            | Kind::SourceThrottled
            | Kind::SourceFailing => Some(self.bad_weather(kind)),
            // Drawn with the scenario.
            Kind::ClockRates | Kind::PoisonRecords => Some(Vec::new()),
            Kind::Split => self.split(),
            Kind::Merge => self.merge(),
            Kind::UpdateShardCount => self.update_shard_count(),
        };
        if done.is_some() {
            self.happened(kind);
        }
        done.unwrap_or_default()
    }

    /// Does what was to be done later.
    pub(crate) fn then(&mut self, then: Then) -> Vec<Later> {
        match then {
            Then::Thaw(process) => self.thaw(process),
            Then::Join => drop(self.join()),
            Then::Stop(process) => self.stop(process),
            Then::Resume(process) => self.world.state().processes[process].handle.resume(),
            Then::Undrain(process) => drop(self.set_draining(process, false)),
            Then::ConsumeAgain(process) => self.consume_again(process),
            Then::Foreign { tries } => return self.foreign_worker(tries).unwrap_or_default(),
            Then::ForeignCheckpoint(lease) => self.foreign_checkpoint(lease),
        }
        Vec::new()
    }

    fn between(&self, low: u64, high: u64) -> u64 {
        self.world.state().random.u64(low..=high)
    }

    fn leader(&self) -> Option<usize> {
        let state = self.world.state();
        state.processes.iter().position(|process| process.is_live() && process.leads())
    }

    fn crash(&mut self, process: Option<usize>) -> Option<Vec<Later>> {
        let process = process?;
        self.world.state().kill(process);
        Some(self.keep_alive())
    }

    /// A fleet has at least two workers again some time later.
    fn keep_alive(&self) -> Vec<Later> {
        let after = Duration::from_secs(self.between(1, 60));
        let few = self.live().len() < 3;
        if few || self.world.state().random.bool() { vec![(after, Then::Join)] } else { Vec::new() }
    }

    /// Somebody leaves; now and then somebody who has just come, and is being given leases.
    fn leave(&mut self) -> Option<Vec<Later>> {
        let fresh = self.world.state().random.f64() < 0.4;
        if fresh {
            let process = self.join();
            let after = Duration::from_millis(self.between(500, 6000));
            return Some(vec![(after, Then::Stop(process))]);
        }
        let process = self.any_live()?;
        self.stop(process);
        Some(self.keep_alive())
    }

    fn set_trap(&mut self) -> Vec<Later> {
        let mut state = self.world.state();
        let victim = [Victim::OldOwner, Victim::NewOwner, Victim::Leader][state.random.usize(..3)];
        state.trap = Some(Trap { victim, writes: state.random.u32(..6) });
        drop(state);
        // Somebody who joins is handed leases.
        self.join();
        self.keep_alive()
    }

    fn stop_together(&mut self) -> Vec<Later> {
        let live = self.live();
        let count = live.len().div_ceil(2);
        for process in live.into_iter().take(count) {
            self.stop(process);
        }
        let mut later = self.keep_alive();
        later.push((Duration::from_secs(self.between(0, 20)), Then::Join));
        later
    }

    /// The new one first, then the old one, and so on.
    fn roll(&mut self) -> Vec<Later> {
        let step = Duration::from_secs(self.between(3, 15));
        let mut later = Vec::new();
        for (index, process) in (1..).zip(self.live()) {
            later.push((step * index, Then::Join));
            later.push((step * index + Duration::from_secs(2), Then::Stop(process)));
        }
        later
    }

    fn drain(&mut self) -> Option<Vec<Later>> {
        let process = self.any_live().filter(|_| self.live().len() > 1)?;
        // An operator can only name a worker that is known.
        let workers = self.world.table.worker_metrics().now_or_never()?.ok()?;
        let id = self.world.state().processes[process].id.clone();
        workers.iter().find(|metrics| metrics.worker == id)?;
        self.set_draining(process, true)?;
        Some(vec![(Duration::from_secs(self.between(20, 80)), Then::Undrain(process))])
    }

    /// `None` where no worker has made the table ready yet.
    fn set_draining(&self, process: usize, draining: bool) -> Option<()> {
        let table = &self.world.table;
        let seen = table.fleet_settings().now_or_never()?.ok()??;
        let mut state = self.world.state();
        let id = state.processes[process].id.clone();
        state.log(format_args!("{id} is drained: {draining}"));
        state.change();
        state.processes[process].drained = draining;
        let mut settings = seen.clone();
        if draining {
            settings.draining.insert(id)
        } else {
            settings.draining.remove(&id)
        };
        let _ = table.swap_fleet_settings(Some(&seen), &settings).now_or_never();
        Some(())
    }

    fn leave_stream(&self) -> Option<Vec<Later>> {
        let stream = self.any_stream().clone();
        let process = self.any_live()?;
        let mut state = self.world.state();
        let now = state.now;
        let streams = state.processes[process].streams.clone()?;
        if state.processes[process].without.is_some() {
            return None;
        }
        state.log_of(process, format_args!("ceases to consume {}", stream.memory));
        state.leaves_stream();
        streams.remove(stream.memory.name());
        state.processes[process].without = Some((stream, now));
        drop(state);
        Some(vec![(Duration::from_secs(self.between(20, 80)), Then::ConsumeAgain(process))])
    }

    fn consume_again(&self, process: usize) {
        let mut state = self.world.state();
        let Some((stream, _)) = state.processes[process].without.take() else { return };
        state.log_of(process, format_args!("consumes {} again", stream.memory));
        state.change();
        if let Some(streams) = &state.processes[process].streams {
            streams.add(SimStream { world: self.world.clone(), process, stream: stream.memory });
        }
    }

    fn bad_weather(&self, kind: Kind) -> Vec<Later> {
        let process = self.any_live();
        let mut state = self.world.state();
        let longest = if kind == Kind::HungProcessor { 100 } else { 45 };
        let until = state.now.plus(Duration::from_secs(state.random.u64(3..longest)));
        // It befalls one, or all.
        let process = process.filter(|_| kind == Kind::HungProcessor || state.random.bool());
        let chance = match kind {
            Kind::PanickingProcessor => 0.1,
            Kind::HungProcessor => 0.7,
            _ => 0.2 + 0.8 * state.random.f64(),
        };
        state.log(format_args!("{kind} for {process:?}, {chance:.2}, until {until:?}"));
        state.disturb();
        state.weather.begin(kind, until, process, chance);
        Vec::new()
    }

    /// A lease that anybody may take, as somebody would choose it.
    fn any_lease(&self, may: impl Fn(&Lease) -> bool) -> Option<(usize, Lease)> {
        let leases = self.world.leases();
        let wanted: Vec<usize> = (0..leases.len()).filter(|index| may(&leases[*index])).collect();
        let mut state = self.world.state();
        let index = (!wanted.is_empty()).then(|| wanted[state.random.usize(..wanted.len())])?;
        Some((index, leases[index].clone()))
    }

    fn foreign_worker(&self, tries: u32) -> Option<Vec<Later>> {
        let leases = self.world.leases();
        let unfinished = shardwell_core::leasing::Unfinished::of(&leases);
        let may =
            |lease: &Lease| !lease.is_finished() && !unfinished.block(lease) && lease.checkpoint.position().is_some();
        // Rather one beside whose checkpoint something is known; that is worth waiting for.
        let knows_more = |lease: &Lease| {
            let state = lease.state().and_then(ResumeState::decode);
            may(lease) && state.is_some_and(|state| state.finished.is_some())
        };
        let (index, lease) = match self.any_lease(knows_more) {
            Some(found) => found,
            None if tries > 0 => return Some(vec![(Duration::from_secs(1), Then::Foreign { tries: tries - 1 })]),
            None => self.any_lease(may)?,
        };
        let assignment = Assignment::of(&lease, "java".into());
        let Some(Ok(Conditional::Applied(_))) = self.world.table.assign(&assignment).now_or_never() else {
            return None;
        };
        let mut state = self.world.state();
        state.log(format_args!("java takes {}", lease.key));
        state.disturb();
        state.foreign_takes(&lease);
        Some(vec![(Duration::from_secs(3), Then::ForeignCheckpoint(index))])
    }

    /// It has processed a few records, writes its checkpoint, leaves what it does not know as it is, and lets go.
    fn foreign_checkpoint(&self, index: usize) {
        let Some(lease) = self.world.leases().get(index).cloned() else { return };
        if lease.owner.as_ref().is_none_or(|owner| owner.as_str() != "java") {
            return;
        }
        let Some(position) = lease.checkpoint.position() else { return };
        let mut state = self.world.state();
        state.disturb();
        let count = state.random.usize(1..6);
        let next = state.foreign_processes(&lease.key, position, count);
        let checkpoint = next.map_or(lease.checkpoint, Checkpoint::At);
        drop(state);
        self.world.table.edit(&lease.key, |row| {
            row.counter += 1;
            row.checkpoint = checkpoint;
            row.owner_switches_since_checkpoint = 0;
        });
        let Some(after) = self.world.lease(&lease.key) else { return };
        let mut state = self.world.state();
        state.log(format_args!("java stores {checkpoint} of {}", lease.key));
        state.foreign_checkpoint(&lease, &after);
        drop(state);
        let _ = self.world.table.evict(&Eviction::of(&after)).now_or_never();
    }

    fn lose_lease(&self) -> Option<Vec<Later>> {
        // It is read again from its beginning. Nobody could tell that a shard which has ended was not finished.
        let is_open = |lease: &Lease| {
            let mut streams = self.world.streams.iter().filter(|stream| stream.has(&lease.key));
            streams.any(|stream| open_shards(stream).iter().any(|shard| shard.id == lease.shard))
        };
        let (_, lease) = self.any_lease(|lease| lease.parents.is_empty() && is_open(lease))?;
        let _ = self.world.table.delete_lease(&lease.key).now_or_never();
        let mut state = self.world.state();
        state.log(format_args!("{} is deleted", lease.key));
        state.disturb();
        state.foreign_takes(&lease);
        state.leases.lease(&lease.key).had_foreign_checkpoint = true;
        state.lost_lease = Some(lease.key);
        Some(Vec::new())
    }

    /// Whether the stream may be resharded: every open shard has its lease, or will have it.
    fn may_reshard(&self) -> bool {
        let lost = self.world.state().lost_lease.clone();
        lost.is_none_or(|key| self.world.lease(&key).is_some())
    }

    fn any_stream(&self) -> &SimulatedStream {
        let streams = &self.world.streams;
        &streams[if streams.len() > 1 { self.world.state().random.usize(..streams.len()) } else { 0 }]
    }

    fn split(&self) -> Option<Vec<Later>> {
        let stream = self.any_stream();
        let shards = open_shards(stream);
        if shards.len() >= MAX_SHARDS / self.world.streams.len() || !self.may_reshard() {
            return None;
        }
        let shard = &shards[self.between(0, shards.len() as u64 - 1) as usize];
        let range = shard.hash_key_range;
        let middle = range.start() + (range.end() - range.start()) / 2;
        self.world.state().change();
        stream.memory.split(&shard.id, middle + 1).ok().map(|()| Vec::new())
    }

    fn merge(&self) -> Option<Vec<Later>> {
        let stream = self.any_stream();
        let mut shards = open_shards(stream);
        if shards.len() < 3 || !self.may_reshard() {
            return None;
        }
        shards.sort_by_key(|shard| shard.hash_key_range.start());
        let first = self.between(0, shards.len() as u64 - 2) as usize;
        self.world.state().change();
        stream.memory.merge(&shards[first].id, &shards[first + 1].id).ok().map(|()| Vec::new())
    }

    fn update_shard_count(&self) -> Option<Vec<Later>> {
        let stream = self.any_stream();
        let open = open_shards(stream).len() as u64;
        let most = (MAX_SHARDS / self.world.streams.len()) as u64;
        let target = self.between(open.div_ceil(2), (open * 2).min(most));
        self.world.state().change();
        (target != open && self.may_reshard())
            .then(|| stream.memory.update_shard_count(target as u32).ok().map(|()| Vec::new()))?
    }
}

fn open_shards(stream: &SimulatedStream) -> Vec<Shard> {
    stream.memory.shards(&ShardFilter::AtLatest).unwrap_or_default()
}

/// For how many seconds something worse is waited for.
const FOREIGN_TRIES: u32 = 30;

/// How many open shards all streams have together, at most.
const MAX_SHARDS: usize = 32;
