//! The result: flights and their departure delays by carrier, and the processor that adds them up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use shardwell::{
    Batch, ExtendedSequenceNumber, LaneContext, Outcome, ProcessError, RecordProcessor, ShardId, async_trait,
};

use shardwell_examples::flights::{self, Flight};

/// What is known of one carrier. Whole minutes, so that two ways of adding up agree to the last digit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carrier {
    flights: u64,
    departed: u64,
    delay_minutes: i64,
}

impl Carrier {
    fn add(&mut self, dep_delay: Option<i64>) {
        self.flights += 1;
        if let Some(minutes) = dep_delay {
            self.departed += 1;
            self.delay_minutes += minutes;
        }
    }

    fn mean_delay(&self) -> Option<f64> {
        (self.departed > 0).then(|| self.delay_minutes as f64 / self.departed as f64)
    }
}

/// The result by carrier.
pub(crate) type Carriers = BTreeMap<String, Carrier>;

/// The same result without any stream: straight from the file, without the flights of these numbers (from 0).
pub(crate) fn straight_from(path: &Path, without: &BTreeSet<usize>) -> Result<Carriers> {
    let mut carriers = Carriers::new();
    let mut number = 0;
    for line in flights::open(path)?.split(b'\n') {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if line.is_empty() {
            continue;
        }
        if !without.contains(&number) {
            let flight = Flight::parse(&line)?;
            carriers.entry(flight.carrier.into_owned()).or_default().add(flight.dep_delay);
        }
        number += 1;
    }
    Ok(carriers)
}

/// The result as a table for people.
pub(crate) fn table(carriers: &Carriers) -> Table {
    let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["carrier", "flights", "mean departure delay"]);
    for (code, carrier) in carriers {
        let delay = carrier.mean_delay().map_or_else(|| "-".to_owned(), |minutes| format!("{minutes:.1} min"));
        table.add_row([Cell::new(code), number(carrier.flights.to_string()), number(delay)]);
    }
    table
}

/// What all processors add up together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Arc<Mutex<Totals>>);

#[derive(Clone, Debug, Default)]
struct Totals {
    carriers: Carriers,
    shards: BTreeMap<ShardId, ShardTotals>,
    repeated: u64,
    /// The dead letters that came back.
    redriven: BTreeSet<(ShardId, ExtendedSequenceNumber)>,
}

#[derive(Clone, Debug, Default)]
struct ShardTotals {
    records: u64,
    /// Everything up to here is counted.
    counted: Option<ExtendedSequenceNumber>,
}

impl Tally {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        // Totals change by whole batches, and nothing in there can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records were counted.
    pub(crate) fn records(&self) -> u64 {
        self.totals().shards.values().map(|shard| shard.records).sum()
    }

    /// How many records were counted of each shard.
    pub(crate) fn by_shard(&self) -> BTreeMap<ShardId, u64> {
        self.totals().shards.iter().map(|(shard, totals)| (shard.clone(), totals.records)).collect()
    }

    /// How many records were delivered again and passed over.
    pub(crate) fn repeated(&self) -> u64 {
        self.totals().repeated
    }

    /// How many dead letters were counted.
    pub(crate) fn redriven(&self) -> usize {
        self.totals().redriven.len()
    }

    /// The result so far.
    pub(crate) fn carriers(&self) -> Carriers {
        self.totals().carriers.clone()
    }

    /// Counts a batch. A record may be delivered more than once, always in the order of its shard; so whatever is not
    /// beyond the last position that was counted has been counted before.
    pub(crate) fn count(&self, shard: &ShardId, flights: &[(ExtendedSequenceNumber, Flight<'_>)]) {
        let mut guard = self.totals();
        let totals = &mut *guard;
        let of_shard = totals.shards.entry(shard.clone()).or_default();
        for (position, flight) in flights {
            if of_shard.counted.is_some_and(|counted| *position <= counted) {
                totals.repeated += 1;
                continue;
            }
            of_shard.counted = Some(*position);
            of_shard.records += 1;
            add(&mut totals.carriers, flight);
        }
    }

    /// Counts dead letters that are tried again. They lie before what was counted, so each must be remembered.
    pub(crate) fn count_redriven(&self, shard: &ShardId, flights: &[(ExtendedSequenceNumber, Flight<'_>)]) {
        let mut guard = self.totals();
        let totals = &mut *guard;
        for (position, flight) in flights {
            if totals.redriven.insert((shard.clone(), *position)) {
                totals.shards.entry(shard.clone()).or_default().records += 1;
                add(&mut totals.carriers, flight);
            } else {
                totals.repeated += 1;
            }
        }
    }
}

fn add(carriers: &mut Carriers, flight: &Flight<'_>) {
    match carriers.get_mut(flight.carrier.as_ref()) {
        Some(carrier) => carrier.add(flight.dep_delay),
        None => carriers.entry(flight.carrier.to_string()).or_default().add(flight.dep_delay),
    }
}

/// Our code, as a consumer service would have it: one of these for each shard.
#[derive(Debug)]
pub(crate) struct DelayCounter {
    shard: ShardId,
    tally: Tally,
}

impl DelayCounter {
    pub(crate) fn new(lane: &LaneContext, tally: &Tally) -> Self {
        Self { shard: lane.shard.clone(), tally: tally.clone() }
    }
}

#[async_trait]
impl RecordProcessor for DelayCounter {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        // All of it is read before any of it is counted: a batch that fails leaves nothing behind and comes again.
        let mut flights = Vec::with_capacity(batch.records().len());
        for record in batch {
            flights.push((record.position, Flight::parse(&record.data)?));
        }
        self.tally.count(&self.shard, &flights);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_delivered_again_is_counted_once() {
        let line = br#"{"carrier":"UA","flight":1,"tailnum":null,"dep_delay":4}"#;
        let batch = |positions: std::ops::Range<u64>| {
            positions
                .map(|n| (ExtendedSequenceNumber::new(n.into(), 0), Flight::parse(line).expect("a flight")))
                .collect::<Vec<_>>()
        };
        let tally = Tally::default();
        tally.count(&"a".into(), &batch(0..5));
        tally.count(&"a".into(), &batch(3..8));
        tally.count(&"b".into(), &batch(0..2));
        assert_eq!((tally.records(), tally.repeated()), (10, 2));
        let expected = Carrier { flights: 10, departed: 10, delay_minutes: 40 };
        assert_eq!(tally.carriers(), [("UA".to_owned(), expected)].into());
    }
    #[test]
    fn a_dead_letter_counts_though_it_lies_before_what_was_counted() {
        let line = br#"{"carrier":"UA","flight":1,"tailnum":null,"dep_delay":4}"#;
        let at = |n: u64| [(ExtendedSequenceNumber::new(n.into(), 0), Flight::parse(line).expect("a flight"))];
        let tally = Tally::default();
        tally.count(&"a".into(), &at(7));
        tally.count_redriven(&"a".into(), &at(3));
        tally.count_redriven(&"a".into(), &at(3));
        assert_eq!((tally.records(), tally.redriven(), tally.repeated()), (2, 1, 1));
    }
}
