//! What is in the stream, against what the tickets say.

use std::collections::BTreeMap;
use std::time::Duration;

use shardwell_core::aggregation::{Deaggregated, HashKeyRange, Outer, deaggregate, effective_hash_key};
use shardwell_core::memory::MemoryStream;
use shardwell_core::{
    ExtendedSequenceNumber, PutEntry, Shard, ShardFilter, ShardId, ShardReader, StartPosition, Stream,
};
use shardwell_producer::{AttemptErrorKind, Landed, Ordering, PutFailureKind};

use crate::world::Put;

/// A user record in the stream.
struct Found {
    shard: ShardId,
    position: ExtendedSequenceNumber,
    entry: PutEntry,
    is_plain: bool,
    /// Whether a consumer like the KCL delivers it: all members of its record belong to the shard.
    is_delivered: bool,
}

/// How often things were seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) records: usize,
    pub(crate) aggregated: usize,
    pub(crate) repeated: usize,
    pub(crate) wrong_shard: usize,
    pub(crate) unanswered: usize,
    pub(crate) throttled: usize,
    pub(crate) expired: usize,
    pub(crate) expired_but_written: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.aggregated += other.aggregated;
        self.repeated += other.repeated;
        self.wrong_shard += other.wrong_shard;
        self.unanswered += other.unanswered;
        self.throttled += other.throttled;
        self.expired += other.expired;
        self.expired_but_written += other.expired_but_written;
    }

    pub(crate) fn assert_exercised(&self) {
        let all = [
            self.aggregated,
            self.repeated,
            self.wrong_shard,
            self.unanswered,
            self.throttled,
            self.expired,
            self.expired_but_written,
        ];
        assert!(all.iter().all(|count| *count > 0), "something never happened: {self:?}");
    }
}

pub(crate) async fn check(seed: u64, stream: &MemoryStream, puts: &[Put], ordering: Ordering) -> Counts {
    let shards = stream.list_shards(ShardFilter::All).await.expect("the stream is there");
    let mut found: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for shard in &shards {
        for record in read(stream, shard).await {
            found.entry(name(&record.entry)).or_default().push(record);
        }
    }
    let mut counts = Counts { records: puts.len(), ..Counts::default() };
    for put in puts {
        let copies = found.remove(&name(&put.entry)).unwrap_or_default();
        check_one(seed, put, &copies, &mut counts);
    }
    assert!(found.is_empty(), "seed {seed}: nobody put {:?}", found.keys().next());
    if ordering == Ordering::PerKey {
        check_order(seed, puts, &shards);
    }
    counts
}

fn check_one(seed: u64, put: &Put, copies: &[Found], counts: &mut Counts) {
    let name = name(&put.entry);
    for copy in copies {
        // Kinesis does not give back the explicit hash key of a record that is not aggregated.
        let explicit_hash_key = put.entry.explicit_hash_key.filter(|_| !copy.is_plain);
        let expected = PutEntry { explicit_hash_key, ..put.entry.clone() };
        assert_eq!(copy.entry, expected, "seed {seed}: {name} is read back as it was put");
    }
    let attempts = match &put.answer {
        Ok(landed) => {
            let is_it = |copy: &&Found| copy.shard == landed.shard && copy.position == landed.position;
            let copy = copies.iter().find(is_it);
            let copy = copy.unwrap_or_else(|| panic!("seed {seed}: {name} is not where its ticket says: {landed:?}"));
            assert!(copy.is_delivered, "seed {seed}: {name} would be dropped by the KCL: {landed:?}");
            counts.aggregated += usize::from(landed.is_aggregated);
            &landed.attempts
        }
        Err(failure) => {
            assert_eq!(failure.kind(), PutFailureKind::Expired, "seed {seed}: {name}");
            let may_be_there = failure.may_have_been_written();
            assert!(
                copies.is_empty() || may_be_there,
                "seed {seed}: {name} is there, and its ticket says it cannot be"
            );
            assert_eq!(failure.clone().into_record().as_ref(), Some(&put.entry), "seed {seed}: {name} comes back");
            counts.expired += 1;
            counts.expired_but_written += usize::from(!copies.is_empty());
            failure.attempts()
        }
    };
    let landed = usize::from(put.answer.is_ok());
    let ambiguous = attempts.iter().filter(|attempt| attempt.error.as_ref().is_some_and(|e| e.kind.may_have_written()));
    let most = landed + ambiguous.count();
    assert!(copies.len() <= most, "seed {seed}: {name} is there {} times: {attempts:?}", copies.len());
    let has = |kind| attempts.iter().any(|attempt| attempt.error.as_ref().is_some_and(|error| error.kind == kind));
    counts.repeated += usize::from(copies.len() > 1);
    counts.wrong_shard += usize::from(has(AttemptErrorKind::WrongShard));
    counts.unanswered += usize::from(has(AttemptErrorKind::Unanswered));
    counts.throttled += usize::from(has(AttemptErrorKind::Throttled));
}

