//! SDK clients, one for each role: their retries, time-outs and connections are set here and nowhere else.

use std::time::Duration;

use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::{Client, Config};

use crate::clients::role_clients;

/// How long calls may take. Every call has an end, whatever the client that it came from was configured with; the
/// client's connect and read time-outs stay as they were.
///
/// | call | default |
/// |---|---|
/// | `DescribeStreamSummary`, `ListShards`: one attempt of up to three | 5 s |
/// | `DescribeStreamSummary`, `ListShards`: all attempts, with the pauses between them | 15 s |
/// | `GetShardIterator`, `GetRecords`: one attempt only | 20 s |
/// | `PutRecords`: one attempt only | 15 s |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KinesisTimeouts {
    control_attempt: Duration,
    control: Duration,
    read: Duration,
    write: Duration,
}

impl Default for KinesisTimeouts {
    fn default() -> Self {
        Self {
            control_attempt: Duration::from_secs(5),
            control: Duration::from_secs(15),
            read: Duration::from_secs(20),
            write: Duration::from_secs(15),
        }
    }
}

impl KinesisTimeouts {
    /// For one attempt, and for all attempts together, of a call that describes the stream or lists its shards.
    /// Default: 5 s and 15 s.
    #[must_use]
    pub const fn with_control(mut self, attempt: Duration, all: Duration) -> Self {
        self.control_attempt = attempt;
        self.control = all;
        self
    }

    /// For a call that reads a shard. Default: 20 s, in which a full answer of 10 MiB needs half a megabyte a second.
    /// Too small and a large answer on a slow line never arrives.
    #[must_use]
    pub const fn with_read(mut self, read: Duration) -> Self {
        self.read = read;
        self
    }

    /// For a call that puts records. Default: 15 s. After a time-out it is not known what was written, so too small
    /// means duplicates.
    #[must_use]
    pub const fn with_write(mut self, write: Duration) -> Self {
        self.write = write;
        self
    }
}

/// One client for each role. Each has its own quota of retries, so that throttled reads of many shards cannot starve
/// the listing of shards.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Describes and lists: nobody above retries these at once, so the SDK does.
    pub(super) control: Client,
    /// Reads shards: one attempt, since the caller paces each shard by itself.
    pub(super) read: Client,
    /// Puts records: one attempt, since the producer decides what is put again.
    pub(super) write: Client,
}

impl Clients {
    pub(super) fn new(base: &Config, timeouts: &KinesisTimeouts) -> Self {
        let base = share_identities(base);
        let once = RetryConfig::standard().with_max_attempts(1);
        Self {
            control: client(
                &base,
                "shardwell-kinesis-control",
                RetryConfig::standard(),
                timeouts.control_attempt,
                timeouts.control,
            ),
            read: client(&base, "shardwell-kinesis-read", once.clone(), timeouts.read, timeouts.read),
            write: client(&base, "shardwell-kinesis-write", once, timeouts.write, timeouts.write),
        }
    }
}

role_clients!(aws_sdk_kinesis);
