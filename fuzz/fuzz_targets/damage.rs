//! Damage to a good record is noticed.

#![no_main]

use shardwell_fuzz::Input;
use shardwell_fuzz::checks::{self, oracle};

libfuzzer_sys::fuzz_target!(|input: (Vec<Input>, u16, u8, u16)| {
    let (inputs, at, flip, cut) = input;
    let puts: Vec<_> = inputs.into_iter().map(Into::into).collect();
    if !puts.is_empty() {
        let sealed = oracle::seal(&oracle::encode(&puts));
        checks::damage_is_noticed(&sealed, at.into(), flip, cut.into());
    }
});
