//! What the fuzz targets share: the checks of the aggregation crate's property tests, and how input becomes theirs.
//!
//! `cargo +nightly fuzz run any_body` from the root of the project runs one; the others are in `fuzz_targets`.

#[path = "../../crates/aggregation/tests/checks/mod.rs"]
pub mod checks;

use arbitrary::Arbitrary;
use checks::oracle::Put;

/// A user record made of fuzzer input. Its partition key is one that a stream takes.
#[derive(Arbitrary, Debug)]
pub struct Input {
    partition_key: String,
    explicit_hash_key: Option<u128>,
    data: Vec<u8>,
}

impl From<Input> for Put {
    fn from(input: Input) -> Self {
        let mut partition_key: String = input.partition_key.chars().take(256).collect();
        if partition_key.is_empty() {
            partition_key.push('k');
        }
        Self { partition_key, explicit_hash_key: input.explicit_hash_key, data: input.data }
    }
}
