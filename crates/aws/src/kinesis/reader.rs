//! Reading one shard by polling.

use std::sync::Arc;
use std::time::Duration;

use super::Inner;
use super::convert;
use super::error::Operation;
use super::opened_at::OpenedAt;
use async_trait::async_trait;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::types as sdk;
use shardwell_core::{ChildShard, Read, Record, ShardId, ShardReader, StartPosition, StreamError, StreamErrorKind};

/// `GetRecords` refuses a higher limit (Kinesis API).
const MAX_RECORDS: usize = 10_000;

/// A place in one shard: an iterator while the service honours one, and always the position that leads to the same
/// place without it.
///
/// An iterator lives for five minutes, so a reader that was left alone for longer finds its own expired. It opens the
/// shard anew after the last record that it returned, or, before the first one, where it was opened at first.
#[derive(Debug)]
pub(super) struct PollingReader {
    stream: Arc<Inner>,
    shard: ShardId,
    iterator: Option<String>,
    /// Names no record that was returned and skips none that was not. Never `LATEST`, which would skip what was put
    /// between the first opening and the next: it is the time of the first opening then.
    resume: StartPosition,
    end: Option<Vec<ChildShard>>,
}

impl PollingReader {
    pub(super) async fn open(
        stream: Arc<Inner>,
        shard: &ShardId,
        position: StartPosition,
    ) -> Result<Self, StreamError> {
        let opened = OpenedAt::default();
        let iterator = stream.shard_iterator(shard, position, &opened).await?;
        let resume = match position {
            StartPosition::Latest => StartPosition::AtTimestamp(opened.not_after(stream.local_time())),
            StartPosition::TrimHorizon
            | StartPosition::AtTimestamp(_)
            | StartPosition::AtSequenceNumber(_)
            | StartPosition::AfterSequenceNumber(_) => position,
        };
        Ok(Self { stream, shard: shard.clone(), iterator: Some(iterator), resume, end: None })
    }

    async fn iterator(&mut self) -> Result<String, StreamError> {
        if let Some(iterator) = &self.iterator {
            return Ok(iterator.clone());
        }
        tracing::debug!(shard = %self.shard, position = ?self.resume, "opening the shard anew");
        let iterator = self.stream.shard_iterator(&self.shard, self.resume, &OpenedAt::default()).await?;
        self.iterator = Some(iterator.clone());
        Ok(iterator)
    }

    /// The next answer; an iterator that the service does not honour any more is replaced once.
    async fn fetch(&mut self, limit: usize) -> Result<GetRecordsOutput, StreamError> {
        let iterator = self.iterator().await?;
        let answer = match self.stream.get_records(iterator, limit).await {
            Err(error) if is_stale(&error) => {
                self.iterator = None;
                let fresh = self.iterator().await?;
                self.stream.get_records(fresh, limit).await
            }
            answer => answer,
        };
        answer.map_err(|error| self.stream.target.error(Operation::GetRecords, error))
    }

    /// A closed shard without children: its stream is gone, or the answer was wrong.
    ///
    /// Taking it for the end on the word of one answer could skip records for ever, so the shard is opened once more.
    async fn confirm_end(&mut self) -> Result<Read, StreamError> {
        match self.iterator().await {
            Err(error) if error.kind() == StreamErrorKind::NotFound => Ok(self.ended(Vec::new(), Vec::new())),
            Err(error) => Err(error),
            Ok(_) => Err(StreamError::new(
                StreamErrorKind::Unavailable,
                format!(
                    "GetRecords on {}: {} ended without child shards, but is still there; reading it again",
                    self.stream.target, self.shard
                ),
            )),
        }
    }

    fn ended(&mut self, records: Vec<Record>, children: Vec<ChildShard>) -> Read {
        self.end = Some(children.clone());
        Read { records, behind_latest: Some(Duration::ZERO), end: Some(children) }
    }
}

/// The service also calls an iterator invalid that is merely of no use any more.
fn is_stale(error: &SdkError<GetRecordsError>) -> bool {
    error
        .as_service_error()
        .is_some_and(|error| error.is_expired_iterator_exception() || error.is_invalid_argument_exception())
}

/// The children of a closed shard, if they are told completely: at least one, and each naming its parents.
fn children_of(told: Option<Vec<sdk::ChildShard>>) -> Result<Option<Vec<ChildShard>>, convert::Malformed> {
    let children = told.unwrap_or_default().into_iter().map(convert::child_shard).collect::<Result<Vec<_>, _>>()?;
    let complete = !children.is_empty() && children.iter().all(|child| !child.parents.is_empty());
    Ok(complete.then_some(children))
}

#[async_trait]
impl ShardReader for PollingReader {
    async fn read(&mut self, limit: usize) -> Result<Read, StreamError> {
        if let Some(children) = self.end.clone() {
            return Ok(self.ended(Vec::new(), children));
        }
        let answer = self.fetch(limit.clamp(1, MAX_RECORDS)).await?;
        let malformed = |error| self.stream.target.malformed(Operation::GetRecords, &error);
        let records = answer.records.into_iter().map(convert::record).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(malformed)?;
        let children = children_of(answer.child_shards).map_err(malformed)?;

        // Nothing below waits before the reader has moved and the records are on their way to the caller.
        self.iterator = answer.next_shard_iterator;
        if let Some(last) = records.last() {
            self.resume = StartPosition::AfterSequenceNumber(last.sequence_number);
        }
        let behind_latest =
            answer.millis_behind_latest.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
        match (&self.iterator, children) {
            (None, Some(children)) => Ok(self.ended(records, children)),
            (None, None) if records.is_empty() => self.confirm_end().await,
            (Some(_) | None, _) => Ok(Read { records, behind_latest, end: None }),
        }
    }
}
