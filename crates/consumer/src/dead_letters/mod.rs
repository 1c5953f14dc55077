//! Where a worker's dead letters go.

mod redrive;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::counter;
use shardwell_core::dead_letter::{DeadLetter, DeadLetterArchive, DeadLetterSink, SinkError, SinkErrorKind};
use shardwell_core::delivery::{BurialOutcome, DeliveryPolicy, Fuse, FuseAction};
use shardwell_core::{Env, EnvExt, Monotonic, PartitionKey};
use tracing::warn;

use crate::causes::with_causes;
use crate::lock::lock;
use crate::metrics::SINK_FAILURES;

pub(crate) use redrive::run as redrive;

/// The sinks of a worker, and the fuse in front of them.
pub(crate) struct DeadLetters {
    /// In the order in which they are tried.
    sinks: Vec<Arc<dyn DeadLetterSink>>,
    fuse: Option<(Mutex<Fuse>, FuseAction)>,
}

/// What the fuse says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    Pause,
    Stop,
}

/// A sink that has no answer after this long is passed over.
const SINK_DEADLINE: Duration = Duration::from_secs(60);

impl DeadLetters {
    pub(crate) fn new(sinks: Vec<Arc<dyn DeadLetterSink>>, policy: &DeliveryPolicy) -> Self {
        let fuse = policy.fuse().map(|fuse| (Mutex::new(Fuse::new(fuse)), fuse.action()));
        Self { sinks, fuse }
    }

    /// Makes every sink ready.
    pub(crate) async fn prepare(&self) -> Result<(), SinkError> {
        for sink in &self.sinks {
            sink.prepare().await?;
        }
        Ok(())
    }

    /// Whether so many more records may die now.
    pub(crate) fn admit(&self, letters: usize, now: Monotonic) -> Admission {
        let Some((fuse, action)) = &self.fuse else { return Admission::Admitted };
        let letters = u32::try_from(letters).unwrap_or(u32::MAX);
        match (lock(fuse).admit(letters, now), action) {
            (true, _) => Admission::Admitted,
            (false, FuseAction::Pause) => Admission::Pause,
            (false, FuseAction::Stop) => Admission::Stop,
        }
    }

    /// Somebody looked, and said to go on.
    pub(crate) fn reset_fuse(&self) {
        if let Some((fuse, _)) = &self.fuse {
            lock(fuse).reset();
        }
    }

    /// Makes letters durable in the first sink that takes them. Without any sink they are given up, on purpose.
    pub(crate) async fn put(&self, env: &dyn Env, application: &str, letters: &[DeadLetter]) -> BurialOutcome {
        if self.sinks.is_empty() {
            return BurialOutcome::Kept;
        }
        for sink in &self.sinks {
            let deadline = env.now().plus(SINK_DEADLINE);
            let put = env.deadline(deadline, sink.put(letters)).await.unwrap_or_else(|_| {
                Err(SinkError::new(SinkErrorKind::Unavailable, format!("no answer within {SINK_DEADLINE:?}")))
            });
            match put {
                Ok(()) => return BurialOutcome::Kept,
                Err(error) => {
                    let (application, name) = (application.to_owned(), sink.to_string());
                    counter!(SINK_FAILURES, "application" => application, "sink" => name).increment(1);
                    warn!(%sink, error = %with_causes(&error), "a sink did not take dead letters");
                }
            }
        }
        BurialOutcome::Failed
    }

    /// The first sink whose letters can be read back.
    pub(crate) fn archive(&self) -> Option<&dyn DeadLetterArchive> {
        self.sinks.iter().find_map(|sink| sink.archive())
    }

    /// The keys that have a dead record.
    pub(crate) async fn dead_keys(&self, application: &str, stream: &str) -> Result<BTreeSet<PartitionKey>, SinkError> {
        match self.archive() {
            Some(archive) => archive.dead_keys(application, stream).await,
            None => Ok(BTreeSet::new()),
        }
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sinks.iter().map(ToString::to_string)).finish()
    }
}
