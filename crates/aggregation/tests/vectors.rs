//! Records written by other implementations, and records that no implementation should write.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use shardwell_aggregation::{
    Aggregate, Aggregator, Classification, Deaggregated, HashKeyRange, KclDeaggregated, KclLossReason, Limits,
    Malformed, Outer, RangePolicy, Single, UserRecord, deaggregate, deaggregate_like_kcl, parse_explicit_hash_key,
};

#[derive(Deserialize)]
struct Vectors {
    valid: Vec<Valid>,
    malformed: Vec<Broken>,
    shard_range: Vec<ShardRange>,
}

#[derive(Deserialize)]
struct Valid {
    name: String,
    source: String,
    data_b64: String,
    data_len: usize,
    kpl_outer_partition_key: String,
    kpl_outer_explicit_hash_key: String,
    user_records: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    partition_key: String,
    explicit_hash_key: Option<String>,
    data_b64: Option<String>,
    data_len: Option<usize>,
    data_sha256: Option<String>,
}

#[derive(Deserialize)]
struct Broken {
    name: String,
    data_b64: String,
    recommended: String,
    other_decoders: Value,
}

#[derive(Deserialize)]
struct ShardRange {
    name: String,
    data_b64: String,
    shard_start: String,
    shard_end: String,
    user_records: Vec<Value>,
    kcl3_java_record_count: usize,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("data/kpl-vectors.json")).expect("the vectors parse")
}

