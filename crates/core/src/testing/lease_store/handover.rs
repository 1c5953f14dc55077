//! Leases change hands: assignment, handoff, eviction.

use std::sync::Arc;

use super::fixtures::{
    applied, assigned, at, checkpointing, created, key, lost, owned, refused, renew, renewal, renewed, shard, worker,
};
use crate::{
    Assignment, Checkpoint, CheckpointState, CheckpointWrite, Conditional, Eviction, HandoffStart, Lease, LeaseStore,
    RenewOutcome, Reset, Seen, WorkerId,
};

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: LeaseStore + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    an_assignment_needs_what_was_seen(&*make().await).await;
    an_assignment_without_a_counter_ignores_renewals(&*make().await).await;
    owner_switches_are_counted(&*make().await).await;
    a_handoff_leaves_the_counter(&*make().await).await;
    a_handoff_needs_its_owner(&*make().await).await;
    a_handoff_ends_with_an_assignment(&*make().await).await;
    an_eviction_frees_a_lease(&*make().await).await;
    an_eviction_during_a_handoff_leaves_the_successor(&*make().await).await;
    an_eviction_needs_what_was_seen(&*make().await).await;
    a_reset_takes_a_lease_from_whoever_has_it(&*make().await).await;
    what_is_not_there_is_refused(&*make().await).await;
}

fn handoff(row: &Lease, from: &WorkerId, to: &WorkerId) -> HandoffStart {
    HandoffStart { key: row.key.clone(), from: from.clone(), to: to.clone() }
}

async fn in_handoff<S: LeaseStore + ?Sized>(store: &S, n: usize, from: &WorkerId, to: &WorkerId) -> Lease {
    let row = owned(store, n, from).await;
    applied(store, store.start_handoff(&handoff(&row, from, to)).await.expect("an answer")).await
}

async fn an_assignment_needs_what_was_seen<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b, c) = (worker("a"), worker("b"), worker("c"));
    let free = created(store, &Lease::new(shard(0), Checkpoint::Latest)).await;
    let by_a = assigned(store, &free, &a).await;
    assert_eq!((by_a.owner.as_ref(), by_a.counter), (Some(&a), free.counter + 1));
    let fits = Assignment::of(&by_a, c.clone());
    for wrong in [
        Assignment { seen: Seen { owner: None, ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { owner: Some(b.clone()), ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { owner: Some(worker("A")), ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { checkpoint_owner: Some(b.clone()), ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { checkpoint_owner: Some(a.clone()), ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { counter: Some(by_a.counter - 1), ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { counter: Some(by_a.counter + 1), ..fits.seen.clone() }, ..fits.clone() },
    ] {
        refused(store, store.assign(&wrong).await.expect("an answer"), &by_a).await;
    }
    let during = in_handoff(store, 1, &a, &b).await;
    let fits = Assignment::of(&during, c.clone());
    for wrong in [
        Assignment { seen: Seen { checkpoint_owner: None, ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { checkpoint_owner: Some(b.clone()), ..fits.seen.clone() }, ..fits.clone() },
        Assignment { seen: Seen { owner: Some(a.clone()), ..fits.seen.clone() }, ..fits.clone() },
    ] {
        refused(store, store.assign(&wrong).await.expect("an answer"), &during).await;
    }
    applied(store, store.assign(&fits).await.expect("an answer")).await;
}

async fn an_assignment_without_a_counter_ignores_renewals<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let seen = owned(store, 0, &a).await;
    let now = renewed(store, &a, renewal(&seen, 1)).await;
    refused(store, store.assign(&Assignment::of(&seen, b.clone())).await.expect("an answer"), &now).await;
    let without = Assignment { seen: Seen { counter: None, ..Seen::of(&seen) }, ..Assignment::of(&seen, b.clone()) };
    let row = applied(store, store.assign(&without).await.expect("an answer")).await;
    assert_eq!((row.owner, row.counter), (Some(b), now.counter + 1));
}

async fn owner_switches_are_counted<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let row = owned(store, 0, &a).await;
    assert_eq!(row.owner_switches_since_checkpoint, 0, "nobody had it before");
    let row = assigned(store, &row, &a).await;
    assert_eq!(row.owner_switches_since_checkpoint, 0, "the same owner again");
    let row = assigned(store, &row, &b).await;
    assert_eq!(row.owner_switches_since_checkpoint, 1, "another owner");
    let row = applied(store, store.start_handoff(&handoff(&row, &b, &a)).await.expect("an answer")).await;
    assert_eq!(row.owner_switches_since_checkpoint, 1, "the start of a handoff");
    let row = assigned(store, &row, &a).await;
    assert_eq!(row.owner_switches_since_checkpoint, 1, "the end of a handoff: its owner had been named");
    let row = applied(store, store.start_handoff(&handoff(&row, &a, &b)).await.expect("an answer")).await;
    let row = assigned(store, &row, &a).await;
    assert_eq!(row.owner_switches_since_checkpoint, 2, "a handoff that is given back");
    let row = applied(store, store.evict(&Eviction::of(&row)).await.expect("an answer")).await;
    let row = assigned(store, &row, &b).await;
    assert_eq!(row.owner_switches_since_checkpoint, 2, "nobody had it in between");
}

async fn a_handoff_leaves_the_counter<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let before = owned(store, 0, &a).await;
    let row = applied(store, store.start_handoff(&handoff(&before, &a, &b)).await.expect("an answer")).await;
    let expected = Lease { owner: Some(b.clone()), checkpoint_owner: Some(a.clone()), ..before };
    assert_eq!(row, expected);
    assert_eq!(row.actual_owner(), Some(&a));
    assert_eq!(store.leases_of(&b).await.expect("keys"), [key(0)], "it is found by its next owner");
    assert!(store.leases_of(&a).await.expect("keys").is_empty());
}

async fn a_handoff_needs_its_owner<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b, c) = (worker("a"), worker("b"), worker("c"));
    let free = created(store, &Lease::new(shard(0), Checkpoint::Latest)).await;
    refused(store, store.start_handoff(&handoff(&free, &a, &b)).await.expect("an answer"), &free).await;
    let row = owned(store, 1, &a).await;
    refused(store, store.start_handoff(&handoff(&row, &b, &c)).await.expect("an answer"), &row).await;
    let during = in_handoff(store, 2, &a, &b).await;
    refused(store, store.start_handoff(&handoff(&during, &a, &c)).await.expect("an answer"), &during).await;
    refused(store, store.start_handoff(&handoff(&during, &b, &c)).await.expect("an answer"), &during).await;
}

async fn a_handoff_ends_with_an_assignment<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let during = in_handoff(store, 0, &a, &b).await;
    let row = assigned(store, &during, &b).await;
    let expected = Lease { checkpoint_owner: None, counter: during.counter + 1, ..during };
    assert_eq!(row, expected);
    renewed(store, &b, renewal(&row, 1)).await;
}

