//! Opaque tokens: shard iterators and the next pages of listings.
//!
//! A token carries all that it stands for, so the engine keeps no table of them. Inside it is JSON in base64.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shardwell_core::memory::kinesis::{IteratorPlace, KinesisError, KinesisErrorKind, ShardIterator};
use shardwell_core::{ShardFilter, Timestamp};

use super::ApiError;

/// How long the token of a listing is good for (Kinesis API, `ListShards`: 300 seconds).
const NEXT_TOKEN_LIFETIME_SECONDS: u64 = 300;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IteratorToken {
    stream: String,
    created: i64,
    shard: u32,
    at: bool,
    number: String,
    issued: i64,
}

pub(crate) fn encode_iterator(iterator: &ShardIterator) -> String {
    let (at, number) = match iterator.place {
        IteratorPlace::At(number) => (true, number),
        IteratorPlace::After(number) => (false, number),
    };
    encode(&IteratorToken {
        stream: iterator.stream.clone(),
        created: iterator.stream_created_at.as_millis(),
        shard: iterator.shard,
        at,
        number: number.to_string(),
        issued: iterator.issued_at.as_millis(),
    })
}

pub(crate) fn decode_iterator(token: &str) -> Result<ShardIterator, ApiError> {
    let refuse = || ApiError::invalid("ShardIterator is not one that GetShardIterator or GetRecords gave out");
    let token: IteratorToken = decode(token).ok_or_else(refuse)?;
    let number = token.number.parse().map_err(|_| refuse())?;
    Ok(ShardIterator {
        stream: token.stream,
        stream_created_at: Timestamp::from_millis(token.created),
        shard: token.shard,
        place: if token.at { IteratorPlace::At(number) } else { IteratorPlace::After(number) },
        issued_at: Timestamp::from_millis(token.issued),
    })
}

/// Where a listing of shards goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListShardsToken {
    pub(crate) stream: String,
    pub(crate) created: i64,
    filter: FilterToken,
    pub(crate) after: String,
    issued: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum FilterToken {
    All,
    AfterShardId(String),
    AtLatest,
    AtTrimHorizon,
    FromTrimHorizon,
    AtTimestamp(i64),
    FromTimestamp(i64),
}

impl ListShardsToken {
    pub(crate) fn new(stream: &str, created: Timestamp, filter: &ShardFilter, after: &str, issued: Timestamp) -> Self {
        let filter = match filter {
            ShardFilter::All => FilterToken::All,
            ShardFilter::AfterShardId(id) => FilterToken::AfterShardId(id.to_string()),
            ShardFilter::AtLatest => FilterToken::AtLatest,
            ShardFilter::AtTrimHorizon => FilterToken::AtTrimHorizon,
            ShardFilter::FromTrimHorizon => FilterToken::FromTrimHorizon,
            ShardFilter::AtTimestamp(time) => FilterToken::AtTimestamp(time.as_millis()),
            ShardFilter::FromTimestamp(time) => FilterToken::FromTimestamp(time.as_millis()),
        };
        let (created, issued) = (created.as_millis(), issued.as_millis());
        Self { stream: stream.to_owned(), created, filter, after: after.to_owned(), issued }
    }

    pub(crate) fn filter(&self) -> ShardFilter {
        match &self.filter {
            FilterToken::All => ShardFilter::All,
            FilterToken::AfterShardId(id) => ShardFilter::AfterShardId(id.as_str().into()),
            FilterToken::AtLatest => ShardFilter::AtLatest,
            FilterToken::AtTrimHorizon => ShardFilter::AtTrimHorizon,
            FilterToken::FromTrimHorizon => ShardFilter::FromTrimHorizon,
            FilterToken::AtTimestamp(millis) => ShardFilter::AtTimestamp(Timestamp::from_millis(*millis)),
            FilterToken::FromTimestamp(millis) => ShardFilter::FromTimestamp(Timestamp::from_millis(*millis)),
        }
    }

    pub(crate) fn encode(&self) -> String {
        encode(self)
    }

    pub(crate) fn decode(token: &str, now: Timestamp) -> Result<Self, ApiError> {
        let token: Self =
            decode(token).ok_or_else(|| ApiError::invalid("NextToken is not one that ListShards gave out"))?;
        let age = now.since(Timestamp::from_millis(token.issued)).as_secs();
        if age > NEXT_TOKEN_LIFETIME_SECONDS {
            let message = format!("NextToken is {age} s old and was good for {NEXT_TOKEN_LIFETIME_SECONDS} s");
            return Err(KinesisError::new(KinesisErrorKind::ExpiredNextToken, message).into());
        }
        Ok(token)
    }
}

/// Where a listing of streams goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListStreamsToken {
    pub(crate) after_stream: String,
}

impl ListStreamsToken {
    pub(crate) fn encode(&self) -> String {
        encode(self)
    }

    pub(crate) fn decode(token: &str) -> Result<Self, ApiError> {
        decode(token).ok_or_else(|| ApiError::invalid("NextToken is not one that ListStreams gave out"))
    }
}

fn encode(token: &impl Serialize) -> String {
    // Strings and numbers always serialize; an empty token would be refused when it comes back.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

fn decode<T: DeserializeOwned>(token: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}
