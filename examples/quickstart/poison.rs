//! What `--poison` adds: flights that our processor cannot read, what becomes of them, and how they come back.
//!
//! [`Poison::plant`] breaks some flights of the input, in two ways. [`StrictCounter`] is a processor that fails on them, in
//! two ways: it names the one, and cannot tell the other. The worker puts them into its dead letters and goes on. Then the
//! processor is mended, and they are asked back.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use shardwell::dead_letter::{ArchivedLetter, DeadLetterArchive, LetterQuery, LetterState};
use shardwell::sqlite::SqliteDeadLetters;
use shardwell::{
    Batch, Bytes, DeliveryPolicy, ExtendedSequenceNumber, LaneContext, Outcome, ProcessError, ProcessResultExt,
    PutEntry, RecordProcessor, RetryPolicy, ShardId, WorkerBuilder, async_trait,
};
use shardwell_examples::{now, pause};

use crate::screen::{Screen, short};
use crate::tally::{self, Tally};
use shardwell_examples::flights::Flight;

/// The broken flights, and where they go.
#[derive(Debug)]
pub(crate) struct Poison {
    /// The number of each among all flights, and its broken line.
    planted: BTreeMap<usize, PutEntry>,
    archive: SqliteDeadLetters,
    /// Whether the processor is mended: in real life, the next version of the program.
    mended: Arc<AtomicBool>,
}

/// Rows of the table of letters; the rest is a number.
const ROWS: usize = 10;
/// How long letters may take, in pauses of 50 ms.
const PATIENCE: u32 = 2400;

impl Poison {
    /// Breaks so many flights, spread evenly; `None` for none. Their letters will be in a file of the directory.
    pub(crate) fn plant(count: usize, entries: &mut [PutEntry], directory: &Path) -> Result<Option<Self>> {
        ensure!(count <= entries.len(), "there are {} flights, too few to break {count} of them", entries.len());
        let mut planted = BTreeMap::new();
        for number in 0..count {
            let index = (2 * number + 1) * entries.len() / (2 * count);
            let entry = &mut entries[index];
            let broken = if number % 2 == 0 { cut_off(&entry.data) } else { in_lower_case(&entry.data)? };
            ensure!(
                is_same_flight(&entry.data, &broken),
                "flight {} of the file cannot be broken so that it can be mended again",
                index + 1
            );
            entry.data = broken;
            planted.insert(index, entry.clone());
        }
        let archive = SqliteDeadLetters::new(directory.join("dead-letters.sqlite"));
        Ok((count > 0).then(|| Self { planted, archive, mended: Arc::default() }))
    }

    pub(crate) fn len(&self) -> usize {
        self.planted.len()
    }

    /// Where dead letters go, and how soon a record is one. Without the short backoff the show would take longer.
    pub(crate) fn configure(&self, worker: WorkerBuilder) -> WorkerBuilder {
        let backoff =
            RetryPolicy::default().with_initial(Duration::from_millis(20)).with_cap(Duration::from_millis(200));
        worker
            .dead_letters(self.archive.clone())
            .delivery(DeliveryPolicy::default().with_max_retries(Some(2)).with_backoff(backoff))
            .redrive_interval(Duration::from_millis(200))
    }

