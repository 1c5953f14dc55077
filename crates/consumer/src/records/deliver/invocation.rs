//! One batch, from its place in the pool to the processor's answer.

use std::sync::{Arc, Mutex};

use shardwell_core::delivery::{Delivery, Verdict};
use tokio::sync::OwnedSemaphorePermit;

use super::processor::{Invocation, Processor};
use crate::leases::{self, HeldLease};
use crate::lock::lock;
use crate::worker::Shared;

/// How an invocation ended: the processor comes back with it.
pub(super) struct Invoked {
    pub(super) lane: u32,
    pub(super) processor: Processor,
    pub(super) verdict: Verdict,
    /// Nothing else runs in the process while this is held.
    pub(super) alone: Option<OwnedSemaphorePermit>,
}

/// Hands over a batch once the pool has a place for it. With `announce`, the pool is emptied first, and it is written down
/// what is about to run.
pub(super) async fn invoke(
    shared: Arc<Shared>,
    lease: Arc<HeldLease>,
    lane: u32,
    mut processor: Processor,
    invocation: Invocation,
    announce: Option<Arc<Mutex<Delivery>>>,
) -> Invoked {
    let places = match announce {
        Some(_) => u32::try_from(shared.settings.max_concurrent_batches).unwrap_or(u32::MAX),
        None => 1,
    };
    let permit = tokio::select! {
        biased;
        _ = lease.told_to_stop() => None,
        permit = shared.pool.clone().acquire_many_owned(places) => permit.ok(),
    };
    let announced = match (&permit, &announce) {
        (Some(_), Some(delivery)) => {
            lock(delivery).announce(lane);
            leases::flush(&shared, &lease).await.is_ok()
        }
        _ => true,
    };
    // The wait may have been long.
    let verdict = if permit.is_some() && announced && lease.may_process(shared.env.now()) {
        processor.process(invocation).await
    } else {
        Verdict::NotInvoked
    };
    Invoked { lane, processor, verdict, alone: permit.filter(|_| announce.is_some()) }
}
