//! Dead letters in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::dead_letter::{
    ArchivedLetter, Claim, DeadLetter, DeadLetterArchive, DeadLetterSink, LetterId, LetterPage, LetterQuery,
    LetterState, Resolution, SinkError,
};
use crate::{PartitionKey, Timestamp, WorkerId};

/// Dead letters in memory: for tests, for the simulator, and for trying things out. **Nothing outlives the process.**
///
/// Clones share the letters. It is the reference that other archives are compared with: the pure functions of
/// [`ArchivedLetter`] under one mutex.
#[derive(Clone, Debug, Default)]
pub struct MemoryDeadLetters {
    letters: Arc<Mutex<BTreeMap<LetterId, Kept>>>,
}

#[derive(Debug)]
struct Kept {
    archived: ArchivedLetter,
    /// Whose it is and until when, while it is [`LetterState::Redriving`].
    claim: Option<(WorkerId, Timestamp)>,
}

impl Kept {
    fn is_open(&self, now: Timestamp) -> bool {
        match self.archived.state {
            LetterState::Requested => true,
            LetterState::Redriving => self.claim.as_ref().is_none_or(|(_, until)| *until <= now),
            LetterState::Dead | LetterState::Parked | LetterState::Redriven => false,
        }
    }

    fn is_claimed_by_another(&self, worker: &WorkerId, now: Timestamp) -> bool {
        self.claim.as_ref().is_some_and(|(by, until)| by != worker && *until > now)
    }

    /// The state it is in from now on. Whatever changes it by hand ends the claim.
    fn replace_with(&mut self, archived: ArchivedLetter) {
        if archived.state != LetterState::Redriving {
            self.claim = None;
        }
        self.archived = archived;
    }
}

impl MemoryDeadLetters {
    /// No letters.
    pub fn new() -> Self {
        Self::default()
    }

    /// All letters, in the order of their identities.
    pub fn all(&self) -> Vec<ArchivedLetter> {
        self.letters().values().map(|kept| kept.archived.clone()).collect()
    }

    /// No write leaves the letters half done, so a panic elsewhere does not spoil them.
    fn letters(&self) -> MutexGuard<'_, BTreeMap<LetterId, Kept>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for MemoryDeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("dead letters in memory")
    }
}

#[async_trait]
impl DeadLetterSink for MemoryDeadLetters {
    async fn put(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let mut all = self.letters();
        for letter in letters {
            match all.get_mut(&letter.id()) {
                Some(older) => older.replace_with(ArchivedLetter::replacing(letter.clone(), &older.archived)),
                None => {
                    let archived = ArchivedLetter::new(letter.clone());
                    all.insert(letter.id(), Kept { archived, claim: None });
                }
            }
        }
        Ok(())
    }

    fn archive(&self) -> Option<&dyn DeadLetterArchive> {
        Some(self)
    }
}

#[async_trait]
impl DeadLetterArchive for MemoryDeadLetters {
    async fn letters(
        &self,
        query: &LetterQuery,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<LetterPage, SinkError> {
        let all = self.letters();
        let behind = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut matching =
            all.range::<LetterId, _>(behind).filter(|(_, kept)| query.matches(&kept.archived)).peekable();
        let (mut page, mut last) = (LetterPage::default(), None);
        for (id, kept) in matching.by_ref().take(limit.max(1)) {
            page.letters.push(kept.archived.clone());
            last = Some(id);
        }
        page.next = matching.peek().and(last).cloned();
        Ok(page)
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<ArchivedLetter>, SinkError> {
        Ok(self.letters().get(id).map(|kept| kept.archived.clone()))
    }

    async fn request_redrive(&self, query: &LetterQuery, at: Timestamp) -> Result<u64, SinkError> {
        let mut requested = 0;
        for kept in self.letters().values_mut().filter(|kept| query.matches(&kept.archived)) {
            if let Some(archived) = kept.archived.clone().requested(at) {
                kept.replace_with(archived);
                requested += 1;
            }
        }
        Ok(requested)
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<ArchivedLetter>, SinkError> {
        let mut all = self.letters();
        let mut here: Vec<_> =
            all.iter_mut().filter(|(id, _)| id.application == claim.application && id.stream == claim.stream).collect();
        here.sort_by_key(|(id, _)| (id.position, id.shard.clone()));
        let busy = here.iter().filter(|(_, kept)| kept.is_claimed_by_another(&claim.worker, claim.now));
        let busy: BTreeSet<PartitionKey> =
            busy.filter_map(|(_, kept)| kept.archived.letter.record.partition_key.clone()).collect();
        let is_free = |kept: &Kept| {
            kept.is_open(claim.now)
                && kept.archived.letter.record.partition_key.as_ref().is_none_or(|key| !busy.contains(key))
        };
        let given = here.into_iter().filter(|(_, kept)| is_free(kept)).take(claim.limit);
        let give = |(_, kept): (_, &mut Kept)| {
            kept.archived = kept.archived.clone().claimed(claim.now);
            kept.claim = Some((claim.worker.clone(), claim.until));
            kept.archived.clone()
        };
        Ok(given.map(give).collect())
    }

    async fn resolve(&self, id: &LetterId, worker: &WorkerId, resolution: &Resolution) -> Result<bool, SinkError> {
        let mut all = self.letters();
        let is_theirs = |kept: &&mut Kept| kept.claim.as_ref().is_some_and(|(by, _)| by == worker);
        let Some(kept) = all.get_mut(id).filter(is_theirs) else { return Ok(false) };
        kept.replace_with(kept.archived.clone().resolved(resolution));
        Ok(true)
    }

    async fn mark_redriven(&self, id: &LetterId, at: Timestamp) -> Result<bool, SinkError> {
        let mut all = self.letters();
        let Some(kept) = all.get_mut(id) else { return Ok(false) };
        kept.replace_with(kept.archived.clone().marked_redriven(at));
        Ok(true)
    }

    async fn dead_keys(&self, application: &str, stream: &str) -> Result<BTreeSet<PartitionKey>, SinkError> {
        let all = self.letters();
        let here = all.iter().filter(|(id, _)| id.application == application && id.stream == stream);
        let dead = here.filter(|(_, kept)| kept.archived.state != LetterState::Redriven);
        Ok(dead.filter_map(|(_, kept)| kept.archived.letter.record.partition_key.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::dead_letters::{Place, exercise_archive, exercise_sink};

    struct InMemory(MemoryDeadLetters);

    #[async_trait]
    impl Place for InMemory {
        async fn open(&self) -> Arc<dyn DeadLetterSink> {
            Arc::new(self.0.clone())
        }

        async fn kept(&self) -> Vec<DeadLetter> {
            self.0.all().into_iter().map(|archived| archived.letter).collect()
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn conforms_as_a_sink() {
        exercise_sink(|| async { InMemory(MemoryDeadLetters::new()) }).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn conforms_as_an_archive() {
        exercise_archive(|| async { Arc::new(MemoryDeadLetters::new()) }).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn conforms_as_an_object() {
        exercise_archive(|| async { Arc::new(MemoryDeadLetters::new()) as Arc<dyn DeadLetterSink> }).await;
    }
}
