//! Rows come and go, and keep every attribute.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::fixtures::{at, created, key, owned, renewal, renewed, shard, stored, worker};
use crate::{
    Checkpoint, CheckpointWrite, Conditional, Created, ExtendedSequenceNumber, HashKeyRange, Lease, LeaseKey,
    LeaseListing, LeaseMeta, LeaseStore, MAX_CHECKPOINT_STATE_BYTES, MAX_SEQUENCE_NUMBER_DIGITS, PendingCheckpoint,
    PendingWrite, Renewal, StoreErrorKind, WriteToken,
};

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: LeaseStore + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    preparing_again_keeps_the_table(&*make().await).await;
    a_lease_is_created_once(&*make().await).await;
    a_lease_with_an_owner_is_not_created(&*make().await).await;
    leases_are_listed_in_order(&*make().await).await;
    leases_are_found_by_owner(&*make().await).await;
    ancestry_round_trips(&*make().await).await;
    checkpoints_round_trip(&*make().await).await;
    what_an_owner_writes_round_trips(&*make().await).await;
    pending_checkpoints_round_trip(&*make().await).await;
    large_state_round_trips(&*make().await).await;
    facts_about_a_shard_are_updated(&*make().await).await;
    deleted_leases_are_gone(&*make().await).await;
    a_dedicated_handle_sees_the_same_table(&*make().await).await;
}

async fn preparing_again_keeps_the_table<S: LeaseStore + ?Sized>(store: &S) {
    store.prepare().await.expect("an empty table is prepared");
    let row = created(store, &Lease::new(shard(0), Checkpoint::Latest)).await;
    store.prepare().await.expect("a table is prepared again");
    assert_eq!(stored(store, &row.key).await, row);
}

async fn a_lease_is_created_once<S: LeaseStore + ?Sized>(store: &S) {
    assert_eq!(store.lease(&key(0)).await.expect("an answer"), None);
    let first = Lease::new(shard(0), Checkpoint::TrimHorizon);
    assert_eq!(created(store, &first).await, first);
    let second = Lease::new(shard(0), Checkpoint::Latest);
    assert_eq!(store.create_lease(&second).await.expect("an answer"), Created::Existed);
    assert_eq!(stored(store, &first.key).await, first, "the row stays as it is");
}

async fn a_lease_with_an_owner_is_not_created<S: LeaseStore + ?Sized>(store: &S) {
    let taken = Lease { owner: Some(worker("a")), counter: 1, ..Lease::new(shard(0), Checkpoint::Latest) };
    let error = store.create_lease(&taken).await.expect_err("the row would have an owner");
    assert_eq!(error.kind(), StoreErrorKind::Invalid);
    assert_eq!(store.lease(&taken.key).await.expect("an answer"), None);
}

async fn leases_are_listed_in_order<S: LeaseStore + ?Sized>(store: &S) {
    assert_eq!(store.leases().await.expect("a listing"), LeaseListing::default());
    let mut keys: Vec<String> = [10, 9, 2, 1, 11].iter().map(|n| format!("shardId-{n:012}")).collect();
    keys.extend(["Shard", "shard", "shard'; --", "größer", "z", "1:s:2:shardId-000000000000"].map(String::from));
    for name in &keys {
        created(store, &Lease::new(name.as_str().into(), Checkpoint::Latest)).await;
    }
    keys.sort();
    let listing = store.leases().await.expect("a listing");
    let listed: Vec<_> = listing.leases.iter().map(|lease| lease.key.as_str().to_owned()).collect();
    assert_eq!(listed, keys, "ordered by the bytes of the key");
    assert!(listing.unreadable.is_empty());
    for lease in &listing.leases {
        assert_eq!(&stored(store, &lease.key).await, lease, "a listing shows what a single read does");
    }
}

