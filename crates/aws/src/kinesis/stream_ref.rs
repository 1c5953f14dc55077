//! Naming a stream, by its name or its ARN.

use std::fmt;

/// A stream by its name or its ARN.
///
/// A name is looked up in the account and region of the client. An ARN also reaches streams of other accounts, where
/// their resource policy allows it; its region must be the client's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamRef(Kind);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Kind {
    Name(String),
    Arn(String),
}

impl StreamRef {
    /// A stream of the client's account and region.
    pub fn name(name: impl Into<String>) -> Self {
        Self(Kind::Name(name.into()))
    }

    /// A stream by its ARN, such as `arn:aws:kinesis:eu-west-1:111122223333:stream/flights`.
    pub fn arn(arn: impl Into<String>) -> Self {
        Self(Kind::Arn(arn.into()))
    }

    /// The name of the stream; the whole ARN if it does not name a stream.
    pub fn stream_name(&self) -> &str {
        match &self.0 {
            Kind::Name(name) => name,
            Kind::Arn(arn) => arn.split_once(":stream/").map_or(arn, |(_, name)| name),
        }
    }

    /// The region that an ARN names.
    pub(super) fn region(&self) -> Option<&str> {
        match &self.0 {
            Kind::Name(_) => None,
            Kind::Arn(arn) => arn.split(':').nth(3),
        }
    }

    /// What goes into the `StreamName` of a request.
    pub(super) fn name_field(&self) -> Option<String> {
        match &self.0 {
            Kind::Name(name) => Some(name.clone()),
            Kind::Arn(_) => None,
        }
    }

    /// What goes into the `StreamARN` of a request.
    pub(super) fn arn_field(&self) -> Option<String> {
        match &self.0 {
            Kind::Name(_) => None,
            Kind::Arn(arn) => Some(arn.clone()),
        }
    }
}

/// An ARN if it begins with `arn:`, which no stream name can; a name otherwise.
impl From<&str> for StreamRef {
    fn from(text: &str) -> Self {
        if text.starts_with("arn:") { Self::arn(text) } else { Self::name(text) }
    }
}

/// As from `&str`.
impl From<String> for StreamRef {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// The name of the stream.
impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.stream_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws-cn:kinesis:cn-north-1:111122223333:stream/flights";

    #[test]
    fn text_is_an_arn_when_it_begins_like_one() {
        assert_eq!(StreamRef::from(ARN), StreamRef::arn(ARN));
        assert_eq!(StreamRef::from("arnold"), StreamRef::name("arnold"));
    }

    #[test]
    fn either_way_the_stream_has_a_name() {
        assert_eq!(StreamRef::arn(ARN).to_string(), "flights");
        assert_eq!(StreamRef::name("flights").to_string(), "flights");
        assert_eq!(StreamRef::arn("arn:nonsense").stream_name(), "arn:nonsense");
    }

    #[test]
    fn a_request_carries_one_of_the_two() {
        let (name, arn) = (StreamRef::name("flights"), StreamRef::arn(ARN));
        assert_eq!((name.name_field().as_deref(), name.arn_field()), (Some("flights"), None));
        assert_eq!((arn.name_field(), arn.arn_field().as_deref()), (None, Some(ARN)));
        assert_eq!((name.region(), arn.region()), (None, Some("cn-north-1")));
    }
}
