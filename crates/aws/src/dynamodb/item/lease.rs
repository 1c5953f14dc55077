//! Leases as the Java KCL 3.5 keeps them, with two attributes of our own.
//!
//! Names, types and rules: `DynamoDBLeaseSerializer` and `DynamoDBMultiStreamLeaseSerializer` of the KCL 3.5. Two rules of it
//! are not followed, since nobody can tell: the sub-sequence number that it would write as the state of a pending checkpoint
//! at creation, and its refusal of hash key ranges of one key.

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use shardwell_core::{
    Checkpoint, CheckpointState, HashKeyRange, Lease, LeaseKey, PendingCheckpoint, ShardId, WriteToken,
};

use super::{Attributes, ENTITY_TYPE, Item, KEY, Unreadable, bytes, number, required, string, strings};

pub(in crate::dynamodb) const TYPE: &str = "LEASE";
pub(in crate::dynamodb) const OWNER: &str = "leaseOwner";
pub(in crate::dynamodb) const CHECKPOINT_OWNER: &str = "checkpointOwner";
pub(in crate::dynamodb) const COUNTER: &str = "leaseCounter";
pub(in crate::dynamodb) const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
pub(in crate::dynamodb) const CHECKPOINT: &str = "checkpoint";
pub(in crate::dynamodb) const SUB_SEQUENCE: &str = "checkpointSubSequenceNumber";
pub(in crate::dynamodb) const PENDING: &str = "pendingCheckpoint";
pub(in crate::dynamodb) const PENDING_SUB_SEQUENCE: &str = "pendingCheckpointSubSequenceNumber";
pub(in crate::dynamodb) const PENDING_STATE: &str = "pendingCheckpointState";
/// A set, in spite of its name.
pub(in crate::dynamodb) const PARENTS: &str = "parentShardId";
pub(in crate::dynamodb) const CHILDREN: &str = "childShardIds";
pub(in crate::dynamodb) const STARTING_HASH_KEY: &str = "startingHashKey";
pub(in crate::dynamodb) const ENDING_HASH_KEY: &str = "endingHashKey";
pub(in crate::dynamodb) const THROUGHPUT: &str = "throughputKBps";
pub(in crate::dynamodb) const STREAM: &str = "streamName";
pub(in crate::dynamodb) const SHARD: &str = "shardId";

/// Ours: the token of the last renewal, 16 hexadecimal digits.
pub(in crate::dynamodb) const TOKEN: &str = "shardwellToken";
/// Ours: what was written with a checkpoint, and with which. A map, so that it is one attribute which comes and goes whole.
pub(in crate::dynamodb) const STATE: &str = "shardwellState";
const STATE_VERSION: &str = "version";
const STATE_DATA: &str = "data";

/// Reads a lease. Not for items of another type.
pub(in crate::dynamodb) fn read(item: &Item) -> Result<Lease, Unreadable> {
    let attributes = Attributes(item);
    let key = required(KEY, attributes.string(KEY)?)?;
    let checkpoint = checkpoint(attributes, CHECKPOINT, SUB_SEQUENCE)?;
    let stream = attributes.string(STREAM)?;
    let shard = match (attributes.string(SHARD)?, stream) {
        (Some(shard), _) => shard,
        (None, None) => key,
        (None, Some(_)) => return Err(Unreadable(SHARD)),
    };
    let mut lease = Lease::new(ShardId::from(shard), required(CHECKPOINT, checkpoint)?);
    lease.key = LeaseKey::from(key);
    lease.stream = stream.map(ToOwned::to_owned);
    lease.owner = attributes.string(OWNER)?.map(Into::into);
    lease.checkpoint_owner = attributes.string(CHECKPOINT_OWNER)?.map(Into::into);
    lease.counter = required(COUNTER, attributes.number(COUNTER)?)?;
    lease.owner_switches_since_checkpoint = required(OWNER_SWITCHES, attributes.number(OWNER_SWITCHES)?)?;
    lease.parents = attributes.strings(PARENTS)?;
    lease.children = attributes.strings(CHILDREN)?;
    lease.hash_key_range = hash_key_range(attributes)?;
    lease.throughput_kbps = attributes.number(THROUGHPUT)?;
    lease.pending_checkpoint = match self::checkpoint(attributes, PENDING, PENDING_SUB_SEQUENCE)? {
        Some(checkpoint) => {
            let state = attributes.bytes(PENDING_STATE)?.map(|data| Bytes::copy_from_slice(data.as_ref()));
            Some(PendingCheckpoint { checkpoint, state })
        }
        None => None,
    };
    lease.token = attributes.hexadecimal(TOKEN)?.map(WriteToken::new);
    lease.checkpoint_state = state(attributes)?;
    Ok(lease)
}

