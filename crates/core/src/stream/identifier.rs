//! What names a stream among several, in lease keys and between workers.

use std::fmt;

use super::StreamIdentity;

/// A stream as the KCL names it where one lease table holds several: `account:name:epoch`, with the time of its creation in
/// whole seconds since 1970 (KCL 3.x, `StreamIdentifier.serialize`; read back where it matches `[0-9]+:[^:]+:[0-9]+` and the
/// epoch is above 0). A stream that was deleted and created again has another identifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamIdentifier {
    account: String,
    name: String,
    epoch_seconds: u64,
}

impl StreamIdentifier {
    /// Reads an identifier; `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let (account, name, epoch) = (parts.next()?, parts.next()?, parts.next()?);
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if parts.next().is_some() || !is_number(account) || name.is_empty() || !is_number(epoch) {
            return None;
        }
        let epoch_seconds = epoch.parse().ok().filter(|epoch| *epoch > 0)?;
        Some(Self { account: account.to_owned(), name: name.to_owned(), epoch_seconds })
    }

    /// The name in an identifier, for display; the text itself, where that is none.
    pub fn name_in(text: &str) -> &str {
        let mut parts = text.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(name), Some(_), None) if !name.is_empty() => name,
            _ => text,
        }
    }

    /// Whether this stream was created after another one of the same account and name, which is gone then.
    pub fn replaces(&self, other: &Self) -> bool {
        self.account == other.account && self.name == other.name && self.epoch_seconds > other.epoch_seconds
    }
}

impl StreamIdentity {
    /// The identifier of the stream; `None` if its ARN has no account number (`arn:aws:kinesis:region:account:stream/name`),
    /// or if name or time of creation cannot be part of one.
    pub fn identifier(&self) -> Option<StreamIdentifier> {
        let account = self.arn.split(':').nth(4)?;
        let epoch = self.created_at.as_millis().div_euclid(1000);
        StreamIdentifier::parse(&format!("{account}:{}:{epoch}", self.name))
    }
}

impl fmt::Display for StreamIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.account, self.name, self.epoch_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn identity(arn: &str, name: &str, created_at: i64) -> StreamIdentity {
        StreamIdentity { name: name.into(), arn: arn.into(), created_at: Timestamp::from_millis(created_at) }
    }

    #[test]
    fn an_identity_has_the_identifier_of_the_kcl() {
        let arn = "arn:aws:kinesis:eu-central-1:123456789012:stream/flights";
        let identifier = identity(arn, "flights", 1_700_000_000_999).identifier().expect("it has one");
        assert_eq!(identifier.to_string(), "123456789012:flights:1700000000", "whole seconds");
        assert_eq!(StreamIdentifier::parse(&identifier.to_string()), Some(identifier));
        assert_eq!(identity(arn, "flights", 999).identifier(), None, "an epoch of 0");
        assert_eq!(identity(arn, "flights", -1).identifier(), None);
        assert_eq!(identity(arn, "a:b", 1_000).identifier(), None);
        assert_eq!(identity("flights", "flights", 1_000).identifier(), None, "no ARN");
        assert_eq!(identity("arn:aws:kinesis:local:me:stream/a", "a", 1_000).identifier(), None);
    }

    #[test]
    fn what_is_no_identifier_is_refused() {
        for text in ["", "1:a", "1:a:2:shardId-0", "1::2", ":a:2", "x:a:2", "1:a:x", "1:a:+2", "1:a:0", "1:a:-2"] {
            assert_eq!(StreamIdentifier::parse(text), None, "{text}");
        }
        assert!(StreamIdentifier::parse("1:a-b_c.d:2").is_some());
        assert_eq!(["1:a-b_c.d:2", "1::2", "a"].map(StreamIdentifier::name_in), ["a-b_c.d", "1::2", "a"]);
    }

    #[test]
    fn a_later_stream_of_the_same_name_replaces_an_earlier_one() {
        let parse = |text| StreamIdentifier::parse(text).expect("an identifier");
        assert!(parse("1:a:3").replaces(&parse("1:a:2")));
        for other in ["1:a:3", "1:a:4", "2:a:2", "1:b:2"] {
            assert!(!parse("1:a:3").replaces(&parse(other)), "{other}");
        }
    }
}
