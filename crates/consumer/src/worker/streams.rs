//! The streams that a worker consumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use shardwell_core::{Stream, StreamDescription};

/// A stream that is consumed.
#[derive(Debug)]
pub(crate) struct ConsumedStream {
    /// The stream as the pipeline reads it.
    pub(crate) reading: Arc<dyn Stream>,
    /// The stream as the coordination uses it, with connections of its own.
    pub(crate) control: Arc<dyn Stream>,
    /// What the stream keeps, in milliseconds.
    retention_ms: AtomicU64,
    /// Whether the stream spreads records by itself.
    automatic_distribution: AtomicBool,
}

impl ConsumedStream {
    pub(crate) fn new(stream: Arc<dyn Stream>) -> Self {
        Self {
            control: stream.dedicated(),
            reading: stream,
            retention_ms: AtomicU64::new(u64::MAX),
            automatic_distribution: AtomicBool::new(false),
        }
    }

    /// The name of the stream.
    pub(crate) fn name(&self) -> String {
        self.reading.to_string()
    }

    /// Remembers what the stream promises.
    pub(crate) fn set_promises(&self, stream: &StreamDescription) {
        let retention = u64::try_from(stream.retention.as_millis()).unwrap_or(u64::MAX);
        self.retention_ms.store(retention, Ordering::Relaxed);
        self.automatic_distribution.store(stream.automatic_distribution, Ordering::Relaxed);
    }

    /// Whether hash keys say nothing about shards.
    pub(crate) fn automatic_distribution(&self) -> bool {
        self.automatic_distribution.load(Ordering::Relaxed)
    }

    /// How long the stream keeps records.
    pub(crate) fn retention(&self) -> Duration {
        Duration::from_millis(self.retention_ms.load(Ordering::Relaxed))
    }
}
