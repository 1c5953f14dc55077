//! A letter as one line of JSON: for files, queues and tools.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Attempt, BatchInfo, DeadLetter, DeadReason};
use crate::{ExtendedSequenceNumber, Timestamp, UserRecord};

/// The version of the JSON format that this version of shardwell writes, and the newest that it reads.
pub const LETTER_FORMAT_VERSION: u32 = 1;

/// JSON that is no dead letter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidLetter {
    /// It was written by something newer.
    #[error(
        "the letter has format version {version}, and this version of shardwell reads {LETTER_FORMAT_VERSION}; upgrade \
         shardwell in this program"
    )]
    Newer {
        /// The version that it says it has.
        version: u64,
    },
    /// It is not JSON, or not that of a letter.
    #[error("this is not the JSON of a dead letter")]
    Malformed(#[source] serde_json::Error),
    /// A field does not hold what it should.
    #[error("the field `{field}` of the letter cannot be read: {reason}")]
    Field {
        /// The name of the field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// The fields in the order in which they are written. What identifies the letter comes first, since lines get cut off in
/// terminals; the payload is last for the same reason.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    version: u32,
    application: Cow<'a, str>,
    stream: Cow<'a, str>,
    shard: Cow<'a, str>,
    sequence_number: Cow<'a, str>,
    sub_sequence_number: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition_key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    explicit_hash_key: Option<Cow<'a, str>>,
    arrival: Cow<'a, str>,
    reason: Cow<'a, str>,
    error: Vec<Cow<'a, str>>,
    attempts: Vec<StoredAttempt<'a>>,
    batch: StoredBatch<'a>,
    lane: u32,
    worker: Cow<'a, str>,
    died_at: Cow<'a, str>,
    /// Base64 needs no escapes, so the longest field is read without a copy.
    #[serde(borrow)]
    data: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
struct StoredAttempt<'a> {
    at: Cow<'a, str>,
    error: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct StoredBatch<'a> {
    id: u64,
    invocations: u32,
    size: u32,
    first_sequence_number: Cow<'a, str>,
    first_sub_sequence_number: u64,
    last_sequence_number: Cow<'a, str>,
    last_sub_sequence_number: u64,
    first_arrival: Cow<'a, str>,
    last_arrival: Cow<'a, str>,
    partial: bool,
}

/// All that is read where the rest cannot be.
#[derive(Deserialize)]
struct Head {
    version: u64,
}

impl DeadLetter {
    /// The letter as one flat JSON object in one line, without a line feed at the end.
    ///
    /// Sequence numbers and hash keys are decimal text, times RFC 3339 in UTC with milliseconds, the payload is Base64. A
    /// record without a key has no field for it. The field `version` is [`LETTER_FORMAT_VERSION`].
    pub fn to_json(&self) -> String {
        // Text, numbers and lists can always be written as JSON.
        serde_json::to_string(&Stored::of(self)).unwrap_or_default()
    }

    /// The inverse of [`to_json`](Self::to_json). Unknown fields are passed over.
    ///
    /// # Errors
    /// See [`InvalidLetter`].
    pub fn from_json(json: &str) -> Result<Self, InvalidLetter> {
        match serde_json::from_str::<Stored<'_>>(json) {
            Ok(stored) if stored.version > LETTER_FORMAT_VERSION => {
                Err(InvalidLetter::Newer { version: stored.version.into() })
            }
            Ok(stored) => stored.into_letter(),
            Err(error) => match serde_json::from_str(json) {
                Ok(Head { version }) if version > LETTER_FORMAT_VERSION.into() => Err(InvalidLetter::Newer { version }),
                _ => Err(InvalidLetter::Malformed(error)),
            },
        }
    }
}

impl<'a> Stored<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        let DeadLetter { application, stream, shard, record, reason, error, attempts, batch, lane, worker, died_at } =
            letter;
        Self {
            version: LETTER_FORMAT_VERSION,
            application: application.into(),
            stream: stream.into(),
            shard: shard.as_str().into(),
            sequence_number: record.position.sequence_number.to_string().into(),
            sub_sequence_number: record.position.sub_sequence_number,
            partition_key: record.partition_key.as_ref().map(|key| key.as_str().into()),
            explicit_hash_key: record.explicit_hash_key.map(|key| key.to_string().into()),
            arrival: record.arrival.to_string().into(),
            reason: reason.as_str().into(),
            error: lines(error),
            attempts: attempts.iter().map(StoredAttempt::of).collect(),
            batch: StoredBatch::of(batch),
            lane: *lane,
            worker: worker.as_str().into(),
            died_at: died_at.to_string().into(),
            data: STANDARD.encode(&record.data).into(),
        }
    }

    fn into_letter(self) -> Result<DeadLetter, InvalidLetter> {
        let data = STANDARD.decode(&*self.data).map_err(|e| field("data", e))?;
        let record = UserRecord {
            position: position("sequence_number", &self.sequence_number, self.sub_sequence_number)?,
            partition_key: self.partition_key.map(|key| key.into_owned().into()),
            explicit_hash_key: self.explicit_hash_key.map(|key| parse("explicit_hash_key", &key)).transpose()?,
            arrival: parse("arrival", &self.arrival)?,
            data: data.into(),
        };
        let unknown_reason = || field("reason", format_args!("`{}` is no reason that is known here", self.reason));
        Ok(DeadLetter {
            application: self.application.into_owned(),
            stream: self.stream.into_owned(),
            shard: self.shard.as_ref().into(),
            record,
            reason: DeadReason::parse(&self.reason).ok_or_else(unknown_reason)?,
            error: self.error.into_iter().map(Cow::into_owned).collect(),
            attempts: self.attempts.into_iter().map(StoredAttempt::into_attempt).collect::<Result<_, _>>()?,
            batch: self.batch.into_batch()?,
            lane: self.lane,
            worker: self.worker.as_ref().into(),
            died_at: parse("died_at", &self.died_at)?,
        })
    }
}

