//! The names of all metrics of this crate. Units are the last part of a name.
//!
//! Every metric has the label `application`; those marked with a shard have the label `shard` too, and where a
//! worker consumes several streams, `stream`.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Counter, with a shard: records read from the stream.
pub const RECORDS_READ: &str = "shardwell_records_read_total";
/// Counter, with a shard: payload bytes read from the stream.
pub const BYTES_READ: &str = "shardwell_read_bytes_total";
/// Counter, with a shard: reads of the stream, by `result` (`ok`, `throttled`, `error`).
pub const READS: &str = "shardwell_reads_total";
/// Counter, with a shard: records by what they are, in the label `kind`: `aggregated`, one of the reasons why a record is not
/// (`too_short`, `other_magic`, `digest_mismatch`), or what is wrong with it (`unparsable`, ...).
pub const RECORD_KINDS: &str = "shardwell_record_kinds_total";
/// Counter, with a shard: user records of aggregated records outside of the shard's hash keys, by `result` (`delivered`,
/// `dropped`; what is dropped may include user records inside, if the policy is all or nothing).
pub const OUT_OF_RANGE: &str = "shardwell_user_records_out_of_range_total";
/// Counter, with a shard: user records that the filter left out.
pub const FILTERED: &str = "shardwell_user_records_filtered_total";
/// Counter, with a shard: user records that are dead, by `reason`; letters that were discarded included.
pub const RECORDS_DEAD: &str = "shardwell_records_dead_total";
/// Counter, with a shard: dead records that no sink took, and that were given up as the policy says.
pub const DISCARDED: &str = "shardwell_dead_letters_discarded_total";
/// Counter: times that a sink did not take dead letters, by `sink`.
pub const SINK_FAILURES: &str = "shardwell_dead_letter_failures_total";
/// Counter: dead letters that were tried again, by `result` (`redriven`, `failed`, `parked`).
pub const REDRIVEN: &str = "shardwell_dead_letters_redriven_total";
/// Counter, with a shard: terms of a lease that began under the suspicion that processes die over the shard's records.
pub const SUSPICIONS: &str = "shardwell_crash_suspicions_total";
/// Counter, with a shard: user records that are done.
pub const RECORDS_DONE: &str = "shardwell_records_done_total";
/// Counter, with a shard: batches handed to a processor, by `result` (`done`, `failed`, `panicked`, `timed_out`).
pub const BATCHES: &str = "shardwell_batches_total";
/// Counter, with a shard: invocations beyond the first of a batch.
pub const RETRIES: &str = "shardwell_batch_retries_total";
/// Histogram, with a shard: time that a processor took for a batch.
pub const PROCESSOR_TIME: &str = "shardwell_processor_seconds";
/// Gauge, with a shard: age of the newest record that is done, at the time it was done.
pub const ITERATOR_AGE: &str = "shardwell_iterator_age_seconds";
/// Gauge, with a shard: how far the newest read was behind the tip of the shard.
pub const BEHIND_LATEST: &str = "shardwell_behind_latest_seconds";
/// Gauge: bytes of records between fetching and done.
pub const BUFFERED: &str = "shardwell_buffered_bytes";
/// Counter: renewals, by `result` (`renewed`, `lost`, `unknown`).
pub const RENEWALS: &str = "shardwell_lease_renewals_total";
/// Counter: checkpoints stored.
pub const CHECKPOINTS: &str = "shardwell_checkpoints_total";
/// Gauge: leases held.
pub const LEASES_HELD: &str = "shardwell_leases_held";
/// Counter: leases lost to another worker or to time.
pub const LEASES_LOST: &str = "shardwell_leases_lost_total";
/// Counter: leases handed over in order, to another worker or to nobody.
pub const HANDED_OVER: &str = "shardwell_leases_handed_over_total";
/// Gauge: 1 on the worker that leads the fleet, 0 elsewhere.
pub const IS_LEADER: &str = "shardwell_is_leader";
/// Counter: rounds of planning, by `result` (`ok`, `failed`). One worker of a fleet plans; if no worker's counter rises,
/// nobody does.
pub const PLANNING_ROUNDS: &str = "shardwell_planning_rounds_total";
/// Counter: leases that the leader gave away, by `kind` (`free`, `overdue`, `balance`, `drain`).
pub const MOVES: &str = "shardwell_lease_moves_total";
/// Gauge, on the leader: leases that no worker has room for, or whose stream nobody consumes.
pub const SPILLOVER: &str = "shardwell_leases_without_room";
/// Gauge, on the leader: workers that are alive.
pub const WORKERS: &str = "shardwell_workers";
/// Counter: times that records were found to be trimmed before they were read.
pub const DATA_LOSSES: &str = "shardwell_data_losses_total";
/// Counter: batches that were still running when the deadline of a shutdown passed; they will run again elsewhere.
pub const ABANDONED_BATCHES: &str = "shardwell_abandoned_batches_total";

