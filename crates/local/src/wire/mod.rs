//! JSON 1.1, as the Kinesis API has it: requests, answers, errors, and the tokens in them.

mod error;
mod request;
mod response;
mod token;

pub(crate) use error::ApiError;
pub(crate) use request::{Blob, EpochSeconds, hash_key, number, parse, required, sequence_number, stream_name, within};
pub(crate) use response::{
    ShardView, StreamModeView, mode_view, push_number_field, push_seconds, seconds, status_name, to_json,
};
pub(crate) use token::{ListShardsToken, ListStreamsToken, decode_iterator, encode_iterator};
