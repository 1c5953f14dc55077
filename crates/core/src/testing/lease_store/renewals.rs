//! Renewals: their condition, their effect, and what becomes of a lost reply.

use std::sync::Arc;

use bytes::Bytes;

use super::fixtures::{
    assigned, at, checkpointing, created, key, lost, owned, renew, renew_all, renewal, renewed, shard, stored, worker,
};
use crate::{
    Assignment, Checkpoint, CheckpointWrite, HandoffStart, Lease, LeaseStore, PendingCheckpoint, PendingWrite,
    RenewOutcome, Renewal, WriteToken,
};

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: LeaseStore + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    a_renewal_needs_counter_and_owner(&*make().await).await;
    a_plain_renewal_writes_counter_token_and_throughput(&*make().await).await;
    a_checkpoint_is_written_with_the_renewal(&*make().await).await;
    a_repeated_renewal_counts_as_applied(&*make().await).await;
    a_handoff_shows_on_every_renewal(&*make().await).await;
    an_earlier_owner_is_fenced(&*make().await).await;
    many_renewals_are_answered_one_by_one(&*make().await).await;
    no_renewals_have_no_answers(&*make().await).await;
}

async fn a_renewal_needs_counter_and_owner<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let row = owned(store, 0, &a).await;
    lost(store, &b, renewal(&row, 1)).await;
    for counter in [0, row.counter - 1, row.counter + 1, row.counter + 2, i64::MAX as u64] {
        lost(store, &a, Renewal { counter, ..renewal(&row, 1) }).await;
        lost(store, &a, Renewal { counter, ..checkpointing(&row, 1, at(1, 0)) }).await;
    }
    lost(store, &a, Renewal { key: key(99), ..renewal(&row, 1) }).await;
    let free = created(store, &Lease::new(shard(1), Checkpoint::Latest)).await;
    lost(store, &a, renewal(&free, 1)).await;
    renewed(store, &a, renewal(&row, 1)).await;
}

async fn a_plain_renewal_writes_counter_token_and_throughput<S: LeaseStore + ?Sized>(store: &S) {
    let a = worker("a");
    let row = owned(store, 0, &a).await;
    let write = CheckpointWrite {
        checkpoint: at(5, 2),
        state: Some((3, Bytes::from_static(b"state"))),
        pending: PendingWrite::Set(PendingCheckpoint { checkpoint: at(6, 0), state: None }),
    };
    let full = Renewal { throughput_kbps: Some(2.5), checkpoint: Some(write), ..renewal(&row, 1) };
    let before = renewed(store, &a, full).await;
    let after = renewed(store, &a, renewal(&before, 2)).await;
    let expected = Lease { counter: before.counter + 1, token: Some(WriteToken::new(2)), ..before };
    assert_eq!(after, expected, "checkpoint, state, pending checkpoint and known throughput stay");
}

async fn a_checkpoint_is_written_with_the_renewal<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let row = owned(store, 0, &a).await;
    let row = assigned(store, &row, &b).await;
    assert_eq!(row.owner_switches_since_checkpoint, 1);
    let pending = PendingWrite::Set(PendingCheckpoint { checkpoint: at(9, 9), state: Some(Bytes::from_static(b"p")) });
    let write = CheckpointWrite { checkpoint: at(8, 1), state: Some((2, Bytes::from_static(b"s"))), pending };
    let row = renewed(store, &b, Renewal { checkpoint: Some(write), ..renewal(&row, 1) }).await;
    assert_eq!((row.checkpoint, row.owner_switches_since_checkpoint), (at(8, 1), 0));
    assert_eq!(row.state().map(|state| state.version), Some(2));
    assert!(row.pending_checkpoint.is_some());

    let cleared = renewed(store, &b, checkpointing(&row, 2, at(8, 2))).await;
    let expected = Lease {
        counter: row.counter + 1,
        token: Some(WriteToken::new(2)),
        checkpoint: at(8, 2),
        checkpoint_state: None,
        pending_checkpoint: None,
        ..row
    };
    assert_eq!(cleared, expected, "state and pending checkpoint are removed");
}

async fn a_repeated_renewal_counts_as_applied<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let row = owned(store, 0, &a).await;
    for (write, other) in
        [(renewal(&row, 7), renewal(&row, 8)), (checkpointing(&row, 7, at(1, 0)), checkpointing(&row, 8, at(1, 0)))]
    {
        let seen = stored(store, &row.key).await;
        let (write, other) = (Renewal { counter: seen.counter, ..write }, Renewal { counter: seen.counter, ..other });
        let once = renewed(store, &a, write.clone()).await;
        let twice = renewed(store, &a, write.clone()).await;
        assert_eq!(once, twice, "nothing changes");
        lost(store, &a, other).await;
        let later = renewed(store, &a, renewal(&once, 9)).await;
        lost(store, &a, write).await;
        assert_eq!(later.counter, once.counter + 1);
    }

    let seen = stored(store, &row.key).await;
    let write = checkpointing(&seen, 11, at(2, 0));
    renewed(store, &a, write.clone()).await;
    let handoff = HandoffStart { key: row.key.clone(), from: a.clone(), to: b };
    store.start_handoff(&handoff).await.expect("an answer").applied().expect("applied");
    let outcome = renew(store, &a, write).await;
    assert!(matches!(outcome, RenewOutcome::HandoffRequested(_)), "applied, and a handoff came since: {outcome:?}");
}

