//! `shardwell dead-letters show`: everything that is known of one letter.

use std::fmt::Write as _;
use std::io::Write as _;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use shardwell::PartitionKey;
use shardwell::dead_letter::{ArchivedLetter, Attempt, DeadLetter, LetterId, MAX_ATTEMPTS_KEPT, lambda_document};

use super::filter::FilterArgs;
use super::letters::Letters;
use super::list::now;
use super::place::PlaceArgs;
use super::text::{as_text, one_line};
use crate::cli::output::{finish, output};

#[derive(Args, Debug)]
pub(in crate::cli) struct ShowArgs {
    /// The letter, as `list --full` shows it; needed where several match
    #[arg(value_name = "ID")]
    id: Option<LetterId>,
    #[command(flatten)]
    place: PlaceArgs,
    /// Write the payload and nothing else, byte by byte
    #[arg(long, conflicts_with = "lambda")]
    payload: bool,
    /// Write what a Lambda trigger would have written to its bucket: the document, the record included
    #[arg(long)]
    lambda: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// How many letters are named where one was to be.
const NAMED: usize = 10;

pub(super) async fn run(args: &ShowArgs) -> Result<()> {
    let place = args.place.open().await?;
    let selection = args.filter.selection(args.id.as_slice(), now()?);
    let letter = the_one(Letters::of(&place, &selection)?).await?;
    let mut out = output();
    let written = if args.payload {
        out.write_all(&letter.letter.record.data)
    } else if args.lambda {
        let document = lambda_document(std::slice::from_ref(&letter.letter), true).context("there is no letter")?;
        writeln!(out, "{document:#}")
    } else {
        out.write_all(describe(&letter).as_bytes())
    };
    finish(written.map_err(Into::into), out)
}

async fn the_one(mut letters: Letters<'_>) -> Result<ArchivedLetter> {
    let mut found: Vec<ArchivedLetter> = Vec::new();
    while let Some(page) = letters.next_page().await? {
        found.extend(page);
        if found.len() > NAMED {
            break;
        }
    }
    match (found.pop(), found.is_empty()) {
        (None, _) => bail!("no letter matches; `list --all` shows all that there are"),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            found.push(last);
            let ids: Vec<String> = found.iter().take(NAMED).map(|one| one_line(&one.letter.id().to_string())).collect();
            let more = if found.len() > NAMED { "\n  ..." } else { "" };
            bail!("more than one letter matches; name one of them:\n  {}{more}", ids.join("\n  "))
        }
    }
}

/// Names in a column, as wide as the longest.
const NAME_WIDTH: usize = 18;

/// A letter for people.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: impl AsRef<str>) {
        let value = one_line(value.as_ref());
        // Writing into memory never fails.
        let _ = writeln!(self.0, "{name:<NAME_WIDTH$}{value}");
    }

    fn error(&mut self, name: &str, causes: &[String]) {
        let mut name = name;
        for (depth, cause) in causes.iter().enumerate() {
            let because = if depth == 0 { "" } else { "because: " };
            for (number, line) in cause.lines().enumerate() {
                self.line(name, format!("{}{line}", if number == 0 { because } else { "  " }));
                name = "";
            }
        }
    }
}

fn describe(archived: &ArchivedLetter) -> String {
    let ArchivedLetter { letter, state, rounds, changed_at } = archived;
    let mut page = Page::default();
    page.line("letter", letter.id().to_string());
    page.line("state", format!("{state} since {changed_at}, after {rounds} rounds of redrive"));
    page.line("died at", letter.died_at.to_string());
    page.line("reason", letter.reason.as_str());
    page.error("error", &letter.error);
    page.line("worker", format!("{}, lane {}", letter.worker, letter.lane));
    describe_record(&mut page, letter);
    describe_batch(&mut page, letter);
    describe_attempts(&mut page, &letter.attempts);
    describe_payload(&mut page, &letter.record.data);
    page.0
}

fn describe_record(page: &mut Page, letter: &DeadLetter) {
    let record = &letter.record;
    page.line("application", &letter.application);
    page.line("stream", &letter.stream);
    page.line("shard", letter.shard.as_str());
    page.line("position", record.position.to_string());
    page.line("arrived at", record.arrival.to_string());
    page.line("partition key", record.partition_key.as_ref().map_or("-", PartitionKey::as_str));
    page.line("explicit hash key", record.explicit_hash_key.map_or_else(|| "-".to_owned(), |key| key.to_string()));
}

fn describe_batch(page: &mut Page, letter: &DeadLetter) {
    let batch = &letter.batch;
    let how = if batch.partial { "; the processor said which records failed" } else { "" };
    page.line("batch", format!("{}: {} records, handed over {} times{how}", batch.id, batch.size, batch.invocations));
    page.line("", format!("from {}, arrived at {}", batch.first, batch.first_arrival));
    page.line("", format!("to   {}, arrived at {}", batch.last, batch.last_arrival));
}

fn describe_attempts(page: &mut Page, attempts: &[Attempt]) {
    let kept = if attempts.len() < MAX_ATTEMPTS_KEPT { "" } else { "; of many, the first and the newest are kept" };
    page.line("failed attempts", format!("{}{kept}", attempts.len()));
    for (number, attempt) in (1..).zip(attempts) {
        page.line(&format!("  {number}"), attempt.at.to_string());
        page.error("", &attempt.error);
    }
}

fn describe_payload(page: &mut Page, data: &[u8]) {
    let bytes = data.len();
    let (how, text) = match as_text(data) {
        Some(text) => ("as text", text.to_owned()),
        None => ("in base64", STANDARD.encode(data)),
    };
    page.line("payload", format!("{bytes} bytes, {how}:"));
    page.0.push_str(&text);
    if !text.ends_with('\n') {
        page.0.push('\n');
    }
}