/// Registers unit and description of every metric with the recorder that is installed.
pub fn describe() {
    describe_counter!(RECORDS_READ, Unit::Count, "Records read from the stream");
    describe_counter!(BYTES_READ, Unit::Bytes, "Payload bytes read from the stream");
    describe_counter!(READS, Unit::Count, "Reads of the stream by result");
    describe_counter!(RECORD_KINDS, Unit::Count, "Records by what they are, aggregated or not");
    describe_counter!(OUT_OF_RANGE, Unit::Count, "User records outside of their shard's hash keys by result");
    describe_counter!(FILTERED, Unit::Count, "User records that the filter left out");
    describe_counter!(RECORDS_DEAD, Unit::Count, "User records that are dead by reason");
    describe_counter!(DISCARDED, Unit::Count, "Dead records that no sink took and that were given up");
    describe_counter!(SINK_FAILURES, Unit::Count, "Times that a sink did not take dead letters");
    describe_counter!(REDRIVEN, Unit::Count, "Dead letters that were tried again by result");
    describe_counter!(SUSPICIONS, Unit::Count, "Terms of a lease under suspicion of a crash loop");
    describe_counter!(RECORDS_DONE, Unit::Count, "User records that are done");
    describe_counter!(BATCHES, Unit::Count, "Batches handed to a processor by result");
    describe_counter!(RETRIES, Unit::Count, "Invocations beyond the first of a batch");
    describe_histogram!(PROCESSOR_TIME, Unit::Seconds, "Time that a processor took for a batch");
    describe_gauge!(ITERATOR_AGE, Unit::Seconds, "Age of the newest record that is done, when it was done");
    describe_gauge!(BEHIND_LATEST, Unit::Seconds, "How far the newest read was behind the tip of the shard");
    describe_gauge!(BUFFERED, Unit::Bytes, "Bytes of records between fetching and done");
    describe_counter!(RENEWALS, Unit::Count, "Lease renewals by result");
    describe_counter!(CHECKPOINTS, Unit::Count, "Checkpoints stored");
    describe_gauge!(LEASES_HELD, Unit::Count, "Leases held");
    describe_counter!(LEASES_LOST, Unit::Count, "Leases lost to another worker or to time");
    describe_counter!(HANDED_OVER, Unit::Count, "Leases handed over in order");
    describe_gauge!(IS_LEADER, Unit::Count, "1 on the worker that leads the fleet");
    describe_counter!(PLANNING_ROUNDS, Unit::Count, "Rounds of planning by result");
    describe_counter!(MOVES, Unit::Count, "Leases that the leader gave away by kind");
    describe_gauge!(SPILLOVER, Unit::Count, "Leases that no worker has room for");
    describe_gauge!(WORKERS, Unit::Count, "Workers that are alive");
    describe_counter!(DATA_LOSSES, Unit::Count, "Times that records were trimmed before they were read");
    describe_counter!(ABANDONED_BATCHES, Unit::Count, "Batches still running at the deadline of a shutdown");
}
