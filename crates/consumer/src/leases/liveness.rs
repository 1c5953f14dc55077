//! Who lives, for a worker that has seen nothing yet.

use std::collections::BTreeSet;
use std::time::Duration;

use shardwell_core::leasing::Observations;
use shardwell_core::{LeaseListing, Monotonic, StoreError, Timestamp, WorkerId};

use crate::worker::Shared;

/// The workers that show a sign of life within a lease duration of `duration`: they renew a lease, or write their item. Takes
/// that long, unless there is nobody to look at.
pub(super) async fn living(shared: &Shared, duration: Duration) -> Result<BTreeSet<WorkerId>, StoreError> {
    let mut observations = Observations::default();
    let (first, is_deserted) = look(shared, &mut observations).await?;
    if is_deserted {
        return Ok(BTreeSet::new());
    }
    shared.env.sleep_until(first.plus(duration + shared.timing.margin())).await;
    let (second, _) = look(shared, &mut observations).await?;
    Ok(observations.alive_since(second).cloned().collect())
}

/// Tells when it looked, and whether nobody is there.
async fn look(shared: &Shared, observations: &mut Observations) -> Result<(Monotonic, bool), StoreError> {
    let asked = shared.env.now();
    let (LeaseListing { leases, .. }, workers) = shared.bounded(shared.store.look()).await?;
    observations.observe(&leases, asked);
    // What is seen the first time is no sign of life, however new it says it is.
    observations.observe_workers(&workers, asked, Timestamp::from_millis(i64::MAX));
    let is_owned = leases.iter().any(|lease| lease.actual_owner().is_some());
    Ok((asked, workers.is_empty() && !is_owned))
}
