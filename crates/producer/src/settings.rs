//! What a user can tune, as plain data with bounds checked in one place.

use std::time::Duration;

use shardwell_core::RetryPolicy;
use shardwell_core::aggregation::Limits;

/// In which order records get into the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// Any: records are put as they come, many requests at a time, and one that has to be put again is overtaken.
    #[default]
    Unordered,
    /// Records with the same partition key keep the order in which they were put, through retries and resharding. At most one record
    /// per shard is under way (Kinesis keeps no order between the entries of a request), so aggregation matters: without it, a
    /// shard takes one user record per round trip.
    ///
    /// On a stream with `AUTO` record distribution a key is spread over all shards, so there is no order to keep: a warning says so, and
    /// records go as they do without an order.
    ///
    /// A record that fails for good (its ticket says so) leaves a gap; the next ones go on. One whose attempt went unanswered may be in
    /// the stream twice, the second time after records that were put later.
    PerKey,
}

/// Everything about a producer that is a number or a choice. Set through [`ProducerBuilder`](crate::ProducerBuilder), where each is
/// documented.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) ordering: Ordering,
    pub(crate) aggregates: bool,
    pub(crate) linger: Duration,
    pub(crate) record_ttl: Option<Duration>,
    pub(crate) max_aggregate_bytes: usize,
    pub(crate) max_aggregate_records: u64,
    pub(crate) max_record_bytes: usize,
    pub(crate) max_request_bytes: usize,
    pub(crate) max_request_records: usize,
    pub(crate) max_requests_in_flight: usize,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) max_buffered_records: usize,
    /// `None` for no limit at all.
    pub(crate) shard_rate: Option<ShardRate>,
    pub(crate) retry: RetryPolicy,
}

/// What a shard takes in a second (Kinesis API, service limits).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ShardRate {
    pub(crate) bytes: f64,
    pub(crate) records: f64,
}

/// The most entries of a request (Kinesis API, `PutRecords`).
const MAX_REQUEST_RECORDS: usize = 500;

/// The most bytes of a request (Kinesis API, `PutRecords`).
const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;

impl Default for ShardRate {
    fn default() -> Self {
        Self { bytes: 1024.0 * 1024.0, records: 1000.0 }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let retry = RetryPolicy::default().with_initial(Duration::from_millis(100)).with_cap(Duration::from_secs(5));
        Self {
            ordering: Ordering::Unordered,
            aggregates: true,
            linger: Duration::from_millis(100),
            record_ttl: Some(Duration::from_secs(30)),
            max_aggregate_bytes: 51_200,
            max_aggregate_records: u64::MAX,
            max_record_bytes: Limits::DEFAULT_RECORD_BYTES,
            max_request_bytes: 5 * 1024 * 1024,
            max_request_records: MAX_REQUEST_RECORDS,
            max_requests_in_flight: 24,
            max_buffered_bytes: 64 * 1024 * 1024,
            max_buffered_records: 500_000,
            shard_rate: Some(ShardRate::default()),
            retry,
        }
    }
}

impl Settings {
    /// What an aggregated record may hold.
    ///
    /// # Errors
    /// Words, if there can be no such record.
    pub(crate) fn aggregate_limits(&self) -> Result<Limits, String> {
        let limits = Limits::new(self.max_aggregate_bytes.min(self.max_record_bytes));
        let limits = limits.and_then(|limits| limits.with_user_records(self.max_aggregate_records));
        limits.map_err(|error| error.to_string())
    }

    /// The first rule that is broken, in words that name the setting.
    pub(crate) fn check(&self) -> Result<(), String> {
        let rules = [
            (
                self.record_ttl.is_none_or(|ttl| ttl > self.linger),
                format!(
                    "record_ttl ({:?}) is not above linger ({:?}); records would expire unsent",
                    self.record_ttl.unwrap_or_default(),
                    self.linger
                ),
            ),
            (
                (1..=Limits::MAX_RECORD_BYTES).contains(&self.max_record_bytes),
                format!("max_record_bytes is {}; it must be 1 to {}", self.max_record_bytes, Limits::MAX_RECORD_BYTES),
            ),
            (
                (self.max_record_bytes..=MAX_REQUEST_BYTES).contains(&self.max_request_bytes),
                format!(
                    "max_request_bytes is {}; it must be at least max_record_bytes ({}) and at most {MAX_REQUEST_BYTES}",
                    self.max_request_bytes, self.max_record_bytes
                ),
            ),
            (
                (1..=MAX_REQUEST_RECORDS).contains(&self.max_request_records),
                format!("max_request_records is {}; it must be 1 to {MAX_REQUEST_RECORDS}", self.max_request_records),
            ),
            (self.max_requests_in_flight > 0, "max_requests_in_flight is 0; nothing could be sent".to_owned()),
            (
                self.max_buffered_bytes >= cost(self.max_record_bytes),
                format!(
                    "max_buffered_bytes ({}) has no room for a record of max_record_bytes ({})",
                    self.max_buffered_bytes, self.max_record_bytes
                ),
            ),
            (self.max_buffered_records > 0, "max_buffered_records is 0; nothing could be put".to_owned()),
            (
                self.shard_rate.is_none_or(|rate| rate.bytes > 0.0 && rate.records > 0.0),
                "shard_rate is 0; nothing could be sent".to_owned(),
            ),
        ];
        if let Some((_, broken)) = rules.into_iter().find(|(holds, _)| !holds) {
            return Err(broken);
        }
        self.aggregate_limits().map(drop)
    }
}

/// What a user record costs in memory beside its payload and key, about: its ticket, its place in what is under way, and the blocks of an
/// allocator, which are larger than what is in them.
const RECORD_OVERHEAD_BYTES: usize = 512;

/// What a user record of so many bytes, payload and key, counts in the budget.
pub(crate) const fn cost(bytes: usize) -> usize {
    bytes + RECORD_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_rule_can_be_broken() {
        assert_eq!(Settings::default().check(), Ok(()));
        let breakers: [fn(&mut Settings); 10] = [
            |s| s.record_ttl = Some(s.linger),
            |s| s.max_record_bytes = 0,
            |s| s.max_request_bytes = s.max_record_bytes - 1,
            |s| s.max_request_records = 501,
            |s| s.max_requests_in_flight = 0,
            |s| s.max_buffered_bytes = s.max_record_bytes,
            |s| s.max_buffered_records = 0,
            |s| s.shard_rate = Some(ShardRate { bytes: 0.0, records: 1.0 }),
            |s| s.max_aggregate_bytes = 0,
            |s| s.max_aggregate_records = 0,
        ];
        for breaks in breakers {
            let mut settings = Settings::default();
            breaks(&mut settings);
            assert!(settings.check().is_err(), "{settings:?}");
        }
    }
}