fn checkpoint(
    attributes: Attributes<'_>,
    name: &'static str,
    sub_sequence: &'static str,
) -> Result<Option<Checkpoint>, Unreadable> {
    let Some(text) = attributes.string(name)? else { return Ok(None) };
    let sub = attributes.number(sub_sequence)?.unwrap_or(0);
    Checkpoint::from_stored(text, sub).map(Some).map_err(|_| Unreadable(name))
}

fn hash_key_range(attributes: Attributes<'_>) -> Result<Option<HashKeyRange>, Unreadable> {
    let (Some(start), Some(end)) = (attributes.string(STARTING_HASH_KEY)?, attributes.string(ENDING_HASH_KEY)?) else {
        return Ok(None);
    };
    let start = start.parse().map_err(|_| Unreadable(STARTING_HASH_KEY))?;
    let end = end.parse().map_err(|_| Unreadable(ENDING_HASH_KEY))?;
    HashKeyRange::new(start, end).map(Some).map_err(|_| Unreadable(ENDING_HASH_KEY))
}

fn state(attributes: Attributes<'_>) -> Result<Option<CheckpointState>, Unreadable> {
    let Some(state) = attributes.map(STATE)? else { return Ok(None) };
    let belongs_to = required(STATE, checkpoint(state, CHECKPOINT, SUB_SEQUENCE)?)?;
    let version = required(STATE, state.number(STATE_VERSION)?)?;
    let data = required(STATE, state.bytes(STATE_DATA)?)?;
    Ok(Some(CheckpointState { belongs_to, version, data: Bytes::copy_from_slice(data.as_ref()) }))
}

/// A lease that is new, whole.
pub(in crate::dynamodb) fn new_item(lease: &Lease) -> Item {
    let (checkpoint, sub_sequence) = lease.checkpoint.to_stored();
    let mut item = Item::from([
        (KEY.to_owned(), string(lease.key.as_str())),
        (ENTITY_TYPE.to_owned(), string(TYPE)),
        (COUNTER.to_owned(), number(0)),
        (OWNER_SWITCHES.to_owned(), number(0)),
        (CHECKPOINT.to_owned(), string(checkpoint)),
        (SUB_SEQUENCE.to_owned(), number(sub_sequence)),
    ]);
    let mut set = |name: &str, value: Option<AttributeValue>| value.map(|value| item.insert(name.to_owned(), value));
    set(PARENTS, strings(&lease.parents));
    set(CHILDREN, strings(&lease.children));
    if let Some(range) = lease.hash_key_range {
        set(STARTING_HASH_KEY, Some(string(range.start().to_string())));
        set(ENDING_HASH_KEY, Some(string(range.end().to_string())));
    }
    if let Some(stream) = &lease.stream {
        set(STREAM, Some(string(stream)));
        set(SHARD, Some(string(lease.shard.as_str())));
    }
    item
}

/// State as it is stored beside the checkpoint that it belongs to.
pub(in crate::dynamodb) fn state_value(belongs_to: Checkpoint, version: u32, data: &Bytes) -> AttributeValue {
    let (checkpoint, sub_sequence) = belongs_to.to_stored();
    AttributeValue::M(Item::from([
        (CHECKPOINT.to_owned(), string(checkpoint)),
        (SUB_SEQUENCE.to_owned(), number(sub_sequence)),
        (STATE_VERSION.to_owned(), number(version)),
        (STATE_DATA.to_owned(), bytes(data.clone())),
    ]))
}

/// A throughput as the KCL rounds it.
pub(in crate::dynamodb) fn throughput_value(kbps: f64) -> AttributeValue {
    AttributeValue::N(format!("{kbps:.6}"))
}
