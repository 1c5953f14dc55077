//! Events some of which cannot be processed, and why.

use serde::{Deserialize, Serialize};

/// What a service reads of an event: a flight as JSON, to which a test has added these fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// Counts from 0, in the order in which events of the same key are put.
    pub number: u64,
    /// What befalls whoever processes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
}

/// What befalls whoever processes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trouble {
    /// A permanent error that names the record.
    Permanent,
    /// An error that names the record; the other records of its batch are done.
    Named,
    /// An error that does not say which record it is about.
    Whole,
    /// A panic.
    Panic,
    /// The call never ends.
    Slow,
    /// The process ends.
    Abort,
    /// An error that does not say which record it is about, but for the last attempt that the record has.
    Flaky,
    /// A transient error that names the record, once in each process.
    Outage,
}

impl Trouble {
    /// Whether no attempt ever succeeds.
    pub fn is_poison(self) -> bool {
        !matches!(self, Self::Flaky | Self::Outage)
    }
}

impl Flight {
    /// The event as JSON, from a flight that is a JSON object in one line.
    ///
    /// # Errors
    /// When `flight` is not an object.
    pub fn with_flight(&self, flight: &str) -> Result<String, serde_json::Error> {
        let mut event: serde_json::Map<String, serde_json::Value> = serde_json::from_str(flight)?;
        if let serde_json::Value::Object(ours) = serde_json::to_value(self)? {
            event.extend(ours);
        }
        serde_json::to_string(&event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_to_a_flight_is_read_back() {
        for trouble in [None, Some(Trouble::Panic)] {
            let flight = Flight { number: 7, trouble };
            let event = flight.with_flight(r#"{"carrier":"UA","tailnum":"N14228"}"#).expect("a flight");
            assert_eq!(serde_json::from_str::<Flight>(&event).expect("an event"), flight);
            assert!(event.contains(r#""tailnum":"N14228""#), "{event}");
        }
        Flight { number: 7, trouble: None }.with_flight("[]").expect_err("not an object");
    }
}