impl<'a> StoredAttempt<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        Self { at: attempt.at.to_string().into(), error: lines(&attempt.error) }
    }

    fn into_attempt(self) -> Result<Attempt, InvalidLetter> {
        let at: Timestamp = parse("attempts.at", &self.at)?;
        Ok(Attempt { at, error: self.error.into_iter().map(Cow::into_owned).collect() })
    }
}

impl StoredBatch<'_> {
    fn of(batch: &BatchInfo) -> Self {
        let BatchInfo { id, invocations, size, first, last, first_arrival, last_arrival, partial } = *batch;
        Self {
            id,
            invocations,
            size,
            first_sequence_number: first.sequence_number.to_string().into(),
            first_sub_sequence_number: first.sub_sequence_number,
            last_sequence_number: last.sequence_number.to_string().into(),
            last_sub_sequence_number: last.sub_sequence_number,
            first_arrival: first_arrival.to_string().into(),
            last_arrival: last_arrival.to_string().into(),
            partial,
        }
    }

    fn into_batch(self) -> Result<BatchInfo, InvalidLetter> {
        let first = ("batch.first_sequence_number", &self.first_sequence_number, self.first_sub_sequence_number);
        let last = ("batch.last_sequence_number", &self.last_sequence_number, self.last_sub_sequence_number);
        Ok(BatchInfo {
            id: self.id,
            invocations: self.invocations,
            size: self.size,
            first: position(first.0, first.1, first.2)?,
            last: position(last.0, last.1, last.2)?,
            first_arrival: parse("batch.first_arrival", &self.first_arrival)?,
            last_arrival: parse("batch.last_arrival", &self.last_arrival)?,
            partial: self.partial,
        })
    }
}

fn lines(texts: &[String]) -> Vec<Cow<'_, str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

