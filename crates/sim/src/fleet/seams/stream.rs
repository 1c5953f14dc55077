//! A process's way to a stream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardwell_core::memory::MemoryStream;
use shardwell_core::{
    EnvExt, Read, ReadLimits, Shard, ShardFilter, ShardId, ShardReader, StartPosition, Stream, StreamDescription,
    StreamError, StreamErrorKind,
};

use crate::fleet::kind::Kind;
use crate::fleet::lies::Lie;
use crate::fleet::weather::ProcessId;
use crate::fleet::world::World;

/// A stream as one process sees it.
#[derive(Clone)]
pub(crate) struct SimStream {
    pub(crate) world: Arc<World>,
    pub(crate) process: ProcessId,
    /// Which of the world's.
    pub(crate) stream: MemoryStream,
}

impl SimStream {
    fn fail(&self) -> Result<(), StreamError> {
        let mut state = self.world.state();
        let (now, process) = (state.now, self.process);
        let state = &mut *state;
        for (kind, error) in
            [(Kind::SourceThrottled, StreamErrorKind::Throttled), (Kind::SourceFailing, StreamErrorKind::Unavailable)]
        {
            if state.weather.strikes(kind, process, now, &mut state.random) {
                return Err(StreamError::new(error, format!("{kind}, as the weather is")));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream").field("process", &self.process).finish_non_exhaustive()
    }
}

impl fmt::Display for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.stream, f)
    }
}

#[async_trait]
impl Stream for SimStream {
    async fn describe(&self) -> Result<StreamDescription, StreamError> {
        self.fail()?;
        Stream::describe(&self.stream).await
    }

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError> {
        self.fail()?;
        self.world.env.sleep(Duration::from_millis(20)).await;
        self.stream.list_shards(filter).await
    }

    async fn open(&self, shard: &ShardId, position: StartPosition) -> Result<Box<dyn ShardReader>, StreamError> {
        self.fail()?;
        let inner = self.stream.open(shard, position).await?;
        Ok(Box::new(SimReader { stream: self.clone(), inner, reads: 0 }))
    }

    /// Fewer reads than the service allows: they are most of what a run costs.
    fn read_limits(&self) -> ReadLimits {
        let mut limits = ReadLimits::NONE;
        limits.reads_per_second = Some(1.0);
        limits
    }

    fn dedicated(&self) -> Arc<dyn Stream> {
        Arc::new(self.clone())
    }
}

#[derive(Debug)]
struct SimReader {
    stream: SimStream,
    inner: Box<dyn ShardReader>,
    reads: u32,
}

#[async_trait]
impl ShardReader for SimReader {
    async fn read(&mut self, limit: usize) -> Result<Read, StreamError> {
        self.stream.fail()?;
        let mut read = self.inner.read(limit).await?;
        match self.stream.world.lie {
            Some(Lie::RecordsSkipped) if !read.records.is_empty() => {
                self.reads += 1;
                if self.reads.is_multiple_of(7) {
                    read.records.pop();
                }
            }
            Some(Lie::RecordsSwapped) if read.records.len() > 1 => read.records.swap(0, 1),
            _ => {}
        }
        Ok(read)
    }
}
