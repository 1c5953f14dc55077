//! Reading requests.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use shardwell_core::memory::kinesis::check_stream_name;
use shardwell_core::{SequenceNumber, Timestamp};

use super::ApiError;
use crate::state::State;

/// Parses a body. Fields that the API does not know are ignored, as the service does.
pub(crate) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    // Structures also deserialize from arrays, which the protocol does not know.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::serialization("the body is not a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| ApiError::serialization(error.to_string()))
}

/// A field that must be there.
pub(crate) fn required<T>(field: Option<T>, name: &str) -> Result<T, ApiError> {
    field.ok_or_else(|| ApiError::validation(format!("{name} is missing")))
}

/// An integer within its bounds.
pub(crate) fn within(value: i64, bounds: &RangeInclusive<u32>, name: &str) -> Result<u32, ApiError> {
    u32::try_from(value).ok().filter(|value| bounds.contains(value)).ok_or_else(|| {
        let (low, high) = (bounds.start(), bounds.end());
        ApiError::validation(format!("{name} is {value}: {low} to {high} may be"))
    })
}

/// An integer that must be there, within its bounds.
pub(crate) fn number(field: Option<i64>, bounds: &RangeInclusive<u32>, name: &str) -> Result<u32, ApiError> {
    within(required(field, name)?, bounds, name)
}

/// The name of the stream that a request is about, given by name, by ARN, or by both.
pub(crate) fn stream_name<'a>(
    state: &State,
    name: Option<Cow<'a, str>>,
    arn: Option<&str>,
) -> Result<Cow<'a, str>, ApiError> {
    let from_arn = arn.map(|arn| name_in_arn(state, arn)).transpose()?;
    let name = match (name, from_arn) {
        (Some(name), Some(other)) if name != other => {
            return Err(ApiError::invalid(format!("StreamName `{name}` and the StreamARN of `{other}` disagree")));
        }
        (Some(name), _) => name,
        (None, Some(name)) => Cow::Owned(name),
        (None, None) => return Err(ApiError::validation("StreamName or StreamARN is missing")),
    };
    check_stream_name(&name)?;
    Ok(name)
}

fn name_in_arn(state: &State, arn: &str) -> Result<String, ApiError> {
    let name = arn.rsplit_once(":stream/").map(|(_, name)| name).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ApiError::validation(format!("`{arn}` is not the ARN of a stream")))?;
    let own = state.kinesis.lock().arn(name);
    if arn != own {
        let kind = shardwell_core::memory::kinesis::KinesisErrorKind::ResourceNotFound;
        let message = format!("`{arn}` belongs to another account or region: the streams here are like `{own}`");
        return Err(shardwell_core::memory::kinesis::KinesisError::new(kind, message).into());
    }
    Ok(name.to_owned())
}

/// A sequence number (pattern `0|([1-9]\d{0,128})`).
pub(crate) fn sequence_number(text: &str, name: &str) -> Result<SequenceNumber, ApiError> {
    text.parse().map_err(|error| ApiError::validation(format!("{name}: {error}")))
}

/// A hash key (pattern `0|([1-9]\d{0,38})`), which may be larger than any that exists.
pub(crate) fn hash_key(text: &str, name: &str) -> Result<u128, ApiError> {
    let digits = (1..=39).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return Err(ApiError::validation(format!("{name} is not a decimal number of up to 39 digits")));
    }
    text.parse().map_err(|_| ApiError::invalid(format!("{name} is above 2^128 - 1")))
}

/// A binary value, which comes as base64.
#[derive(Clone, Debug)]
pub(crate) struct Blob(pub(crate) Bytes);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Base64;

        impl Visitor<'_> for Base64 {
            type Value = Blob;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("base64")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blob, E> {
                STANDARD
                    .decode(text)
                    .map(|bytes| Blob(bytes.into()))
                    .map_err(|error| E::custom(format!("not base64: {error}")))
            }
        }

        deserializer.deserialize_str(Base64)
    }
}

/// A time, which comes as seconds since 1970 with an optional fraction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EpochSeconds(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for EpochSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // JSON has no infinities, and a cast from a large number stops at the end of the range.
        let seconds = f64::deserialize(deserializer)?;
        Ok(Self(Timestamp::from_millis((seconds * 1000.0).round() as i64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_millisecond() {
        for (text, millis) in
            [("1700000000.123", 1_700_000_000_123), ("1700000000", 1_700_000_000_000), ("1.7e9", 1_700_000_000_000)]
        {
            let EpochSeconds(time) = serde_json::from_str(text).expect("a time");
            assert_eq!(time.as_millis(), millis, "{text}");
        }
        let EpochSeconds(last) = serde_json::from_str("1e300").expect("a time");
        assert_eq!(last.as_millis(), i64::MAX);
    }

    #[test]
    fn hash_keys_have_their_pattern() {
        assert_eq!(hash_key("340282366920938463463374607431768211455", "k"), Ok(u128::MAX));
        assert_eq!(hash_key("0", "k"), Ok(0));
        for text in ["", "00", "+1", "-1", "1e3", "1234567890123456789012345678901234567890"] {
            assert_eq!(hash_key(text, "k").expect_err("refused").code, "ValidationException", "{text:?}");
        }
        let large = hash_key("340282366920938463463374607431768211456", "k");
        assert_eq!(large.expect_err("refused").code, "InvalidArgumentException");
    }
}