async fn an_eviction_frees_a_lease<S: LeaseStore + ?Sized>(store: &S) {
    let a = worker("a");
    let row = owned(store, 0, &a).await;
    let after = applied(store, store.evict(&Eviction::of(&row)).await.expect("an answer")).await;
    let expected = Lease { owner: None, counter: row.counter + 1, ..row.clone() };
    assert_eq!(after, expected);
    assert!(store.leases_of(&a).await.expect("keys").is_empty());
    lost(store, &a, renewal(&row, 1)).await;
}

async fn an_eviction_during_a_handoff_leaves_the_successor<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let during = in_handoff(store, 0, &a, &b).await;
    let after = applied(store, store.evict(&Eviction::of(&during)).await.expect("an answer")).await;
    let expected = Lease { checkpoint_owner: None, counter: during.counter + 1, ..during };
    assert_eq!(after, expected);
    assert_eq!(after.owner, Some(b));
}

async fn an_eviction_needs_what_was_seen<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let row = owned(store, 0, &a).await;
    let fits = Eviction::of(&row);
    for wrong in [
        Eviction { seen: Seen { owner: None, ..fits.seen.clone() }, ..fits.clone() },
        Eviction { seen: Seen { owner: Some(b.clone()), ..fits.seen.clone() }, ..fits.clone() },
        Eviction { seen: Seen { checkpoint_owner: Some(a.clone()), ..fits.seen.clone() }, ..fits.clone() },
        Eviction { seen: Seen { counter: Some(row.counter + 1), ..fits.seen.clone() }, ..fits.clone() },
    ] {
        refused(store, store.evict(&wrong).await.expect("an answer"), &row).await;
    }
    renewed(store, &a, renewal(&row, 1)).await;
    let without = Eviction { seen: Seen { counter: None, ..fits.seen.clone() }, ..fits };
    applied(store, store.evict(&without).await.expect("an answer")).await;
}

async fn a_reset_takes_a_lease_from_whoever_has_it<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let row = in_handoff(store, 0, &a, &b).await;
    let answer = renew(store, &a, checkpointing(&row, 1, at(7, 0))).await;
    let RenewOutcome::HandoffRequested(row) = answer else { panic!("it renews while it is asked: {answer:?}") };
    let to = CheckpointWrite { state: Some((3, "state".into())), ..CheckpointWrite::new(Checkpoint::TrimHorizon) };
    let after = applied(store, store.reset(&Reset { key: row.key.clone(), to }).await.expect("an answer")).await;
    let state = CheckpointState { belongs_to: Checkpoint::TrimHorizon, version: 3, data: "state".into() };
    let expected = Lease {
        checkpoint: Checkpoint::TrimHorizon,
        checkpoint_state: Some(state),
        counter: row.counter + 1,
        owner: None,
        checkpoint_owner: None,
        token: None,
        ..row.clone()
    };
    assert_eq!(after, expected);
    lost(store, &a, checkpointing(&row, 2, at(8, 0))).await;
    lost(store, &b, renewal(&after, 3)).await;
}

async fn what_is_not_there_is_refused<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let absent = Lease::new(shard(0), Checkpoint::Latest);
    let nothing = Conditional::Refused(None);
    assert_eq!(store.assign(&Assignment::of(&absent, a.clone())).await.expect("an answer"), nothing);
    assert_eq!(store.start_handoff(&handoff(&absent, &a, &b)).await.expect("an answer"), nothing);
    assert_eq!(store.evict(&Eviction::of(&absent)).await.expect("an answer"), nothing);
    assert_eq!(store.lease(&absent.key).await.expect("an answer"), None);
}
