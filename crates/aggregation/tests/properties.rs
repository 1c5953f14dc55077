//! What holds for any input.

mod checks;

use std::collections::BTreeMap;

use bytes::Bytes;
use checks::oracle::{self, Put};
use proptest::prelude::*;
use proptest::sample::Index;
use shardwell_aggregation::{Aggregator, Classification, Limits, Single};

fn partition_key() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-d]",
        2 => prop::collection::vec(any::<char>(), 1..20).prop_map(String::from_iter),
        1 => (1usize..=256).prop_map(|n| "\u{1F980}".repeat(n)),
        1 => "[0-9]{1,40}",
    ]
}

fn hash_key() -> impl Strategy<Value = u128> {
    prop_oneof![0..3u128, (any::<u128>(), 0..128u32).prop_map(|(key, shift)| key >> shift), Just(u128::MAX)]
}

fn put() -> impl Strategy<Value = Put> {
    let data = prop_oneof![
        9 => prop::collection::vec(any::<u8>(), 0..40),
        1 => prop::collection::vec(any::<u8>(), 100..300),
    ];
    (partition_key(), prop::option::of(hash_key()), data).prop_map(|(partition_key, explicit_hash_key, data)| Put {
        partition_key,
        explicit_hash_key,
        data,
    })
}

fn puts() -> impl Strategy<Value = Vec<Put>> {
    prop_oneof![9 => prop::collection::vec(put(), 1..40), 1 => prop::collection::vec(put(), 130..300)]
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn field(tag: u64, content: &[u8]) -> Vec<u8> {
    [varint(tag), varint(content.len() as u64), content.to_vec()].concat()
}

/// Fields that the format does not know, of every wire type, groups within groups among them.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![5..40u64, Just((1 << 29) - 1)];
    let plain = (number.clone(), 0..4u8, any::<u64>(), prop::collection::vec(any::<u8>(), 0..9)).prop_map(
        |(number, kind, value, bytes)| match kind {
            0 => [varint(number << 3), varint(value)].concat(),
            1 => [varint(number << 3 | 1), value.to_le_bytes().to_vec()].concat(),
            2 => field(number << 3 | 2, &bytes),
            _ => [varint(number << 3 | 5), value.to_le_bytes()[..4].to_vec()].concat(),
        },
    );
    plain.prop_recursive(6, 20, 3, move |inner| {
        (number.clone(), prop::collection::vec(inner, 0..3))
            .prop_map(|(number, inner)| [varint(number << 3 | 3), inner.concat(), varint(number << 3 | 4)].concat())
    })
}

/// User records as a generous encoder could write them: fields in any order, twice, missing, or unknown.
fn wire_record() -> impl Strategy<Value = Vec<u8>> {
    let index = || prop_oneof![9 => 0..3u64, 1 => any::<u64>()];
    let bytes = prop::collection::vec(any::<u8>(), 0..9);
    let part = prop_oneof![
        4 => index().prop_map(|index| [vec![0x08], varint(index)].concat()),
        1 => index().prop_map(|index| [vec![0x10], varint(index)].concat()),
        4 => bytes.prop_map(|bytes| field(0x1A, &bytes)),
        1 => prop_oneof![Just(vec![0x22, 2, 0x0A, 0]), Just(vec![0x22, 2, 0x12, 0]), Just(vec![0x22, 1, 0])],
        1 => unknown(),
    ];
    let parts = prop::collection::vec(part, 0..7).prop_map(|parts| parts.concat());
    let good = (0..3u64, prop::option::of(0..2u64), prop::collection::vec(any::<u8>(), 0..9)).prop_map(
        |(key, explicit, data)| {
            let explicit = explicit.map(|index| [vec![0x10], varint(index)].concat()).unwrap_or_default();
            [vec![0x08], varint(key), explicit, field(0x1A, &data)].concat()
        },
    );
    prop_oneof![4 => good, 1 => parts].prop_map(|record| field(0x1A, &record))
}

