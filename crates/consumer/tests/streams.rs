//! Several streams with one lease table: keys of leases, streams that come and go, fleets whose workers consume different ones.

mod common;

use std::sync::Arc;

use common::{Reaction, Running, START, World, millis, secs};
use shardwell_consumer::{DeliveryPolicy, Streams, WorkerError};
use shardwell_core::memory::MemoryStream;
use shardwell_core::memory::kinesis::StreamSettings;
use shardwell_core::{Checkpoint, EnvExt, Lease, LeaseStore, ShardFilter, Stream};
use shardwell_sim::SimEnv;

fn set(streams: &[&MemoryStream]) -> Streams {
    Streams::new(streams.iter().map(|stream| Arc::new((*stream).clone()) as Arc<dyn Stream>))
}

/// A stream of the world with so many shards.
fn created(world: &World, name: &str, shards: u32) -> MemoryStream {
    let stream = world.another(name);
    stream.create_with(StreamSettings::new(shards)).expect("a new stream");
    stream
}

fn start(world: &World, streams: &Streams, name: &str, seed: u64) -> Running {
    world.start(world.builder_for(streams, name, &world.process(seed)))
}

async fn leases_of(world: &World, stream: &str) -> Vec<Lease> {
    let mut leases = world.leases().await;
    let named = format!(":{stream}:");
    leases.retain(|lease| lease.stream.as_ref().is_some_and(|stream| stream.contains(&named)));
    leases
}

impl World {
    async fn until_leases_exist(&self) {
        for _ in 0..100 {
            if !self.leases().await.is_empty() {
                return;
            }
            self.env.sleep(millis(50)).await;
        }
        panic!("no leases within 5 s");
    }
}

