//! Dead letters that fail on demand.

use std::collections::BTreeSet;
use std::fmt;
use std::future::{Future, pending};
use std::sync::Arc;

use async_trait::async_trait;
use shardwell_core::dead_letter::{
    ArchivedLetter, Claim, DeadLetter, DeadLetterArchive, DeadLetterSink, LetterId, LetterPage, LetterQuery,
    Resolution, SinkError, SinkErrorKind,
};
use shardwell_core::{PartitionKey, Timestamp, WorkerId};

use crate::{Fault, FaultPlan};

/// A sink around another one, whose calls fail as a plan says. Where the other one is an archive, so is this.
#[derive(Clone)]
pub struct FaultyDeadLetterSink {
    inner: Arc<dyn DeadLetterSink>,
    plan: FaultPlan,
    refusal: SinkErrorKind,
}

impl FaultyDeadLetterSink {
    /// A sink whose calls fail as `plan` says.
    pub fn new(inner: Arc<dyn DeadLetterSink>, plan: impl Fn(&'static str) -> Fault + Send + Sync + 'static) -> Self {
        Self { inner, plan: Arc::new(plan), refusal: SinkErrorKind::Unavailable }
    }

    /// What kind of error a call gets that is refused ([`Fault::Refuse`]). Default: [`SinkErrorKind::Unavailable`].
    #[must_use]
    pub fn with_refusal(self, refusal: SinkErrorKind) -> Self {
        Self { refusal, ..self }
    }

    async fn call<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, SinkError>> + Send,
    ) -> Result<T, SinkError> {
        match (self.plan)(method) {
            Fault::None => call.await,
            Fault::Refuse => Err(SinkError::new(self.refusal, "refused, as planned")),
            Fault::LoseReply => {
                let _ = call.await;
                Err(SinkError::new(SinkErrorKind::Unavailable, "the reply was lost, as planned"))
            }
            Fault::Hang => {
                let _ = call.await;
                pending().await
            }
        }
    }

    fn inner_archive(&self) -> Result<&dyn DeadLetterArchive, SinkError> {
        let none = || SinkError::new(SinkErrorKind::Unusable, format!("{} is no archive", self.inner));
        self.inner.archive().ok_or_else(none)
    }
}

impl fmt::Debug for FaultyDeadLetterSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDeadLetterSink").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Display for FaultyDeadLetterSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults", self.inner)
    }
}

#[async_trait]
impl DeadLetterSink for FaultyDeadLetterSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.call("prepare", self.inner.prepare()).await
    }

    async fn put(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.call("put", self.inner.put(letters)).await
    }

    fn archive(&self) -> Option<&dyn DeadLetterArchive> {
        self.inner.archive().map(|_| self as &dyn DeadLetterArchive)
    }
}

#[async_trait]
impl DeadLetterArchive for FaultyDeadLetterSink {
    async fn letters(
        &self,
        query: &LetterQuery,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<LetterPage, SinkError> {
        self.call("letters", self.inner_archive()?.letters(query, after, limit)).await
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<ArchivedLetter>, SinkError> {
        self.call("letter", self.inner_archive()?.letter(id)).await
    }

    async fn request_redrive(&self, query: &LetterQuery, at: Timestamp) -> Result<u64, SinkError> {
        self.call("request_redrive", self.inner_archive()?.request_redrive(query, at)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<ArchivedLetter>, SinkError> {
        self.call("claim", self.inner_archive()?.claim(claim)).await
    }

    async fn resolve(&self, id: &LetterId, worker: &WorkerId, resolution: &Resolution) -> Result<bool, SinkError> {
        self.call("resolve", self.inner_archive()?.resolve(id, worker, resolution)).await
    }

    async fn mark_redriven(&self, id: &LetterId, at: Timestamp) -> Result<bool, SinkError> {
        self.call("mark_redriven", self.inner_archive()?.mark_redriven(id, at)).await
    }

    async fn dead_keys(&self, application: &str, stream: &str) -> Result<BTreeSet<PartitionKey>, SinkError> {
        self.call("dead_keys", self.inner_archive()?.dead_keys(application, stream)).await
    }
}
