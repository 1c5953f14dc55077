//! One lane from its first record to its last, on a virtual clock, with everything carried out at once.

use std::collections::VecDeque;
use std::time::Duration;

use shardwell_core::dead_letter::DeadReason;
use shardwell_core::delivery::{
    BurialOutcome, Command, Delivery, DeliveryPolicy, Event, Intake, Now, ResumeState, Verdict,
};
use shardwell_core::{Monotonic, RetryPolicy, UserRecord};

use super::script::index_of;

/// Half of the longest delay, exactly.
pub(crate) const HALF: u64 = 1 << 63;

/// Delays of 100, 200, 400, 800, 1000 ms and so on; half of that with [`HALF`].
pub(crate) fn backoff() -> RetryPolicy {
    RetryPolicy::default().with_initial(Duration::from_millis(100)).with_cap(Duration::from_secs(1))
}

/// What happened, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Call { at: Duration, records: Vec<usize> },
    Letter { at: Duration, records: Vec<usize>, reason: DeadReason },
}

/// An invocation.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) at: Duration,
    pub(crate) id: u64,
    pub(crate) attempt: u32,
    pub(crate) records: Vec<usize>,
}

/// Records that were given up.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) records: Vec<usize>,
    pub(crate) reason: DeadReason,
    pub(crate) invocations: u32,
    pub(crate) attempts: usize,
    pub(crate) partial: bool,
}

/// All that happened.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) steps: Vec<Step>,
    pub(crate) calls: Vec<Call>,
    pub(crate) letters: Vec<Letter>,
}

impl Trace {
    /// The records of each call.
    pub(crate) fn sent(&self) -> Vec<Vec<usize>> {
        self.calls.iter().map(|call| call.records.clone()).collect()
    }

    /// The dead, in order.
    pub(crate) fn dead(&self) -> Vec<usize> {
        let mut dead: Vec<usize> = self.letters.iter().flat_map(|letter| letter.records.clone()).collect();
        dead.sort_unstable();
        dead
    }

    /// How often each of `len` records was delivered.
    pub(crate) fn deliveries(&self, len: usize) -> Vec<usize> {
        let mut deliveries = vec![0; len];
        self.calls.iter().flat_map(|call| &call.records).for_each(|record| deliveries[*record] += 1);
        deliveries
    }
}

/// Delivers `records` by a policy that is not resolved yet, where dead letters are kept. Each call takes `takes`.
pub(crate) fn run(
    policy: DeliveryPolicy,
    records: Vec<UserRecord>,
    takes: Duration,
    mut processor: impl FnMut(&Call) -> Verdict,
) -> Trace {
    let mut delivery = Delivery::new(policy.resolve(true).expect("a valid policy"), &ResumeState::default());
    let mut trace = Trace::default();
    let mut now = Now::default();
    let total = records.len();
    let intake = records.into_iter().map(Intake::Record).collect();
    let mut commands = VecDeque::new();
    commands.extend(delivery.step(Event::Arrived(intake), now, HALF, false));
    commands.extend(delivery.step(Event::ShardEnded, now, HALF, true));
    let mut settled = 0;
    loop {
        while let Some(command) = commands.pop_front() {
            // Delays are floating-point products; what matters of them are milliseconds.
            let at = Duration::from_millis((now.monotonic.since_origin().as_micros() as u64 + 500) / 1000);
            let event = match command {
                Command::Invoke { lane, batch, attempt, alone } => {
                    assert!(!alone, "nothing crashed");
                    let records = batch.records().iter().map(index_of).collect::<Vec<_>>();
                    let call = Call { at, id: batch.id(), attempt, records: records.clone() };
                    trace.steps.push(Step::Call { at, records });
                    now = later(now, takes);
                    let verdict = processor(&call);
                    trace.calls.push(call);
                    Event::Finished { lane, verdict }
                }
                Command::Bury { lane, burial } => {
                    let records = burial.batch.records().iter().map(index_of).collect::<Vec<_>>();
                    trace.steps.push(Step::Letter { at, records: records.clone(), reason: burial.doom.reason });
                    trace.letters.push(Letter {
                        records,
                        reason: burial.doom.reason,
                        invocations: burial.invocations,
                        attempts: burial.attempts.len(),
                        partial: burial.partial,
                    });
                    Event::Buried { lane, outcome: BurialOutcome::Kept }
                }
                Command::Settled(books) => {
                    settled += books.done + books.dead;
                    continue;
                }
            };
            commands.extend(delivery.step(event, now, HALF, true));
        }
        if delivery.is_complete() {
            assert_eq!(settled, total, "every record is settled once");
            return trace;
        }
        let wake = delivery.wake_at().expect("a delivery that is not complete waits for something");
        assert!(wake > now.monotonic, "what is due was not started");
        now = later(now, wake.since(now.monotonic));
        commands.extend(delivery.step(Event::Tick, now, HALF, true));
        assert!(!commands.is_empty(), "nothing was due after all");
    }
}

fn later(now: Now, by: Duration) -> Now {
    Now { monotonic: Monotonic::from_origin(now.monotonic.since_origin() + by), timestamp: now.timestamp.plus(by) }
}