    /// Makes processors that fail on what is broken, until they are mended.
    pub(crate) fn processors(&self, tally: Tally) -> impl Fn(&LaneContext) -> StrictCounter + Send + Sync + 'static {
        let mended = Arc::clone(&self.mended);
        move |lane| {
            let (shard, tally, mended) = (lane.shard.clone(), tally.clone(), Arc::clone(&mended));
            StrictCounter { shard, redrive: lane.redrive, tally, mended }
        }
    }

    /// Shows what died, and checks that it is what was planted, and that all others are counted.
    pub(crate) async fn show(&self, screen: &mut Screen, path: &Path, tally: &Tally) -> Result<()> {
        screen.step(&format!("{} flights are broken, and the worker went past them.", self.len()));
        screen.say("   Half of them are cut off, and our processor says which: those died at once. The others fail a");
        screen
            .say("   whole batch, and nobody says which it was: the worker split the batch until each was alone, and");
        screen.say("   gave up after two more tries. (RUST_LOG=error shows what it logs of them.) They are kept in a");
        screen.say("   SQLite file, with payloads and errors:");
        let letters = self.until(|letters| letters.len() >= self.len()).await?;
        screen.say(&table(&letters).to_string());
        if letters.len() > ROWS {
            screen.say(&format!("   ... and {} more", letters.len() - ROWS));
        }

        let mut dead: Vec<_> =
            letters.iter().map(|one| (&one.letter.record.partition_key, &one.letter.record.data)).collect();
        let keys: Vec<_> =
            self.planted.values().map(|entry| (Some(entry.partition_key.clone()), &entry.data)).collect();
        let mut planted: Vec<_> = keys.iter().map(|(key, data)| (key, *data)).collect();
        dead.sort();
        planted.sort();
        ensure!(dead == planted, "{} letters are dead, and they are not what was planted", dead.len());
        let others = tally::straight_from(path, &self.planted.keys().copied().collect())?;
        ensure!(tally.carriers() == others, "the other flights are not all counted, or not once each");
        screen.say(&format!(
            "   Right: exactly the {} that were planted, once each, and all {} others are counted.",
            self.len(),
            tally.records()
        ));
        Ok(())
    }

    /// Mends the processor, asks the letters back, and checks that all of them are processed.
    pub(crate) async fn redrive(&self, screen: &mut Screen, tally: &Tally) -> Result<()> {
        screen.step("Our processor learns to read them, and the dead letters are asked back.");
        screen
            .say("   From outside, the command `shardwell dead-letters redrive` does it. The worker hands each letter");
        screen.say("   to a processor made for that, with its old position; the shards are not read again.");
        self.mended.store(true, Ordering::Relaxed);
        let requested = self.archive.request_redrive(&LetterQuery::default(), now()).await?;
        ensure!(requested == self.len() as u64, "{requested} letters were requested of {}", self.len());
        let is_redriven = |letter: &ArchivedLetter| letter.state == LetterState::Redriven;
        let letters = self.until(|letters| letters.iter().all(is_redriven)).await?;
        let redriven: BTreeSet<_> =
            letters.iter().filter(|letter| is_redriven(letter)).map(|one| one.letter.id()).collect();
        ensure!(redriven.len() == self.len() && letters.len() == self.len(), "not redriven:\n{}", table(&letters));
        ensure!(tally.redriven() == self.len(), "{} letters were counted", tally.redriven());
        screen.say(&format!("   All {} are processed. What they were is in the result below.", redriven.len()));
        Ok(())
    }

    /// Waits for the letters to be in a state, or for so long that they never will.
    async fn until(&self, done: impl Fn(&[ArchivedLetter]) -> bool) -> Result<Vec<ArchivedLetter>> {
        for _ in 0..PATIENCE {
            let letters = self.letters().await?;
            if done(&letters) {
                return Ok(letters);
            }
            pause(Duration::from_millis(50)).await;
        }
        self.letters().await
    }

    /// All letters that there are.
    async fn letters(&self) -> Result<Vec<ArchivedLetter>> {
        let (mut letters, mut after) = (Vec::new(), None);
        loop {
            let page = self.archive.letters(&LetterQuery::default(), after.as_ref(), 500).await;
            let page = page.context("cannot read the dead letters")?;
            letters.extend(page.letters);
            after = page.next;
            if after.is_none() {
                return Ok(letters);
            }
        }
    }
}

/// The first of the letters.
fn table(letters: &[ArchivedLetter]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["shard", "reason", "attempts", "error"]);
    for ArchivedLetter { letter, .. } in letters.iter().take(ROWS) {
        let attempts = letter.attempts.len().to_string();
        table.add_row([short(&letter.shard), letter.reason.to_string(), attempts, letter.error_line()]);
    }
    table
}

/// A line that ends in the middle of its last field, as after a crash of whoever wrote it.
fn cut_off(line: &Bytes) -> Bytes {
    let end = line.iter().rposition(|byte| *byte == b',').map_or(0, |comma| comma + 4);
    line.slice(..end.min(line.len()))
}

/// A flight of a carrier that is not written as carriers are.
fn in_lower_case(line: &[u8]) -> Result<Bytes> {
    let mut flight: serde_json::Value = serde_json::from_slice(line)?;
    let carrier = flight["carrier"].as_str().unwrap_or_default().to_ascii_lowercase();
    flight["carrier"] = carrier.into();
    Ok(flight.to_string().into())
}

