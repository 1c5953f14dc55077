//! Whether the owners of leases are alive, seen from outside.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use shardwell::core::leasing::{LeaseTiming, Observations};
use shardwell::core::{FleetSettings, Monotonic};
use shardwell::{Env, EnvExt, Lease, LeaseKey, LeaseListing, LeaseStore, WorkerId};

/// What is known about the owners of some leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody has a lease, or nobody has renewed one for the lease duration.
    NobodyLives,
    /// This worker has renewed a lease, or taken one.
    Lives(WorkerId),
    /// Not known yet; look again.
    Undecided,
}

/// A watch over the leases of an application.
#[derive(Debug, Default)]
pub(super) struct Watch {
    observations: Observations,
    /// The counters at the first look.
    first: Option<BTreeMap<LeaseKey, u64>>,
}

impl Watch {
    /// Takes note of a listing that was asked for at `asked`, and judges.
    pub(super) fn look(&mut self, leases: &[Lease], duration: Duration, asked: Monotonic) -> Verdict {
        self.observations.observe(leases, asked);
        let first = self.first.get_or_insert_with(|| {
            leases.iter().map(|lease| (lease.key.clone(), lease.counter)).collect::<BTreeMap<_, _>>()
        });
        let mut undecided = false;
        for lease in leases {
            let Some(owner) = lease.actual_owner() else { continue };
            if first.get(&lease.key) != Some(&lease.counter) {
                return Verdict::Lives(owner.clone());
            }
            undecided |= !self.observations.is_expired(lease, duration, asked);
        }
        if undecided { Verdict::Undecided } else { Verdict::NobodyLives }
    }
}

/// How long a lease holds without being renewed: the KCL's default where no worker has written its settings.
pub(super) fn lease_duration(settings: Option<&FleetSettings>) -> Duration {
    settings.map_or(Duration::from_secs(10), |settings| settings.lease_duration)
}

/// How often to look, at most: a living owner is noticed soon, however long its leases last.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Watches until it is known whether any owner lives. `waiting` is told once if that takes time.
pub(super) async fn until_decided(
    env: &dyn Env,
    store: &dyn LeaseStore,
    duration: Duration,
    waiting: impl FnOnce(&LeaseListing) + Send,
) -> Result<Verdict> {
    let mut watch = Watch::default();
    let mut waiting = Some(waiting);
    loop {
        let asked = env.now();
        let listing = store.leases().await?;
        match watch.look(&listing.leases, duration, asked) {
            Verdict::Undecided => {
                if let Some(waiting) = waiting.take() {
                    waiting(&listing);
                }
                env.sleep(LeaseTiming::new(duration).margin().min(LONGEST_PAUSE)).await;
            }
            decided @ (Verdict::NobodyLives | Verdict::Lives(_)) => return Ok(decided),
        }
    }
}

#[cfg(test)]
mod tests {
    use shardwell::Checkpoint;

    use super::*;

    const DURATION: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Monotonic {
        Monotonic::from_origin(Duration::from_secs(seconds))
    }

    fn lease(owner: Option<&str>, counter: u64) -> Lease {
        let mut lease = Lease::new("a".into(), Checkpoint::TrimHorizon);
        lease.owner = owner.map(Into::into);
        lease.counter = counter;
        lease
    }

    #[test]
    fn leases_without_owners_need_no_watching() {
        assert_eq!(Watch::default().look(&[lease(None, 3)], DURATION, at(0)), Verdict::NobodyLives);
        assert_eq!(Watch::default().look(&[], DURATION, at(0)), Verdict::NobodyLives);
    }

    #[test]
    fn a_counter_that_stands_still_for_the_lease_duration_is_a_dead_owners() {
        let mut watch = Watch::default();
        let leases = [lease(Some("w"), 3)];
        assert_eq!(watch.look(&leases, DURATION, at(0)), Verdict::Undecided);
        assert_eq!(watch.look(&leases, DURATION, at(10)), Verdict::Undecided);
        assert_eq!(watch.look(&leases, DURATION, at(11)), Verdict::NobodyLives);
    }

    #[test]
    fn a_counter_that_moves_and_a_lease_that_is_new_are_a_living_owners() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(&[lease(Some("w"), 3)], DURATION, at(0)), Verdict::Undecided);
        assert_eq!(watch.look(&[lease(Some("w"), 4)], DURATION, at(1)), Verdict::Lives("w".into()));
        let mut watch = Watch::default();
        assert_eq!(watch.look(&[lease(Some("w"), 3)], DURATION, at(0)), Verdict::Undecided);
        let mut new = lease(Some("x"), 0);
        new.key = "b".into();
        assert_eq!(watch.look(&[lease(Some("w"), 3), new], DURATION, at(1)), Verdict::Lives("x".into()));
    }
}
