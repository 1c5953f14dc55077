//! `shardwell dead-letters export`: letters in full, for other programs.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use shardwell::dead_letter::{DeadLetter, DeadReason, lambda_document};
use shardwell::{ExtendedSequenceNumber, ShardId, Timestamp, WorkerId};

use super::filter::FilterArgs;
use super::letters::Letters;
use super::list::now;
use super::place::PlaceArgs;
use crate::cli::output::{Output, finish, output};

#[derive(Args, Debug)]
pub(in crate::cli) struct ExportArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Write what a Lambda trigger would have written to its bucket: a document for each batch that was given up on, the
    /// records included
    ///
    /// All letters that match are held in memory, to bring those of a batch together.
    #[arg(long)]
    lambda: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

pub(super) async fn run(args: &ExportArgs) -> Result<()> {
    let place = args.place.open().await?;
    let selection = args.filter.selection(&[], now()?);
    let mut letters = Letters::of(&place, &selection)?;
    let mut out = output();
    let exported =
        if args.lambda { documents(&mut letters, &mut out).await } else { lines(&mut letters, &mut out).await };
    finish(exported, out)?;
    match letters.unreadable() {
        0 => Ok(()),
        1 => bail!("1 letter cannot be read; the others are exported"),
        n => bail!("{n} letters cannot be read; the others are exported"),
    }
}

async fn lines(letters: &mut Letters<'_>, out: &mut Output) -> Result<()> {
    while let Some(page) = letters.next_page().await? {
        for letter in page {
            writeln!(out, "{}", letter.letter.to_json())?;
        }
    }
    Ok(())
}

/// What the letters of one burial have in common, and no others.
type Burial = (Timestamp, String, String, ShardId, WorkerId, u64, ExtendedSequenceNumber, DeadReason);

fn burial(letter: &DeadLetter) -> Burial {
    let DeadLetter { application, stream, shard, reason, batch, worker, died_at, .. } = letter;
    let (application, stream) = (application.clone(), stream.clone());
    (*died_at, application, stream, shard.clone(), worker.clone(), batch.id, batch.first, *reason)
}

/// In the order in which they were buried.
async fn documents(letters: &mut Letters<'_>, out: &mut Output) -> Result<()> {
    let mut burials: BTreeMap<Burial, Vec<DeadLetter>> = BTreeMap::new();
    while let Some(page) = letters.next_page().await? {
        for letter in page {
            burials.entry(burial(&letter.letter)).or_default().push(letter.letter);
        }
    }
    for document in burials.values().filter_map(|letters| lambda_document(letters, true)) {
        writeln!(out, "{document}")?;
    }
    Ok(())
}