/// What can be read of a line: without its last field and with an end, if it was cut off.
fn mended(line: &[u8]) -> Cow<'_, [u8]> {
    match line.iter().rposition(|byte| *byte == b',') {
        Some(comma) if !line.ends_with(b"}") => [&line[..comma], b"}"].concat().into(),
        _ => line.into(),
    }
}

/// Whether the broken line fails, and mended says the same as the whole one.
fn is_same_flight(whole: &[u8], broken: &[u8]) -> bool {
    let fails = Flight::parse(broken).is_ok_and(|flight| is_carrier(&flight.carrier));
    let mended = mended(broken);
    let pair = (Flight::parse(whole), Flight::parse(&mended));
    let (Ok(whole), Ok(mended)) = pair else { return false };
    !fails && whole.carrier == mended.carrier.to_ascii_uppercase() && whole.dep_delay == mended.dep_delay
}

fn is_carrier(code: &str) -> bool {
    !code.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Like `DelayCounter`, for input that may be broken.
#[derive(Debug)]
pub(crate) struct StrictCounter {
    shard: ShardId,
    /// Whether this one is for dead letters.
    redrive: bool,
    tally: Tally,
    mended: Arc<AtomicBool>,
}

#[async_trait]
impl RecordProcessor for StrictCounter {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        let is_mended = self.mended.load(Ordering::Relaxed);
        let line = |data| if is_mended { mended(data) } else { Cow::Borrowed(data) };
        let lines: Vec<_> = batch.into_iter().map(|record| line(&record.data)).collect();
        let mut flights = Vec::with_capacity(lines.len());
        for (record, line) in batch.into_iter().zip(&lines) {
            match Flight::parse(line) {
                Ok(mut flight) => {
                    if is_mended {
                        flight.carrier.to_mut().make_ascii_uppercase();
                    }
                    flights.push((record.position, flight));
                }
                Err(error) => {
                    // All before this record is done, and no retry will make JSON of it.
                    self.count(&flights)?;
                    return Err(error).permanent().at(record);
                }
            }
        }
        // An error in here says of no record that it is to blame.
        self.count(&flights)?;
        Ok(Outcome::Done)
    }
}

impl StrictCounter {
    /// Counts all or none.
    fn count(&self, flights: &[(ExtendedSequenceNumber, Flight<'_>)]) -> Result<()> {
        for (_, flight) in flights {
            ensure!(is_carrier(&flight.carrier), "there is no carrier `{}`", flight.carrier);
        }
        if self.redrive {
            self.tally.count_redriven(&self.shard, flights);
        } else {
            self.tally.count(&self.shard, flights);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br#"{"carrier":"UA","flight":1545,"tailnum":"N14228","dep_delay":2,"distance":1400}"#;

    #[test]
    fn what_is_broken_fails_and_can_be_mended() {
        let cut = cut_off(&Bytes::from_static(LINE));
        assert!(Flight::parse(&cut).is_err() && cut.ends_with(b",\"di"), "{cut:?}");
        let lower = in_lower_case(LINE).expect("JSON");
        assert_eq!(Flight::parse(&lower).expect("a flight").carrier, "ua");
        assert!(is_same_flight(LINE, &cut) && is_same_flight(LINE, &lower));
        assert!(!is_same_flight(LINE, LINE), "it is not broken");
        assert!(!is_same_flight(LINE, b"{\"carrier\":\"ua\",\"flight\":1,\"dep_delay\":3}"));
        assert_eq!(mended(LINE), LINE);
    }

    #[test]
    fn flights_are_broken_evenly_over_the_input() {
        let directory = Path::new("unused");
        let mut entries = vec![PutEntry::new("k", LINE); 100];
        let poison = Poison::plant(5, &mut entries, directory).expect("planted").expect("there are some");
        assert_eq!(poison.planted.keys().copied().collect::<Vec<_>>(), [10, 30, 50, 70, 90]);
        assert_eq!(entries.iter().filter(|entry| entry.data != LINE).count(), 5);
        assert!(Poison::plant(0, &mut entries, directory).expect("nothing to do").is_none());
        assert!(Poison::plant(101, &mut entries, directory).is_err());
        let mut short = vec![PutEntry::new("k", &br#"{"carrier":"UA","flight":1,"tailnum":null,"dep_delay":2}"#[..])];
        assert!(Poison::plant(1, &mut short, directory).is_err(), "the delay would be lost");
    }
}
