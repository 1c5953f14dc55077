//! Amazon Kinesis by polling.

mod clients;
mod convert;
mod error;
mod opened_at;
mod reader;
mod stream_ref;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::{Client, Config};
use shardwell_core::{
    PutEntry, PutResult, ReadLimits, Shard, ShardFilter, ShardId, ShardReader, StartPosition, Stream,
    StreamDescription, StreamError, StreamErrorKind, StreamWriter, Timestamp,
};

pub use clients::KinesisTimeouts;
pub use stream_ref::StreamRef;

use clients::Clients;
use convert::Malformed;
use error::{Operation, Target};
use opened_at::OpenedAt;
use reader::PollingReader;

/// A Kinesis data stream: read by polling, written with `PutRecords`. Clones are cheap and share connections.
///
/// It is made from an SDK client and takes over that client's configuration: region, endpoint, credentials, HTTP
/// client, interceptors. Retries and time-outs it sets by itself, so that none are stacked: calls that read shards or
/// put records make one attempt, since the fetching and the producing side retry by what the error says; calls that
/// describe the stream or list its shards make up to three. How long each may take is said at [`KinesisTimeouts`].
///
/// Nothing in here paces or sleeps. [`read_limits`](Stream::read_limits) tells the caller how fast it may read.
///
/// # Positions
/// A reader that was opened at `LATEST`, has returned nothing yet, and was left alone for longer than the five minutes
/// that the service honours an iterator, goes on from the time of its opening by the service's clock, less two seconds.
/// So it skips nothing, and may return records that were put in the two to three seconds before it was opened. (An
/// answer without a `Date` leaves only this machine's clock to go by, and five minutes are taken off that.)
///
/// # The end of a shard
/// A shard has ended when the service returns no further iterator and names the children. Without children it has ended
/// only if the service also says that the shard is gone.
#[derive(Clone)]
pub struct KinesisStream {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    base: Config,
    dedicated: Option<Config>,
    clients: Clients,
    timeouts: KinesisTimeouts,
    target: Target,
    limits: ReadLimits,
}

impl KinesisStream {
    /// A stream by its name or ARN, in the region and account of the client.
    ///
    /// # Panics
    /// Never with a client that the SDK has accepted: its configuration is checked again with only retries and time-outs
    /// changed.
    pub fn new(client: &Client, stream: impl Into<StreamRef>) -> Self {
        let base = client.config().clone();
        let region = base.region().map(ToString::to_string);
        let timeouts = KinesisTimeouts::default();
        let inner = Inner {
            clients: Clients::new(&base, &timeouts),
            base,
            dedicated: None,
            timeouts,
            target: Target { stream: stream.into(), region },
            limits: ReadLimits::POLLING,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sets how long calls may take. Default: [`KinesisTimeouts::default`].
    #[must_use]
    pub fn with_timeouts(self, timeouts: KinesisTimeouts) -> Self {
        self.changed(|inner| {
            inner.clients = Clients::new(&inner.base, &timeouts);
            inner.timeouts = timeouts;
        })
    }

    /// Sets what [`Stream::read_limits`] tells the caller. Default: [`ReadLimits::POLLING`]. Less than that leaves room
    /// for other applications that poll the stream.
    #[must_use]
    pub fn with_read_limits(self, limits: ReadLimits) -> Self {
        self.changed(|inner| inner.limits = limits)
    }

    /// Tells the caller that reads need no pacing: [`ReadLimits::NONE`]. For endpoints that do not limit reads, such as
    /// a local engine; the service itself throttles who reads without pacing.
    #[must_use]
    pub fn without_read_limits(self) -> Self {
        self.with_read_limits(ReadLimits::NONE)
    }

    /// Sets the client that [`Stream::dedicated`] works with. Needed only if the first client was given an HTTP client
    /// of its own: connections belong to that, and `dedicated` cannot make another one like it.
    #[must_use]
    pub fn with_dedicated_client(self, client: &Client) -> Self {
        self.changed(|inner| inner.dedicated = Some(client.config().clone()))
    }

    /// The name or ARN of the stream.
    pub fn stream_ref(&self) -> &StreamRef {
        &self.inner.target.stream
    }

    fn changed(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }
}

impl Inner {
    fn stream_name(&self) -> Option<String> {
        self.target.stream.name_field()
    }

    fn stream_arn(&self) -> Option<String> {
        self.target.stream.arn_field()
    }

    /// The client's idea of the wall clock.
    fn local_time(&self) -> Timestamp {
        let time = self.clients.read.config().time_source().map_or(SystemTime::UNIX_EPOCH, |clock| clock.now());
        time.into()
    }

    fn malformed(&self, operation: Operation) -> impl FnOnce(Malformed) -> StreamError {
        move |malformed| self.target.malformed(operation, &malformed)
    }

    async fn shard_iterator(
        &self,
        shard: &ShardId,
        position: StartPosition,
        opened: &OpenedAt,
    ) -> Result<String, StreamError> {
        let (kind, number, time) = convert::start(position);
        let request = self.clients.read.get_shard_iterator();
        let request = request.set_stream_name(self.stream_name()).set_stream_arn(self.stream_arn());
        let request = request.shard_id(shard.as_str()).shard_iterator_type(kind);
        let request = request.set_starting_sequence_number(number).set_timestamp(time);
        let answer = request.customize().interceptor(opened.clone()).send().await;
        let answer = answer.map_err(|error| self.target.error(Operation::GetShardIterator, error))?;
        answer.shard_iterator.ok_or_else(|| {
            self.target.malformed(Operation::GetShardIterator, &Malformed("`ShardIterator` is missing".to_owned()))
        })
    }

    /// The ARN goes along, so that a policy on the stream of another account can be looked up.
    async fn get_records(&self, iterator: String, limit: usize) -> Result<GetRecordsOutput, SdkError<GetRecordsError>> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let request = self.clients.read.get_records().set_stream_arn(self.stream_arn());
        request.shard_iterator(iterator).limit(limit).send().await
    }

    /// One page. The service refuses a stream, a filter or a start beside a token, which stands for all of them.
    async fn shard_page(
        &self,
        filter: &ShardFilter,
        token: Option<String>,
    ) -> Result<(Vec<Shard>, Option<String>), StreamError> {
        let request = self.clients.control.list_shards();
        let request = match token {
            Some(token) => request.next_token(token),
            None => request
                .set_stream_name(self.stream_name())
                .set_stream_arn(self.stream_arn())
                .set_shard_filter(convert::shard_filter(filter)),
        };
        let page = request.send().await.map_err(|error| self.target.error(Operation::ListShards, error))?;
        let shards = page.shards.unwrap_or_default().into_iter().map(convert::shard).collect::<Result<_, _>>();
        Ok((shards.map_err(self.malformed(Operation::ListShards))?, page.next_token))
    }
}

#[async_trait]
impl Stream for KinesisStream {
    async fn describe(&self) -> Result<StreamDescription, StreamError> {
        let inner = &*self.inner;
        let request = inner.clients.control.describe_stream_summary();
        let request = request.set_stream_name(inner.stream_name()).set_stream_arn(inner.stream_arn());
        let answer = request.send().await;
        let answer = answer.map_err(|error| inner.target.error(Operation::DescribeStreamSummary, error))?;
        let summary = answer
            .stream_description_summary
            .ok_or_else(|| Malformed("`StreamDescriptionSummary` is missing".to_owned()))
            .map_err(inner.malformed(Operation::DescribeStreamSummary))?;
        convert::description(&summary).map_err(inner.malformed(Operation::DescribeStreamSummary))
    }

