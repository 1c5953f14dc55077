//! `shardwell dead-letters`: what was given up on, and another try for it.

mod connection;
mod export;
mod filter;
mod follow;
mod into_stream;
mod letters;
mod list;
mod place;
mod redrive;
#[cfg(test)]
mod sample;
mod show;
mod text;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLettersCommand {
    /// Show which letters there are: one line each, without payloads, and with keys only if asked for
    ///
    /// Only reads: the file is neither created nor changed, and workers that use it are not disturbed. Letters that are
    /// redriven are left out unless --all or --state asks for them.
    List(list::ListArgs),
    /// Show everything that is known of one letter, payload and keys included
    Show(show::ShowArgs),
    /// Try letters again: by the application's processor, or by way of the stream
    ///
    /// By default the letters are handed to a processor of the application: the next worker that has the same file as
    /// its sink takes them, with their original positions, in the order of their keys, and nothing else sees them.
    /// Letters that wait (dead or parked) are meant; those that a worker has already are left to it.
    ///
    /// With --into-stream the payloads are put into a stream as new records instead.
    Redrive(redrive::RedriveArgs),
    /// Write letters in full as lines of JSON, as a file of dead letters holds them: --file reads that again
    Export(export::ExportArgs),
}

pub(super) async fn run(command: &DeadLettersCommand) -> Result<()> {
    match command {
        DeadLettersCommand::List(args) => list::run(args).await,
        DeadLettersCommand::Show(args) => show::run(args).await,
        DeadLettersCommand::Redrive(args) => redrive::run(args).await,
        DeadLettersCommand::Export(args) => export::run(args).await,
    }
}
