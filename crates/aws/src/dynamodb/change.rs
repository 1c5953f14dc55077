//! What is written to a lease, and on what condition.

use shardwell_core::{CheckpointWrite, PendingWrite, Renewal, Seen, WorkerId};

use super::expression::{Condition, Rendered, Update};
use super::item::{ENTITY_TYPE, KEY, bytes, hexadecimal, lease, number, string};

pub(super) fn is_there() -> Condition<'static> {
    Condition::All(vec![
        Condition::Present(KEY),
        Condition::Any(vec![Condition::Absent(ENTITY_TYPE), Condition::Is(ENTITY_TYPE, string(lease::TYPE))]),
    ])
}

pub(super) fn renewing(worker: &WorkerId, renewal: &Renewal) -> Rendered {
    let mut update = Update::default();
    update.set(lease::COUNTER, number(renewal.counter.saturating_add(1)));
    update.set(lease::TOKEN, hexadecimal(renewal.token.get()));
    if let Some(kbps) = renewal.throughput_kbps.filter(|kbps| kbps.is_finite()) {
        update.set(lease::THROUGHPUT, lease::throughput_value(kbps));
    }
    if let Some(write) = &renewal.checkpoint {
        checkpointing(&mut update, write);
    }
    let me = || string(worker.as_str());
    update.when(Condition::All(vec![
        Condition::Is(lease::COUNTER, number(renewal.counter)),
        Condition::Any(vec![Condition::Is(lease::OWNER, me()), Condition::Is(lease::CHECKPOINT_OWNER, me())]),
    ]))
}

pub(super) fn checkpointing(update: &mut Update, write: &CheckpointWrite) {
    let (checkpoint, sub_sequence) = write.checkpoint.to_stored();
    update.set(lease::CHECKPOINT, string(checkpoint)).set(lease::SUB_SEQUENCE, number(sub_sequence));
    update.set(lease::OWNER_SWITCHES, number(0));
    let state = write.state.as_ref();
    let state = state.map(|(version, data)| lease::state_value(write.checkpoint, *version, data));
    update.put(lease::STATE, state);
    let pending = match &write.pending {
        PendingWrite::Clear => None,
        PendingWrite::Set(pending) => Some(pending),
    };
    let stored = pending.map(|pending| pending.checkpoint.to_stored());
    update.put(lease::PENDING, stored.as_ref().map(|(checkpoint, _)| string(checkpoint)));
    update.put(lease::PENDING_SUB_SEQUENCE, stored.map(|(_, sub_sequence)| number(sub_sequence)));
    let state = pending.and_then(|pending| pending.state.clone());
    update.put(lease::PENDING_STATE, state.map(bytes));
}

pub(super) fn as_seen(seen: &Seen) -> Condition<'static> {
    let id = |worker: &Option<WorkerId>| worker.as_ref().map(|worker| string(worker.as_str()));
    let mut conditions = vec![
        is_there(),
        Condition::as_seen(lease::OWNER, id(&seen.owner)),
        Condition::as_seen(lease::CHECKPOINT_OWNER, id(&seen.checkpoint_owner)),
    ];
    conditions.extend(seen.counter.map(|counter| Condition::Is(lease::COUNTER, number(counter))));
    Condition::All(conditions)
}
