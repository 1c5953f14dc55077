//! The flights that are put, with trouble planted among them.

pub(crate) mod producer;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use shardwell_core::Bytes;
use shardwell_integration::{Flight, Trouble};

/// The stream that they are put into.
pub(crate) const STREAM: &str = "flights";

/// An event to put.
#[derive(Clone, Debug)]
pub(crate) struct PlannedFlight {
    pub(crate) flight: Flight,
    /// The aircraft, so that its flights stay in order.
    pub(crate) key: String,
    pub(crate) payload: Bytes,
}

/// What decides on the partition key.
#[derive(Deserialize)]
struct Aircraft {
    carrier: String,
    flight: u32,
    tailnum: Option<String>,
}

impl Aircraft {
    fn key(self) -> String {
        match self.tailnum {
            Some(tailnum) if !tailnum.is_empty() => tailnum,
            _ => format!("{}{}", self.carrier, self.flight),
        }
    }
}

/// The file that `SHARDWELL_FLIGHTS` names, unpacked if it begins like gzip; without it the flights of a week.
pub(crate) fn file() -> (PathBuf, String) {
    let week = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/flights-2013-01-01to07.ndjson");
    let path = std::env::var_os("SHARDWELL_FLIGHTS").map_or_else(|| week.into(), PathBuf::from);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let read = match bytes.starts_with(&[0x1f, 0x8b]) {
        true => MultiGzDecoder::new(&*bytes).read_to_string(&mut text),
        false => (&*bytes).read_to_string(&mut text),
    };
    read.unwrap_or_else(|error| panic!("{} is not text: {error}", path.display()));
    (path, text)
}

/// So many flights of a file, from its beginning and as often as it takes, with trouble at random places.
pub(crate) fn plan(
    file: &str,
    count: usize,
    troubles: &[Trouble],
    within: std::ops::Range<usize>,
    random: &mut fastrand::Rng,
) -> Vec<PlannedFlight> {
    let mut places = BTreeSet::new();
    while places.len() < troubles.len() {
        places.insert(random.usize(within.clone()));
    }
    let mut troubles = troubles.to_vec();
    random.shuffle(&mut troubles);
    let troubles: BTreeMap<usize, Trouble> = places.into_iter().zip(troubles).collect();
    let lines = file.lines().filter(|line| !line.is_empty()).cycle().take(count).enumerate();
    let planned = |(index, line): (usize, &str)| {
        let flight = Flight { number: index as u64, trouble: troubles.get(&index).copied() };
        let key = serde_json::from_str::<Aircraft>(line).expect("a flight").key();
        PlannedFlight { flight, key, payload: flight.with_flight(line).expect("a flight").into() }
    };
    lines.map(planned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_planted_at_the_places_and_nowhere_else() {
        let file = "{\"carrier\":\"UA\",\"flight\":1,\"tailnum\":\"N1\"}\n{\"carrier\":\"UA\",\"flight\":2,\"tailnum\":null}\n";
        let random = &mut fastrand::Rng::with_seed(1);
        let planned = plan(file, 9, &[Trouble::Panic, Trouble::Slow, Trouble::Slow], 3..7, random);
        let keys: Vec<&str> = planned.iter().map(|planned| &*planned.key).collect();
        assert_eq!(keys, ["N1", "UA2"].repeat(5)[..9]);
        let with_trouble = planned.iter().filter(|planned| planned.flight.trouble.is_some());
        assert!(with_trouble.clone().all(|planned| (3..7).contains(&planned.flight.number)));
        let mut troubles: Vec<_> = with_trouble.filter_map(|planned| planned.flight.trouble).collect();
        troubles.sort_unstable();
        assert_eq!(troubles, [Trouble::Panic, Trouble::Slow, Trouble::Slow]);
    }
}
