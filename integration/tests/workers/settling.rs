//! Waiting for what a fleet comes to when nothing befalls it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardwell_core::{EnvExt, ExtendedSequenceNumber, Lease, ShardId, WorkerId};

use super::World;
use super::history::{Row, WriteKind};
use super::member::Member;
use crate::common::PATIENCE;
use crate::flights::producer::{Put, newest_by_shard};

/// So many flights are named at most.
const TOLD: usize = 20;

impl World {
    /// Waits until every flight was put and handled, what is done is stored, and every member has its share of the work; for as
    /// long as anything happens.
    pub(crate) async fn settle(&mut self, members: &mut [Member]) -> Vec<Put> {
        let (puts, reshards) = self.producer.finish().await;
        self.reshards = reshards;
        let (puts, newest) = (puts.to_vec(), newest_by_shard(puts));
        let mut deadline = self.env.now().plus(PATIENCE);
        let mut done_at = None;
        loop {
            for member in &mut *members {
                assert_eq!(member.ended(), None, "{} runs", member.worker);
                if self.take_news(member) {
                    deadline = self.env.now().plus(PATIENCE);
                }
            }
            let leases = self.table.leases().await;
            let (undone, unsettled) = (self.undone(&leases, &newest), self.unsettled(members, &leases).await);
            if undone.is_empty() && unsettled.is_empty() {
                self.settled_within = self.env.now().since(done_at.unwrap_or(self.env.now()));
                return puts;
            }
            if undone.is_empty() {
                done_at.get_or_insert(self.env.now());
            }
            if self.env.now() >= deadline {
                panic!("nothing happens, and left are {undone:?} {unsettled:?}; {}", last_words(&*members));
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
    }

    /// The flights that nobody has handled, and the shards whose lease is not at their end.
    fn undone(&self, leases: &[Lease], newest: &BTreeMap<ShardId, ExtendedSequenceNumber>) -> Vec<String> {
        let leases: BTreeMap<&ShardId, &Lease> = leases.iter().map(|lease| (&lease.shard, lease)).collect();
        let mut undone: Vec<String> =
            self.outstanding.iter().take(TOLD).map(|number| format!("flight {number}")).collect();
        for shard in self.shards() {
            let stored = leases.get(&shard.id).map(|lease| lease.checkpoint);
            let is_done = match stored {
                None => !shard.is_open(),
                Some(stored) if shard.is_open() => newest.get(&shard.id).copied() == stored.position(),
                Some(stored) => stored.is_shard_end(),
            };
            if !is_done {
                undone.push(format!("{} at {stored:?}, of {:?}", shard.id, newest.get(&shard.id)));
            }
        }
        undone
    }

    /// The leases that no member has, the members that have none, and the workers that are no members.
    async fn unsettled(&self, members: &[Member], leases: &[Lease]) -> Vec<String> {
        let is_member = |owner: &WorkerId| members.iter().any(|member| member.worker == *owner);
        let is_settled =
            |lease: &Lease| lease.checkpoint_owner.is_none() && lease.owner.as_ref().is_some_and(is_member);
        let is_idle = |member: &Member| !leases.iter().any(|lease| lease.actual_owner() == Some(&member.worker));
        let workers = self.table.workers().await;
        let mut unsettled = Vec::new();
        for lease in leases.iter().filter(|lease| !lease.is_finished() && !is_settled(lease)) {
            unsettled.push(format!("{} of {:?}", lease.key, lease.owner));
        }
        for member in members.iter().filter(|member| is_idle(member) || !workers.contains(&member.worker)) {
            unsettled.push(format!("work for {}", member.worker));
        }
        unsettled.extend(workers.iter().filter(|id| !is_member(id)).map(|id| format!("{id}, which is dead")));
        unsettled
    }

    /// The leases that a worker holds.
    pub(crate) async fn leases_of(&self, worker: &WorkerId) -> Vec<ShardId> {
        let leases = self.table.leases().await.into_iter();
        let held = leases.filter(|lease| !lease.is_finished() && lease.actual_owner() == Some(worker));
        held.map(|lease| lease.shard).collect()
    }

    /// Waits until every lease was renewed by one of the members, after the first so many writes.
    pub(crate) async fn until_all_are_renewed(&self, members: &[Member], known: usize) {
        let deadline = self.env.now().plus(PATIENCE);
        loop {
            let mut renewed = BTreeSet::new();
            for write in self.table.history_after(known) {
                let holder = write.after.as_ref().and_then(Row::holder);
                let is_member = members.iter().any(|member| Some(&member.worker) == holder);
                if is_member && write.kind() == Ok(WriteKind::Renewed) {
                    renewed.insert(write.lease);
                }
            }
            let leases = self.table.leases().await;
            let mut unfinished = leases.iter().filter(|lease| !lease.is_finished());
            if unfinished.all(|lease| renewed.contains(&lease.shard)) {
                return;
            }
            if self.env.now() >= deadline {
                panic!("not renewed within {PATIENCE:?}: {leases:?}; {}", last_words(members));
            }
            self.env.sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The end of what each wrote to its standard error.
pub(super) fn last_words<'a>(members: impl IntoIterator<Item = &'a Member>) -> String {
    members.into_iter().map(Member::last_words).collect::<Vec<_>>().join("\n\n")
}
