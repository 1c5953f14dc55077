//! Any bytes are classified, and every way of reading them agrees.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    shardwell_fuzz::checks::survives(&bytes::Bytes::copy_from_slice(data));
});