async fn leases_are_found_by_owner<S: LeaseStore + ?Sized>(store: &S) {
    let (a, b) = (worker("a"), worker("b"));
    for n in [3, 1, 2] {
        owned(store, n, &a).await;
    }
    owned(store, 4, &b).await;
    created(store, &Lease::new(shard(5), Checkpoint::Latest)).await;
    assert_eq!(store.leases_of(&a).await.expect("keys"), [key(1), key(2), key(3)]);
    assert_eq!(store.leases_of(&b).await.expect("keys"), [key(4)]);
    assert!(store.leases_of(&worker("c")).await.expect("keys").is_empty());
}

async fn ancestry_round_trips<S: LeaseStore + ?Sized>(store: &S) {
    let one_key = |k| HashKeyRange::new(k, k).expect("a range");
    let ranges =
        [None, Some(HashKeyRange::FULL), Some(one_key(0)), Some(one_key(u128::MAX)), HashKeyRange::new(1, 2).ok()];
    for (n, hash_key_range) in ranges.into_iter().enumerate() {
        let lease = Lease {
            key: LeaseKey::from(format!("123456789012:flights:1700000000:{}", shard(n))),
            stream: Some("123456789012:flights:1700000000".into()),
            parents: (0..n).map(shard).collect(),
            children: (100..100 + n).map(shard).collect(),
            hash_key_range,
            ..Lease::new(shard(n), Checkpoint::TrimHorizon)
        };
        assert_eq!(created(store, &lease).await, lease);
    }
}

async fn checkpoints_round_trip<S: LeaseStore + ?Sized>(store: &S) {
    let longest = "9".repeat(MAX_SEQUENCE_NUMBER_DIGITS).parse().expect("a sequence number");
    let typical = "49590338271490256608559692538361571095921575989136588898".parse().expect("a sequence number");
    let checkpoints = [
        Checkpoint::AtTimestamp,
        Checkpoint::TrimHorizon,
        Checkpoint::Latest,
        at(0, 0),
        at(u64::MAX, 1),
        Checkpoint::At(ExtendedSequenceNumber::new(typical, 17)),
        Checkpoint::At(ExtendedSequenceNumber::new(longest, i64::MAX as u64)),
        Checkpoint::ShardEnd,
    ];
    let a = worker("a");
    for (n, checkpoint) in checkpoints.into_iter().enumerate() {
        let row = created(store, &Lease::new(shard(n), checkpoint)).await;
        assert_eq!(row.checkpoint, checkpoint, "as created");
        let row = created(store, &Lease::new(shard(100 + n), Checkpoint::Latest)).await;
        let row = super::fixtures::assigned(store, &row, &a).await;
        let row = renewed(store, &a, super::fixtures::checkpointing(&row, 1, checkpoint)).await;
        assert_eq!(row.checkpoint, checkpoint, "as written by a renewal");
    }
}

async fn what_an_owner_writes_round_trips<S: LeaseStore + ?Sized>(store: &S) {
    let a = worker("host-1/größe:4711:0123456789abcdef");
    let mut row = owned(store, 0, &a).await;
    for (token, kbps) in [(0, 0.0), (1, 12.345678), (u64::MAX, 1_048_576.0), (1 << 63, 0.000001)] {
        row = renewed(store, &a, Renewal { throughput_kbps: Some(kbps), ..renewal(&row, token) }).await;
        assert_eq!((row.throughput_kbps, row.token), (Some(kbps), Some(WriteToken::new(token))));
    }
    for (version, data) in
        [(0, Bytes::new()), (1, Bytes::from_static(b"\0\xff'")), (u32::MAX, Bytes::from_static(b"x"))]
    {
        let write = CheckpointWrite { state: Some((version, data.clone())), ..CheckpointWrite::new(at(7, 3)) };
        row = renewed(store, &a, Renewal { checkpoint: Some(write), ..renewal(&row, 9) }).await;
        let state = row.state().expect("the state belongs to the checkpoint");
        assert_eq!((state.belongs_to, state.version, &state.data), (at(7, 3), version, &data));
    }
}

