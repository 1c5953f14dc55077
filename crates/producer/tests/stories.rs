//! A producer's behaviour, a story each, in virtual time.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use common::{Watched, put};
use futures_util::FutureExt;
use shardwell_core::aggregation::{Aggregator, Limits};
use shardwell_core::memory::{MemoryStream, kinesis::StreamSettings};
use shardwell_core::{Env, EnvExt, PutEntry, StartPosition, Stream, StreamErrorKind};
use shardwell_producer::{
    AttemptErrorKind, Landed, Ordering, PutFailure, PutFailureKind, Rejected, Ticket, TryPutError,
};
use shardwell_sim::SimEnv;

/// What became of a record within a minute.
async fn settled(env: &SimEnv, ticket: Ticket) -> Result<Landed, PutFailure> {
    env.deadline(env.now().plus(Duration::from_secs(60)), ticket).await.expect("no ticket hangs")
}

#[tokio::test(start_paused = true)]
async fn user_records_of_a_shard_go_together_and_are_told_where_they_are() {
    let stream = Watched::new(1);
    let producer = stream.builder().build().expect("good settings");
    let began = stream.env.now();
    let (first, second) = (put(&producer, "a", "1").await, put(&producer, "b", "2").await);
    let (first, second) = (first.await.expect("landed"), second.await.expect("landed"));
    assert!(stream.env.now().since(began) >= Duration::from_millis(80), "they waited for others");
    assert_eq!(first.position.sequence_number, second.position.sequence_number);
    assert_eq!((first.position.sub_sequence_number, second.position.sub_sequence_number), (0, 1));
    assert!(first.is_aggregated && first.attempts.count() == 1 && !first.attempts.may_have_written());
    assert_eq!(stream.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flush_waits_for_what_was_put_before_and_for_nothing_else() {
    let stream = Watched::new(4);
    let producer = stream.builder().linger(Duration::from_secs(20)).build().expect("good settings");
    let mut before = Vec::new();
    for n in 0..50 {
        before.push(put(&producer, &n.to_string(), "x").await);
    }
    producer.flush().await;
    for ticket in before {
        assert!(ticket.now_or_never().expect("settled").is_ok());
    }
    let after = put(&producer, "later", "y").await;
    assert!(after.now_or_never().is_none());
    producer.flush().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_puts_more_than_there_is_room_for_waits_or_is_refused() {
    let stream = Watched::new(1);
    let producer = stream.builder().max_buffered_records(2).build().expect("good settings");
    let tickets = (put(&producer, "a", "1").await, put(&producer, "b", "2").await);
    let refused = producer.try_put(PutEntry::new("c", "3"));
    assert!(matches!(refused, Err(TryPutError::Full(record)) if record.partition_key.as_str() == "c"));
    let mut waits = Box::pin(producer.put(PutEntry::new("c", "3")));
    assert!((&mut waits).now_or_never().is_none());
    tickets.0.await.expect("landed");
    waits.await.expect("there is room").await.expect("landed");
    tickets.1.await.expect("landed");
    assert_eq!(producer.status().pending_records, 0);
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_taken_is_refused_at_once() {
    let stream = Watched::new(1);
    let producer = stream.builder().max_record_bytes(1000).build().expect("good settings");
    let refused = async |key: &str, bytes: usize| producer.put(PutEntry::new(key, vec![0; bytes])).await.err();
    assert_eq!(refused("", 1).await, Some(Rejected::EmptyPartitionKey));
    assert_eq!(refused(&"k".repeat(257), 1).await, Some(Rejected::PartitionKeyTooLong { characters: 257 }));
    assert_eq!(refused("key", 998).await, Some(Rejected::TooLarge { bytes: 1001, limit: 1000 }));
    let reservation = producer.reserve(10).await.expect("room");
    let beyond = reservation.put(PutEntry::new("key", "too long"));
    assert_eq!(beyond.err(), Some(Rejected::BeyondReservation { bytes: 11, reserved: 10 }));
    assert_eq!(producer.status().pending_records, 0);
    let other = producer.clone();
    producer.close().await;
    assert_eq!(other.put(PutEntry::new("key", "x")).await.err(), Some(Rejected::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_fails_at_once_and_comes_back() {
    for (refusal, kind) in
        [(StreamErrorKind::Denied, PutFailureKind::Denied), (StreamErrorKind::NotFound, PutFailureKind::NoSuchStream)]
    {
        let stream = Watched::new(1).refusing(move |_| Some(refusal));
        let producer = stream.builder().build().expect("good settings");
        let tickets = (put(&producer, "a", "1").await, put(&producer, "b", "2").await);
        let failure = settled(&stream.env, tickets.0).await.expect_err("refused");
        assert_eq!((failure.kind(), failure.may_have_been_written()), (kind, false));
        assert!(!failure.is_retryable() && failure.to_string().contains("as planned"), "{failure}");
        assert_eq!(failure.into_record(), Some(PutEntry::new("a", "1")));
        let failure = settled(&stream.env, tickets.1).await.expect_err("refused");
        assert_eq!(failure.into_record(), Some(PutEntry::new("b", "2")));
        assert_eq!(stream.requests().len(), 1);
    }
}

/// The service refuses a request as a whole for one of its records.
#[tokio::test(start_paused = true)]
async fn a_record_that_spoils_its_request_fails_alone() {
    let spoils = |entry: &PutEntry| entry.partition_key.as_str() == "bad";
    let stream =
        Watched::new(1).refusing(move |entries| entries.iter().any(spoils).then_some(StreamErrorKind::Invalid));
    let producer = stream.builder().aggregation(false).build().expect("good settings");
    let good = put(&producer, "good", "1").await;
    let bad = put(&producer, "bad", "2").await;
    let more = put(&producer, "more", "3").await;
    settled(&stream.env, good).await.expect("landed");
    settled(&stream.env, more).await.expect("landed");
    assert_eq!(settled(&stream.env, bad).await.expect_err("refused").kind(), PutFailureKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn while_the_stream_cannot_be_reached_records_expire_and_none_hangs() {
    let stream = Watched::new(2).refusing(|_| Some(StreamErrorKind::Unavailable));
    let producer = stream.builder().record_ttl(Some(Duration::from_secs(5))).build().expect("good settings");
    let tickets = [put(&producer, "a", "1").await, put(&producer, "b", "2").await];
    let began = stream.env.now();
    for ticket in tickets {
        let failure = settled(&stream.env, ticket).await.expect_err("expired");
        assert_eq!(failure.kind(), PutFailureKind::Expired);
        assert!(failure.may_have_been_written() && failure.is_retryable() && failure.attempts().count() > 2);
    }
    assert!(stream.env.now().since(began) <= Duration::from_secs(11), "an attempt under way is waited for");
}

/// What carries an aggregated record must not be taken apart by whoever reads it.
/// The answer to the first request never comes, the second request panics, and so it is with listings.
#[tokio::test(start_paused = true)]
async fn a_stream_that_hangs_or_panics_leaves_no_ticket_behind() {
    for ordering in [Ordering::Unordered, Ordering::PerKey] {
        let requests = AtomicU32::new(0);
        let stream = Watched::new(1).refusing(move |_| {
            assert!(requests.fetch_add(1, Relaxed) > 0, "as planned");
            None
        });
        // A listing, and then a request.
        stream.unanswered.store(2, Relaxed);
        let producer = stream.builder().ordering(ordering).record_ttl(None).build().expect("good settings");
        let ticket = put(&producer, "a", "1").await;
        let landed = ticket.await.expect("landed");
        let kinds = landed.attempts.iter().filter_map(|attempt| attempt.error.as_ref().map(|error| error.kind));
        assert_eq!(kinds.collect::<Vec<_>>(), [AttemptErrorKind::Unanswered; 2]);
        put(&producer, "a", "2").await.await.expect("landed");
        producer.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_is_an_aggregated_record_stays_one() {
    let mut aggregator = Aggregator::new(Limits::default());
    for n in 0..3 {
        aggregator.try_add("inner", None, &[n]).expect("it fits");
    }
    let payload = aggregator.finish().expect("three records").data;
    let stream = Watched::new(1);
    let producer = stream.builder().build().expect("good settings");
    let before = put(&producer, "key", "before").await;
    let ticket = producer.put(PutEntry::new("key", payload.clone())).await.expect("taken");
    let after = put(&producer, "key", "after").await;
    let landed = ticket.await.expect("landed");
    let mut reader = stream.inner.open(&landed.shard, StartPosition::TrimHorizon).await.expect("it opens");
    let records = reader.read(10).await.expect("it answers").records;
    let of_it = records.iter().find(|record| record.sequence_number == landed.position.sequence_number);
    let outer = shardwell_core::aggregation::Outer::default();
    let unpacked = shardwell_core::aggregation::deaggregate(of_it.expect("it is there").data.clone(), outer);
    let shardwell_core::aggregation::Deaggregated::Aggregated(records) = unpacked else { panic!("it is wrapped") };
    assert_eq!(records.into_iter().map(|record| record.data).collect::<Vec<_>>(), [payload]);
    before.await.expect("landed");
    after.await.expect("landed");
}

#[tokio::test(start_paused = true)]
async fn on_a_stream_that_distributes_by_itself_nothing_is_aggregated() {
    let stream = Watched::new(2);
    stream.inner.delete().expect("it is there");
    stream.env.sleep(Duration::from_secs(60)).await;
    let mut settings = StreamSettings::new(2);
    settings.automatic_distribution = true;
    stream.inner.create_with(settings).expect("a new stream");
    for (round, ordering) in [Ordering::Unordered, Ordering::PerKey].into_iter().enumerate() {
        let producer = stream.builder().ordering(ordering).build().expect("good settings");
        // It is known then what the stream does.
        settled(&stream.env, put(&producer, "a", "0").await).await.expect("landed");
        let tickets = [put(&producer, "a", "1").await, put(&producer, "a", "2").await];
        for ticket in tickets {
            assert!(!settled(&stream.env, ticket).await.expect("landed").is_aggregated);
        }
        assert_eq!(stream.requests().len(), 2 * (round + 1), "there is no order that they would have to wait for");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_shards_cannot_be_listed_records_go_one_by_one() {
    for ordering in [Ordering::Unordered, Ordering::PerKey] {
        let mut stream = Watched::new(2);
        stream.refuses_listing = Some(StreamErrorKind::Denied);
        let producer = stream.builder().ordering(ordering).build().expect("good settings");
        for n in 0..5 {
            let ticket = put(&producer, &n.to_string(), "x").await;
            assert!(!settled(&stream.env, ticket).await.expect("landed").is_aggregated);
        }
    }
}

/// The service takes a thousand records a second for a shard; another shard has nothing to do with that.
#[tokio::test(start_paused = true)]
async fn a_hot_shard_does_not_hold_up_the_others() {
    let stream = Watched::new(2);
    let producer = stream.builder().aggregation(false).record_ttl(None).build().expect("good settings");
    let key_in = |half: bool| {
        (0..).map(|n| format!("key-{n}")).find(|key| (shardwell_core::hash_key(key.as_bytes()) >> 127 == 1) == half)
    };
    let (hot, cold) = (key_in(false).expect("one"), key_in(true).expect("one"));
    let hot: Vec<Ticket> = {
        let mut tickets = Vec::new();
        for _ in 0..6_000 {
            tickets.push(put(&producer, &hot, "x").await);
        }
        tickets
    };
    let began = stream.env.now();
    let landed = put(&producer, &cold, "y").await.await.expect("landed");
    assert!(stream.env.now().since(began) < Duration::from_millis(200));
    assert_eq!(producer.hot_keys(1)[0].records, 6_000);
    let waiting = producer.status().shards.into_iter().find(|load| load.shard.as_ref() != Some(&landed.shard));
    assert!(waiting.is_some_and(|load| load.queued_records > 3_000));
    for ticket in hot {
        let landed = ticket.await.expect("landed");
        let throttled = |error: &shardwell_producer::AttemptError| error.kind == AttemptErrorKind::Throttled;
        assert!(!landed.attempts.iter().any(|attempt| attempt.error.as_ref().is_some_and(throttled)), "at its pace");
    }
    assert!(stream.env.now().since(began) >= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn producers_of_several_streams_share_a_budget() {
    let stream = Watched::new(1);
    let other = MemoryStream::create(Arc::new(stream.env.clone()), "airports", 1).expect("a new stream");
    let producer = stream.builder().max_buffered_records(2).build().expect("good settings");
    let beside = producer.for_stream(other);
    let tickets = [put(&producer, "a", "1").await, put(&beside, "b", "2").await];
    assert!(matches!(beside.try_put(PutEntry::new("c", "3")), Err(TryPutError::Full(_))));
    for ticket in tickets {
        ticket.await.expect("landed");
    }
}

/// The last handle is gone, and those who have tickets still wait.
#[tokio::test(start_paused = true)]
async fn what_was_put_is_sent_when_nobody_can_put_any_more() {
    let stream = Watched::new(1);
    let producer = stream.builder().build().expect("good settings");
    let ticket = put(&producer, "a", "1").await;
    drop(producer);
    settled(&stream.env, ticket).await.expect("landed");
}
