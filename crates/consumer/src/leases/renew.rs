//! Renewing: the one write per lease and period, with the checkpoint in it.
//!
//! Everything that is written to a held lease's row while it is held is written here, one write at a time per lease, so
//! the counter has one writer. Whoever needs a checkpoint sooner than the next renewal asks for a [`Flush`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use metrics::counter;
use shardwell_core::{EnvExt, LeaseKey, Monotonic, RenewOutcome, Renewed, WriteToken};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::{HeldLease, Stop};
use crate::metrics::{CHECKPOINTS, LEASES_LOST, RENEWALS};
use crate::worker::Shared;

/// A request to write a lease now, whatever its next renewal.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) key: LeaseKey,
    /// Told once everything that was wanted when the request was made is stored.
    pub(crate) written: oneshot::Sender<Result<(), LeaseGone>>,
}

/// The lease is not held any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseGone;

/// Renews for as long as the worker runs.
pub(crate) async fn run(shared: Arc<Shared>, mut flushes: mpsc::UnboundedReceiver<Flush>) {
    let mut waiting: Vec<Flush> = Vec::new();
    loop {
        let now = shared.env.now();
        let due = due(&shared.held.all(), now, shared.timing.renew_interval() / 10);
        if !due.is_empty() {
            renew(&shared, &due).await;
        }
        waiting.retain_mut(|flush| !answer(&shared, flush));

        let held = shared.held.all();
        let wake = held.iter().filter(|lease| !lease.is_lost()).map(|lease| lease.next_renewal()).min();
        let sleep = shared.env.sleep_until_if_any(wake);
        tokio::select! {
            biased;
            flush = flushes.recv() => match flush {
                Some(flush) => {
                    hurry(&shared, &mut waiting, flush);
                    while let Ok(more) = flushes.try_recv() {
                        hurry(&shared, &mut waiting, more);
                    }
                }
                None => return,
            },
            () = shared.leases_changed.notified() => {}
            () = sleep => {}
        }
    }
}

/// Brings the next renewal of a lease forward to now. If that fails, the usual pause follows: a table in trouble is not
/// hammered by those who wait for it.
fn hurry(shared: &Shared, waiting: &mut Vec<Flush>, flush: Flush) {
    if let Some(lease) = shared.held.get(&flush.key).filter(|lease| !lease.progress().is_stored()) {
        lease.renew_at(shared.env.now());
    }
    waiting.push(flush);
}

/// The leases to write now: if the time of any has come, also those whose time comes soon, so that leases that were taken
/// together are renewed in one call.
fn due(held: &[Arc<HeldLease>], now: Monotonic, soon: Duration) -> Vec<Arc<HeldLease>> {
    let until = |time: Monotonic| held.iter().filter(move |lease| !lease.is_lost() && lease.next_renewal() <= time);
    match until(now).next() {
        Some(_) => until(now.plus(soon)).cloned().collect(),
        None => Vec::new(),
    }
}

/// Answers a flush if it can be answered.
fn answer(shared: &Shared, flush: &mut Flush) -> bool {
    let answer = match shared.held.get(&flush.key) {
        None => Err(LeaseGone),
        Some(lease) if lease.is_lost() => Err(LeaseGone),
        Some(lease) if lease.progress().is_stored() => Ok(()),
        Some(_) => return false,
    };
    let (unused, _) = oneshot::channel();
    let written = std::mem::replace(&mut flush.written, unused);
    // Whoever asked may have stopped waiting.
    let _ = written.send(answer);
    true
}

/// How often within the retention a quiet shard notes that it is at its tip: a worker that was away for less than the
/// rest is never suspected of a loss.
const TIP_REFRESHES_PER_RETENTION: u32 = 12;

async fn renew(shared: &Shared, due: &[Arc<HeldLease>]) {
    let started = shared.env.now();
    let (expired, due): (Vec<_>, Vec<_>) = due.iter().cloned().partition(|lease| lease.trusted_until() <= started);
    for lease in expired {
        lose(shared, &lease, "it was not renewed in time");
    }
    // No call outlives the trust in the leases that it renews; and a call that hangs leaves time for another one.
    let Some(trusted_until) = due.iter().map(|lease| lease.trusted_until()).min() else { return };
    let deadline = trusted_until.min(started.plus(shared.timing.renew_interval()));

    let token = || WriteToken::new(shared.env.random());
    let refresh = |lease: &HeldLease| lease.stream().retention() / TIP_REFRESHES_PER_RETENTION;
    let renewals = due.iter().map(|lease| lease.renewal(started, token(), refresh(lease))).collect();
    let mut unanswered: BTreeMap<_, _> = due.iter().map(|lease| (lease.key().clone(), lease)).collect();
    let mut answers = shared.store.renew(&shared.worker, renewals);
    while let Ok(Some(Renewed { key, outcome })) = shared.env.deadline(deadline, answers.next()).await {
        if let Some(lease) = unanswered.remove(&key) {
            apply(shared, lease, outcome, started);
        }
    }
    for lease in unanswered.into_values() {
        warn!(lease = %lease.key(), "no answer to a lease renewal; it is repeated");
        count(shared, "unknown");
        lease.renew_at(shared.env.now().plus(shared.timing.renew_retry()));
    }
}

fn apply(shared: &Shared, lease: &Arc<HeldLease>, outcome: RenewOutcome, started: Monotonic) {
    let now = shared.env.now();
    match outcome {
        RenewOutcome::Renewed(row) | RenewOutcome::HandoffRequested(row) => {
            count(shared, "renewed");
            if row.checkpoint != lease.progress().last_stored().0 {
                debug!(lease = %lease.key(), checkpoint = %row.checkpoint, "checkpoint stored");
                counter!(CHECKPOINTS, "application" => shared.application.clone()).increment(1);
            }
            let handoff = row.handoff_requested();
            lease.renewed(row, started, shared.timing, now);
            if handoff {
                lease.tell(Stop::Drain { deadline: now.plus(shared.settings.handoff_deadline) });
            }
        }
        RenewOutcome::Lost(row) => {
            count(shared, "lost");
            match row.as_ref().and_then(|row| row.actual_owner()) {
                Some(owner) => lose(shared, lease, &format!("worker {owner} has it")),
                None => lose(shared, lease, "it was taken away or deleted"),
            }
        }
        RenewOutcome::Unknown(error) => {
            count(shared, "unknown");
            shared.heed(&error);
            warn!(lease = %lease.key(), %error, "a lease renewal failed; it is repeated");
            lease.renew_at(now.plus(shared.timing.renew_retry()));
        }
    }
}

fn lose(shared: &Shared, lease: &HeldLease, why: &str) {
    warn!(lease = %lease.key(), why, "lease lost");
    counter!(LEASES_LOST, "application" => shared.application.clone()).increment(1);
    lease.tell(Stop::Lost);
}

fn count(shared: &Shared, result: &'static str) {
    counter!(RENEWALS, "application" => shared.application.clone(), "result" => result).increment(1);
}
