//! What is neither lease nor worker: the leader lock, how far a fleet's migrations are, and two kinds of our own.
//!
//! **Our own items are of the type `LEADER`.** A Java leader reads every item of the table, and takes one whose type it does not
//! know for a lease, which then cannot be read; that is an error in its log every 20 s. One of the type `LEADER` is kept
//! aside as it is, whatever is in it, and nothing asks for items of that type (`DynamoDBLeaseTableDao` and
//! `CoordinatorStateDAODelegate` of the KCL 3.5.1).

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde::{Deserialize, Serialize};
use shardwell_core::{FleetSettings, LeaderLock, StreamIdentity, Timestamp, WorkerId};

use super::{Attributes, ENTITY_TYPE, Item, KEY, Unreadable, bytes, number, required, string};

pub(in crate::dynamodb) const TYPE: &str = "LEADER";

pub(in crate::dynamodb) const LEADER: &str = "Leader";
const LOCK_OWNER: &str = "ownerName";
const LOCK_DURATION: &str = "leaseDuration";
pub(in crate::dynamodb) const LOCK_VERSION: &str = "recordVersionNumber";
const LOCK_RELEASED: &str = "isReleased";
const LOCK_DATA: &str = "data";

pub(in crate::dynamodb) const SETTINGS: &str = "shardwell:settings";
pub(in crate::dynamodb) const LEASE_DURATION: &str = "leaseDurationMillis";
pub(in crate::dynamodb) const DRAINING: &str = "draining";

/// Before the name of a stream.
pub(in crate::dynamodb) const STREAM_PREFIX: &str = "shardwell:stream:";
const STREAM_ARN: &str = "arn";
const STREAM_CREATED: &str = "createdAtMillis";

/// What a lock's free field holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct LockData {
    #[serde(default)]
    standbys: Vec<String>,
}

/// Reads the leader lock.
pub(in crate::dynamodb) fn read_lock(item: &Item) -> Result<LeaderLock, Unreadable> {
    let attributes = Attributes(item);
    let owner = required(LOCK_OWNER, attributes.string(LOCK_OWNER)?)?;
    let duration = required(LOCK_DURATION, attributes.string(LOCK_DURATION)?)?;
    let version = required(LOCK_VERSION, attributes.string(LOCK_VERSION)?)?;
    // What a Java worker put there, if it did, is its own.
    let data = attributes.bytes(LOCK_DATA)?.and_then(|data| serde_json::from_slice::<LockData>(data.as_ref()).ok());
    Ok(LeaderLock {
        owner: owner.into(),
        duration: Duration::from_millis(duration.parse().map_err(|_| Unreadable(LOCK_DURATION))?),
        version: version.to_owned(),
        released: item.contains_key(LOCK_RELEASED),
        standbys: data.unwrap_or_default().standbys.iter().map(|id| id.as_str().into()).collect(),
    })
}

/// The leader lock as the KCL's lock client writes it.
pub(in crate::dynamodb) fn lock_item(lock: &LeaderLock) -> Item {
    let mut item = ours(LEADER.to_owned());
    item.insert(LOCK_OWNER.to_owned(), string(lock.owner.as_str()));
    item.insert(LOCK_DURATION.to_owned(), string(lock.duration.as_millis().to_string()));
    item.insert(LOCK_VERSION.to_owned(), string(&lock.version));
    if lock.released {
        item.insert(LOCK_RELEASED.to_owned(), string("1"));
    }
    if !lock.standbys.is_empty() {
        let data = LockData { standbys: lock.standbys.iter().map(ToString::to_string).collect() };
        let data = serde_json::to_vec(&data).unwrap_or_default();
        item.insert(LOCK_DATA.to_owned(), bytes(data.into()));
    }
    item
}

/// Reads the fleet's settings.
pub(in crate::dynamodb) fn read_settings(item: &Item) -> Result<FleetSettings, Unreadable> {
    let attributes = Attributes(item);
    let millis = required(LEASE_DURATION, attributes.number(LEASE_DURATION)?)?;
    let mut settings = FleetSettings::new(Duration::from_millis(millis));
    settings.draining = attributes.strings::<WorkerId>(DRAINING)?;
    Ok(settings)
}

/// The fleet's settings.
pub(in crate::dynamodb) fn settings_item(settings: &FleetSettings) -> Item {
    let mut item = ours(SETTINGS.to_owned());
    item.insert(LEASE_DURATION.to_owned(), duration_value(settings.lease_duration));
    if let Some(draining) = super::strings(&settings.draining) {
        item.insert(DRAINING.to_owned(), draining);
    }
    item
}

pub(in crate::dynamodb) fn duration_value(duration: Duration) -> AttributeValue {
    number(duration.as_millis())
}

/// Reads who a stream is.
pub(in crate::dynamodb) fn read_stream(item: &Item) -> Result<StreamIdentity, Unreadable> {
    let attributes = Attributes(item);
    let key = required(KEY, attributes.string(KEY)?)?;
    let name = key.strip_prefix(STREAM_PREFIX).ok_or(Unreadable(KEY))?.to_owned();
    let arn = required(STREAM_ARN, attributes.string(STREAM_ARN)?)?.to_owned();
    let created = required(STREAM_CREATED, attributes.number(STREAM_CREATED)?)?;
    Ok(StreamIdentity { name, arn, created_at: Timestamp::from_millis(created) })
}

/// Who a stream is.
pub(in crate::dynamodb) fn stream_item(identity: &StreamIdentity) -> Item {
    let mut item = ours(stream_key(&identity.name));
    item.insert(STREAM_ARN.to_owned(), string(&identity.arn));
    item.insert(STREAM_CREATED.to_owned(), number(identity.created_at.as_millis()));
    item
}

pub(in crate::dynamodb) fn stream_key(name: &str) -> String {
    format!("{STREAM_PREFIX}{name}")
}

fn ours(key: String) -> Item {
    Item::from([(KEY.to_owned(), string(key)), (ENTITY_TYPE.to_owned(), string(TYPE))])
}
