//! A stream between a producer and one in memory: what is written and listed is up to a test, what is read is not.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use shardwell_core::memory::MemoryStream;
use shardwell_core::{
    PutEntry, PutResult, ReadLimits, Shard, ShardFilter, ShardId, ShardReader, StartPosition, Stream,
    StreamDescription, StreamError, StreamWriter,
};

/// What a stream does with what a producer asks.
#[async_trait]
pub(crate) trait Behaviour: Send + Sync + 'static {
    fn inner(&self) -> &MemoryStream;

    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError>;

    async fn describe(&self) -> Result<StreamDescription, StreamError>;

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError>;
}

/// The stream that behaves like that.
pub(crate) struct Between<B>(pub(crate) B);

#[async_trait]
impl<B: Behaviour> StreamWriter for Between<B> {
    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError> {
        self.0.put(entries).await
    }
}

#[async_trait]
impl<B: Behaviour> Stream for Between<B> {
    async fn describe(&self) -> Result<StreamDescription, StreamError> {
        self.0.describe().await
    }

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError> {
        self.0.list_shards(filter).await
    }

    async fn open(&self, shard: &ShardId, position: StartPosition) -> Result<Box<dyn ShardReader>, StreamError> {
        self.0.inner().open(shard, position).await
    }

    fn read_limits(&self) -> ReadLimits {
        self.0.inner().read_limits()
    }

    fn dedicated(&self) -> Arc<dyn Stream> {
        self.0.inner().dedicated()
    }
}

impl<B: Behaviour> fmt::Display for Between<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.inner().fmt(f)
    }
}

impl<B: Behaviour> fmt::Debug for Between<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Between").finish_non_exhaustive()
    }
}
