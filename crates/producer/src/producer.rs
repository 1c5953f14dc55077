//! The handle that callers hold.

use std::fmt;
use std::sync::Arc;

use shardwell_core::{Env, PutEntry, Stream, StreamWriter};

use crate::budget::{Budget, Permit};
use crate::driver::{Driver, Target};
use crate::failure::{Rejected, TryPutError};
use crate::hooks::Hooks;
use crate::hot_keys::HotKey;
use crate::lock::lock;
use crate::pipeline::{Pipeline, ShardLoad, bytes_of, hash_key_of};
use crate::settings::{Settings, cost};
use crate::ticket::Ticket;

/// The most characters of a partition key (Kinesis API, `PutRecord`).
const MAX_PARTITION_KEY_CHARACTERS: usize = 256;

/// Puts user records into a stream: aggregated, at the pace that the shards take them, again if need be, and with an answer for each.
///
/// A clone is another handle on the same; it costs next to nothing. When the last one is dropped, nothing more can be put, and what was
/// is still sent, as long as the process lives: [`close`](Self::close) waits for that.
#[derive(Clone)]
pub struct Producer {
    open: Arc<Open>,
}

/// Closes the stream when the last handle goes.
struct Open {
    driver: Arc<Driver>,
    settings: Settings,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.close();
    }
}

/// What is in a producer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ProducerStatus {
    /// User records whose fate is not known yet, of all streams that share the budget.
    pub pending_records: usize,
    /// What they count in the budget, in bytes.
    pub pending_bytes: usize,
    /// What goes to each shard of this stream.
    pub shards: Vec<ShardLoad>,
}

/// Room for one user record. Dropped, it is given back.
#[must_use = "a reservation holds room until it is used or dropped"]
pub struct Reservation {
    producer: Producer,
    permit: Permit,
}

impl Producer {
    pub(crate) fn start(
        target: Arc<dyn Target>,
        env: Arc<dyn Env>,
        budget: Arc<Budget>,
        hooks: Hooks,
        settings: Settings,
    ) -> Self {
        let driver = Driver::start(target, env, budget, hooks, Pipeline::new(settings.clone()));
        Self { open: Arc::new(Open { driver, settings }) }
    }

    /// A producer for another stream, with the same settings and hooks. Both share the budget (`max_buffered_bytes`,
    /// `max_buffered_records`), and nothing else.
    pub fn for_stream(&self, stream: impl Stream + StreamWriter) -> Self {
        let driver = &self.open.driver;
        let (env, budget, hooks) = (driver.env.clone(), driver.budget.clone(), driver.hooks.clone());
        Self::start(Arc::new(stream), env, budget, hooks, self.open.settings.clone())
    }

    /// Puts a user record: waits until there is room for it. The ticket tells what becomes of it.
    ///
    /// # Errors
    /// If the record can never be taken, or the producer is closed.
    ///
    /// # Cancel safety
    /// Until this is ready nothing was put. A caller that must keep the record uses [`reserve`](Self::reserve) in a `select!`.
    pub async fn put(&self, record: PutEntry) -> Result<Ticket, Rejected> {
        self.check(&record)?;
        let permit = self.open.driver.budget.take(cost(bytes_of(&record))).await;
        self.add(record, permit)
    }

    /// Puts a user record if there is room for it now.
    ///
    /// # Errors
    /// [`TryPutError::Full`] gives it back if there is none.
    pub fn try_put(&self, record: PutEntry) -> Result<Ticket, TryPutError> {
        self.check(&record)?;
        match self.open.driver.budget.try_take(cost(bytes_of(&record))) {
            Some(permit) => Ok(self.add(record, permit)?),
            None => Err(TryPutError::Full(record)),
        }
    }

