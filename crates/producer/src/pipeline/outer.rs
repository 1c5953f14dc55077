//! A record as it goes to Kinesis, and the user records that are in it. It is written, retried or given up as a whole.

use std::time::Duration;

use shardwell_core::aggregation::{Aggregator, Deaggregated, HashKeyRange, Limits, Outer as Keys, Single, deaggregate};
use shardwell_core::{Monotonic, PutEntry};
use smallvec::{SmallVec, smallvec};
use tokio::sync::oneshot;

use crate::budget::Permit;
use crate::failure::PutFailure;
use crate::ticket::{Attempt, AttemptError, Attempts, Landed};

/// A user record under way: who waits for it, and what it takes.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) answer: oneshot::Sender<Result<Landed, PutFailure>>,
    pub(crate) permit: Permit,
    pub(crate) hash_key: u128,
    /// Whether the hash key was given, and is not that of the partition key.
    pub(crate) is_explicit: bool,
    pub(crate) arrived: Monotonic,
    /// Of which flush it is.
    pub(crate) generation: u64,
    /// The attempts with records that it was in before.
    pub(crate) attempts: Attempts,
}

/// How the members are in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// The record is the user record.
    Plain,
    /// There is one, in an aggregated record, since it would be taken for one itself.
    Wrapped,
    /// There are several, in an aggregated record.
    Aggregated,
}

/// A record for Kinesis: what is sent, and whose fate that is.
#[derive(Debug)]
pub(crate) struct OuterRecord {
    pub(crate) entry: PutEntry,
    pub(crate) unit: Box<Unit>,
}

/// User records that share one fate, and what is known of it.
#[derive(Debug)]
pub(crate) struct Unit {
    /// In the order of their sub-sequence numbers.
    members: SmallVec<[Member; 1]>,
    format: Format,
    attempts: Attempts,
    /// When the first member came, or the last attempt ended.
    waits_since: Monotonic,
    /// From when on it is to be sent.
    pub(crate) due: Monotonic,
    /// Not before this time, since it failed.
    pub(crate) not_before: Monotonic,
    /// Whether it goes into a request of its own, since one that it was in was refused.
    pub(crate) is_suspect: bool,
}

impl OuterRecord {
    /// A user record as it is.
    pub(crate) fn plain(entry: PutEntry, member: Member, due: Monotonic) -> Self {
        Self::new(entry, smallvec![member], Format::Plain, due)
    }

    /// A user record that must not be taken for an aggregated record. It goes as it is if it is too large to be wrapped.
    pub(crate) fn wrapped(entry: PutEntry, member: Member, limits: Limits, due: Monotonic) -> Self {
        let mut aggregator = Aggregator::new(limits).with_single(Single::Wrapped);
        let added = aggregator.try_add(entry.partition_key.as_str(), entry.explicit_hash_key, &entry.data);
        let Some(record) = added.ok().and_then(|()| aggregator.finish()) else {
            return Self::plain(entry, member, due);
        };
        let (data, partition_key) = (record.data, record.partition_key.into());
        let entry = PutEntry { data, partition_key, explicit_hash_key: Some(record.explicit_hash_key) };
        Self::new(entry, smallvec![member], Format::Wrapped, due)
    }

    /// What an aggregator holds, with the members that were added to it; nothing if that is nothing.
    pub(crate) fn finish(aggregator: &mut Aggregator, members: Vec<Member>, due: Monotonic) -> Option<Self> {
        let record = aggregator.finish()?;
        let first = members.first()?;
        let format = if members.len() > 1 { Format::Aggregated } else { Format::Plain };
        // One that is alone goes out as it was put.
        let has_hash_key = format == Format::Aggregated || first.is_explicit;
        let explicit_hash_key = has_hash_key.then_some(record.explicit_hash_key);
        let entry = PutEntry { data: record.data, partition_key: record.partition_key.into(), explicit_hash_key };
        Some(Self::new(entry, members.into(), format, due))
    }

