//! What an aggregated record may hold.

/// The most bytes that a record may have by default, payload and partition key together (Kinesis API, `PutRecord`).
const DEFAULT_MAX_RECORD_BYTES: usize = 1024 * 1024;
/// The most bytes that a record may have on a stream whose limit was raised (Kinesis API, `UpdateMaxRecordSize`).
const HIGHEST_MAX_RECORD_BYTES: usize = 10 * 1024 * 1024;

/// What one record may hold. By default 1 MiB, and as many user records as fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    record_bytes: usize,
    user_records: u64,
}

/// Limits that no stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLimits {
    /// More bytes than any stream takes in a record, or none.
    #[error("a record has 1 to {HIGHEST_MAX_RECORD_BYTES} bytes, not {0}")]
    RecordBytes(usize),
    /// No user record at all.
    #[error("an aggregated record holds at least one user record")]
    UserRecords,
}

impl Limits {
    /// The default limit of the service on a record's bytes: 1 MiB.
    pub const DEFAULT_RECORD_BYTES: usize = DEFAULT_MAX_RECORD_BYTES;
    /// The highest limit that a stream can be given: 10 MiB.
    pub const MAX_RECORD_BYTES: usize = HIGHEST_MAX_RECORD_BYTES;

    /// At most `record_bytes` bytes, counted as the service counts them: the payload and the UTF-8 bytes of the outer
    /// partition key.
    ///
    /// # Errors
    /// When `record_bytes` is 0 or above [`Limits::MAX_RECORD_BYTES`].
    pub const fn new(record_bytes: usize) -> Result<Self, InvalidLimits> {
        if record_bytes == 0 || record_bytes > Self::MAX_RECORD_BYTES {
            return Err(InvalidLimits::RecordBytes(record_bytes));
        }
        Ok(Self { record_bytes, user_records: u64::MAX })
    }

    /// The same with at most `user_records` user records.
    ///
    /// # Errors
    /// When `user_records` is 0.
    pub const fn with_user_records(self, user_records: u64) -> Result<Self, InvalidLimits> {
        if user_records == 0 {
            return Err(InvalidLimits::UserRecords);
        }
        Ok(Self { user_records, ..self })
    }

    /// The most bytes of a record, payload and outer partition key together.
    pub const fn record_bytes(&self) -> usize {
        self.record_bytes
    }

    /// The most user records of a record.
    pub const fn user_records(&self) -> u64 {
        self.user_records
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { record_bytes: Self::DEFAULT_RECORD_BYTES, user_records: u64::MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_a_stream() {
        assert_eq!(Limits::new(0), Err(InvalidLimits::RecordBytes(0)));
        assert_eq!(Limits::new(Limits::MAX_RECORD_BYTES + 1), Err(InvalidLimits::RecordBytes(10_485_761)));
        assert_eq!(Limits::new(1_048_576), Ok(Limits::default()));
        assert_eq!(Limits::default().with_user_records(0), Err(InvalidLimits::UserRecords));
        assert_eq!(Limits::default().with_user_records(7).map(|limits| limits.user_records()), Ok(7));
    }
}
