//! What the records meet in the end.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardwell_consumer::{
    Batch, LaneContext, Outcome, ProcessError, ProcessResultExt, RecordFailure, RecordProcessor, Start,
};
use shardwell_core::{Checkpoint, Env, EnvExt};

use crate::SimEnv;
use crate::fleet::checks::{Handled, TermId, number_of};
use crate::fleet::kind::Kind;
use crate::fleet::truth::{Nature, Poison};
use crate::fleet::weather::ProcessId;
use crate::fleet::world::World;

/// A lane's processor: records do to it what their nature is, and the weather does the rest.
pub(crate) struct SimProcessor {
    pub(crate) world: Arc<World>,
    pub(crate) process: ProcessId,
    pub(crate) env: SimEnv,
    pub(crate) lane: LaneContext,
}

/// What a batch comes to.
enum Verdict {
    Done,
    /// Fails as a whole.
    Fails(usize),
    /// Fails at this place of the batch.
    FailsAt(usize, Severity),
    Reported(Vec<usize>),
    Panics(usize),
    Outage,
    Hangs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    Retryable,
    Permanent,
}

#[async_trait]
impl RecordProcessor for SimProcessor {
    async fn initialize(&mut self, _: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        if self.lane.lane == 0 {
            let mut state = self.world.state();
            let key = state.key(&self.lane.stream, &self.lane.shard);
            state.serves(self.process, &key);
        }
        Ok(None)
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        let handled = self.handled(batch);
        let term = self.world.state().begins(&handled);
        // However this ends, also by being dropped, the lane is free again.
        let _end = End { world: self.world.clone(), handled: handled.clone() };
        let (verdict, time) = self.judge(&handled);
        tokio::select! {
            biased;
            () = batch.cancelled() => return Err("given up".into()),
            () = self.take(&verdict, time) => {}
        }
        self.outcome(batch, &handled, verdict, term)
    }
}

/// Tells that a call is over.
struct End {
    world: Arc<World>,
    handled: Handled,
}

impl Drop for End {
    fn drop(&mut self) {
        self.world.state().ends(&self.handled);
    }
}

impl SimProcessor {
    fn handled(&self, batch: &Batch) -> Handled {
        Handled {
            process: self.process,
            shard: self.world.state().key(&self.lane.stream, &self.lane.shard),
            lane: self.lane.lane,
            batch: batch.id(),
            attempt: batch.attempt(),
            records: batch.records().iter().filter_map(|record| number_of(&record.data)).collect(),
            wall: self.env.timestamp(),
        }
    }

    async fn take(&self, verdict: &Verdict, time: Duration) {
        if let Verdict::Hangs = verdict {
            // Until the weather is better.
            loop {
                self.env.sleep(Duration::from_secs(1)).await;
                let state = self.world.state();
                if !state.weather.has(Kind::HungProcessor, self.process, state.now) {
                    return;
                }
            }
        }
        if !time.is_zero() {
            self.env.sleep(time).await;
        }
    }

    fn judge(&self, handled: &Handled) -> (Verdict, Duration) {
        let mut state = self.world.state();
        let state = &mut *state;
        let (now, process) = (state.now, self.process);
        let strikes = |kind, random: &mut fastrand::Rng| state.weather.strikes(kind, process, now, random);
        let mut time = state.scenario.batch_time.mul_f64(state.random.f64());
        if strikes(Kind::SlowProcessor, &mut state.random) {
            time = time * 10 + Duration::from_secs(state.random.u64(..4));
        }
        if strikes(Kind::HungProcessor, &mut state.random) {
            return (Verdict::Hangs, time);
        }
        if strikes(Kind::FailingProcessor, &mut state.random) {
            return (Verdict::Outage, time);
        }
        // Not twice: a record that nothing is wrong with must not run out of attempts.
        let panics = strikes(Kind::PanickingProcessor, &mut state.random) && handled.attempt == 1;
        let (mut reported, mut verdict) = (Vec::new(), Verdict::Done);
        for (place, number) in handled.records.iter().enumerate() {
            let record = &mut state.truth.records[*number];
            verdict = match record.nature {
                Nature::Fine | Nature::Unwanted => continue,
                Nature::Flaky(times) if record.failures >= times => continue,
                Nature::Flaky(_) => {
                    record.failures += 1;
                    Verdict::FailsAt(place, Severity::Retryable)
                }
                Nature::Poison(Poison::Fails) => Verdict::Fails(place),
                Nature::Poison(Poison::FailsHere) => Verdict::FailsAt(place, Severity::Retryable),
                Nature::Poison(Poison::Permanent) => Verdict::FailsAt(place, Severity::Permanent),
                Nature::Poison(Poison::Panics) => Verdict::Panics(place),
                Nature::Poison(Poison::Reported) => {
                    reported.push(place);
                    continue;
                }
            };
            break;
        }
        // What is reported says that all others are done, so it is no answer where another record fails too.
        match verdict {
            Verdict::Done if panics => (Verdict::Panics(0), time),
            Verdict::Done if !reported.is_empty() => (Verdict::Reported(reported), time),
            verdict => (verdict, time),
        }
    }

    fn outcome(
        &self,
        batch: &Batch,
        handled: &Handled,
        verdict: Verdict,
        term: Option<TermId>,
    ) -> Result<Outcome, ProcessError> {
        let records = batch.records();
        let failed = |place: usize| format!("record {} is poison", handled.records[place]);
        match verdict {
            Verdict::Done | Verdict::Hangs => {
                self.done(&handled.records, term);
                Ok(Outcome::Done)
            }
            Verdict::Reported(places) => {
                let is_done = |place: &usize| !places.contains(place);
                let done: Vec<usize> = (0..handled.records.len()).filter(is_done).map(|p| handled.records[p]).collect();
                self.done(&done, term);
                Ok(Outcome::Failed(places.iter().map(|p| RecordFailure::new(&records[*p], failed(*p))).collect()))
            }
            Verdict::FailsAt(place, severity) => {
                self.done(&handled.records[..place], term);
                match severity {
                    Severity::Retryable => Err(failed(place)).at(&records[place]),
                    Severity::Permanent => Err(failed(place)).permanent().at(&records[place]),
                }
            }
            Verdict::Fails(place) => Err(failed(place).into()),
            // Past the hook that would print it.
            Verdict::Panics(place) => std::panic::resume_unwind(Box::new(failed(place))),
            Verdict::Outage => Err(ProcessError::transient("what the processor needs is out of order")),
        }
    }

    fn done(&self, numbers: &[usize], term: Option<TermId>) {
        let mut state = self.world.state();
        let now = state.now;
        for number in numbers {
            state.truth.done(*number, term, now);
        }
    }
}
