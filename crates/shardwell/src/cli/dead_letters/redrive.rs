//! `shardwell dead-letters redrive`: another try.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use shardwell::dead_letter::{DeadLetterArchive, LetterId, LetterState};
use shardwell::{Env, SystemEnv};

use super::connection::ConnectionArgs;
use super::filter::{FilterArgs, Selection};
use super::letters::Letters;
use super::place::{Place, PlaceArgs};
use super::text::{count, one_line, tally};
use super::{follow, into_stream};
use crate::cli::confirm::confirm;

#[derive(Args, Debug)]
pub(in crate::cli) struct RedriveArgs {
    /// The letters, as `list --full` shows them; without any, all that match
    #[arg(value_name = "ID")]
    ids: Vec<LetterId>,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
    /// Wait until every letter is redriven, dead again or parked; the exit code is 1 if any is not redriven
    #[arg(long, conflicts_with = "into_stream")]
    wait: bool,
    /// Wait for this long at most, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Option<Duration>,
    /// Put the payloads into this stream (name or ARN) as new records, with their keys
    ///
    /// They get new positions and arrival times, end up behind what came after them, and every consumer of the stream
    /// sees them again. A letter is marked as redriven when the stream has its record.
    #[arg(long, value_name = "STREAM")]
    pub(super) into_stream: Option<String>,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// Nobody looks through more than that, so they are asked.
const ASK_ABOVE: usize = 100;

/// The letters that match, by what can be done with them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// They can be redriven.
    pub(super) waiting: BTreeSet<LetterId>,
    /// A worker has them, or will take them.
    with_workers: BTreeSet<LetterId>,
    /// All others, by their state.
    others: BTreeMap<LetterState, u64>,
    pub(super) applications: BTreeSet<String>,
    pub(super) streams: BTreeSet<String>,
}

pub(super) async fn run(args: &RedriveArgs) -> Result<()> {
    let env = SystemEnv::new().context("the system refuses a thread")?;
    let selection = args.filter.selection(&args.ids, env.timestamp());
    match &args.into_stream {
        Some(stream) => into_stream::run(args, selection, stream, &env).await,
        None => to_processor(args, &selection, &env).await,
    }
}

impl RedriveArgs {
    /// Whether somebody should look at the number first.
    fn needs_confirmation(&self, letters: usize) -> bool {
        let everything = self.ids.is_empty() && self.filter.is_for_everything();
        !self.yes && (everything || letters > ASK_ABOVE)
    }
}

async fn to_processor(args: &RedriveArgs, selection: &Selection, env: &dyn Env) -> Result<()> {
    let place = args.place.open_for_writing().await?;
    let Some(archive) = place.archive() else {
        bail!(
            "the letters of {} cannot be handed to a processor: a worker takes letters only from where it can note how \
             that went, and a file of lines cannot be changed. Put them back into the stream with --into-stream, and \
             let the worker keep its dead letters in SQLite (`SqliteDeadLetters`) for the next time",
            args.place.path().display()
        )
    };
    let found = survey(&place, selection, &[LetterState::Dead, LetterState::Parked]).await?;
    println!("{}", overview(&found));
    if !found.waiting.is_empty() {
        let (letters, applications) = (count(found.waiting.len()), names("application", &found.applications));
        let question = format!("Hand {letters} of {applications} to a processor again?");
        if args.needs_confirmation(found.waiting.len()) && !confirm(&question)? {
            bail!("not confirmed, so nothing was requested");
        }
        let requested = request(archive, selection, env).await?;
        println!("{}", answer(requested, &applications, args.wait));
    }
    let open = found.waiting.into_iter().chain(found.with_workers).collect();
    if args.wait { follow::until_settled(env, archive, open, args.timeout).await } else { Ok(()) }
}

/// Looks through all letters that match. Those in one of the states can be redriven.
pub(super) async fn survey(place: &Place, selection: &Selection, redrivable: &[LetterState]) -> Result<Found> {
    let mut found = Found::default();
    let mut letters = Letters::of(place, selection)?;
    while let Some(page) = letters.next_page().await? {
        for letter in page {
            let id = letter.letter.id();
            if redrivable.contains(&letter.state) {
                found.applications.insert(letter.letter.application);
                found.streams.insert(letter.letter.stream);
                found.waiting.insert(id);
            } else if matches!(letter.state, LetterState::Requested | LetterState::Redriving) {
                found.with_workers.insert(id);
            } else {
                *found.others.entry(letter.state).or_default() += 1;
            }
        }
    }
    Ok(found)
}

/// What there is, in one line.
pub(super) fn overview(found: &Found) -> String {
    let waiting = match found.waiting.len() {
        0 => "No letter that matches waits for another try".to_owned(),
        1 => "1 letter matches".to_owned(),
        n => format!("{n} letters match"),
    };
    let left_alone = match found.with_workers.len() {
        0 => String::new(),
        1 => "; 1 is with a worker already, and left to it".to_owned(),
        n => format!("; {n} are with a worker already, and left to it"),
    };
    let others = if found.others.is_empty() { String::new() } else { format!("; {}", tally(&found.others)) };
    format!("{waiting}{left_alone}{others}.")
}

/// `application `delays``, and so on.
pub(super) fn names(what: &str, names: &BTreeSet<String>) -> String {
    let plural = if names.len() == 1 { "" } else { "s" };
    let names: Vec<String> = names.iter().map(|name| format!("`{}`", one_line(name))).collect();
    format!("{what}{plural} {}", names.join(", "))
}

async fn request(archive: &dyn DeadLetterArchive, selection: &Selection, env: &dyn Env) -> Result<usize> {
    let mut requested = 0;
    for query in selection.queries() {
        requested += archive.request_redrive(&query, env.timestamp()).await?;
    }
    Ok(usize::try_from(requested).unwrap_or(usize::MAX))
}

fn answer(requested: usize, applications: &str, wait: bool) -> String {
    let letters = count(requested);
    let next = if wait { "" } else { "\n`dead-letters list` shows how they fare; --wait waits for it." };
    format!(
        "Requested another try for {letters} of {applications}. The next worker of it that has this file as its sink takes \
         them, within its redrive interval (5 s, unless set otherwise).{next}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overview_tells_what_is_left_alone() {
        let id = |n: u64| -> LetterId { format!("delays/flights/shardId-000000000000/{n}/0").parse().expect("an id") };
        let mut found = Found::default();
        assert_eq!(overview(&found), "No letter that matches waits for another try.");
        found.waiting = [id(1)].into();
        assert_eq!(overview(&found), "1 letter matches.");
        found.waiting.insert(id(2));
        found.with_workers = [id(3)].into();
        found.others = [(LetterState::Redriven, 4)].into();
        assert_eq!(overview(&found), "2 letters match; 1 is with a worker already, and left to it; 4 redriven.");
    }
}