async fn pending_checkpoints_round_trip<S: LeaseStore + ?Sized>(store: &S) {
    let a = worker("a");
    let mut row = owned(store, 0, &a).await;
    let states = [None, Some(Bytes::new()), Some(Bytes::from_static(b"\0state\xff"))];
    for (checkpoint, state) in [at(9, 1), Checkpoint::ShardEnd, Checkpoint::Latest].into_iter().zip(states) {
        let pending = PendingCheckpoint { checkpoint, state };
        let write =
            CheckpointWrite { pending: PendingWrite::Set(pending.clone()), ..CheckpointWrite::new(row.checkpoint) };
        row = renewed(store, &a, Renewal { checkpoint: Some(write), ..renewal(&row, 1) }).await;
        assert_eq!(row.pending_checkpoint, Some(pending));
        assert_eq!(row.checkpoint, Checkpoint::TrimHorizon, "what is committed stays");
    }
}

async fn large_state_round_trips<S: LeaseStore + ?Sized>(store: &S) {
    let a = worker("a");
    let row = owned(store, 0, &a).await;
    let data: Bytes = (0..MAX_CHECKPOINT_STATE_BYTES).map(|i| (i % 251) as u8).collect();
    let write = CheckpointWrite { state: Some((1, data.clone())), ..CheckpointWrite::new(at(1, 0)) };
    let row = renewed(store, &a, Renewal { checkpoint: Some(write), ..renewal(&row, 1) }).await;
    assert_eq!(row.state().map(|state| &state.data), Some(&data));
}

async fn facts_about_a_shard_are_updated<S: LeaseStore + ?Sized>(store: &S) {
    let before = owned(store, 0, &worker("a")).await;
    let children: BTreeSet<_> = [shard(8), shard(7)].into();
    let range = HashKeyRange::new(5, u128::MAX - 5).expect("a range");
    for meta in [LeaseMeta::Children(children), LeaseMeta::HashKeyRange(range), LeaseMeta::Children(BTreeSet::new())] {
        let expected = meta.apply(&stored(store, &before.key).await);
        assert_eq!(expected.counter, before.counter, "the counter is untouched");
        let answer = store.update_meta(&before.key, &meta).await.expect("an answer");
        assert_eq!(super::fixtures::applied(store, answer).await, expected);
    }
    let answer = store.update_meta(&key(1), &LeaseMeta::HashKeyRange(range)).await.expect("an answer");
    assert_eq!(answer, Conditional::Refused(None), "there is no such row");
    assert_eq!(store.lease(&key(1)).await.expect("an answer"), None, "a refused write makes no row");
}

async fn deleted_leases_are_gone<S: LeaseStore + ?Sized>(store: &S) {
    let a = worker("a");
    let row = owned(store, 0, &a).await;
    owned(store, 1, &a).await;
    store.delete_lease(&row.key).await.expect("deleted, whatever its state");
    store.delete_lease(&row.key).await.expect("gone already is fine");
    assert_eq!(store.lease(&row.key).await.expect("an answer"), None);
    assert_eq!(store.leases_of(&a).await.expect("keys"), [key(1)]);
    super::fixtures::lost(store, &a, renewal(&row, 1)).await;
    created(store, &Lease::new(shard(0), Checkpoint::Latest)).await;
}

async fn a_dedicated_handle_sees_the_same_table<S: LeaseStore + ?Sized>(store: &S) {
    let (a, dedicated) = (worker("a"), store.dedicated());
    let row = owned(store, 0, &a).await;
    assert_eq!(stored(&*dedicated, &row.key).await, row, "what was written before it connected");
    let row = renewed(&*dedicated, &a, renewal(&row, 1)).await;
    assert_eq!(stored(store, &row.key).await, row, "and back");
    let again = dedicated.dedicated();
    drop(dedicated);
    assert_eq!(stored(&*again, &row.key).await, row, "a handle outlives the one that it came from");
}
