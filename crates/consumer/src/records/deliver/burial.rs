//! Records that are given up: from the lane to the dead letters.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use shardwell_core::EnvExt;
use shardwell_core::dead_letter::{BatchInfo, DeadLetter};
use shardwell_core::delivery::{Burial, BurialOutcome, Delivery, Event};
use tracing::{error, warn};

use crate::dead_letters::Admission;
use crate::leases::HeldLease;
use crate::lock::lock;
use crate::processor::LaneContext;
use crate::worker::Shared;

/// Makes the letters of a batch durable.
pub(super) async fn bury(
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    lane: LaneContext,
    burial: Burial,
) -> BurialOutcome {
    // Whoever has the lease now writes them.
    if !lease.may_process(shared.env.now()) {
        return BurialOutcome::NotTried;
    }
    let error = burial.doom.error.join(": ");
    let count = burial.batch.records().len();
    match shared.dead_letters.admit(count, shared.env.now()) {
        Admission::Admitted => {}
        Admission::Pause => {
            shared.pause_because(format!(
                "the fuse has blown: too many records died in too short a time, the last one with: {error}"
            ));
            return BurialOutcome::Withheld;
        }
        Admission::Stop => {
            shared.blow(error);
            return BurialOutcome::Withheld;
        }
    }
    let letters = letters(&shared, &lane, &burial);
    let outcome = shared.dead_letters.put(&*shared.env, &shared.application, &letters).await;
    if outcome == BurialOutcome::Kept {
        let (first, last) = (letters[0].record.position, letters[letters.len() - 1].record.position);
        error!(reason = %burial.doom.reason, %error, records = count, %first, %last, "records are dead");
    }
    outcome
}

fn letters(shared: &Shared, lane: &LaneContext, burial: &Burial) -> Vec<DeadLetter> {
    let records = burial.batch.records();
    let (first, last) = (&records[0], &records[records.len() - 1]);
    let batch = BatchInfo {
        id: burial.batch.id(),
        invocations: burial.invocations,
        size: u32::try_from(records.len()).unwrap_or(u32::MAX),
        first: first.position,
        last: last.position,
        first_arrival: first.arrival,
        last_arrival: last.arrival,
        partial: burial.partial,
    };
    let letter = |record: &shardwell_core::UserRecord| DeadLetter {
        application: lane.application.clone(),
        stream: lane.stream.clone(),
        shard: lane.shard.clone(),
        record: record.clone(),
        reason: burial.doom.reason,
        error: burial.doom.error.to_vec(),
        attempts: burial.attempts.clone(),
        batch: batch.clone(),
        lane: lane.lane,
        worker: lane.worker.clone(),
        died_at: shared.env.timestamp(),
    };
    records.iter().map(letter).collect()
}

/// Asks the archive, after a while, which keys are held back, as often as it takes. `None` where none are.
pub(super) fn dead_keys(
    shared: &Arc<Shared>,
    lease: &HeldLease,
    delivery: &Arc<Mutex<Delivery>>,
    after: Duration,
) -> Option<BoxFuture<'static, Event>> {
    if !shared.settings.delivery.quarantine() {
        return None;
    }
    let (shared, stream, delivery) = (shared.clone(), lease.stream().name(), delivery.clone());
    let ask = async move {
        shared.env.sleep(after).await;
        loop {
            let asked_at = lock(&delivery).quarantine_clock();
            match shared.dead_letters.dead_keys(&shared.application, &stream).await {
                Ok(keys) => return Event::DeadKeys { keys: keys.into_iter().collect(), asked_at },
                Err(error) => {
                    warn!(%error, "cannot tell which keys are dead; trying again");
                    shared.env.sleep(super::DEAD_KEYS_REFRESH).await;
                }
            }
        }
    };
    Some(ask.boxed())
}
