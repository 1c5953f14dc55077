//! Carrying a plan out.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use metrics::counter;
use shardwell_core::leasing::plan::{Move, MoveKind, Plan};
use shardwell_core::{Assignment, Conditional, HandoffStart, Lease, LeaseKey, Monotonic, Seen, StoreError};
use tracing::{debug, info};

use crate::metrics::MOVES;
use crate::worker::Shared;

/// How many leases are moved at the same time.
const CONCURRENT_MOVES: usize = 16;

/// Moves leases as planned, until `led_until`. A write whose condition does not hold is left to the next round, which sees why.
///
/// # Errors
/// The first one, once all were tried.
pub(super) async fn carry_out(
    shared: &Shared,
    plan: Plan,
    leases: &[Lease],
    led_until: Monotonic,
) -> Result<(), StoreError> {
    let rows: BTreeMap<&LeaseKey, &Lease> = leases.iter().map(|lease| (&lease.key, lease)).collect();
    let moves = plan.moves.into_iter();
    let moves: Vec<(Move, Lease)> =
        moves.filter_map(|change| rows.get(&change.key).map(|row| (change, (*row).clone()))).collect();
    let results: Vec<Result<(), StoreError>> = stream::iter(moves)
        .map(|(change, row)| async move {
            // A leader that was stopped in the middle of this is one no more.
            if shared.env.now() < led_until { carry_out_one(shared, &change, &row).await } else { Ok(()) }
        })
        .buffer_unordered(CONCURRENT_MOVES)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn carry_out_one(shared: &Shared, change: &Move, row: &Lease) -> Result<(), StoreError> {
    let store = &shared.store;
    let answer = match &change.kind {
        MoveKind::Free => shared.bounded(store.assign(&Assignment::of(row, change.to.clone()))).await?,
        // Whoever has it renews it, so the counter says nothing.
        MoveKind::Overdue => {
            let seen = Seen { counter: None, ..Seen::of(row) };
            let assignment = Assignment { key: row.key.clone(), seen, to: change.to.clone() };
            shared.bounded(store.assign(&assignment)).await?
        }
        MoveKind::Balance { from } | MoveKind::Drain { from } => {
            let handoff = HandoffStart { key: row.key.clone(), from: from.clone(), to: change.to.clone() };
            shared.bounded(store.start_handoff(&handoff)).await?
        }
    };
    let (kind, from) = (kind(&change.kind), row.actual_owner().map(ToString::to_string));
    match answer {
        Conditional::Applied(_) => {
            info!(lease = %change.key, to = %change.to, from, kind, "lease given");
            counter!(MOVES, "application" => shared.application.clone(), "kind" => kind).increment(1);
            if change.to == shared.worker {
                shared.discover_now.notify_one();
            }
        }
        Conditional::Refused(_) => debug!(lease = %change.key, kind, "the lease has changed since it was planned"),
    }
    Ok(())
}

const fn kind(kind: &MoveKind) -> &'static str {
    match kind {
        MoveKind::Free => "free",
        MoveKind::Overdue => "overdue",
        MoveKind::Balance { .. } => "balance",
        MoveKind::Drain { .. } => "drain",
    }
}