/// Waits until every lease of a stream is as wanted.
async fn until_leases(world: &World, stream: &str, what: &str, wanted: impl Fn(&Lease) -> bool) {
    for _ in 0..2_000 {
        if leases_of(world, stream).await.iter().all(&wanted) {
            return;
        }
        world.env.sleep(millis(50)).await;
    }
    panic!("not within 100 s: {what}: {:#?}", leases_of(world, stream).await);
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_two_streams_whose_shards_have_the_same_ids() {
    let world = World::new(2);
    let trains = created(&world, "trains", 2);
    world.put(100, 20);
    world.put_into(&trains, 100, 20);
    let workers = [("a", 1), ("b", 2)].map(|(name, seed)| start(&world, &set(&[&world.stream, &trains]), name, seed));
    world.until_all_seen(secs(20)).await;
    world.env.sleep(secs(30)).await;
    let leases = world.leases().await;
    let keys: Vec<&str> = leases.iter().map(|lease| lease.key.as_str()).collect();
    let epoch = START.as_millis() / 1000;
    let expected = ["flights", "trains"]
        .map(|stream| [0, 1].map(|shard| format!("000000000000:{stream}:{epoch}:shardId-{shard:012}")));
    assert_eq!(keys, expected.concat());
    for lease in &leases {
        assert_eq!(lease.key.as_str(), format!("{}:{}", lease.stream.as_ref().expect("named"), lease.shard));
    }
    for worker in &workers {
        let mine = leases.iter().filter(|lease| lease.owner.as_ref() == Some(&worker.handle.status().worker)).count();
        assert_eq!(mine, 2);
    }
    let leader = workers.iter().find(|worker| worker.handle.leads()).expect("one leads").handle.status();
    let names: Vec<&str> = leader.shards.iter().map(|shard| shard.stream.as_str()).collect();
    assert_eq!(names, ["flights", "flights", "trains", "trains"]);
    assert!(leader.streams.iter().all(|stream| stream.consumed && stream.last_error.is_none()), "{leader:?}");
    for worker in workers {
        worker.stop().await.expect("a clean stop");
    }
    assert_eq!(world.log.numbers().len(), 200, "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_added_is_consumed_and_one_that_is_removed_goes_on_when_it_is_added_again() {
    let world = World::new(2);
    let (trains, ships) = (created(&world, "trains", 1), created(&world, "ships", 2));
    let sets = [set(&[&world.stream, &trains]), set(&[&world.stream, &trains])];
    let workers = [("a", 1), ("b", 2)].map(|(name, seed)| start(&world, &sets[seed as usize - 1], name, seed));
    world.put(50, 10);
    world.put_into(&trains, 50, 10);
    world.put_into(&ships, 50, 10);
    world.until("the first two are read", secs(20), || world.log.distinct() == 100).await;

    assert!(sets.iter().all(|set| set.add(ships.clone())) && !sets[0].add(ships.clone()));
    world.until_all_seen(secs(10)).await;
    assert_eq!(sets[0].names(), ["flights", "ships", "trains"]);

    assert!(sets.iter().all(|set| set.remove("trains")) && !sets[0].remove("trains"));
    until_leases(&world, "trains", "they are released", |lease| lease.owner.is_none()).await;
    let left = leases_of(&world, "trains").await;
    assert!(matches!(left[0].checkpoint, Checkpoint::At(_)), "with its checkpoint: {left:?}");
    world.put(50, 10);
    world.put_into(&trains, 50, 10);
    world.put_into(&ships, 50, 10);
    world.until("the others go on", secs(10), || world.log.distinct() == 250).await;
    world.env.sleep(secs(60)).await;
    assert_eq!((world.log.distinct(), leases_of(&world, "trains").await), (250, left), "nobody touches it");

    assert!(sets.iter().all(|set| set.add(trains.clone())));
    world.until_all_seen(secs(10)).await;
    for worker in workers {
        worker.stop().await.expect("a clean stop");
    }
    assert_eq!(world.log.numbers().len(), 300, "it went on right after the checkpoint");
}

#[tokio::test(start_paused = true)]
async fn a_reshard_of_one_stream_does_not_disturb_another() {
    let world = World::new(1).with_script(|_, _, _| Reaction::Take(millis(10)));
    let trains = created(&world, "trains", 2);
    let both = set(&[&world.stream, &trains]);
    let policy = DeliveryPolicy::default().with_batch_records(10);
    let worker = world.start(world.builder_for(&both, "w", &SimEnv::new(1, START)).delivery(policy));
    world.put(300, 30);
    world.put_into(&trains, 300, 30);
    world.until("it works", secs(5), || world.log.distinct() > 20).await;
    // The children of the one have ids that the shards of the other have too.
    let shard = &world.stream.shards(&ShardFilter::AtLatest).expect("shards")[0];
    world.stream.split(&shard.id, 1 << 127).expect("it splits");
    world.put(300, 30);
    world.until_all_seen(secs(120)).await;
    let parent = &leases_of(&world, "flights").await[0];
    assert!(parent.is_finished() && parent.children.len() == 2, "{parent:?}");
    let children = leases_of(&world, "flights").await.split_off(1);
    assert!(children.iter().all(|child| child.parents == [shard.id.clone()].into()), "{children:?}");
    assert_eq!(children.len(), 2);
    let others = leases_of(&world, "trains").await;
    assert!(others.len() == 2 && others.iter().all(|lease| !lease.is_finished() && lease.children.is_empty()));
    world.env.sleep(secs(130)).await;
    assert!(!leases_of(&world, "flights").await.iter().any(Lease::is_finished), "cleaned up");
    worker.stop().await.expect("a clean stop");
    assert_eq!(world.log.numbers().len(), 900, "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn leases_go_to_those_alone_who_consume_their_stream() {
    let world = World::new(4);
    let trains = created(&world, "trains", 4);
    let mut nobodys = Lease::in_stream(Some("000000000000:ships:1600000000"), "shardId-0".into(), Checkpoint::Latest);
    nobodys.hash_key_range = None;
    world.store.create_lease(&nobodys).await.expect("created");
    // The leader does not consume what somebody else does.
    let flights_only = start(&world, &set(&[&world.stream]), "a-leader", 1);
    world.until("it leads", secs(20), || flights_only.handle.leads()).await;
    let both = start(&world, &set(&[&world.stream, &trains]), "both", 2);
    world.put(100, 20);
    world.put_into(&trains, 100, 20);
    for _ in 0..1_200 {
        world.env.sleep(millis(50)).await;
        for lease in leases_of(&world, "trains").await {
            assert_ne!(lease.owner.as_ref().map(AsRef::as_ref), Some("a-leader"), "{lease:?}");
        }
    }
    assert!(flights_only.handle.leads());
    world.until_all_seen(secs(1)).await;
    assert_eq!(leases_of(&world, "trains").await.len(), 4);
    assert_eq!(world.lease("000000000000:ships:1600000000:shardId-0").await, Some(nobodys), "left alone");
    // Whoever stops gives each lease to one who consumes its stream, or to nobody.
    both.stop().await.expect("a clean stop");
    assert!(leases_of(&world, "trains").await.iter().all(|lease| lease.owner.is_none()));
    until_leases(&world, "flights", "all are its own", |lease| {
        lease.owner.as_ref().map(AsRef::as_ref) == Some("a-leader")
    })
    .await;
    flights_only.stop().await.expect("a clean stop");
    assert_eq!(world.log.numbers().len(), 200, "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_deleted_and_created_again_starts_anew() {
    let world = World::new(1);
    let trains = created(&world, "trains", 1);
    let both = set(&[&world.stream, &trains]);
    let worker = start(&world, &both, "w", 1);
    world.put(10, 5);
    world.put_into(&trains, 10, 5);
    world.until_all_seen(secs(10)).await;
    trains.delete().expect("it goes");
    let of_trains = || worker.handle.status().streams.remove(1);
    world.until("it is noticed", secs(10), || !of_trains().consumed).await;
    assert!(of_trains().last_error.is_some_and(|error| error.contains("deleted")));
    world.put(10, 5);
    world.until("the other goes on", secs(5), || world.log.distinct() == 30).await;
    until_leases(&world, "trains", "its lease is released", |lease| lease.owner.is_none()).await;
    world.env.sleep(secs(2)).await;

    trains.create_with(StreamSettings::new(1)).expect("it comes back");
    world.put_into(&trains, 10, 5);
    world.until_all_seen(secs(60)).await;
    assert!(of_trains().consumed && of_trains().last_error.is_none());
    world.env.sleep(secs(70)).await;
    let leases = leases_of(&world, "trains").await;
    assert!(leases.len() == 1 && !leases[0].is_finished(), "the old one is removed: {leases:?}");
    worker.stop().await.expect("a clean stop");

    // And the same while nobody looks.
    trains.delete().expect("it goes");
    world.env.sleep(secs(5)).await;
    trains.create_with(StreamSettings::new(2)).expect("it comes back");
    world.put_into(&trains, 10, 5);
    let worker = start(&world, &both, "again", 2);
    world.until_all_seen(secs(30)).await;
    world.env.sleep(secs(70)).await;
    let new = leases_of(&world, "trains").await;
    assert!(new.len() == 2 && new.iter().all(|lease| lease.stream != leases[0].stream), "{new:?}");
    worker.stop().await.expect("a clean stop");
    assert_eq!(world.log.numbers().len(), 50, "nothing came twice");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_reached_does_not_stop_the_worker() {
    let world = World::new(1);
    let trains = world.another("trains");
    let streams = set(&[&trains]);
    let worker = start(&world, &streams, "w", 1);
    world.until("it runs", secs(10), || worker.handle.is_ready()).await;
    assert!(streams.add(world.stream.clone()));
    world.put(10, 5);
    world.until_all_seen(secs(5)).await;
    let of_trains = || worker.handle.status().streams.remove(1);
    assert!(!of_trains().consumed && of_trains().last_error.is_some(), "{:?}", of_trains());
    trains.create_with(StreamSettings::new(1)).expect("now it is there");
    world.put_into(&trains, 10, 5);
    world.until_all_seen(secs(40)).await;
    assert!(of_trains().consumed);
    worker.stop().await.expect("a clean stop");
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_one_stream_and_one_of_several_do_not_share_a_table() {
    let several = async |world: &World| start(world, &set(&[&world.stream]), "w", 1);
    let single = async |world: &World| world.start(world.builder("w", &world.process(2)));
    let world = World::new(2);
    let worker = single(&world).await;
    assert!(worker.handle.ready().await);
    world.until_leases_exist().await;
    worker.stop().await.expect("a clean stop");
    let refused = several(&world).await.ended().await;
    assert!(matches!(refused, Err(WorkerError::StreamModeMismatch { several: false, .. })), "{refused:?}");

    let world = World::new(2);
    let worker = several(&world).await;
    world.until_leases_exist().await;
    worker.stop().await.expect("a clean stop");
    let refused = single(&world).await.ended().await.expect_err("refused");
    assert!(
        refused.to_string().contains("those of several streams, and this worker consumes a single one"),
        "{refused}"
    );
}

/// Leases are asked for on behalf of a worker that ceases to consume their stream before they are handed over: they stay.
#[tokio::test(start_paused = true)]
async fn no_lease_is_handed_to_a_worker_that_does_not_consume_its_stream_any_more() {
    let world = World::new(2).with_script(|_, _, _| Reaction::Take(secs(4)));
    let trains = created(&world, "trains", 2);
    let sets = [set(&[&world.stream, &trains]), set(&[&world.stream, &trains])];
    let a = start(&world, &sets[0], "a", 1);
    until_leases(&world, "trains", "it has all", |lease| lease.owner.as_ref().map(AsRef::as_ref) == Some("a")).await;
    world.put_into(&trains, 8, 8);
    world.env.sleep(secs(1)).await;
    let b = start(&world, &sets[1], "b", 2);
    for _ in 0..1_000 {
        if leases_of(&world, "trains").await.iter().any(Lease::handoff_requested) {
            sets[1].remove("trains");
        }
        for lease in leases_of(&world, "trains").await {
            assert!(lease.actual_owner().is_some_and(|owner| owner.as_str() == "a"), "{lease:?}");
        }
        world.env.sleep(millis(20)).await;
    }
    assert!(!sets[1].names().contains(&"trains".to_owned()), "one was asked for");
    world.until_all_seen(secs(20)).await;
    for worker in [a, b] {
        worker.stop().await.expect("a clean stop");
    }
}