fn unbase64(text: &str) -> Bytes {
    STANDARD.decode(text).expect("base64").into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn aggregated(data: Bytes, name: &str) -> Aggregate {
    match deaggregate(data, Outer::default()) {
        Deaggregated::Aggregated(aggregate) => aggregate,
        other => panic!("{name} is {}", other.classification()),
    }
}

impl Expected {
    fn check(&self, record: &UserRecord, name: &str) {
        let n = record.sub_sequence_number;
        assert_eq!(record.partition_key, self.partition_key, "{name} {n}");
        let explicit = self.explicit_hash_key.as_deref().map(|text| parse_explicit_hash_key(text).expect("a hash key"));
        assert_eq!(record.explicit_hash_key, explicit, "{name} {n}");
        match (&self.data_b64, self.data_len, &self.data_sha256) {
            (Some(data), _, _) => assert_eq!(record.data, unbase64(data), "{name} {n}"),
            (None, Some(len), Some(sha256)) => {
                assert_eq!(record.data.len(), len, "{name} {n}");
                assert_eq!(&hex(&Sha256::digest(&record.data)), sha256, "{name} {n}");
            }
            _ => panic!("{name} {n} says nothing about its data"),
        }
    }
}

#[test]
fn valid_records_are_read_exactly() {
    let vectors = vectors().valid;
    assert_eq!(vectors.len(), 33);
    for vector in vectors {
        let data = unbase64(&vector.data_b64);
        assert_eq!(data.len(), vector.data_len, "{}", vector.name);
        let records: Vec<_> = aggregated(data, &vector.name).into_iter().collect();
        assert_eq!(records.len(), vector.user_records.len(), "{}", vector.name);
        for (n, (record, expected)) in records.iter().zip(&vector.user_records).enumerate() {
            assert_eq!(record.sub_sequence_number, n as u64, "{}", vector.name);
            expected.check(record, &vector.name);
        }
    }
}

fn encode(records: &[UserRecord], single: Single) -> shardwell_aggregation::AggregatedRecord {
    let mut aggregator = Aggregator::new(Limits::default()).with_single(single);
    for record in records {
        aggregator.try_add(&record.partition_key, record.explicit_hash_key, &record.data).expect("it fits");
    }
    aggregator.finish().expect("it holds user records")
}

#[test]
fn valid_records_are_written_exactly() {
    let mut written = 0;
    for vector in vectors().valid.into_iter().filter(|vector| vector.source.starts_with("aws_kinesis_agg")) {
        let data = unbase64(&vector.data_b64);
        let records: Vec<_> = aggregated(data.clone(), &vector.name).into_iter().collect();
        let record = encode(&records, Single::Wrapped);
        assert_eq!(record.data, data, "{}", vector.name);
        let mut outer = vec![record];
        if let [alone] = &records[..] {
            let raw = encode(&records, Single::Raw);
            assert_eq!(raw.data, alone.data, "{}", vector.name);
            outer.push(raw);
        }
        for record in outer {
            assert_eq!(record.partition_key, vector.kpl_outer_partition_key, "{}", vector.name);
            assert_eq!(record.explicit_hash_key.to_string(), vector.kpl_outer_explicit_hash_key, "{}", vector.name);
            assert_eq!(record.count, vector.user_records.len() as u64, "{}", vector.name);
        }
        written += 1;
    }
    assert_eq!(written, 29);
}

/// What each malformed record is.
fn classification(name: &str) -> Classification {
    match name {
        "plain_text" => Classification::OtherMagic,
        "magic_truncated_3" | "magic_only" | "empty_body_correct_md5" => Classification::TooShort,
        "md5_first_byte_flipped" | "payload_first_byte_flipped" | "truncated_by_one" | "truncated_half" => {
            Classification::DigestMismatch
        }
        "pk_index_out_of_range_only" | "pk_index_2_pow_32" => Classification::PartitionKeyIndex,
        "ehk_index_out_of_range_only" | "ehk_index_out_of_range_middle" => Classification::ExplicitHashKeyIndex,
        "missing_required_data" | "protobuf_garbage_correct_md5" | "aggregated_twice" => Classification::Unparsable,
        "pk_invalid_utf8" | "pk_surrogate_utf8" => Classification::PartitionKeyEncoding,
        "ehk_invalid_utf8" | "ehk_not_a_number" | "ehk_empty_string" | "ehk_negative" => {
            Classification::ExplicitHashKey
        }
        "zero_records" => Classification::Empty,
        other => panic!("what is {other}?"),
    }
}

#[test]
fn malformed_records_have_the_recommended_outcome() {
    let vectors = vectors().malformed;
    assert_eq!(vectors.len(), 22);
    for Broken { name, data_b64, recommended, .. } in vectors {
        let data = unbase64(&data_b64);
        let outer = Outer { partition_key: Some("outer-pk".into()), explicit_hash_key: None };
        let outcome = deaggregate(data.clone(), outer.clone());
        assert_eq!(outcome.classification(), classification(&name), "{name}");
        let record = match (recommended.as_str(), outcome) {
            ("passthrough", Deaggregated::NotAggregated { record, .. }) => record,
            ("passthrough", Deaggregated::Malformed { record, error }) => {
                assert!(error.passes_through(), "{name}");
                record
            }
            ("error (do not emit partially)", Deaggregated::Malformed { record, error })
            | ("error or lossy key; never a panic", Deaggregated::Malformed { record, error }) => {
                assert!(!error.passes_through(), "{name}");
                record
            }
            (
                "decode; the routing check must reject it",
                Deaggregated::Malformed { record, error: Malformed::ExplicitHashKey { record: 0, .. } },
            ) => record,
            ("emit nothing, but report it", Deaggregated::Empty { record }) => record,
            (recommended, outcome) => panic!("{name} is {outcome:?} and should be {recommended}"),
        };
        assert_eq!((record.data, record.outer), (data, outer), "{name}");
    }
}

#[test]
fn malformed_records_can_be_read_as_the_kcl_reads_them() {
    let logged = |reason| reason != KclLossReason::OutOfRange;
    for Broken { name, data_b64, other_decoders, .. } in vectors().malformed {
        let data = unbase64(&data_b64);
        let kcl = &other_decoders["kcl3_java"];
        let ours = deaggregate_like_kcl(data.clone(), Outer::default(), HashKeyRange::FULL);
        match (kcl["outcome"].as_str().expect("an outcome"), ours) {
            ("passthrough", KclDeaggregated::Raw { record, classification: ours }) => {
                assert_eq!(record.data, data, "{name}");
                assert_eq!(ours, classification(&name), "{name}");
            }
            ("drops_all_silently", KclDeaggregated::UserRecords { records, lost }) => {
                assert!(records.is_empty(), "{name}");
                assert!(lost.is_none_or(|lost| !logged(lost.reason)), "{name}");
            }
            ("drops_all_logged", KclDeaggregated::UserRecords { records, lost }) => {
                assert!(records.is_empty(), "{name}");
                assert!(lost.is_some_and(|lost| lost.at == 0 && logged(lost.reason)), "{name}");
            }
            ("decodes", KclDeaggregated::UserRecords { records, lost: None }) => {
                check_kcl_records(&name, records, &kcl["records"]);
            }
            ("partial_output_logged", KclDeaggregated::UserRecords { records, lost: Some(lost) }) => {
                assert_eq!(lost.at, records.len(), "{name}");
                assert!(logged(lost.reason) && lost.records > 0, "{name}");
                check_kcl_records(&name, records, &kcl["records"]);
            }
            (outcome, ours) => panic!("{name} is {ours:?} and should be {outcome}"),
        }
    }
}

fn check_kcl_records(name: &str, records: Aggregate, expected: &Value) {
    let expected: Vec<Expected> = serde_json::from_value(expected.clone()).expect("user records");
    assert!(!expected.is_empty(), "{name}");
    assert_eq!(records.len(), expected.len() as u64, "{name}");
    for (record, expected) in records.into_iter().zip(expected) {
        expected.check(&record, name);
    }
}

#[test]
fn ranges_are_applied_as_told() {
    let vectors = vectors().shard_range;
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let name = &vector.name;
        let bound = |text: &str| parse_explicit_hash_key(text).expect("a hash key");
        let range = HashKeyRange::new(bound(&vector.shard_start), bound(&vector.shard_end)).expect("a range");
        let data = unbase64(&vector.data_b64);
        let hash_keys =
            vector.user_records.iter().map(|record| bound(record["hash_key_decimal"].as_str().expect("it")));
        let inside: Vec<_> = (0..).zip(hash_keys).filter(|(_, key)| range.contains(*key)).map(|(n, _)| n).collect();
        let total = vector.user_records.len() as u64;
        let aggregate = aggregated(data.clone(), name);
        for policy in [RangePolicy::DeliverAll, RangePolicy::FilterRecords, RangePolicy::AllOrNothing] {
            let (kept, counts) = aggregate.clone().in_range(range, policy);
            let kept: Vec<u64> = kept.iter().map(|record| record.sub_sequence_number).collect();
            assert_eq!((counts.inside, counts.inside + counts.outside), (inside.len() as u64, total), "{name}");
            match policy {
                RangePolicy::FilterRecords => assert_eq!(kept, inside, "{name}"),
                RangePolicy::AllOrNothing => assert_eq!(kept.len(), vector.kcl3_java_record_count, "{name}"),
                _ => assert_eq!(kept, (0..total).collect::<Vec<_>>(), "{name}"),
            }
        }
        let KclDeaggregated::UserRecords { records, .. } = deaggregate_like_kcl(data, Outer::default(), range) else {
            panic!("{name} is good");
        };
        assert_eq!(records.len(), vector.kcl3_java_record_count as u64, "{name}");
    }
}
