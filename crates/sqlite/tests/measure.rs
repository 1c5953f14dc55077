//! Figures, for people: `cargo test -p shardwell-sqlite --test measure -- --ignored --nocapture`.

use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use shardwell_core::{
    Assignment, Checkpoint, CheckpointWrite, ExtendedSequenceNumber, Lease, LeaseStore, RenewOutcome, Renewal,
    WorkerId, WriteToken,
};
use shardwell_sqlite::SqliteLeaseStore;

#[tokio::test]
#[ignore = "prints figures and asserts no times"]
#[expect(clippy::disallowed_methods, reason = "measures real time")]
async fn renewals_per_second() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = SqliteLeaseStore::open(directory.path().join("leases.db"), "a").await.expect("opened");
    let me = WorkerId::from("me");
    let mut rows = Vec::new();
    for n in 0..2000 {
        let lease = Lease::new(format!("shardId-{n:012}").into(), Checkpoint::Latest);
        store.create_lease(&lease).await.expect("created");
        let assignment = Assignment::of(&lease, me.clone());
        rows.push(store.assign(&assignment).await.expect("an answer").applied().expect("assigned"));
    }
    for (name, size, state) in
        [("no state", 1, 0), ("1 KiB of state", 1, 1024), ("no state", 2000, 0), ("1 KiB of state", 2000, 1024)]
    {
        let (rounds, start) = (if size == 1 { 2000 } else { 5 }, Instant::now());
        for round in 0..rounds {
            let renewals = rows[..size].iter().map(|row| renewal(row, round, state)).collect();
            rows.splice(..size, renewed(&store, &me, renewals).await);
        }
        let each = start.elapsed() / rounds;
        println!("{size} at a time, {name}: {each:?} a call, {:.0} renewals/s", size as f64 / each.as_secs_f64());
    }
}

fn renewal(row: &Lease, round: u32, state: usize) -> Renewal {
    let at = Checkpoint::At(ExtendedSequenceNumber::from(shardwell_core::SequenceNumber::from(u64::from(round))));
    let state = (1, Bytes::from(vec![7; state]));
    let write = CheckpointWrite { state: Some(state), ..CheckpointWrite::new(at) };
    let (key, token) = (row.key.clone(), WriteToken::new(u64::from(round)));
    Renewal { key, counter: row.counter, token, throughput_kbps: Some(1.5), checkpoint: Some(write) }
}

async fn renewed(store: &SqliteLeaseStore, me: &WorkerId, renewals: Vec<Renewal>) -> Vec<Lease> {
    let answers = store.renew(me, renewals).collect::<Vec<_>>().await.into_iter();
    let row = |outcome| match outcome {
        RenewOutcome::Renewed(row) => row,
        other => panic!("renewed: {other:?}"),
    };
    answers.map(|answer| row(answer.outcome)).collect()
}