async fn a_handoff_shows_on_every_renewal<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let row = owned(store, 0, &a).await;
    let handoff = HandoffStart { key: row.key.clone(), from: a.clone(), to: b.clone() };
    let mut row = store.start_handoff(&handoff).await.expect("an answer").applied().expect("applied");
    for (token, checkpoint) in [(1, None), (2, Some(at(1, 0))), (3, None), (4, Some(Checkpoint::ShardEnd))] {
        let checkpoint = checkpoint.map(CheckpointWrite::new);
        let wrote = checkpoint.as_ref().map(|write| write.checkpoint);
        match renew(store, &a, Renewal { checkpoint, ..renewal(&row, token) }).await {
            RenewOutcome::HandoffRequested(after) => {
                assert_eq!(after, stored(store, &row.key).await);
                assert_eq!(after.counter, row.counter + 1, "the lease still holds");
                assert_eq!(after.checkpoint, wrote.unwrap_or(row.checkpoint));
                assert_eq!((&after.owner, &after.checkpoint_owner), (&Some(b.clone()), &Some(a.clone())));
                row = after;
            }
            other => panic!("the handoff shows: {other:?}"),
        }
    }
    lost(store, &worker("c"), renewal(&row, 5)).await;
}

/// L1: after a lease changes hands, nothing that an earlier owner writes is applied.
async fn an_earlier_owner_is_fenced<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let by_a = owned(store, 0, &a).await;
    let by_b = assigned(store, &by_a, &b).await;
    for counter in by_a.counter..=by_b.counter + 1 {
        lost(store, &a, Renewal { counter, ..renewal(&by_a, 1) }).await;
        lost(store, &a, Renewal { counter, ..checkpointing(&by_a, 2, at(99, 0)) }).await;
    }
    let again = assigned(store, &by_b, &a).await;
    lost(store, &a, checkpointing(&by_a, 3, at(99, 0))).await;
    lost(store, &b, checkpointing(&by_b, 4, at(99, 0))).await;

    let handoff = HandoffStart { key: again.key.clone(), from: a.clone(), to: b.clone() };
    let during = store.start_handoff(&handoff).await.expect("an answer").applied().expect("applied");
    let ended = assigned(store, &during, &b).await;
    for counter in [again.counter, during.counter, ended.counter] {
        lost(store, &a, Renewal { counter, ..checkpointing(&again, 5, at(99, 0)) }).await;
    }
    assert_eq!(stored(store, &ended.key).await.checkpoint, Checkpoint::TrimHorizon);
}

async fn many_renewals_are_answered_one_by_one<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    let mut renewals = Vec::new();
    for n in 0..300 {
        let row = match n % 6 {
            4 => created(store, &Lease::new(shard(n), Checkpoint::Latest)).await,
            5 => owned(store, n, &b).await,
            _ => owned(store, n, &a).await,
        };
        renewals.push(match n % 6 {
            0 => checkpointing(&row, n as u64, at(n as u64, 1)),
            1 => Renewal { throughput_kbps: Some(n as f64), ..renewal(&row, n as u64) },
            2 => {
                let handoff = HandoffStart { key: row.key.clone(), from: a.clone(), to: b.clone() };
                store.start_handoff(&handoff).await.expect("an answer").applied().expect("applied");
                renewal(&row, n as u64)
            }
            3 => Renewal { counter: row.counter + 1, ..renewal(&row, n as u64) },
            _ => renewal(&row, n as u64),
        });
    }
    renewals.push(renewal(&Lease::new(shard(999), Checkpoint::Latest), 999));
    let asked = renewals.clone();
    for (n, (answer, asked)) in renew_all(store, &a, renewals).await.into_iter().zip(asked).enumerate() {
        let row = store.lease(&answer.key).await.expect("an answer");
        match answer.outcome {
            RenewOutcome::Renewed(renewed) if n % 6 < 2 && n < 300 => {
                assert_eq!(renewed.token, Some(asked.token), "each with its own token");
                assert_eq!(renewed.counter, asked.counter + 1);
                assert_eq!(renewed.throughput_kbps, asked.throughput_kbps);
                assert_eq!(Some(renewed), row);
            }
            RenewOutcome::HandoffRequested(renewed) if n % 6 == 2 => assert_eq!(Some(renewed), row),
            RenewOutcome::Lost(seen) if n % 6 > 2 || n == 300 => assert_eq!(seen, row),
            other => panic!("lease {n}: {other:?}"),
        }
    }
}

async fn no_renewals_have_no_answers<S: LeaseStore + ?Sized>(store: &S) {
    assert!(renew_all(store, &worker("a"), Vec::new()).await.is_empty());
    let row = owned(store, 0, &worker("a")).await;
    drop(store.renew(&worker("a"), vec![renewal(&row, 1)]));
    let after = stored(store, &row.key).await;
    let not_started = after == row || after.counter == row.counter + 1;
    assert!(not_started, "a dropped renewal is applied whole or not at all: {after:?}");
    store.assign(&Assignment::of(&after, worker("b"))).await.expect("an answer").applied().expect("not locked");
}
