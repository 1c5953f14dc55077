//! Splits, merges, and changes of the number of shards.

use super::error::KinesisError;
use super::shard::{Closed, ShardState};
use super::stream::{MAX_SHARDS, StreamState};
use crate::{HashKeyRange, ShardId, Timestamp};

/// A change of a stream's shards that was checked and is certain to succeed: nothing else changes a stream in the
/// meantime, since it is not `ACTIVE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reshard {
    Split { shard: u32, low: HashKeyRange, high: HashKeyRange },
    Merge { shard: u32, adjacent: u32, range: HashKeyRange },
    Uniform(Vec<HashKeyRange>),
}

impl StreamState {
    pub(super) fn plan_split(&self, shard: &ShardId, new_start: u128) -> Result<Reshard, KinesisError> {
        let (index, state) = self.find_open(shard)?;
        let (low, high) = state.range.split_at(new_start).ok_or_else(|| {
            KinesisError::invalid(format!(
                "{shard} cannot be split at {new_start}: its hash keys are {}, and the new start must lie above the first",
                state.range
            ))
        })?;
        Ok(Reshard::Split { shard: index, low, high })
    }

    pub(super) fn plan_merge(&self, shard: &ShardId, adjacent: &ShardId) -> Result<Reshard, KinesisError> {
        let (a, first) = self.find_open(shard)?;
        let (b, second) = self.find_open(adjacent)?;
        let range = first.range.merge(&second.range).ok_or_else(|| {
            KinesisError::invalid(format!(
                "{shard} ({}) and {adjacent} ({}) are not adjacent and cannot be merged",
                first.range, second.range
            ))
        })?;
        Ok(Reshard::Merge { shard: a, adjacent: b, range })
    }

    pub(super) fn plan_uniform(&self, target: u32) -> Result<Reshard, KinesisError> {
        let current = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        if !(1..=MAX_SHARDS).contains(&target) {
            return Err(KinesisError::validation(format!("{target} shards: 1 to {MAX_SHARDS} may be")));
        }
        let refusal = if target == current {
            "it has as many"
        } else if target > current.saturating_mul(2) {
            "at most twice as many may be asked for"
        } else if target < current.div_ceil(2) {
            "at least half as many must be asked for"
        } else {
            return Ok(Reshard::Uniform(HashKeyRange::even_split(target)));
        };
        let name = &self.name;
        Err(KinesisError::invalid(format!("stream `{name}` has {current} open shards, asked for {target}: {refusal}")))
    }

    /// Carries out a change.
    pub(super) fn reshard(&mut self, change: Reshard, at: Timestamp) {
        match change {
            Reshard::Split { shard, low, high } => self.replace(&[shard], &[low, high], at),
            Reshard::Merge { shard, adjacent, range } => self.replace(&[shard, adjacent], &[range], at),
            Reshard::Uniform(ranges) => self.make_uniform(&ranges, at),
        }
    }

    /// Splits at every new boundary, then merges what lies between two of them: the short-lived shards in between are
    /// what the service makes too.
    fn make_uniform(&mut self, ranges: &[HashKeyRange], at: Timestamp) {
        for range in ranges {
            let Some(shard) = self.open.owner(range.start()) else { continue };
            let Some(state) = self.shards.get(&shard) else { continue };
            if let Some((low, high)) = state.range.split_at(range.start()) {
                self.replace(&[shard], &[low, high], at);
            }
        }
        for range in ranges {
            while let [shard, adjacent, ..] = self.open.within(*range)[..] {
                let merged = match (self.shards.get(&shard), self.shards.get(&adjacent)) {
                    (Some(first), Some(second)) => first.range.merge(&second.range),
                    _ => None,
                };
                let Some(merged) = merged else { break };
                self.replace(&[shard, adjacent], &[merged], at);
            }
        }
    }

    /// Closes shards and opens their children, whose numbers all lie above theirs.
    fn replace(&mut self, parents: &[u32], ranges: &[HashKeyRange], at: Timestamp) {
        for &index in parents {
            let ending = self.numbering.next(index, at);
            if let Some(shard) = self.shards.get_mut(&index) {
                shard.closed = Some(Closed { at, ending });
                self.open.close(shard.range);
                self.closed.push_back(index);
            }
        }
        let children: Vec<u32> = ranges.iter().map(|range| self.open_shard(parents.to_vec(), *range, at)).collect();
        for index in parents {
            if let Some(shard) = self.shards.get_mut(index) {
                shard.children.clone_from(&children);
            }
        }
    }

    pub(super) fn open_shard(&mut self, parents: Vec<u32>, range: HashKeyRange, at: Timestamp) -> u32 {
        let index = self.next_shard;
        self.next_shard += 1;
        let starting = self.numbering.next(index, at);
        self.shards.insert(index, ShardState::new(index, parents, range, starting, at));
        self.open.open(range, index);
        index
    }

    fn find_open(&self, id: &ShardId) -> Result<(u32, &ShardState), KinesisError> {
        let (index, shard) = self.find(id)?;
        if shard.closed.is_some() {
            let name = &self.name;
            return Err(KinesisError::invalid(format!("{id} of stream `{name}` is closed: only open shards change")));
        }
        Ok((index, shard))
    }
}
