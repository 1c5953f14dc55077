//! Random operations, answered by the store under test and by the store in memory.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use super::fixtures::{at, key, renew_all, shard, worker};
use crate::memory::MemoryLeaseStore;
use crate::{
    Assignment, Checkpoint, CheckpointWrite, Eviction, FleetSettings, HandoffStart, HashKeyRange, LeaderLock, Lease,
    LeaseMeta, LeaseStore, PendingCheckpoint, PendingWrite, Renewal, Reset, StreamIdentity, Timestamp, WorkerId,
    WorkerMetrics, WriteToken,
};

const LEASES: usize = 4;
const STREAMS: [&str; 2] = ["flights", "trains"];

/// One call, with its arguments.
#[derive(Debug)]
enum Operation {
    Create(Box<Lease>),
    Renew(WorkerId, Vec<Renewal>),
    Assign(Assignment),
    StartHandoff(HandoffStart),
    Evict(Eviction),
    Reset(Reset),
    UpdateMeta(usize, LeaseMeta),
    Delete(usize),
    PutMetrics(WorkerMetrics),
    DeleteMetrics(WorkerMetrics),
    SwapLeader(Option<String>, Option<LeaderLock>),
    SwapSettings(Option<FleetSettings>, FleetSettings),
    RecordIdentity(StreamIdentity),
    DeleteIdentity(&'static str),
}

/// Runs `steps` random operations on an empty table and on a [`MemoryLeaseStore`]: every answer and, after each step,
/// every row must be equal. The same seed gives the same operations.
///
/// # Panics
/// At the first difference, with the seed, the step and the operation.
pub async fn agrees_with_the_model<S: LeaseStore + ?Sized>(store: &S, seed: u64, steps: usize) {
    let model = MemoryLeaseStore::new();
    let mut random = Rng::with_seed(seed);
    for step in 0..steps {
        let operation = draw(&mut random, &rows(&model).await);
        let (expected, answer) = (run(&model, &operation).await, run(store, &operation).await);
        assert_eq!(answer, expected, "seed {seed}, step {step}: the answer to {operation:#?}");
        let (expected, table) = (snapshot(&model).await, snapshot(store).await);
        assert_eq!(table, expected, "seed {seed}, step {step}: the table after {operation:#?}");
    }
}

async fn rows<S: LeaseStore + ?Sized>(store: &S) -> Vec<Option<Lease>> {
    let mut rows = Vec::new();
    for n in 0..LEASES {
        rows.push(store.lease(&key(n)).await.expect("an answer"));
    }
    rows
}

/// Everything in the table, by its consistent reads.
#[derive(Debug, PartialEq)]
struct Snapshot {
    leases: Vec<Option<Lease>>,
    workers: Vec<WorkerMetrics>,
    leader: Option<LeaderLock>,
    settings: Option<FleetSettings>,
    identities: Vec<Option<StreamIdentity>>,
}

async fn snapshot<S: LeaseStore + ?Sized>(store: &S) -> Snapshot {
    let mut identities = Vec::new();
    for name in STREAMS {
        identities.push(store.stream_identity(name).await.expect("an answer"));
    }
    Snapshot {
        leases: rows(store).await,
        workers: store.worker_metrics().await.expect("an answer"),
        leader: store.leader_lock().await.expect("an answer"),
        settings: store.fleet_settings().await.expect("an answer"),
        identities,
    }
}

/// Carries an operation out and gives the answer as text.
async fn run<S: LeaseStore + ?Sized>(store: &S, operation: &Operation) -> String {
    match operation {
        Operation::Create(lease) => format!("{:?}", store.create_lease(lease).await.expect("an answer")),
        Operation::Renew(by, renewals) => format!("{:?}", renew_all(store, by, renewals.clone()).await),
        Operation::Assign(write) => format!("{:?}", store.assign(write).await.expect("an answer")),
        Operation::StartHandoff(write) => format!("{:?}", store.start_handoff(write).await.expect("an answer")),
        Operation::Evict(write) => format!("{:?}", store.evict(write).await.expect("an answer")),
        Operation::Reset(write) => format!("{:?}", store.reset(write).await.expect("an answer")),
        Operation::UpdateMeta(n, meta) => format!("{:?}", store.update_meta(&key(*n), meta).await.expect("an answer")),
        Operation::Delete(n) => format!("{:?}", store.delete_lease(&key(*n)).await.expect("an answer")),
        Operation::PutMetrics(metrics) => {
            format!("{:?}", store.put_worker_metrics(metrics).await.expect("an answer"))
        }
        Operation::DeleteMetrics(seen) => {
            format!("{:?}", store.delete_worker_metrics(seen).await.expect("an answer"))
        }
        Operation::SwapLeader(seen, lock) => {
            format!("{:?}", store.swap_leader_lock(seen.as_deref(), lock.as_ref()).await.expect("an answer"))
        }
        Operation::SwapSettings(seen, settings) => {
            format!("{:?}", store.swap_fleet_settings(seen.as_ref(), settings).await.expect("an answer"))
        }
        Operation::RecordIdentity(identity) => {
            format!("{:?}", store.record_stream_identity(identity).await.expect("an answer"))
        }
        Operation::DeleteIdentity(name) => {
            format!("{:?}", store.delete_stream_identity(name).await.expect("an answer"))
        }
    }
}

/// An operation that is likely to fit the rows, and now and then does not.
fn draw(random: &mut Rng, rows: &[Option<Lease>]) -> Operation {
    let n = random.usize(..LEASES);
    let seen = rows[n].clone().unwrap_or_else(|| Lease::new(shard(n), Checkpoint::Latest));
    match random.u8(..25) {
        0..2 => Operation::Create(Box::new(draw_lease(random, n))),
        2..11 => {
            let by = if random.u8(..4) > 0 { seen.actual_owner().cloned() } else { None };
            let by = by.unwrap_or_else(|| draw_worker(random));
            let renewals = rows.iter().flatten().filter(|_| random.u8(..3) > 0).collect::<Vec<_>>();
            Operation::Renew(by, renewals.into_iter().map(|row| draw_renewal(random, row)).collect())
        }
        11..15 => {
            let mut write = Assignment::of(&seen, draw_worker(random));
            write.seen.counter = draw_seen_counter(random, &seen);
            write.seen.owner = if random.u8(..8) > 0 { write.seen.owner } else { draw_owner(random) };
            write.seen.checkpoint_owner =
                if random.u8(..8) > 0 { write.seen.checkpoint_owner } else { draw_owner(random) };
            Operation::Assign(write)
        }
        15..17 => {
            let from = seen.owner.clone().filter(|_| random.u8(..8) > 0).unwrap_or_else(|| draw_worker(random));
            Operation::StartHandoff(HandoffStart { key: seen.key, from, to: draw_worker(random) })
        }
        17..18 => {
            let mut write = Eviction::of(&seen);
            write.seen.counter = draw_seen_counter(random, &seen);
            write.seen.owner = if random.u8(..8) > 0 { write.seen.owner } else { draw_owner(random) };
            Operation::Evict(write)
        }
        18..19 => Operation::UpdateMeta(n, draw_meta(random)),
        19..20 if random.bool() => Operation::Delete(n),
        24 => Operation::Reset(Reset { key: seen.key, to: draw_checkpoint_write(random) }),
        _ => draw_fleet(random),
    }
}

fn draw_fleet(random: &mut Rng) -> Operation {
    let version = |random: &mut Rng| format!("v{}", random.u8(..2));
    let settings = |random: &mut Rng| {
        let mut settings = FleetSettings::new(Duration::from_secs(random.u64(1..3)));
        settings.draining = (0..random.usize(..3)).map(|_| draw_worker(random)).collect();
        settings
    };
    match random.u8(..6) {
        0 => Operation::PutMetrics(draw_metrics(random)),
        1 => Operation::DeleteMetrics(draw_metrics(random)),
        2 => {
            let lock = LeaderLock {
                owner: draw_worker(random),
                duration: Duration::from_millis(random.u64(..20_000)),
                version: version(random),
                released: random.bool(),
                standbys: (0..random.usize(..3)).map(|_| draw_worker(random)).collect(),
            };
            let seen = random.bool().then(|| version(random));
            Operation::SwapLeader(seen, random.bool().then_some(lock))
        }
        3 => Operation::SwapSettings(random.bool().then(|| settings(random)), settings(random)),
        4 => Operation::RecordIdentity(StreamIdentity {
            name: STREAMS[random.usize(..2)].into(),
            arn: format!("arn:{}", random.u8(..)),
            created_at: Timestamp::from_millis(random.i64(-1_000_000..2_000_000_000_000)),
        }),
        _ => Operation::DeleteIdentity(STREAMS[random.usize(..2)]),
    }
}

fn draw_worker(random: &mut Rng) -> WorkerId {
    worker(["a", "b", "c"][random.usize(..3)])
}

fn draw_owner(random: &mut Rng) -> Option<WorkerId> {
    random.bool().then(|| draw_worker(random))
}

fn draw_seen_counter(random: &mut Rng, seen: &Lease) -> Option<u64> {
    (random.u8(..4) > 0).then(|| if random.u8(..8) > 0 { seen.counter } else { random.u64(..5) })
}

fn draw_checkpoint(random: &mut Rng) -> Checkpoint {
    match random.u8(..8) {
        0 => Checkpoint::AtTimestamp,
        1 => Checkpoint::TrimHorizon,
        2 => Checkpoint::Latest,
        3 => Checkpoint::ShardEnd,
        _ => at(random.u64(..), random.u64(..100)),
    }
}

fn draw_bytes(random: &mut Rng) -> Bytes {
    let length = random.usize(..40);
    (0..length).map(|_| random.u8(..)).collect()
}

fn draw_range(random: &mut Rng) -> HashKeyRange {
    let (a, b) = (random.u128(..), random.u128(..));
    HashKeyRange::new(a.min(b), a.max(b)).unwrap_or(HashKeyRange::FULL)
}

fn draw_lease(random: &mut Rng, n: usize) -> Lease {
    Lease {
        stream: random.bool().then(|| "1:flights:2".to_owned()),
        parents: (0..random.usize(..3)).map(shard).collect(),
        children: (0..random.usize(..3)).map(|child| shard(child + 7)).collect(),
        hash_key_range: random.bool().then(|| draw_range(random)),
        ..Lease::new(shard(n), draw_checkpoint(random))
    }
}

fn draw_meta(random: &mut Rng) -> LeaseMeta {
    match random.bool() {
        true => LeaseMeta::Children((0..random.usize(..3)).map(shard).collect()),
        false => LeaseMeta::HashKeyRange(draw_range(random)),
    }
}

fn draw_checkpoint_write(random: &mut Rng) -> CheckpointWrite {
    CheckpointWrite {
        checkpoint: draw_checkpoint(random),
        state: random.bool().then(|| (random.u32(..), draw_bytes(random))),
        pending: match random.u8(..3) {
            0 => PendingWrite::Set(PendingCheckpoint {
                checkpoint: draw_checkpoint(random),
                state: random.bool().then(|| draw_bytes(random)),
            }),
            _ => PendingWrite::Clear,
        },
    }
}

/// Few tokens and counters near the stored one, so that repetitions and their near misses come up.
fn draw_renewal(random: &mut Rng, row: &Lease) -> Renewal {
    let counter = match random.u8(..8) {
        0 | 1 => row.counter.saturating_sub(1),
        2 => row.counter + 1,
        _ => row.counter,
    };
    let checkpoint = random.bool().then(|| draw_checkpoint_write(random));
    Renewal {
        key: row.key.clone(),
        counter,
        token: WriteToken::new(u64::MAX - random.u64(..2)),
        throughput_kbps: random.bool().then(|| f64::from(random.u32(..100_000)) / 64.0),
        checkpoint,
    }
}

fn draw_metrics(random: &mut Rng) -> WorkerMetrics {
    let mut metrics = WorkerMetrics::new(draw_worker(random), Timestamp::from_millis(0));
    metrics.last_update = Timestamp::from_millis(random.i64(0..4) * 700);
    if random.bool() {
        metrics.samples = [("C".to_owned(), vec![random.f64(), -1.0])].into();
        metrics.operating_range = [("C".to_owned(), vec![100.0])].into();
    }
    metrics
}
