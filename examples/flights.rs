//! The input: a file with a flight in each line, as JSON, plain or gzipped.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;
use shardwell::{Batch, Bytes, PartitionKey, ProcessError, ProcessResultExt, PutEntry, UserRecord};

/// A flight that left New York City; the fields that are used here.
#[derive(Debug, Deserialize)]
pub struct Flight<'a> {
    /// The carrier's code, such as `UA`.
    #[serde(borrow)]
    pub carrier: Cow<'a, str>,
    /// The flight number.
    pub flight: u32,
    /// The tail number of the aircraft; not known of every flight.
    #[serde(borrow)]
    tailnum: Option<Cow<'a, str>>,
    /// Where it went.
    #[serde(borrow, default)]
    pub dest: Cow<'a, str>,
    /// Minutes of delay at departure, negative if early; none for a cancelled flight.
    pub dep_delay: Option<i64>,
}

impl<'a> Flight<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// For a line that is no flight.
    pub fn parse(line: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(line)
    }

    /// The tail number, if there is one.
    pub fn tail(&self) -> Option<&str> {
        self.tailnum.as_deref().filter(|tail| !tail.is_empty())
    }

    /// The aircraft, so that all its flights stay in order; where it is not known, carrier and flight number.
    pub fn partition_key(&self) -> PartitionKey {
        match self.tail() {
            Some(tail) => tail.into(),
            None => format!("{}{}", self.carrier, self.flight).into(),
        }
    }
}

/// The flights of a batch, up to the first record that is none; and what is wrong with that one. What comes before it must still be
/// written: whoever says that a record failed says that those before it are done.
pub fn readable(batch: &Batch) -> (Vec<(&UserRecord, Flight<'_>)>, Result<(), ProcessError>) {
    let mut flights = Vec::new();
    for record in batch {
        match Flight::parse(&record.data) {
            Ok(flight) => flights.push((record, flight)),
            Err(error) => return (flights, Err(error).permanent().at(record)),
        }
    }
    (flights, Ok(()))
}

/// Opens a file of flights; one that begins like gzip is unpacked on the way.
///
/// # Errors
/// For a file that cannot be read.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let cannot = || format!("cannot read {}", path.display());
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).with_context(cannot)?);
    let is_gzip = file.fill_buf().with_context(cannot)?.starts_with(&[0x1f, 0x8b]);
    Ok(if is_gzip { Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file))) } else { Box::new(file) })
}

/// The whole file, as records that are ready to be put. Their payloads share one buffer.
///
/// # Errors
/// For a file that cannot be read, or holds something else.
pub fn entries(path: &Path) -> Result<Vec<PutEntry>> {
    let mut content = Vec::new();
    open(path)?.read_to_end(&mut content).with_context(|| format!("cannot read {}", path.display()))?;
    let content = Bytes::from(content);
    let mut entries = Vec::new();
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
        if line.is_empty() {
            continue;
        }
        let flight = Flight::parse(line).with_context(|| format!("{}, line {}", path.display(), number + 1))?;
        entries.push(PutEntry::new(flight.partition_key(), content.slice_ref(line)));
    }
    ensure!(!entries.is_empty(), "{} holds no flights", path.display());
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::Flight;

    fn key(line: &str) -> String {
        Flight::parse(line.as_bytes()).expect("a flight").partition_key().to_string()
    }

    #[test]
    fn the_key_is_the_aircraft_where_it_is_known() {
        assert_eq!(key(r#"{"carrier":"UA","flight":1545,"tailnum":"N14228","dep_delay":2}"#), "N14228");
        assert_eq!(key(r#"{"carrier":"UA","flight":1545,"tailnum":null,"dep_delay":null}"#), "UA1545");
        assert_eq!(key(r#"{"carrier":"UA","flight":1545,"tailnum":""}"#), "UA1545");
    }
}