/// Records of a key that landed follow each other: in a shard, or from a shard to one that came of it.
fn check_order(seed: u64, puts: &[Put], shards: &[Shard]) {
    let mut newest: BTreeMap<(&str, Option<u128>), (&PutEntry, &Landed)> = BTreeMap::new();
    for put in puts {
        let Ok(landed) = &put.answer else { continue };
        // With an explicit hash key a record goes elsewhere than the others of its key.
        let key = (put.entry.partition_key.as_str(), put.entry.explicit_hash_key);
        if let Some((before, earlier)) = newest.insert(key, (&put.entry, landed)) {
            let follows = if earlier.shard == landed.shard {
                earlier.position < landed.position
            } else {
                comes_of(&landed.shard, &earlier.shard, shards)
            };
            let (before, after) = (name(before), name(&put.entry));
            assert!(follows, "seed {seed}: {before} is at {earlier:?}, and {after} at {landed:?}");
        }
    }
}

fn comes_of(shard: &ShardId, ancestor: &ShardId, shards: &[Shard]) -> bool {
    let parents = shards.iter().filter(|other| other.id == *shard).flat_map(Shard::parents);
    let parents: Vec<&ShardId> = parents.collect();
    parents.iter().any(|parent| *parent == ancestor || comes_of(parent, ancestor, shards))
}

/// What a record is known by: the beginning of its payload.
fn name(entry: &PutEntry) -> String {
    let text = String::from_utf8_lossy(&entry.data);
    text.rsplit_once('/').map_or_else(|| "foreign".to_owned(), |(name, _)| name.to_owned())
}

async fn read(stream: &MemoryStream, shard: &Shard) -> Vec<Found> {
    let mut reader: Box<dyn ShardReader> = stream.open(&shard.id, StartPosition::TrimHorizon).await.expect("it opens");
    let mut found = Vec::new();
    loop {
        let read = reader.read(10_000).await.expect("it answers");
        let is_empty = read.records.is_empty();
        for record in read.records {
            let keys = Outer { partition_key: record.partition_key.map(Into::into), explicit_hash_key: None };
            let at = |place| ExtendedSequenceNumber::new(record.sequence_number, place);
            let mut is_plain = false;
            let entries: Vec<(u64, PutEntry)> = match deaggregate(record.data, keys) {
                Deaggregated::Aggregated(aggregate) => aggregate
                    .into_iter()
                    .map(|record| {
                        (
                            record.sub_sequence_number,
                            entry(record.partition_key.into(), record.explicit_hash_key, record.data),
                        )
                    })
                    .collect(),
                Deaggregated::NotAggregated { record, .. } => {
                    is_plain = true;
                    let key = record.outer.partition_key.expect("it was put with one").into();
                    vec![(0, entry(key, None, record.data))]
                }
                other => panic!("no such record was put: {other:?}"),
            };
            let is_delivered = is_plain || entries.iter().all(|(_, entry)| belongs(entry, shard.hash_key_range));
            found.extend(entries.into_iter().map(|(place, entry)| Found {
                shard: shard.id.clone(),
                position: at(place),
                entry,
                is_plain,
                is_delivered,
            }));
        }
        if is_empty && (read.end.is_some() || read.behind_latest == Some(Duration::ZERO)) {
            return found;
        }
    }
}

fn entry(partition_key: shardwell_core::PartitionKey, explicit_hash_key: Option<u128>, data: bytes::Bytes) -> PutEntry {
    PutEntry { data, partition_key, explicit_hash_key }
}

fn belongs(entry: &PutEntry, range: HashKeyRange) -> bool {
    range.contains(effective_hash_key(entry.partition_key.as_str(), entry.explicit_hash_key))
}