    async fn list_shards(&self, filter: ShardFilter) -> Result<Vec<Shard>, StreamError> {
        let mut shards = Vec::new();
        let mut token = None;
        loop {
            let (page, next) = self.inner.shard_page(&filter, token).await?;
            shards.extend(page);
            match next {
                Some(next) => token = Some(next),
                None => break,
            }
        }
        shards.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(shards)
    }

    async fn open(&self, shard: &ShardId, position: StartPosition) -> Result<Box<dyn ShardReader>, StreamError> {
        Ok(Box::new(PollingReader::open(Arc::clone(&self.inner), shard, position).await?))
    }

    fn read_limits(&self) -> ReadLimits {
        self.inner.limits
    }

    /// Connections, cached credentials and retry quota are its own, and the tasks that drive the connections belong to
    /// the runtime that uses it. Only an HTTP client that the caller gave to the first client is shared, unless
    /// [`with_dedicated_client`](Self::with_dedicated_client) names another client.
    fn dedicated(&self) -> Arc<dyn Stream> {
        let base = self.inner.dedicated.clone().unwrap_or_else(|| clients::apart(&self.inner.base));
        let clients = Clients::new(&base, &self.inner.timeouts);
        let inner = Inner { base, clients, ..Inner::clone(&self.inner) };
        Arc::new(Self { inner: Arc::new(inner) })
    }
}

#[async_trait]
impl StreamWriter for KinesisStream {
    async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError> {
        let inner = &*self.inner;
        let records = entries.iter().map(convert::put_entry).collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|Malformed(why)| StreamError::new(StreamErrorKind::Invalid, why))?;
        let request = inner.clients.write.put_records().set_records(Some(records));
        let request = request.set_stream_name(inner.stream_name()).set_stream_arn(inner.stream_arn());
        let answer = request.send().await.map_err(|error| inner.target.error(Operation::PutRecords, error))?;
        if answer.records.len() != entries.len() {
            let (results, entries) = (answer.records.len(), entries.len());
            let malformed = Malformed(format!("{results} results for {entries} records"));
            return Err(inner.target.malformed(Operation::PutRecords, &malformed));
        }
        let results = answer.records.into_iter().map(convert::put_result).collect::<Result<_, _>>();
        results.map_err(inner.malformed(Operation::PutRecords))
    }
}

/// The name of the stream.
impl fmt::Display for KinesisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner.target.stream, f)
    }
}

impl fmt::Debug for KinesisStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisStream").field("inner", &self.inner).finish()
    }
}

/// Without the client's configuration, which is pages long.
impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("target", &self.target)
            .field("timeouts", &self.timeouts)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
