//! Waiting until a worker has no leases.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use shardwell::{Env, Lease, LeaseStore, WorkerId};

use crate::cli::table::count;

/// How often to look.
const PAUSE: Duration = Duration::from_secs(1);
/// When nothing has happened for longer than a handoff takes, somebody should look whether the others have room.
const QUIET: Duration = Duration::from_secs(60);

/// What a worker has that it may still work on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) leases: usize,
    /// How many of them are being handed over.
    handing_over: usize,
}

impl Left {
    /// What is done for good stays with whoever did it, and what somebody else is handing over to the worker will be its own.
    pub(super) fn by(leases: &[Lease], worker: &WorkerId) -> Self {
        let unfinished = || leases.iter().filter(|lease| !lease.is_finished());
        let leaves = |lease: &&Lease| lease.checkpoint_owner.as_ref() == Some(worker);
        let stays = |lease: &&Lease| lease.owner.as_ref() == Some(worker);
        let handing_over = unfinished().filter(leaves).count();
        Self {
            leases: handing_over + unfinished().filter(|lease| !leaves(lease) && stays(lease)).count(),
            handing_over,
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to go", count(self.leases))?;
        if self.handing_over > 0 { write!(f, ", {} being handed over", self.handing_over) } else { Ok(()) }
    }
}

/// Waits, and tells the progress on standard error. An error when the time is up, or when the worker is not drained any more.
pub(super) async fn until_empty(
    env: &dyn Env,
    store: &dyn LeaseStore,
    worker: &WorkerId,
    timeout: Option<Duration>,
) -> Result<()> {
    let deadline = timeout.map(|timeout| env.now().plus(timeout));
    let (mut last, mut changed, mut warned) = (None, env.now(), false);
    loop {
        let left = Left::by(&store.leases().await?.leases, worker);
        let time_is_up = deadline.is_some_and(|deadline| env.now() >= deadline);
        // At the first look, a round of planning that began before may not have given it its last lease yet.
        if left.leases == 0 && (time_is_up || last == Some(left)) {
            println!("Worker {worker} has no leases.");
            return Ok(());
        }
        if left.leases > 0 {
            ensure_drained(store, worker, left).await?;
        }
        if last != Some(left) {
            (last, changed) = (Some(left), env.now());
            eprintln!("{left}");
        }
        if time_is_up {
            bail!("{left} when the time was up; worker {worker} stays drained, and `fleet plan` shows what is to move");
        }
        if !warned && env.now().since(changed) >= QUIET {
            warned = true;
            eprintln!("Nothing has happened for {QUIET:?}: does a leader run, and has any other worker room?");
        }
        let next = env.now().plus(PAUSE);
        env.sleep_until(deadline.map_or(next, |deadline| next.min(deadline))).await;
    }
}

/// Whoever is not drained keeps its leases, and there is nothing to wait for.
async fn ensure_drained(store: &dyn LeaseStore, worker: &WorkerId, left: Left) -> Result<()> {
    let settings = store.fleet_settings().await?;
    if settings.is_some_and(|settings| settings.draining.contains(worker)) {
        return Ok(());
    }
    bail!("{left}, and worker {worker} is not being drained any more: somebody has undone it")
}

#[cfg(test)]
mod tests {
    use shardwell::Checkpoint;

    use super::super::sample::{handed, lease};
    use super::*;

    #[test]
    fn all_is_left_that_the_worker_has_or_will_have() {
        let mut finished = lease("f", Some("w"));
        finished.checkpoint = Checkpoint::ShardEnd;
        let rows = [
            lease("a", Some("w")),
            handed("b", "w", "x"),
            handed("c", "x", "w"),
            finished,
            lease("d", Some("x")),
            lease("e", None),
        ];
        let left = Left::by(&rows, &"w".into());
        assert_eq!(left, Left { leases: 3, handing_over: 1 });
        assert_eq!(left.to_string(), "3 leases to go, 1 being handed over");
        assert_eq!(Left::by(&rows, &"e".into()).to_string(), "no leases to go");
    }
}
