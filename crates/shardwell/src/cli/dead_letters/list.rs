//! `shardwell dead-letters list`: which letters there are.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width};
use serde_json::{Value, json};
use shardwell::dead_letter::{ArchivedLetter, DeadReason, LetterId, LetterState};
use shardwell::{Env, ExtendedSequenceNumber, PartitionKey, SystemEnv, Timestamp};

use super::filter::FilterArgs;
use super::letters::Letters;
use super::place::PlaceArgs;
use super::text::{count, one_line, shortened, tally, to_the_second};
use crate::cli::output::{Output, finish, output};
use crate::cli::table;

#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Show whole identities, as the other commands take them, and whole errors
    #[arg(long, conflicts_with = "json")]
    full: bool,
    /// Show partition keys too, which can be private
    #[arg(long)]
    show_keys: bool,
    /// Write a line of JSON for each letter, with everything in full but the payload
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// How much of a key is shown, in characters.
const KEY_CHARACTERS: usize = 24;
/// The least that is left of an error, however narrow the terminal.
const MIN_ERROR_WIDTH: u16 = 24;

pub(super) async fn run(args: &ListArgs) -> Result<()> {
    let now = now()?;
    let place = args.place.open().await?;
    let selection = args.filter.selection(&[], now);
    let mut letters = Letters::of(&place, &selection)?;
    let mut out = output();
    let listed = if args.json {
        json_lines(&mut letters, args.show_keys, &mut out).await
    } else {
        tables(&mut letters, args, &mut out).await
    };
    let listed = finish(listed, out);
    // A file's were named one by one when they were met.
    if letters.unreadable() > 0 {
        let unreadable = count(usize::try_from(letters.unreadable()).unwrap_or(usize::MAX));
        eprintln!("{unreadable} cannot be read: written by something newer, or damaged");
    }
    listed
}

/// The wall clock.
pub(super) fn now() -> Result<Timestamp> {
    Ok(SystemEnv::new().context("the system refuses a thread")?.timestamp())
}

async fn json_lines(letters: &mut Letters<'_>, show_keys: bool, out: &mut Output) -> Result<()> {
    while let Some(page) = letters.next_page().await? {
        for letter in &page {
            writeln!(out, "{}", json(letter, show_keys))?;
        }
    }
    Ok(())
}

/// Sequence numbers as text: no JSON reader keeps 56 digits of a number.
fn json(archived: &ArchivedLetter, show_keys: bool) -> Value {
    let ArchivedLetter { letter, state, rounds, changed_at } = archived;
    let record = &letter.record;
    let mut value = json!({
        "id": letter.id().to_string(),
        "application": letter.application,
        "stream": letter.stream,
        "shard": letter.shard.as_str(),
        "sequence_number": record.position.sequence_number.to_string(),
        "sub_sequence_number": record.position.sub_sequence_number,
        "arrival": record.arrival.to_string(),
        "died_at": letter.died_at.to_string(),
        "state": state.as_str(),
        "rounds": rounds,
        "changed_at": changed_at.to_string(),
        "reason": letter.reason.as_str(),
        "error": letter.error,
        "attempts": letter.attempts.len(),
        "worker": letter.worker.as_str(),
        "data_bytes": record.data.len(),
    });
    if show_keys {
        value["partition_key"] = record.partition_key.as_ref().map(PartitionKey::as_str).into();
        value["explicit_hash_key"] = record.explicit_hash_key.map(|key| key.to_string()).into();
    }
    value
}

/// A table for each application and stream, and what all of them say together.
#[derive(Debug, Default)]
struct Listing {
    /// In the order of the identities.
    tables: BTreeMap<(String, String), BTreeMap<LetterId, Vec<Cell>>>,
    states: BTreeMap<LetterState, u64>,
    reasons: BTreeMap<DeadReason, u64>,
    letters: usize,
}

async fn tables(letters: &mut Letters<'_>, args: &ListArgs, out: &mut Output) -> Result<()> {
    let mut listing = Listing::default();
    while let Some(page) = letters.next_page().await? {
        for letter in &page {
            listing.add(letter, args.full, args.show_keys);
        }
    }
    if listing.letters == 0 {
        let hint = if args.filter.states_are_given() { "" } else { " Those that are redriven are shown with --all." };
        writeln!(out, "No letters match.{hint}")?;
        return Ok(());
    }
    let width = if args.full { None } else { terminal_width() };
    for ((application, stream), rows) in listing.tables {
        let (application, stream) = (one_line(&application), one_line(&stream));
        writeln!(out, "Application {application}, stream {stream}: {}", count(rows.len()))?;
        writeln!(out, "{}\n", table(rows, args.full, args.show_keys, width))?;
    }
    let (states, reasons) = (tally(&listing.states), tally(&listing.reasons));
    writeln!(out, "{}: {states}; {reasons}", count(listing.letters))?;
    Ok(())
}

