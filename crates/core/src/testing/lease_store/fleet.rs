//! What is not a lease: worker metrics, the leader lock, the fleet's settings, stream identities.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::fixtures::{shard, worker};
use crate::{
    Checkpoint, Created, FleetSettings, Heartbeat, LeaderLock, Lease, LeaseListing, LeaseStore, MetricsWrite,
    StreamIdentity, Timestamp, WorkerMetrics,
};

pub(super) async fn exercise<S, M, F>(make: &M)
where
    S: LeaseStore + ?Sized,
    M: Fn() -> F + Sync,
    F: Future<Output = Arc<S>> + Send,
{
    worker_metrics_round_trip(&*make().await).await;
    worker_metrics_are_deleted_as_seen(&*make().await).await;
    another_process_does_not_replace_worker_metrics(&*make().await).await;
    a_leader_lock_is_swapped_by_its_version(&*make().await).await;
    fleet_settings_are_swapped(&*make().await).await;
    stream_identities_are_remembered(&*make().await).await;
    nothing_of_this_is_a_lease(&*make().await).await;
    one_look_shows_leases_and_workers(&*make().await).await;
}

const NOON: Timestamp = Timestamp::from_millis(1_357_041_600_000);

fn lock(owner: &str, version: &str) -> LeaderLock {
    LeaderLock {
        owner: worker(owner),
        duration: Duration::from_millis(10_500),
        version: version.into(),
        released: false,
        standbys: vec![worker("standby"), worker("a, \"quoted\" one")],
    }
}

fn identity(name: &str, created_at: i64) -> StreamIdentity {
    StreamIdentity {
        name: name.into(),
        arn: format!("arn:aws:kinesis:eu-central-1:123456789012:stream/{name}"),
        created_at: Timestamp::from_millis(created_at),
    }
}

async fn worker_metrics_round_trip<S: LeaseStore + ?Sized>(store: &S) {
    assert!(store.worker_metrics().await.expect("metrics").is_empty());
    let mut full = WorkerMetrics::new(worker("b"), NOON.plus(Duration::from_millis(999)));
    full.samples = [("C".to_owned(), vec![-1.0, 0.0, 33.333333, 100.0]), ("T".to_owned(), vec![])].into();
    full.operating_range = [("C".to_owned(), vec![80.5])].into();
    full.support_heartbeat = NOON.minus(Duration::from_secs(5));
    full.support_code = 7;
    full.heartbeat = Some(Heartbeat { incarnation: u64::MAX, beat: 3 });
    full.streams = Some(["1:trains:2".to_owned(), "1:a, \"quoted\" one:2".to_owned()].into());
    let mut plain = WorkerMetrics::new(worker("a"), NOON);
    plain.streams = Some(BTreeSet::new());
    for metrics in [&full, &plain] {
        store.put_worker_metrics(metrics).await.expect("written");
    }
    assert_eq!(store.worker_metrics().await.expect("metrics"), [plain.clone(), full], "ordered by worker");

    let mut later = WorkerMetrics::new(worker("b"), NOON.plus(Duration::from_secs(30)));
    later.heartbeat = Some(Heartbeat { incarnation: u64::MAX, beat: u64::MAX });
    store.put_worker_metrics(&later).await.expect("written");
    assert_eq!(store.worker_metrics().await.expect("metrics"), [plain, later], "what was there is replaced whole");
}

async fn another_process_does_not_replace_worker_metrics<S: LeaseStore + ?Sized>(store: &S) {
    let metrics = |incarnation: Option<u64>, beat| {
        let mut metrics = WorkerMetrics::new(worker("a"), NOON);
        metrics.heartbeat = incarnation.map(|incarnation| Heartbeat { incarnation, beat });
        metrics
    };
    let put = async |metrics: &WorkerMetrics| store.put_worker_metrics(metrics).await.expect("an answer");
    let ours = metrics(Some(7), 1);
    assert_eq!(put(&ours).await, MetricsWrite::Written);
    assert_eq!(put(&metrics(Some(8), 1)).await, MetricsWrite::Foreign(ours.clone()), "another process");
    assert_eq!(put(&metrics(None, 0)).await, MetricsWrite::Foreign(ours), "a Java worker");
    let later = metrics(Some(7), 2);
    assert_eq!(put(&later).await, MetricsWrite::Written);
    assert_eq!(store.worker_metrics().await.expect("metrics"), std::slice::from_ref(&later));
    for other in [metrics(Some(8), 2), metrics(None, 0)] {
        assert!(!store.delete_worker_metrics(&other).await.expect("an answer"), "not the other's to remove");
    }
    assert!(store.delete_worker_metrics(&metrics(Some(7), 1)).await.expect("an answer"), "the beat does not matter");
    assert_eq!(put(&metrics(None, 0)).await, MetricsWrite::Written);
    assert_eq!(put(&later).await, MetricsWrite::Foreign(metrics(None, 0)), "a Java worker's item");
}

async fn worker_metrics_are_deleted_as_seen<S: LeaseStore + ?Sized>(store: &S) {
    let mut seen = WorkerMetrics::new(worker("a"), NOON);
    seen.last_update = NOON.plus(Duration::from_millis(400));
    assert!(!store.delete_worker_metrics(&seen).await.expect("an answer"), "there is nothing");
    store.put_worker_metrics(&seen).await.expect("written");
    store.put_worker_metrics(&WorkerMetrics::new(worker("b"), NOON)).await.expect("written");
    let other = WorkerMetrics::new(worker("a"), NOON.plus(Duration::from_secs(1)));
    assert!(!store.delete_worker_metrics(&other).await.expect("an answer"), "it was updated at another time");
    assert!(store.delete_worker_metrics(&seen).await.expect("an answer"), "the same whole second");
    let left: Vec<_> = store.worker_metrics().await.expect("metrics").into_iter().map(|m| m.worker).collect();
    assert_eq!(left, [worker("b")]);
}

