//! The format as a widely used protobuf implementation reads and writes it.

use bytes::Bytes;
use prost::Message;
use shardwell_aggregation::{Classification, parse_explicit_hash_key};

/// Keys are bytes, as UTF-8 is judged per key in use; what proto2 requires is optional, so that it can be missed.
#[derive(Clone, PartialEq, Message)]
pub struct Aggregated {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub partition_keys: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub explicit_hash_keys: Vec<Vec<u8>>,
    #[prost(message, repeated, tag = "3")]
    pub records: Vec<Record>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Record {
    #[prost(uint64, optional, tag = "1")]
    pub partition_key: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub explicit_hash_key: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub data: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    pub tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Tag {
    #[prost(bytes = "vec", optional, tag = "1")]
    pub key: Option<Vec<u8>>,
}

/// A user record as it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    pub partition_key: String,
    pub explicit_hash_key: Option<u128>,
    pub data: Vec<u8>,
}

/// What a body holds: its user records, or what it is instead. Nothing where the oracle is known to differ: it refuses
/// known fields of another wire type, which the specification makes unknown fields, and counts depth differently at
/// the very limit.
pub fn decode(body: &[u8]) -> Option<Result<Vec<Put>, Classification>> {
    let message = match Aggregated::decode(body) {
        Ok(message) => message,
        Err(error) => {
            let text = error.to_string();
            let differs = text.contains("invalid wire type:") || text.contains("recursion limit");
            return (!differs).then_some(Err(Classification::Unparsable));
        }
    };
    let required = |record: &Record| {
        record.partition_key.is_some() && record.data.is_some() && record.tags.iter().all(|tag| tag.key.is_some())
    };
    if !message.records.iter().all(required) {
        return Some(Err(Classification::Unparsable));
    }
    Some(resolve(&message))
}

fn resolve(message: &Aggregated) -> Result<Vec<Put>, Classification> {
    if message.records.is_empty() {
        return Err(Classification::Empty);
    }
    let mut keys = Vec::new();
    for record in &message.records {
        let entry = |table: &Vec<Vec<u8>>, index: u64| usize::try_from(index).ok().and_then(|n| table.get(n).cloned());
        let key = entry(&message.partition_keys, record.partition_key.unwrap_or_default());
        let key = key.ok_or(Classification::PartitionKeyIndex)?;
        let explicit = record.explicit_hash_key.map(|index| entry(&message.explicit_hash_keys, index));
        let explicit = explicit.map(|entry| entry.ok_or(Classification::ExplicitHashKeyIndex)).transpose()?;
        keys.push((key, explicit, record.data.clone().unwrap_or_default()));
    }
    let puts = keys.into_iter().map(|(key, explicit, data)| {
        let partition_key = String::from_utf8(key).map_err(|_| Classification::PartitionKeyEncoding)?;
        let parse = |text: Vec<u8>| String::from_utf8(text).ok().and_then(|text| parse_explicit_hash_key(&text).ok());
        let explicit_hash_key = explicit.map(|text| parse(text).ok_or(Classification::ExplicitHashKey)).transpose()?;
        Ok(Put { partition_key, explicit_hash_key, data })
    });
    puts.collect()
}

/// The body that the KPL writes for user records.
pub fn encode(puts: &[Put]) -> Vec<u8> {
    let mut message = Aggregated::default();
    for put in puts {
        let partition_key = index_of(&mut message.partition_keys, put.partition_key.as_bytes());
        let explicit = put.explicit_hash_key.map(|key| key.to_string());
        let explicit_hash_key = explicit.map(|text| index_of(&mut message.explicit_hash_keys, text.as_bytes()));
        message.records.push(Record {
            partition_key: Some(partition_key),
            explicit_hash_key,
            data: Some(put.data.clone()),
            tags: Vec::new(),
        });
    }
    message.encode_to_vec()
}

fn index_of(table: &mut Vec<Vec<u8>>, key: &[u8]) -> u64 {
    let index = table.iter().position(|entry| entry == key).unwrap_or_else(|| {
        table.push(key.to_vec());
        table.len() - 1
    });
    index as u64
}

/// A body between magic and digest.
pub fn seal(body: &[u8]) -> Bytes {
    use md5::{Digest, Md5};
    [&[0xF3, 0x89, 0x9A, 0xC2], body, &Md5::digest(body)].concat().into()
}