    /// Waits for room for a user record of so many bytes, payload and partition key. Requests are served in their order.
    ///
    /// # Errors
    /// If no record may be so large, or the producer is closed.
    ///
    /// # Cancel safety
    /// Whoever stops waiting has taken nothing, and goes to the end of the queue if it waits again.
    pub async fn reserve(&self, bytes: usize) -> Result<Reservation, Rejected> {
        let limit = self.open.settings.max_record_bytes;
        if bytes > limit {
            return Err(Rejected::TooLarge { bytes, limit });
        }
        self.check_open()?;
        let permit = self.open.driver.budget.take(cost(bytes)).await;
        Ok(Reservation { producer: self.clone(), permit })
    }

    /// Sends everything that was put so far without waiting for more, and waits until it is settled: each ticket is resolved. What is put
    /// meanwhile does not matter.
    ///
    /// # Cancel safety
    /// What was begun to be sent is sent; only the waiting ends.
    pub async fn flush(&self) {
        let driver = &self.open.driver;
        let settled = lock(&driver.pipeline).flush(driver.env.now());
        driver.wake.notify_one();
        // It cannot be dropped before; if it were, nothing would be left to wait for.
        let _ = settled.await;
    }

    /// Takes nothing more, and waits until everything is settled. The other handles, and those of other streams, are not waited for:
    /// here nothing more can be put through any handle on this stream.
    ///
    /// # Cancel safety
    /// The producer is closed all the same; only the waiting ends.
    pub async fn close(self) {
        self.open.driver.close();
        self.flush().await;
    }

    /// The partition keys that most of the bytes belonged to that were put so far, the heaviest first: where one shard is always behind,
    /// this tells why.
    pub fn hot_keys(&self, count: usize) -> Vec<HotKey> {
        lock(&self.open.driver.pipeline).hot_keys.top(count)
    }

    /// What is in the producer now.
    pub fn status(&self) -> ProducerStatus {
        let (pending_bytes, pending_records) = self.open.driver.budget.taken();
        let shards = lock(&self.open.driver.pipeline).loads();
        ProducerStatus { pending_records, pending_bytes, shards }
    }

    fn check(&self, record: &PutEntry) -> Result<(), Rejected> {
        let key = record.partition_key.as_str();
        if key.is_empty() {
            return Err(Rejected::EmptyPartitionKey);
        }
        if key.len() > MAX_PARTITION_KEY_CHARACTERS {
            let characters = key.chars().count();
            if characters > MAX_PARTITION_KEY_CHARACTERS {
                return Err(Rejected::PartitionKeyTooLong { characters });
            }
        }
        let (bytes, limit) = (bytes_of(record), self.open.settings.max_record_bytes);
        if bytes > limit {
            return Err(Rejected::TooLarge { bytes, limit });
        }
        self.check_open()
    }

    fn check_open(&self) -> Result<(), Rejected> {
        if self.open.driver.is_closed() { Err(Rejected::Closed) } else { Ok(()) }
    }

    fn add(&self, record: PutEntry, permit: Permit) -> Result<Ticket, Rejected> {
        let driver = &self.open.driver;
        let hash_key = hash_key_of(&record);
        let (answer, ticket) = Ticket::new();
        let must_wake = {
            let mut pipeline = lock(&driver.pipeline);
            // Asked under the lock under which the driver looks whether anything is left.
            self.check_open()?;
            pipeline.add(driver.env.now(), record, hash_key, permit, answer)
        };
        if must_wake {
            driver.wake.notify_one();
        }
        Ok(ticket)
    }
}

impl Reservation {
    /// Puts a user record that is no larger than what was reserved; what it does not need is given back.
    ///
    /// # Errors
    /// If it is larger, or can never be taken, or the producer is closed.
    pub fn put(mut self, record: PutEntry) -> Result<Ticket, Rejected> {
        self.producer.check(&record)?;
        let (bytes, reserved) = (cost(bytes_of(&record)), self.permit.bytes());
        if bytes > reserved {
            return Err(Rejected::BeyondReservation { bytes: bytes_of(&record), reserved: reserved - cost(0) });
        }
        self.permit.shrink_to(bytes);
        self.producer.add(record, self.permit)
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("stream", &self.open.driver.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("bytes", &self.permit.bytes()).finish_non_exhaustive()
    }
}
