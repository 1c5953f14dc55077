//! Stopping: out of the plan, everything handed over, and a last look for what arrived meanwhile.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use shardwell_core::{EnvExt, Lease, Monotonic, StoreError, Task};
use tracing::{info, warn};

use super::Stop;
use super::discover::given;
use super::hand_over::pass_on;
use crate::worker::Shared;

/// Hands over all that this worker has, by the deadline and a lease duration more at the latest; what is left then expires.
pub(super) async fn run(shared: &Shared, deadline: Monotonic, mut holding: FuturesUnordered<Task<()>>) {
    // What was taken up in the very moment in which it became known that another process has this worker's id is that one's.
    let how = if shared.is_failed_without_release() { Stop::Lost } else { Stop::Drain { deadline } };
    for lease in shared.held.all() {
        lease.tell(how);
    }
    // Handing over takes a few writes after the consumers' deadline.
    let end = deadline.plus(shared.timing.duration());
    let all = async {
        while holding.next().await.is_some() {}
        if !shared.is_failed_without_release() {
            look_once_more(shared).await;
        }
    };
    if shared.env.deadline(end, all).await.is_err() {
        warn!("not every lease could be handed over in time; the rest will expire");
    }
}

/// Passes on what was given to this worker before everybody knew that it stops.
///
/// Nobody who looks for a successor from now on finds this worker; and who found it before, and gives it a lease only now, looks
/// again afterwards and takes it back.
async fn look_once_more(shared: &Shared) {
    let mut left_plan = shared.left_plan.watch();
    left_plan.until(|left| *left).await;
    loop {
        match pass_all_on(shared).await {
            Ok(0) => return,
            Ok(leases) => info!(leases, "passed on leases that were given to this worker while it stopped"),
            Err(error) => {
                warn!(%error, "cannot look for leases that were given to this worker while it stopped; trying again");
                shared.env.sleep(shared.timing.renew_retry()).await;
            }
        }
    }
}

/// Passes on every lease that was given to this worker; tells how many.
async fn pass_all_on(shared: &Shared) -> Result<usize, StoreError> {
    let asked = shared.env.now();
    let mut given = given(shared, |_| true).await?;
    // This process has removed its item. If there is one, it is of another process that has taken the id over since, and so is
    // what was taken up.
    let was_taken_up = |lease: &Lease| lease.token.is_some();
    if given.iter().any(was_taken_up) && shared.roster.is_registered(shared, &shared.worker, asked).await? {
        given.retain(|lease| !was_taken_up(lease));
    }
    for lease in &given {
        pass_on(shared, lease).await?;
    }
    Ok(given.len())
}
