//! What the tests of the suite share.

use futures_util::StreamExt;

use crate::{
    Assignment, Checkpoint, CheckpointWrite, Conditional, Created, ExtendedSequenceNumber, Lease, LeaseKey, LeaseStore,
    RenewOutcome, Renewal, Renewed, ShardId, WorkerId, WriteToken,
};

pub(super) fn worker(name: &str) -> WorkerId {
    WorkerId::from(name)
}

pub(super) fn shard(n: usize) -> ShardId {
    ShardId::from(format!("shardId-{n:012}"))
}

pub(super) fn key(n: usize) -> LeaseKey {
    LeaseKey::from(&shard(n))
}

pub(super) fn at(number: u64, sub: u64) -> Checkpoint {
    Checkpoint::At(ExtendedSequenceNumber::new(number.into(), sub))
}

/// Creates a lease that must be new.
pub(super) async fn created<S: LeaseStore + ?Sized>(store: &S, lease: &Lease) -> Lease {
    let answer = store.create_lease(lease).await.expect("the lease is created");
    assert_eq!(answer, Created::New, "{} is new", lease.key);
    stored(store, &lease.key).await
}

/// Creates the lease of a shard and gives it to a worker.
pub(super) async fn owned<S: LeaseStore + ?Sized>(store: &S, n: usize, owner: &WorkerId) -> Lease {
    let row = created(store, &Lease::new(shard(n), Checkpoint::TrimHorizon)).await;
    assigned(store, &row, owner).await
}

/// Gives a lease to a worker, which must work.
pub(super) async fn assigned<S: LeaseStore + ?Sized>(store: &S, seen: &Lease, to: &WorkerId) -> Lease {
    let assignment = Assignment::of(seen, to.clone());
    applied(store, store.assign(&assignment).await.expect("an answer")).await
}

/// The row, which must be there.
pub(super) async fn stored<S: LeaseStore + ?Sized>(store: &S, key: &LeaseKey) -> Lease {
    store.lease(key).await.expect("the row is read").unwrap_or_else(|| panic!("{key} is there"))
}

/// The row that a write left, which must be the stored one.
pub(super) async fn applied<S: LeaseStore + ?Sized>(store: &S, answer: Conditional) -> Lease {
    let Conditional::Applied(row) = answer else { panic!("the condition holds: {answer:?}") };
    assert_eq!(stored(store, &row.key).await, row, "the answer shows the row as it is");
    row
}

/// Asserts that a write was refused with the row as it is, and changed nothing.
pub(super) async fn refused<S: LeaseStore + ?Sized>(store: &S, answer: Conditional, before: &Lease) {
    assert_eq!(answer, Conditional::Refused(Some(before.clone())), "refused with the row as it is");
    assert_eq!(&stored(store, &before.key).await, before, "a refused write changes nothing");
}

/// A plain renewal of the row as it was seen.
pub(super) fn renewal(seen: &Lease, token: u64) -> Renewal {
    Renewal {
        key: seen.key.clone(),
        counter: seen.counter,
        token: WriteToken::new(token),
        throughput_kbps: None,
        checkpoint: None,
    }
}

/// A renewal that checkpoints without state.
pub(super) fn checkpointing(seen: &Lease, token: u64, checkpoint: Checkpoint) -> Renewal {
    Renewal { checkpoint: Some(CheckpointWrite::new(checkpoint)), ..renewal(seen, token) }
}

/// The answers to many renewals, ordered by key; each lease must be answered exactly once.
pub(super) async fn renew_all<S: LeaseStore + ?Sized>(
    store: &S,
    by: &WorkerId,
    renewals: Vec<Renewal>,
) -> Vec<Renewed> {
    let mut asked: Vec<_> = renewals.iter().map(|renewal| renewal.key.clone()).collect();
    asked.sort();
    let mut answers: Vec<_> = store.renew(by, renewals).collect().await;
    answers.sort_by(|a: &Renewed, b: &Renewed| a.key.cmp(&b.key));
    let answered: Vec<_> = answers.iter().map(|answer| answer.key.clone()).collect();
    assert_eq!(answered, asked, "every lease is answered exactly once");
    answers
}

/// The answer to one renewal.
pub(super) async fn renew<S: LeaseStore + ?Sized>(store: &S, by: &WorkerId, renewal: Renewal) -> RenewOutcome {
    renew_all(store, by, vec![renewal]).await.remove(0).outcome
}

/// The row after a renewal that must be applied without a handoff.
pub(super) async fn renewed<S: LeaseStore + ?Sized>(store: &S, by: &WorkerId, renewal: Renewal) -> Lease {
    match renew(store, by, renewal).await {
        RenewOutcome::Renewed(row) => {
            assert_eq!(stored(store, &row.key).await, row, "the answer shows the row as it is");
            row
        }
        other => panic!("the renewal is applied: {other:?}"),
    }
}

/// Asserts that a renewal is refused with the row as it is, and changes nothing.
pub(super) async fn lost<S: LeaseStore + ?Sized>(store: &S, by: &WorkerId, renewal: Renewal) {
    let key = renewal.key.clone();
    let before = store.lease(&key).await.expect("the row is read");
    match renew(store, by, renewal).await {
        RenewOutcome::Lost(row) => assert_eq!(row, before, "lost with the row as it is"),
        other => panic!("the renewal is refused: {other:?}"),
    }
    assert_eq!(store.lease(&key).await.expect("the row is read"), before, "a refused renewal changes nothing");
}
