//! Any body with a good digest is read as another protobuf implementation reads it.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    shardwell_fuzz::checks::agrees_with_the_oracle(body);
});
