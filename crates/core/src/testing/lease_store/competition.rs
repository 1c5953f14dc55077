//! Many at once: a conditional write has one winner.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::fixtures::{created, owned, renew, renewal, renewed, shard, stored, worker};
use crate::{
    Assignment, Checkpoint, Conditional, Created, FleetSettings, LeaderLock, Lease, LeaseStore, RenewOutcome, WorkerId,
};

const COMPETITORS: usize = 8;
const ROUNDS: usize = 10;
const LEASES: usize = 40;

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: LeaseStore + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    one_of_many_creates_a_lease(&*make().await).await;
    one_of_many_gets_a_lease(&*make().await).await;
    no_lease_is_won_twice(&*make().await).await;
    one_of_many_tokens_renews(&*make().await).await;
    one_of_many_leads(&*make().await).await;
    one_of_many_sets_the_settings(&*make().await).await;
    an_owner_is_not_disturbed_by_others(&*make().await).await;
}

/// Runs a future per competitor, each with a handle of its own, all at once, and gives their answers in order.
async fn compete<S, T, F>(store: &S, run: impl Fn(usize, WorkerId, Arc<dyn LeaseStore>) -> F) -> Vec<T>
where
    S: LeaseStore + ?Sized,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "a test harness on real threads, outside of any `Env`")]
    let tasks: Vec<_> =
        (0..COMPETITORS).map(|i| tokio::spawn(run(i, worker(&format!("worker-{i}")), store.dedicated()))).collect();
    join_all(tasks).await.into_iter().map(|joined| joined.expect("a competitor does not panic")).collect()
}

/// The index of the only `true`.
fn only_winner(wins: &[bool]) -> usize {
    assert_eq!(wins.iter().filter(|won| **won).count(), 1, "one wins: {wins:?}");
    wins.iter().position(|won| *won).expect("just counted")
}

async fn one_of_many_creates_a_lease<S: LeaseStore + ?Sized>(store: &S) {
    let wins = compete(store, |_, _, store| async move {
        let lease = Lease::new(shard(0), Checkpoint::TrimHorizon);
        store.create_lease(&lease).await.expect("an answer") == Created::New
    });
    only_winner(&wins.await);
}

async fn one_of_many_gets_a_lease<S: LeaseStore + ?Sized>(store: &S) {
    let mut row = created(store, &Lease::new(shard(0), Checkpoint::TrimHorizon)).await;
    for _ in 0..ROUNDS {
        let wins = compete(store, |_, me, store| {
            let assignment = Assignment::of(&row, me);
            async move { store.assign(&assignment).await.expect("an answer").applied().is_some() }
        });
        let winner = only_winner(&wins.await);
        let after = stored(store, &row.key).await;
        assert_eq!(after.owner, Some(worker(&format!("worker-{winner}"))), "who was told so owns it");
        assert_eq!(after.counter, row.counter + 1);
        row = after;
    }
}

async fn no_lease_is_won_twice<S: LeaseStore + ?Sized>(store: &S) {
    let mut rows = Vec::new();
    for n in 0..LEASES {
        rows.push(created(store, &Lease::new(shard(n), Checkpoint::TrimHorizon)).await);
    }
    let won = compete(store, |i, me, store| {
        // Each starts elsewhere, so that they meet in the middle rather than follow each other.
        let mut order = rows.clone();
        order.rotate_left(i * LEASES / COMPETITORS);
        async move {
            let mut won = Vec::new();
            for row in order {
                match store.assign(&Assignment::of(&row, me.clone())).await.expect("an answer") {
                    Conditional::Applied(after) => won.push(after),
                    Conditional::Refused(after) => {
                        assert_ne!(after.expect("the row is there").owner, None, "refused because it was given away");
                    }
                }
            }
            won
        }
    });
    let won = won.await;
    assert_eq!(won.iter().map(Vec::len).sum::<usize>(), LEASES, "every lease is won once");
    for row in won.into_iter().flatten() {
        assert_eq!(stored(store, &row.key).await, row);
    }
}

async fn one_of_many_tokens_renews<S: LeaseStore + ?Sized>(store: &S) {
    let owner = worker("owner");
    let mut row = owned(store, 0, &owner).await;
    for round in 0..ROUNDS {
        let wins = compete(store, |i, _, store| {
            let (owner, renewal) = (owner.clone(), renewal(&row, (round * COMPETITORS + i) as u64));
            async move { matches!(renew(&*store, &owner, renewal).await, RenewOutcome::Renewed(_)) }
        });
        let winner = only_winner(&wins.await);
        let after = stored(store, &row.key).await;
        assert_eq!(after.token.map(crate::WriteToken::get), Some((round * COMPETITORS + winner) as u64));
        assert_eq!(after.counter, row.counter + 1);
        row = after;
    }
}

async fn one_of_many_leads<S: LeaseStore + ?Sized>(store: &S) {
    let mut seen: Option<String> = None;
    for round in 0..ROUNDS {
        let wins = compete(store, |_, me, store| {
            let lock = LeaderLock {
                version: format!("{round}/{me}"),
                owner: me,
                duration: Duration::from_secs(10),
                released: false,
                standbys: Vec::new(),
            };
            let seen = seen.clone();
            async move { store.swap_leader_lock(seen.as_deref(), Some(&lock)).await.expect("an answer") }
        });
        let winner = only_winner(&wins.await);
        let lock = store.leader_lock().await.expect("an answer").expect("there is a lock");
        assert_eq!(lock.version, format!("{round}/worker-{winner}"));
        seen = Some(lock.version);
    }
}

async fn one_of_many_sets_the_settings<S: LeaseStore + ?Sized>(store: &S) {
    let wins = compete(store, |i, _, store| async move {
        let mine = FleetSettings::new(Duration::from_secs(1 + i as u64));
        store.swap_fleet_settings(None, &mine).await.expect("an answer")
    });
    let winner = only_winner(&wins.await);
    let settings = store.fleet_settings().await.expect("an answer").expect("there are settings");
    assert_eq!(settings.lease_duration, Duration::from_secs(1 + winner as u64));
}

async fn an_owner_is_not_disturbed_by_others<S: LeaseStore + ?Sized>(store: &S) {
    for i in 0..COMPETITORS {
        owned(store, i, &worker(&format!("worker-{i}"))).await;
    }
    let counters = compete(store, |i, me, store| async move {
        let mut row = stored(&*store, &super::fixtures::key(i)).await;
        for token in 0..ROUNDS {
            row = renewed(&*store, &me, renewal(&row, token as u64)).await;
        }
        row.counter
    });
    for counter in counters.await {
        assert_eq!(counter, 1 + ROUNDS as u64, "every renewal of an undisputed lease is applied");
    }
}
