//! What is added comes back.

#![no_main]

use shardwell_aggregation::{Aggregator, Limits, Single};
use shardwell_fuzz::{Input, checks};

libfuzzer_sys::fuzz_target!(|input: (Vec<Input>, u16, u8, bool)| {
    let (inputs, record_bytes, most, wrapped) = input;
    let limits = Limits::new(usize::from(record_bytes)).and_then(|limits| limits.with_user_records(most.into()));
    let Ok(limits) = limits else { return };
    let puts: Vec<_> = inputs.into_iter().map(Into::into).collect();
    let single = if wrapped { Single::Wrapped } else { Single::Raw };
    checks::round_trips(&puts, Aggregator::new(limits).with_single(single), single);
});