fn field(field: &'static str, reason: impl std::fmt::Display) -> InvalidLetter {
    InvalidLetter::Field { field, reason: reason.to_string() }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(name: &'static str, text: &str) -> Result<T, InvalidLetter> {
    text.parse().map_err(|e| field(name, e))
}

fn position(name: &'static str, sequence_number: &str, sub: u64) -> Result<ExtendedSequenceNumber, InvalidLetter> {
    Ok(ExtendedSequenceNumber::new(parse(name, sequence_number)?, sub))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::{Value, json};

    use super::*;

    pub(in crate::dead_letter) fn any_position() -> impl Strategy<Value = ExtendedSequenceNumber> {
        let number = "0|[1-9][0-9]{0,128}".prop_map(|text| text.parse().expect("a sequence number"));
        (number, any::<u64>()).prop_map(|(number, sub)| ExtendedSequenceNumber::new(number, sub))
    }

    fn any_time() -> impl Strategy<Value = Timestamp> {
        prop_oneof![any::<i64>(), 0..2_000_000_000_000i64].prop_map(Timestamp::from_millis)
    }

    /// Everything that Unicode has, control characters and NUL included.
    fn any_text() -> impl Strategy<Value = String> {
        vec(any::<char>(), 0..12).prop_map(|characters| characters.into_iter().collect())
    }

    prop_compose! {
        fn any_record()(
            position in any_position(),
            partition_key in option::of(any_text()),
            explicit_hash_key in option::of(any::<u128>()),
            arrival in any_time(),
            data in vec(any::<u8>(), 0..50),
        ) -> UserRecord {
            let partition_key = partition_key.map(Into::into);
            UserRecord { position, partition_key, explicit_hash_key, arrival, data: data.into() }
        }
    }

    prop_compose! {
        fn any_batch()(
            (id, invocations, size, partial) in any::<(u64, u32, u32, bool)>(),
            first in any_position(),
            last in any_position(),
            first_arrival in any_time(),
            last_arrival in any_time(),
        ) -> BatchInfo {
            BatchInfo { id, invocations, size, first, last, first_arrival, last_arrival, partial }
        }
    }

    prop_compose! {
        fn any_letter()(
            (application, stream, shard, worker) in (any_text(), any_text(), any_text(), any_text()),
            record in any_record(),
            reason in select(&DeadReason::ALL[..]),
            error in vec(any_text(), 0..3),
            attempts in vec((any_time(), vec(any_text(), 1..3)), 0..4),
            batch in any_batch(),
            lane in any::<u32>(),
            died_at in any_time(),
        ) -> DeadLetter {
            let attempts = attempts.into_iter().map(|(at, error)| Attempt { at, error }).collect();
            let (shard, worker) = (shard.into(), worker.into());
            DeadLetter { application, stream, shard, record, reason, error, attempts, batch, lane, worker, died_at }
        }
    }

    fn sample() -> DeadLetter {
        let position = ExtendedSequenceNumber::new(7u64.into(), 3);
        let at = Timestamp::from_millis(1_357_017_300_007);
        DeadLetter {
            application: "delays".into(),
            stream: "flights".into(),
            shard: "shardId-000000000000".into(),
            record: UserRecord {
                position,
                partition_key: Some("N14228".into()),
                explicit_hash_key: Some(u128::MAX),
                arrival: at,
                data: "EWR\n".into(),
            },
            reason: DeadReason::Permanent,
            error: vec!["no such airport".into(), "EWX".into()],
            attempts: vec![Attempt { at, error: vec!["no such airport".into()] }],
            batch: BatchInfo {
                id: 9,
                invocations: 2,
                size: 1,
                first: position,
                last: position,
                first_arrival: at,
                last_arrival: at,
                partial: true,
            },
            lane: 4,
            worker: "host:1:2".into(),
            died_at: Timestamp::from_millis(-1),
        }
    }

    /// The format is read by others too: it does not change by accident.
    #[test]
    fn the_format_is_this() {
        let time = "2013-01-01T05:15:00.007Z";
        let expected = json!({
            "version": 1,
            "application": "delays",
            "stream": "flights",
            "shard": "shardId-000000000000",
            "sequence_number": "7",
            "sub_sequence_number": 3,
            "partition_key": "N14228",
            "explicit_hash_key": "340282366920938463463374607431768211455",
            "arrival": time,
            "reason": "Permanent",
            "error": ["no such airport", "EWX"],
            "attempts": [{ "at": time, "error": ["no such airport"] }],
            "batch": {
                "id": 9,
                "invocations": 2,
                "size": 1,
                "first_sequence_number": "7",
                "first_sub_sequence_number": 3,
                "last_sequence_number": "7",
                "last_sub_sequence_number": 3,
                "first_arrival": time,
                "last_arrival": time,
                "partial": true,
            },
            "lane": 4,
            "worker": "host:1:2",
            "died_at": "-1 ms since 1970",
            "data": "RVdSCg==",
        });
        let json = sample().to_json();
        assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), expected);
        assert!(json.starts_with(r#"{"version":1,"application":"delays","#), "{json}");
        assert_eq!(DeadLetter::from_json(&json).expect("a letter"), sample());
    }

    #[test]
    fn what_is_absent_has_no_field() {
        let mut letter = sample();
        letter.record.partition_key = None;
        letter.record.explicit_hash_key = None;
        let json = letter.to_json();
        assert!(!json.contains("partition_key") && !json.contains("explicit_hash_key"), "{json}");
        assert_eq!(DeadLetter::from_json(&json).expect("a letter"), letter);
    }

    fn changed(change: impl FnOnce(&mut serde_json::Map<String, Value>)) -> Result<DeadLetter, InvalidLetter> {
        let Value::Object(mut fields) = serde_json::from_str(&sample().to_json()).expect("JSON") else {
            panic!("an object")
        };
        change(&mut fields);
        DeadLetter::from_json(&Value::Object(fields).to_string())
    }

    #[test]
    fn unknown_fields_are_passed_over_and_newer_versions_refused() {
        let with_more = changed(|fields| drop(fields.insert("colour".into(), json!({ "red": 1 }))));
        assert_eq!(with_more.expect("a letter"), sample());

        let newer = changed(|fields| drop(fields.insert("version".into(), 2.into()))).expect_err("newer");
        assert!(matches!(newer, InvalidLetter::Newer { version: 2 }));
        assert!(newer.to_string().contains("upgrade"), "{newer}");
        let other_shape = DeadLetter::from_json(r#"{"version": 3, "letter": []}"#).expect_err("newer");
        assert!(matches!(other_shape, InvalidLetter::Newer { version: 3 }));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, value) in [
            ("sequence_number", json!("07")),
            ("explicit_hash_key", json!("-1")),
            ("arrival", json!("yesterday")),
            ("reason", json!("Boredom")),
            ("data", json!("!")),
            ("died_at", json!("")),
        ] {
            let error = changed(|fields| drop(fields.insert(name.into(), value))).expect_err("not readable");
            assert!(matches!(error, InvalidLetter::Field { field, .. } if field == name), "{name}: {error}");
        }
        for json in ["", "{", "[]", "null", r#"{"version":1}"#, "\0\0", &sample().to_json()[..300]] {
            assert!(matches!(DeadLetter::from_json(json), Err(InvalidLetter::Malformed(_))), "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_letter_round_trips_in_one_line(letter in any_letter()) {
            let json = letter.to_json();
            prop_assert!(!json.contains(['\n', '\r']), "{}", json);
            prop_assert_eq!(DeadLetter::from_json(&json).expect("a letter"), letter);
        }
    }
}
