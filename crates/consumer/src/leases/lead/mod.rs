//! Leading: one worker of the fleet plans for all.
//!
//! ```text
//!  follow ──► watch the lock ──► take it when it stood still ──► lead ──► plan, every interval ──► carry out
//!                │ named as a standby                             │ ▲
//!                ▼                                                ▼ │ heartbeat
//!             watch the leases too                             give it up: stopped, or three rounds failed
//! ```

mod lock;
mod moves;
mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use metrics::{counter, gauge};
use shardwell_core::leasing::{LeaderTiming, Observations};
use shardwell_core::{EnvExt, Monotonic, WorkerId};
use tracing::{info, warn};

use crate::metrics::{IS_LEADER, PLANNING_ROUNDS};
use crate::worker::{Phase, Shared};

use lock::Lock;

/// How many rounds may fail before the leader lets somebody else try (the KCL's).
const MAX_FAILURES: u32 = 3;

/// How many workers watch the leases beside the leader.
const STANDBYS: usize = 2;

/// A worker's part in the leading of its fleet.
struct Lead {
    shared: Arc<Shared>,
    lock: Lock,
    /// Warm on the leader and on its standbys.
    observations: Observations,
    next_round: Monotonic,
    /// How many rounds have failed in a row.
    failures: u32,
    /// The workers that should watch the leases too.
    standbys: Vec<WorkerId>,
    /// Before this, somebody else is given the chance to lead.
    stands_back_until: Monotonic,
    /// Drained workers that are not there, and since when.
    absent: BTreeMap<WorkerId, Monotonic>,
    /// The streams whose leases left hash keys uncovered when it was last looked, which was acted on.
    holes: BTreeSet<String>,
}

/// Follows and leads for as long as the worker runs, and until all it had is handed over.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut lead = Lead::new(shared.clone());
    let mut handed_over = shared.handed_over.watch();
    loop {
        let turn = async {
            lead.turn().await;
            lead.wait().await;
        };
        tokio::select! {
            biased;
            _ = handed_over.until(|over| *over) => break,
            () = turn => {}
        }
    }
    lead.resign().await;
}

impl Lead {
    fn new(shared: Arc<Shared>) -> Self {
        let timing = LeaderTiming::new(shared.timing.duration());
        Self {
            lock: Lock::new(timing),
            observations: Observations::default(),
            next_round: Monotonic::ZERO,
            failures: 0,
            standbys: Vec::new(),
            stands_back_until: Monotonic::ZERO,
            absent: BTreeMap::new(),
            holes: BTreeSet::new(),
            shared,
        }
    }

    /// Until there is something to do again.
    async fn wait(&mut self) {
        let lock = self.lock.next_turn();
        let until = if self.watches() { lock.min(self.next_round) } else { lock };
        tokio::select! {
            biased;
            () = self.shared.plan_now.notified() => self.next_round = Monotonic::ZERO,
            () = self.shared.env.sleep_until(until) => {}
        }
    }

    /// Whether this worker looks at the leases.
    fn watches(&self) -> bool {
        self.lock.is_held(self.shared.env.now()) || self.lock.is_standby(&self.shared.worker)
    }

    async fn turn(&mut self) {
        let shared = self.shared.clone();
        if shared.env.now() >= self.lock.next_turn() {
            self.turn_of_the_lock().await;
        }
        let now = shared.env.now();
        if self.lock.is_held(now) {
            self.round().await;
        } else if self.lock.is_standby(&shared.worker) && now >= self.next_round {
            self.next_round = now.plus(shared.stretched(shared.timing.renew_interval()));
            if let Err(error) = self.look().await {
                warn!(%error, "cannot watch the leases as a standby; trying again");
            }
        } else if !self.lock.is_standby(&shared.worker) {
            // What was seen long ago would make everything look expired.
            self.observations = Observations::default();
        }
    }

    async fn turn_of_the_lock(&mut self) {
        let shared = self.shared.clone();
        let now = shared.env.now();
        let led = self.lock.is_held(now);
        let may_lead = matches!(*shared.phase.look(), Phase::Running) && now >= self.stands_back_until;
        if let Err(error) = self.lock.turn(&shared, may_lead, &self.standbys).await {
            warn!(%error, "cannot reach the leader lock; trying again");
        }
        let leads = self.lock.is_held(shared.env.now());
        if leads != led {
            self.tell(leads);
            if leads {
                info!("this worker leads now");
                (self.next_round, self.failures) = (Monotonic::ZERO, 0);
                self.holes.clear();
                self.absent.clear();
                shared.sync_now.notify_one();
            } else {
                warn!("this worker does not lead any more");
            }
        }
        if !leads && self.lock.is_led_by_another(&shared.worker) {
            shared.enter_plan();
        }
    }

    /// A round of planning, if it is time for one.
    async fn round(&mut self) {
        let shared = self.shared.clone();
        let now = shared.env.now();
        if now < self.next_round {
            return;
        }
        // A call that hangs must not outlast the lock: nobody else plans meanwhile.
        let result = shared.env.deadline(self.lock.held_until(), self.plan_once()).await;
        let result = result.unwrap_or_else(|_| Err(round::too_slow()));
        counter!(PLANNING_ROUNDS, "application" => shared.application.clone(),
            "result" => if result.is_ok() { "ok" } else { "failed" })
        .increment(1);
        match result {
            Ok(interval) => {
                self.failures = 0;
                self.next_round = now.plus(shared.stretched(interval));
                shared.enter_plan();
            }
            Err(error) => {
                self.failures += 1;
                self.next_round = now.plus(shared.stretched(shared.settings.planning_interval));
                warn!(%error, failures = self.failures, "a round of planning failed");
                if self.failures >= MAX_FAILURES {
                    self.stands_back_until = shared.env.now().plus(shared.timing.duration());
                    self.resign().await;
                }
            }
        }
    }

    /// Gives the lock up, if this worker has it.
    async fn resign(&mut self) {
        let shared = self.shared.clone();
        if !self.lock.is_held(shared.env.now()) {
            return;
        }
        match self.lock.give_up(&shared).await {
            Ok(()) => info!("gave up the lead"),
            Err(error) => warn!(%error, "cannot give up the lead; it will expire"),
        }
        self.tell(false);
    }

    fn tell(&self, leads: bool) {
        gauge!(IS_LEADER, "application" => self.shared.application.clone()).set(f64::from(leads));
        self.shared.leads.set(leads);
    }
}
