//! Shard iterators: a place in one shard of one incarnation of a stream, good for five minutes.

use std::time::Duration;

use super::error::{KinesisError, KinesisErrorKind};
use super::shard::{ShardState, shard_id};
use super::stream::StreamState;
use crate::{SequenceNumber, ShardId, StartPosition, Timestamp};

/// How long an iterator is good for (Kinesis API, `GetShardIterator`).
pub const ITERATOR_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// A place to read from. The engine hands it out as an opaque token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIterator {
    /// The name of the stream.
    pub stream: String,
    /// When the stream was created: an iterator does not outlive its stream.
    pub stream_created_at: Timestamp,
    /// The number of the shard within the stream.
    pub shard: u32,
    /// Where the next read starts.
    pub place: IteratorPlace,
    /// When it was handed out.
    pub issued_at: Timestamp,
}

/// Where a read starts, always by a number that its shard issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IteratorPlace {
    /// At the record with this number, or the first one still there after it.
    At(SequenceNumber),
    /// After this number.
    After(SequenceNumber),
}

/// The position that leads to the same place, whenever it is opened.
impl From<IteratorPlace> for StartPosition {
    fn from(place: IteratorPlace) -> Self {
        match place {
            IteratorPlace::At(number) => Self::AtSequenceNumber(number),
            IteratorPlace::After(number) => Self::AfterSequenceNumber(number),
        }
    }
}

impl ShardIterator {
    /// The id of the shard that it reads.
    pub fn shard_id(&self) -> ShardId {
        shard_id(self.shard)
    }

    /// Refuses an iterator that is too old.
    pub(super) fn check_age(&self, now: Timestamp) -> Result<(), KinesisError> {
        let age = now.since(self.issued_at);
        if age <= ITERATOR_LIFETIME {
            return Ok(());
        }
        Err(KinesisError::new(
            KinesisErrorKind::ExpiredIterator,
            format!(
                "the iterator for {} of stream `{}` is {} s old and was good for {} s",
                self.shard_id(),
                self.stream,
                age.as_secs(),
                ITERATOR_LIFETIME.as_secs()
            ),
        ))
    }
}

impl StreamState {
    /// Resolves a position to an iterator.
    pub(super) fn iterator(
        &mut self,
        shard: &ShardId,
        position: StartPosition,
        now: Timestamp,
    ) -> Result<ShardIterator, KinesisError> {
        self.check_readable()?;
        let horizon = self.trim_horizon(now);
        let (index, _) = self.find(shard)?;
        let place = match position {
            StartPosition::AtSequenceNumber(number) => IteratorPlace::At(self.own_number(index, number)?),
            StartPosition::AfterSequenceNumber(number) => IteratorPlace::After(self.own_number(index, number)?),
            StartPosition::AtTimestamp(time) if time > now => {
                return Err(KinesisError::invalid(format!("the timestamp {time} lies in the future: it is {now}")));
            }
            StartPosition::TrimHorizon | StartPosition::Latest | StartPosition::AtTimestamp(_) => {
                let shard = self.shards.get_mut(&index).ok_or_else(|| KinesisError::not_found("the shard is gone"))?;
                shard.trim(horizon);
                resolve(shard, position)
            }
        };
        let (stream, stream_created_at) = (self.name.clone(), self.created_at);
        Ok(ShardIterator { stream, stream_created_at, shard: index, place, issued_at: now })
    }

    /// Refuses a number that the shard never issued.
    fn own_number(&self, index: u32, number: SequenceNumber) -> Result<SequenceNumber, KinesisError> {
        let issued = self.shards.get(&index).is_some_and(|shard| {
            let last = shard.closed.map_or(SequenceNumber::from_limbs([u64::MAX; 3]), |closed| closed.ending);
            self.numbering.made(number, index) && (shard.starting..=last).contains(&number)
        });
        if issued {
            return Ok(number);
        }
        Err(KinesisError::invalid(format!(
            "the sequence number {number} was not issued by {} of stream `{}`",
            shard_id(index),
            self.name
        )))
    }
}

fn resolve(shard: &ShardState, position: StartPosition) -> IteratorPlace {
    match position {
        StartPosition::TrimHorizon => IteratorPlace::After(shard.starting),
        StartPosition::Latest => IteratorPlace::After(shard.newest),
        StartPosition::AtTimestamp(time) => shard.place_at(time),
        StartPosition::AtSequenceNumber(number) => IteratorPlace::At(number),
        StartPosition::AfterSequenceNumber(number) => IteratorPlace::After(number),
    }
}