async fn a_leader_lock_is_swapped_by_its_version<S: LeaseStore + ?Sized>(store: &S) {
    let swap = async |seen: Option<&str>, new: Option<&LeaderLock>| {
        let before = store.leader_lock().await.expect("an answer");
        let swapped = store.swap_leader_lock(seen, new).await.expect("an answer");
        let expected = if swapped { new.cloned() } else { before };
        assert_eq!(store.leader_lock().await.expect("an answer"), expected);
        swapped
    };
    let second = LeaderLock { released: true, standbys: Vec::new(), ..lock("b", "v2") };
    let first = lock("a", "v1");
    assert!(!swap(Some("v0"), Some(&first)).await, "there is no lock");
    assert!(!swap(Some("v0"), None).await, "there is no lock");
    assert!(swap(None, None).await, "no lock, as seen");
    assert!(swap(None, Some(&first)).await, "taken");
    assert!(!swap(None, Some(&second)).await, "taken already");
    assert!(!swap(None, None).await, "taken already");
    assert!(!swap(Some("v2"), Some(&second)).await, "another version");
    assert!(swap(Some("v1"), Some(&second)).await, "as seen");
    assert!(!swap(Some("v1"), None).await, "another version");
    assert!(swap(Some("v2"), None).await, "released");
    assert!(swap(None, Some(&first)).await, "taken again");
}

async fn fleet_settings_are_swapped<S: LeaseStore + ?Sized>(store: &S) {
    let [ten, mut twenty] = [10_000, 20_001].map(|ms| FleetSettings::new(Duration::from_millis(ms)));
    twenty.draining = [worker("b"), worker("a")].into();
    let undrained = FleetSettings::new(twenty.lease_duration);
    assert_eq!(store.fleet_settings().await.expect("an answer"), None);
    assert!(!store.swap_fleet_settings(Some(&ten), &ten).await.expect("an answer"), "there are none");
    assert!(store.swap_fleet_settings(None, &ten).await.expect("an answer"));
    assert!(!store.swap_fleet_settings(None, &twenty).await.expect("an answer"), "there are some");
    assert!(!store.swap_fleet_settings(Some(&twenty), &twenty).await.expect("an answer"), "others");
    assert_eq!(store.fleet_settings().await.expect("an answer"), Some(ten.clone()));
    assert!(store.swap_fleet_settings(Some(&ten), &twenty).await.expect("an answer"));
    assert_eq!(store.fleet_settings().await.expect("an answer"), Some(twenty.clone()));
    assert!(!store.swap_fleet_settings(Some(&undrained), &ten).await.expect("an answer"), "others are drained");
    assert!(store.swap_fleet_settings(Some(&twenty), &undrained).await.expect("an answer"));
    assert_eq!(store.fleet_settings().await.expect("an answer"), Some(undrained));
}

async fn stream_identities_are_remembered<S: LeaseStore + ?Sized>(store: &S) {
    let (first, again, other) = (identity("flights", 1), identity("flights", 2), identity("trains", -1));
    assert_eq!(store.stream_identity("flights").await.expect("an answer"), None);
    assert_eq!(store.record_stream_identity(&first).await.expect("an answer"), Created::New);
    assert_eq!(store.record_stream_identity(&other).await.expect("an answer"), Created::New);
    assert_eq!(store.record_stream_identity(&again).await.expect("an answer"), Created::Existed);
    assert_eq!(store.stream_identities().await.expect("an answer"), [first.clone(), other.clone()], "by name");
    assert_eq!(store.stream_identity("flights").await.expect("an answer"), Some(first));
    store.delete_stream_identity("flights").await.expect("forgotten");
    store.delete_stream_identity("flights").await.expect("gone already is fine");
    assert_eq!(store.stream_identity("flights").await.expect("an answer"), None);
    assert_eq!(store.record_stream_identity(&again).await.expect("an answer"), Created::New);
    assert_eq!(store.stream_identity("flights").await.expect("an answer"), Some(again));
    assert_eq!(store.stream_identity("trains").await.expect("an answer"), Some(other));
}

async fn nothing_of_this_is_a_lease<S: LeaseStore + ?Sized>(store: &S) {
    store.put_worker_metrics(&WorkerMetrics::new(worker("a"), NOON)).await.expect("written");
    assert!(store.swap_leader_lock(None, Some(&lock("a", "v"))).await.expect("an answer"));
    assert!(store.swap_fleet_settings(None, &FleetSettings::new(Duration::from_secs(1))).await.expect("an answer"));
    store.record_stream_identity(&identity("flights", 1)).await.expect("written");
    let listing = store.leases().await.expect("a listing");
    assert!(listing.leases.is_empty() && listing.unreadable.is_empty(), "{listing:?}");
    assert!(store.leases_of(&worker("a")).await.expect("keys").is_empty());
}

async fn one_look_shows_leases_and_workers<S: LeaseStore + ?Sized>(store: &S) {
    let leases = [1, 2].map(|n| Lease::new(shard(n), Checkpoint::TrimHorizon));
    for lease in &leases {
        store.create_lease(lease).await.expect("created");
    }
    let workers = ["a", "b"].map(|id| WorkerMetrics::new(worker(id), NOON));
    for metrics in workers.iter().rev() {
        store.put_worker_metrics(metrics).await.expect("written");
    }
    let listing = LeaseListing { leases: leases.into(), unreadable: Vec::new() };
    assert_eq!(store.look().await.expect("a look"), (listing, workers.into()));
}
