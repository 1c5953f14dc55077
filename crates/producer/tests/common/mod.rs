//! A stream in memory whose requests are kept, and refused as a test says.

#![allow(dead_code, reason = "no test uses all of it")]

mod between;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use between::{Behaviour, Between};
use shardwell_core::memory::MemoryStream;
use shardwell_core::{
    EnvExt, PutEntry, PutResult, Shard, ShardFilter, Stream, StreamDescription, StreamError, StreamErrorKind,
    StreamWriter, Timestamp,
};
use shardwell_producer::{Producer, ProducerBuilder, Ticket};
use shardwell_sim::SimEnv;

pub(crate) const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What a stream does with a request, before it is carried out.
pub(crate) type Hook = Arc<dyn Fn(&[PutEntry]) -> Option<StreamErrorKind> + Send + Sync>;

/// A stream in memory that keeps the requests, and refuses some.
#[derive(Clone)]
pub(crate) struct Watched {
    pub(crate) inner: MemoryStream,
    pub(crate) env: SimEnv,
    requests: Arc<Mutex<Vec<Vec<PutEntry>>>>,
    refuses: Hook,
    pub(crate) refuses_listing: Option<StreamErrorKind>,
    /// How many requests and listings are never answered from now on.
    pub(crate) unanswered: Arc<AtomicU32>,
}

impl Watched {
    pub(crate) fn new(shards: u32) -> Self {
        let env = SimEnv::new(1, START);
        let inner = MemoryStream::create(Arc::new(env.clone()), "flights", shards).expect("a new stream");
        Self {
            inner,
            env,
            requests: Arc::default(),
            refuses: Arc::new(|_| None),
            refuses_listing: None,
            unanswered: Arc::default(),
        }
    }

    pub(crate) fn refusing(
        mut self,
        refuses: impl Fn(&[PutEntry]) -> Option<StreamErrorKind> + Send + Sync + 'static,
    ) -> Self {
        self.refuses = Arc::new(refuses);
        self
    }

    pub(crate) fn builder(&self) -> ProducerBuilder {
        Producer::builder(Between(self.clone())).env(Arc::new(self.env.clone()))
    }

    async fn may_hang(&self) {
        let less = |left: u32| left.checked_sub(1);
        if self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok() {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn requests(&self) -> Vec<Vec<PutEntry>> {
        self.requests.lock().expect("no test panics while it holds this").clone()
    }
}

#[async_trait]
impl Behaviour for Watched {
    fn inner(&self) -> &MemoryStream {
        &self.inner
    }

    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError> {
        self.env.sleep(Duration::from_millis(10)).await;
        self.may_hang().await;
        self.requests.lock().expect("no test panics while it holds this").push(entries.to_vec());
        match (self.refuses)(entries) {
            Some(kind) => Err(StreamError::new(kind, "as planned")),
            None => self.inner.put(entries).await,
        }
    }

    async fn describe(&self) -> Result<StreamDescription, StreamError> {
        self.inner.describe().await
    }

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError> {
        self.may_hang().await;
        match self.refuses_listing {
            Some(kind) => Err(StreamError::new(kind, "as planned")),
            None => self.inner.list_shards(filter).await,
        }
    }
}

pub(crate) async fn put(producer: &Producer, key: &str, data: &str) -> Ticket {
    producer.put(PutEntry::new(key, data.to_owned())).await.expect("it is taken")
}