/// Bodies in which everything occurs that protobuf allows, and some things that it does not.
fn wire_body() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        9 => "[a-z]{0,3}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    let hash_key = prop_oneof![
        9 => hash_key().prop_map(|key| key.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        1 => Just(b"007".to_vec()),
    ];
    let part = prop_oneof![
        3 => key.prop_map(|key| field(0x0A, &key)),
        3 => hash_key.prop_map(|key| field(0x12, &key)),
        5 => wire_record(),
        1 => unknown(),
    ];
    (prop::collection::vec(part, 0..20), prop::option::weighted(0.2, Just(vec![0x2B])))
        .prop_map(|(parts, open_group)| [parts.concat(), open_group.unwrap_or_default()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_is_added_comes_back(
        puts in puts(), record_bytes in prop_oneof![50..3000usize, Just(Limits::DEFAULT_RECORD_BYTES)],
        most in prop_oneof![1..20u64, Just(u64::MAX)], wrapped: bool,
    ) {
        let limits = Limits::new(record_bytes).and_then(|limits| limits.with_user_records(most)).expect("limits");
        let single = if wrapped { Single::Wrapped } else { Single::Raw };
        checks::round_trips(&puts, Aggregator::new(limits).with_single(single), single);
    }

    #[test]
    fn a_batch_is_read_as_its_records_are(
        records in prop::collection::vec(
            (
                prop_oneof![
                    3 => puts().prop_map(|puts| oracle::seal(&oracle::encode(&puts))),
                    2 => wire_body().prop_map(|body| oracle::seal(&body)),
                    1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from),
                ],
                prop::option::weighted(0.2, (any::<Index>(), any::<u8>())),
            ),
            0..10,
        ),
    ) {
        let damaged = |(data, damage): (Bytes, Option<(Index, u8)>)| match damage {
            Some((at, flip)) if !data.is_empty() => {
                let mut damaged = data.to_vec();
                damaged[at.index(data.len())] ^= flip;
                damaged.into()
            }
            _ => data,
        };
        checks::batches_agree(&records.into_iter().map(damaged).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_classified(bytes: Vec<u8>, magic: bool) {
        let magic: &[u8] = if magic { &[0xF3, 0x89, 0x9A, 0xC2] } else { &[] };
        checks::survives(&Bytes::from([magic, &bytes].concat()));
    }

    #[test]
    fn any_body_is_read_as_the_oracle_reads_it(body: Vec<u8>) {
        checks::agrees_with_the_oracle(&body);
    }

    #[test]
    fn any_legal_body_is_read_as_the_oracle_reads_it(body in wire_body()) {
        checks::agrees_with_the_oracle(&body);
    }

    #[test]
    fn a_damaged_record_is_not_aggregated(
        puts in puts(), at: Index, flip in prop_oneof![Just(0u8), any::<u8>()], cut in prop_oneof![Just(0), 0..500usize],
    ) {
        let sealed = oracle::seal(&oracle::encode(&puts));
        checks::damage_is_noticed(&sealed, at.index(sealed.len()), flip, cut);
    }

    #[test]
    fn a_damaged_body_with_a_good_digest_is_read_as_the_oracle_reads_it(
        body in prop_oneof![puts().prop_map(|puts| oracle::encode(&puts)), wire_body()],
        damage in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4), cut in prop_oneof![Just(0), 0..100usize],
    ) {
        let mut body = body;
        for (at, byte) in damage {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        body.truncate(body.len().saturating_sub(cut));
        checks::agrees_with_the_oracle(&body);
    }
}

/// A property over inputs that are all alike would prove little.
#[test]
fn the_bodies_that_are_tried_are_everything_that_a_body_can_be() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let bodies = wire_body();
    let mut seen = BTreeMap::<_, u32>::new();
    for _ in 0..2_000 {
        let body = bodies.new_tree(&mut runner).expect("a strategy without filters").current();
        if let Some(decoded) = oracle::decode(&body) {
            *seen.entry(decoded.err().unwrap_or(Classification::Aggregated)).or_default() += 1;
        }
    }
    for expected in [
        Classification::Aggregated,
        Classification::Unparsable,
        Classification::PartitionKeyIndex,
        Classification::ExplicitHashKeyIndex,
        Classification::PartitionKeyEncoding,
        Classification::ExplicitHashKey,
        Classification::Empty,
    ] {
        assert!(seen.get(&expected).is_some_and(|times| *times >= 10), "{expected}: {seen:?}");
    }
}
