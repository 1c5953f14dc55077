//! From a partition key to its hash key.

use crate::digest::{md5, md5_many};

/// The hash key of a partition key: the MD5 of its bytes as a big-endian number (Kinesis API, `PutRecord`).
///
/// Records that were put with an explicit hash key are routed by that instead: see [`effective_hash_key`].
pub fn hash_key(partition_key: &[u8]) -> u128 {
    u128::from_be_bytes(md5(partition_key))
}

/// The hash keys of many partition keys, in their order. The same as [`hash_key`] of each, several times as fast.
///
/// ```
/// use shardwell_aggregation::{hash_key, hash_keys};
///
/// assert_eq!(hash_keys([&b"N14228"[..], b"N24211"]), [hash_key(b"N14228"), hash_key(b"N24211")]);
/// ```
pub fn hash_keys<'a>(partition_keys: impl IntoIterator<Item = &'a [u8]>) -> Vec<u128> {
    let partition_keys = partition_keys.into_iter();
    let mut hash_keys = Vec::with_capacity(partition_keys.size_hint().0);
    md5_many(partition_keys, |number, digest| {
        if hash_keys.len() <= number {
            hash_keys.resize(number + 1, 0);
        }
        hash_keys[number] = u128::from_be_bytes(digest);
    });
    hash_keys
}

/// The hash key that routes a record: its explicit hash key if it has one, else that of its partition key.
///
/// ```
/// use shardwell_aggregation::{effective_hash_key, hash_key};
///
/// assert_eq!(effective_hash_key("N14228", None), hash_key(b"N14228"));
/// assert_eq!(effective_hash_key("N14228", Some(7)), 7);
/// ```
pub fn effective_hash_key(partition_key: &str, explicit_hash_key: Option<u128>) -> u128 {
    explicit_hash_key.unwrap_or_else(|| hash_key(partition_key.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_vectors_of_other_implementations() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../tests/data/routing.json")).expect("the vectors parse");
        let keys = vectors["hash_keys"].as_array().expect("a list of keys");
        assert!(!keys.is_empty());
        for vector in keys {
            let key = vector["partition_key"].as_str().expect("a key");
            let expected: u128 = vector["hash_key_decimal"].as_str().expect("a number").parse().expect("a number");
            assert_eq!(hash_key(key.as_bytes()), expected, "{key:?}");
        }
        let text = |vector: &'_ serde_json::Value| vector["partition_key"].as_str().expect("a key").to_owned();
        let texts: Vec<_> = keys.iter().map(text).collect();
        let together = hash_keys(texts.iter().map(String::as_bytes));
        assert_eq!(together, texts.iter().map(|key| hash_key(key.as_bytes())).collect::<Vec<_>>());
    }
}
