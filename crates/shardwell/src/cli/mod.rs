//! What the command understands, and how it says that something went wrong.

mod aws;
mod confirm;
mod dead_letters;
mod engine;
mod fleet;
mod list;
mod output;
mod place;
mod position;
mod put;
mod records;
mod reset;
mod signals;
mod table;
mod tail;
mod watch;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Tools for services that consume and produce Amazon Kinesis data streams with shardwell.
#[derive(Debug, Parser)]
#[command(
    name = "shardwell",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Logs go to standard error; RUST_LOG=info shows more of them."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a Kinesis for development on this machine, until Ctrl-C
    ///
    /// Any AWS SDK and the AWS command line can use it. Streams live in memory and are gone when it stops. It checks no
    /// credentials, so leave it on a loopback address unless you know who can reach it.
    Local(engine::LocalArgs),
    /// Look at the lease table of an application, empty it, or have the application go on somewhere else
    #[command(subcommand)]
    Leases(LeasesCommand),
    /// Look at the workers of an application and who has which lease, and move leases off a worker
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// Look at records that were given up on, and have them tried again
    #[command(subcommand)]
    DeadLetters(Box<dead_letters::DeadLettersCommand>),
    /// Put lines into a stream, each as a user record, with the answer for each that failed
    ///
    /// They are put together into aggregated records, paced and tried again as by the producer of the library. Ctrl-C stops the reading; what
    /// was read is still put.
    Put(put::PutArgs),
    /// Show what is in a stream, and what comes, aggregated records taken apart
    ///
    /// Uses no lease table: nobody is disturbed, but for the reads that a shard allows in a second. Shards are followed through resharding.
    Tail(tail::TailArgs),
    /// Take aggregated records apart, or make them, as lines of JSON on standard input and output
    #[command(subcommand)]
    Records(RecordsCommand),
}

#[derive(Debug, Subcommand)]
enum RecordsCommand {
    /// From Kinesis records to user records
    ///
    /// Each line in is a record: {"data": base64, "partition_key": text, "explicit_hash_key": decimal text}, the keys
    /// optional. Each line out is a user record with the same fields, its place in its record (sub_sequence_number) and
    /// what the record is (classification). A record that is not aggregated, or cannot be read, comes out as it is.
    Decode(records::DecodeArgs),
    /// From user records to Kinesis records, as full as they may be
    ///
    /// Lines in and out are as for decode. A user record that is alone goes out as it is.
    Encode(records::EncodeArgs),
}

#[derive(Debug, Subcommand)]
enum LeasesCommand {
    /// Show every lease: shard, state, owner, checkpoint, parents and children
    ///
    /// Only reads: nothing is created or changed, and workers that use it are not disturbed.
    List(list::ListArgs),
    /// Remove every lease of an application, so that it starts again at its initial position; or move its checkpoints
    ///
    /// Without --to it is for when a stream was deleted and created again, or all of it is to be processed anew: all checkpoints
    /// of the application are lost. With --to the leases stay, and go on at another position. Stop the workers first: leases
    /// that a worker still renews are left alone without --force.
    Reset(reset::ResetArgs),
}

/// Parses the arguments and runs the command: exit code 0, 1 for an error, 2 for arguments that make no sense.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes in one sentence, without the causes that repeat what was said before.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the system refuses a thread")?;
    runtime.block_on(async {
        match command {
            Command::Local(args) => engine::run(&args).await,
            Command::Leases(LeasesCommand::List(args)) => list::run(&args).await,
            Command::Leases(LeasesCommand::Reset(args)) => reset::run(&args).await,
            Command::Fleet(command) => fleet::run(&command).await,
            Command::DeadLetters(command) => dead_letters::run(&command).await,
            Command::Put(args) => put::run(&args).await,
            Command::Tail(args) => tail::run(&args).await,
            Command::Records(RecordsCommand::Decode(args)) => records::decode(&args),
            Command::Records(RecordsCommand::Encode(args)) => records::encode(&args),
        }
    })
}

fn log_to_stderr() {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::{Cli, sentence};

    #[test]
    fn an_error_is_one_sentence_that_repeats_nothing() {
        let error = anyhow::anyhow!("file is not a database").context("(26) file is not a database").context("cannot");
        assert_eq!(sentence(&error), "cannot: (26) file is not a database");
    }

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