/// Nothing is cut off for who is no terminal: a file, or another program.
fn terminal_width() -> Option<u16> {
    io::stdout().is_terminal().then(terminal_size::terminal_size)?.map(|(width, _)| width.0)
}

impl Listing {
    fn add(&mut self, archived: &ArchivedLetter, full: bool, show_keys: bool) {
        let letter = &archived.letter;
        self.letters += 1;
        *self.states.entry(archived.state).or_default() += 1;
        *self.reasons.entry(letter.reason).or_default() += 1;
        let rows = self.tables.entry((letter.application.clone(), letter.stream.clone())).or_default();
        rows.insert(letter.id(), row(archived, full, show_keys));
    }
}

fn header(full: bool, show_keys: bool) -> Vec<&'static str> {
    let place = if full { &["id"][..] } else { &["shard", "position"] };
    let key = if show_keys { &["key"][..] } else { &[] };
    [&["died at", "state", "rounds"][..], place, &["reason"], key, &["error"]].concat()
}

fn row(archived: &ArchivedLetter, full: bool, show_keys: bool) -> Vec<Cell> {
    let letter = &archived.letter;
    let mut cells = vec![
        Cell::new(to_the_second(letter.died_at)),
        Cell::new(archived.state),
        Cell::new(archived.rounds).set_alignment(CellAlignment::Right),
    ];
    if full {
        cells.push(Cell::new(one_line(&letter.id().to_string())));
    } else {
        let position = Cell::new(position(letter.record.position)).set_alignment(CellAlignment::Right);
        cells.extend([Cell::new(one_line(letter.shard.as_str())), position]);
    }
    cells.push(Cell::new(letter.reason));
    if show_keys {
        let key = one_line(letter.record.partition_key.as_ref().map_or("-", PartitionKey::as_str));
        cells.push(Cell::new(if full { key } else { shortened(&key, KEY_CHARACTERS) }));
    }
    cells.push(Cell::new(one_line(&letter.error_line())));
    cells
}

fn position(position: ExtendedSequenceNumber) -> String {
    let digits = table::shortened(&position.sequence_number.to_string());
    match position.sub_sequence_number {
        0 => digits,
        sub => format!("{digits}/{sub}"),
    }
}

/// All columns as wide as they need to be but the error, which gets what is left.
fn table(rows: BTreeMap<LetterId, Vec<Cell>>, full: bool, show_keys: bool, width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header(full, show_keys));
    for cells in rows.into_values() {
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    let Some(width) = width else {
        table.set_content_arrangement(ContentArrangement::Disabled);
        return table;
    };
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    let error = table.column_count().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        let is_error = index == error;
        let at_least = ColumnConstraint::LowerBoundary(Width::Fixed(MIN_ERROR_WIDTH));
        column.set_constraint(if is_error { at_least } else { ColumnConstraint::ContentWidth });
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::sample::letter;
    use super::*;

    fn lines(error: &str, width: Option<u16>) -> Vec<String> {
        let mut letter = letter(7);
        letter.error = vec![error.to_owned()];
        let archived = ArchivedLetter::new(letter);
        let rows = [(archived.letter.id(), row(&archived, false, false))].into();
        table(rows, false, false, width).to_string().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_error_gets_what_is_left_of_the_terminal() {
        let error = "the airport that this flight came from is not known here ".repeat(10);
        for width in [130, 200] {
            let lines = lines(&error, Some(width));
            assert_eq!(lines.len(), 5, "{lines:#?}");
            let widths: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
            assert!(widths.iter().all(|of_line| *of_line == usize::from(width)), "{widths:?}");
            assert!(lines[3].contains("shardId-000000000000") && lines[3].contains("the airport that"), "{lines:#?}");
        }
        let narrow = lines(&error, Some(20));
        assert!(narrow[3].contains("the airport that"), "{narrow:#?}");
    }

    #[test]
    fn nothing_is_cut_off_without_a_terminal() {
        let error = "no such airport, ".repeat(50);
        assert!(lines(&error, None).iter().any(|line| line.contains(error.trim_end())));
    }

    #[test]
    fn json_has_keys_only_where_they_are_asked_for_and_a_payload_never() {
        let archived = ArchivedLetter::new(letter(7));
        let hidden = json(&archived, false);
        assert!(!hidden.to_string().contains("N14228"), "{hidden}");
        let shown = json(&archived, true);
        assert_eq!((&shown["partition_key"], &shown["explicit_hash_key"]), (&json!("N14228"), &json!("7")));
        assert_eq!(shown["data_bytes"], 3);
        assert!(!shown.to_string().contains("EWR") && !shown.to_string().contains("RVdS"), "{shown}");
    }
}
