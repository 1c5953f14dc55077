//! `shardwell fleet status`: who has which lease.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;
use shardwell::core::{Monotonic, StoreError};
use shardwell::{Env, LeaseStore, SystemEnv};

use super::look::{Look, look};
use super::report::Report;
use super::watched::Watched;
use super::{json, text};
use crate::cli::output::{Output, finish, output};
use crate::cli::place::TableArgs;
use crate::cli::signals::Stop;

#[derive(Args, Debug)]
pub(in crate::cli) struct StatusArgs {
    #[command(flatten)]
    table: TableArgs,
    /// Show it again every so many seconds (2 if none are given) until Ctrl-C
    ///
    /// Only then is it known which workers and leases are alive, how long something stands still, and since when a
    /// handoff is under way.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    watch: Option<Duration>,
    /// How long a worker may take to hand a lease over, as the workers are configured; for --watch
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    handoff_deadline: Duration,
    /// Write JSON: one document, and with --watch a line each time
    #[arg(long)]
    json: bool,
}

/// More often than that would only be in the way of the workers.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let at_least = format!("it must be a number of seconds, {} or more", SHORTEST_PAUSE.as_secs_f64());
    seconds.filter(|pause| *pause >= SHORTEST_PAUSE).ok_or(at_least)
}

/// An application that is looked at.
#[derive(Debug)]
struct Subject {
    name: String,
    store: Arc<dyn LeaseStore>,
    watched: Watched,
}

/// Reads and prints, once or again and again.
pub(super) async fn run(args: &StatusArgs) -> Result<()> {
    let env = SystemEnv::new().context("the system refuses a thread")?;
    let mut subjects = Vec::new();
    for name in args.table.applications().await? {
        let store = args.table.open(&name).await?;
        subjects.push(Subject { name, store, watched: Watched::default() });
    }
    let mut out = output();
    let result = match args.watch {
        None => once(args, &env, &mut subjects, &mut out).await,
        Some(pause) => again_and_again(args, pause, &env, &mut subjects, &mut out).await,
    };
    finish(result, out)
}

async fn once(args: &StatusArgs, env: &dyn Env, subjects: &mut [Subject], out: &mut Output) -> Result<()> {
    let looks = observe(env, subjects).await?;
    print(args, subjects, &looks, out)
}

async fn again_and_again(
    args: &StatusArgs,
    pause: Duration,
    env: &dyn Env,
    subjects: &mut [Subject],
    out: &mut Output,
) -> Result<()> {
    let mut stop = Stop::install()?;
    let mut due = None;
    loop {
        tokio::select! {
            biased;
            stopped = stop.requested() => return stopped,
            next = round(args, pause, env, subjects, due, out) => due = Some(next?),
        }
    }
}

/// Looks, prints where that is due, and waits until it is time to look again. Gives when it is due next.
async fn round(
    args: &StatusArgs,
    pause: Duration,
    env: &dyn Env,
    subjects: &mut [Subject],
    due: Option<Monotonic>,
    out: &mut Output,
) -> Result<Monotonic> {
    let now = env.now();
    let is_due = due.is_none_or(|due| now >= due);
    let next = due.filter(|_| !is_due).unwrap_or_else(|| now.plus(pause));
    match observe(env, subjects).await {
        Ok(looks) => {
            if is_due {
                print(args, subjects, &looks, out)?;
            }
            env.sleep_until(looks.iter().map(Look::again_at).fold(next, Ord::min)).await;
        }
        // The next look may succeed, and what was seen so far is worth keeping.
        Err(error) if due.is_some() && error.is_retryable() => {
            eprintln!("{error}; looking again");
            env.sleep_until(next).await;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(next)
}

/// Looks at every application, and takes note.
async fn observe(env: &dyn Env, subjects: &mut [Subject]) -> Result<Vec<Look>, StoreError> {
    let mut looks = Vec::new();
    for subject in subjects {
        let look = look(env, &*subject.store).await?;
        subject.watched.note(&look);
        looks.push(look);
    }
    Ok(looks)
}

/// Prints what a round saw, all of it at once.
fn print(args: &StatusArgs, subjects: &[Subject], looks: &[Look], out: &mut Output) -> Result<()> {
    /// The cursor goes to the corner, and the screen is empty.
    const CLEAR: &str = "\u{1b}[H\u{1b}[2J";
    let reports = subjects.iter().zip(looks);
    let reports: Vec<_> = reports
        .map(|(subject, look)| {
            // One look tells nothing of what changes.
            let watched = args.watch.map(|_| &subject.watched);
            Report::new(&subject.name, look, watched, args.handoff_deadline)
        })
        .collect();
    match (args.json, args.watch) {
        (true, None) => writeln!(out, "{:#}", document(&reports))?,
        (true, Some(_)) => writeln!(out, "{}", document(&reports))?,
        (false, None) => write!(out, "{}", page(args, &reports))?,
        (false, Some(_)) if io::stdout().is_terminal() => write!(out, "{CLEAR}{}", page(args, &reports))?,
        (false, Some(_)) => writeln!(out, "{}", page(args, &reports))?,
    }
    Ok(out.flush()?)
}

fn page(args: &StatusArgs, reports: &[Report<'_>]) -> String {
    match reports {
        [] => format!("{} holds no application yet.\n", args.table),
        reports => reports.iter().map(text::render).collect::<Vec<_>>().join("\n"),
    }
}

fn document(reports: &[Report<'_>]) -> Value {
    reports.iter().map(json::report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_number_of_seconds_and_not_too_short() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.1"), Ok(SHORTEST_PAUSE));
        for wrong in ["", "0", "0.09", "-1", "2s", "inf", "NaN"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
