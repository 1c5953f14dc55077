//! A letter for tests.

use shardwell::dead_letter::{BatchInfo, DeadLetter, DeadReason};
use shardwell::{ExtendedSequenceNumber, Timestamp, UserRecord};

/// A letter that differs from others by its position and, the same number, its explicit hash key.
pub(super) fn letter(number: u64) -> DeadLetter {
    let (position, at) = (ExtendedSequenceNumber::new(number.into(), 0), Timestamp::from_millis(0));
    DeadLetter {
        application: "delays".into(),
        stream: "flights".into(),
        shard: "shardId-000000000000".into(),
        record: UserRecord {
            position,
            partition_key: Some("N14228".into()),
            explicit_hash_key: Some(number.into()),
            arrival: at,
            data: "EWR".into(),
        },
        reason: DeadReason::Permanent,
        error: vec!["no such airport".into()],
        attempts: Vec::new(),
        batch: BatchInfo {
            id: 1,
            invocations: 1,
            size: 1,
            first: position,
            last: position,
            first_arrival: at,
            last_arrival: at,
            partial: false,
        },
        lane: 0,
        worker: "w".into(),
        died_at: at,
    }
}