    fn new(entry: PutEntry, members: SmallVec<[Member; 1]>, format: Format, due: Monotonic) -> Self {
        let waits_since = members.first().map_or(due, |member| member.arrived);
        let (attempts, not_before) = (Attempts::default(), waits_since);
        let unit = Unit { members, format, attempts, waits_since, due, not_before, is_suspect: false };
        Self { entry, unit: Box::new(unit) }
    }

    /// What it takes of a request and of a shard's limits.
    pub(crate) fn bytes(&self) -> usize {
        bytes_of(&self.entry)
    }

    /// Its user records, as they were put.
    pub(crate) fn user_records(&self) -> Vec<PutEntry> {
        match self.unit.format {
            Format::Plain => vec![self.entry.clone()],
            Format::Wrapped | Format::Aggregated => unpack(&self.entry),
        }
    }

    /// Takes it apart again.
    pub(crate) fn into_user_records(self) -> Vec<(PutEntry, Member)> {
        self.user_records().into_iter().zip(self.unit.into_members()).collect()
    }
}

impl Unit {
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The room that its members take.
    pub(crate) fn permits(&mut self) -> impl Iterator<Item = &mut Permit> {
        self.members.iter_mut().map(|member| &mut member.permit)
    }

    /// How often it was tried, with those that its members were in before.
    pub(crate) fn attempts(&self) -> usize {
        self.attempts.count() + self.members.iter().map(|member| member.attempts.count()).max().unwrap_or_default()
    }

    /// When its first member came.
    pub(crate) fn arrived(&self) -> Option<Monotonic> {
        self.members.iter().map(|member| member.arrived).min()
    }

    /// The hash keys from the least to the greatest of its members.
    pub(crate) fn hash_keys(&self) -> Option<HashKeyRange> {
        let keys = || self.members.iter().map(|member| member.hash_key);
        HashKeyRange::new(keys().min()?, keys().max()?).ok()
    }

    /// Whether it may be in the shard that owns these hash keys. One with a single member was routed by the service itself.
    pub(crate) fn belongs_to(&self, range: HashKeyRange) -> bool {
        self.format != Format::Aggregated || self.members.iter().all(|member| range.contains(member.hash_key))
    }

    /// Whether it has members that may not belong where it lands.
    pub(crate) fn is_aggregated(&self) -> bool {
        self.format == Format::Aggregated
    }

    /// How long it waited before it was sent.
    pub(crate) const fn waiting(&self, sent: Monotonic) -> Duration {
        sent.since(self.waits_since)
    }

    /// Takes note of an attempt.
    pub(crate) fn attempted(&mut self, sent: Monotonic, answered: Monotonic, error: Option<AttemptError>) {
        let (waited, took) = (self.waiting(sent), answered.since(sent));
        self.attempts.push(Attempt { waited, took, error });
        self.waits_since = answered;
    }

    /// Its members, who know what was tried.
    pub(crate) fn into_members(self) -> SmallVec<[Member; 1]> {
        let mut shared: Option<(Attempts, Attempts)> = None;
        let mut members = self.members;
        for member in &mut members {
            let same = shared.as_ref().filter(|(before, _)| before.is_same(&member.attempts));
            let after = match same {
                Some((_, after)) => after.clone(),
                None => self.attempts.after(&member.attempts),
            };
            let before = std::mem::replace(&mut member.attempts, after.clone());
            shared = Some((before, after));
        }
        members
    }
}

/// What a record counts, as the service does.
pub(crate) fn bytes_of(entry: &PutEntry) -> usize {
    entry.data.len() + entry.partition_key.as_str().len()
}

/// The user records of a record that was made here.
fn unpack(entry: &PutEntry) -> Vec<PutEntry> {
    let Deaggregated::Aggregated(aggregate) = deaggregate(entry.data.clone(), Keys::default()) else {
        return Vec::new();
    };
    let records = aggregate.into_iter();
    records
        .map(|record| PutEntry {
            data: record.data,
            partition_key: record.partition_key.into(),
            explicit_hash_key: record.explicit_hash_key,
        })
        .collect()
}
