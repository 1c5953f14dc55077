//! shardwell in one program, on this machine alone: a stream, a producer, a consumer service, and a stream that changes
//! its shape while records flow.
//!
//! ```sh
//! cargo run --release --example quickstart
//! ```
//!
//! The consumer is `DelayCounter` in `quickstart/tally.rs`; how it is run is in `Flow::worker` below. Nothing is left
//! behind: the engine lives in this process, the leases in a temporary directory.
//!
//! With `--poison 5`, five of the flights are broken: they end up as dead letters, and come back once the processor can
//! read them. That part is in `quickstart/poison.rs`.

#[path = "quickstart/poison.rs"]
mod poison;
#[path = "quickstart/reshards.rs"]
mod reshards;
#[path = "quickstart/screen.rs"]
mod screen;
#[path = "quickstart/tally.rs"]
mod tally;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_kinesis::Client;
use clap::Parser;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use shardwell::aws::KinesisStream;
use shardwell::local::LocalEngine;
use shardwell::producer::Landed;
use shardwell::sqlite::SqliteLeaseStore;
use shardwell::{InitialPosition, PutEntry, RangePolicy, ShardFilter, Stream, Worker, WorkerHandle};
use shardwell_examples::{A_WEEK, Stop, caught_up, flights, local_client, pause, stream};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use poison::Poison;
use reshards::Reshards;
use screen::{Screen, short, short_list};
use tally::{DelayCounter, Tally};

/// Counts flights by carrier with shardwell, on this machine alone.
#[derive(Debug, Parser)]
struct Arguments {
    /// A file with a flight in each line, as JSON; .gz is read as it is. Default: a week of flights.
    #[arg(long, value_name = "FILE")]
    flights: Option<PathBuf>,
    /// How many shards the stream begins with: one is split, two are merged
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(3..=100))]
    shards: i32,
    /// Write and read no faster than the real service allows: 1 MiB and 1000 records a second into each shard, and 2 MiB in 5
    /// reads a second out of it
    #[arg(long)]
    paced: bool,
    /// Break so many of the flights, and show what becomes of records that cannot be processed
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1000))]
    poison: u16,
}

/// How the program came to its end.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    /// Every record was processed, and the result is right.
    Checked,
    /// Somebody asked it to end.
    Interrupted,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr(&arguments);
    match run(&arguments).await {
        Ok(Ending::Checked) => ExitCode::SUCCESS,
        Ok(Ending::Interrupted) => {
            eprintln!("\nStopped before the end, as asked. Leases are released, and nothing is left behind.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As `RUST_LOG` says. Without it, errors; but those of `--poison` are what the story is about, so it tells them itself.
fn log_to_stderr(arguments: &Arguments) {
    let default = if arguments.poison > 0 { LevelFilter::OFF } else { LevelFilter::ERROR };
    let filter = EnvFilter::builder().with_default_directive(default.into()).from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Reads the file, sets everything up, and takes it all down again however it ends.
async fn run(arguments: &Arguments) -> Result<Ending> {
    let path = arguments.flights.as_deref().unwrap_or(Path::new(A_WEEK));
    let mut entries = flights::entries(path)?;
    let mut screen = Screen::new();
    let mut stop = Stop::install().context("cannot listen for Ctrl-C")?;

    screen.step("Starting a Kinesis of our own, inside this program: no account, no container.");
    let engine = LocalEngine::start().await?;
    screen.say(&format!("   It speaks the protocol of the real one on {}.", engine.endpoint()));
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let poison = Poison::plant(arguments.poison.into(), &mut entries, directory.path())?;
    let story = async {
        let flow = Flow::create(&mut screen, &engine, arguments, path, &entries, poison).await?;
        let ending = flow.consume(&mut screen, &mut stop, directory.path()).await?;
        if ending == Ending::Checked {
            screen.step("Where the records went.");
            show_lineage(&screen, &flow.stream, &flow.tally).await?;
            screen.step("The result, and whether it is right.");
            check(&screen, path, &flow.tally)?;
        }
        Ok(ending)
    };
    let ending = story.await;
    engine.stop().await;
    directory.close().context("cannot remove the temporary directory")?;
    ending
}

/// What flows from where to where.
struct Flow<'a> {
    client: Client,
    stream: KinesisStream,
    path: &'a Path,
    entries: &'a [PutEntry],
    /// What is wrong with some of the entries.
    poison: Option<Poison>,
    tally: Tally,
    /// Whether to keep to the limits of the real service.
    paced: bool,
}

impl<'a> Flow<'a> {
    /// Creates the stream.
    async fn create(
        screen: &mut Screen,
        engine: &LocalEngine,
        arguments: &Arguments,
        path: &'a Path,
        entries: &'a [PutEntry],
        poison: Option<Poison>,
    ) -> Result<Self> {
        screen.step(&format!("Creating a stream with {} shards.", arguments.shards));
        screen
            .say("   A shard is an ordered part of a stream. The partition key of a record decides which one it goes");
        screen.say("   to; ours is the aircraft, so that the flights of one aircraft stay in order.");
        let client = local_client(&engine.endpoint());
        let stream = stream::create(&client, reshards::NAME, arguments.shards).await?;
        Ok(Self { client, stream, path, entries, poison, tally: Tally::default(), paced: arguments.paced })
    }

    /// The heart of it: a worker with our processor, while the stream fills and changes its shape.
    async fn consume(&self, screen: &mut Screen, stop: &mut Stop, directory: &Path) -> Result<Ending> {
        screen.step("Starting a worker, which reads every shard and hands batches of flights to our processor.");
        screen.say("   How far it got is kept in a SQLite file, beside its lease on each shard: any number of such");
        screen.say("   processes on this machine could share the work.");
        if !self.paced {
            screen
                .say("   It reads as fast as it can, since our own Kinesis has no limits; for those of the real one,");
            screen.say("   see --paced.");
        }
        let worker = self.worker(directory).await?;
        let handle = worker.handle();
        let mut running = Box::pin(worker.run());
        let ending = tokio::select! {
            biased;
            ended = &mut running => {
                ended.context("the worker stopped")?;
                bail!("the worker stopped by itself");
            }
            () = stop.requested() => Ok(Ending::Interrupted),
            done = self.produce_and_watch(screen, &handle) => done.map(|()| Ending::Checked),
        };
        // Running batches finish, what is done is noted down, the leases are free for others.
        handle.request_shutdown();
        running.await.context("the worker did not stop cleanly")?;
        ending
    }

    /// The worker: where it reads, where it keeps its leases, and who processes the records.
    async fn worker(&self, directory: &Path) -> Result<Worker> {
        let leases = SqliteLeaseStore::open(directory.join("leases.sqlite"), "quickstart").await?;
        let (stream, tally) = (self.stream.clone(), self.tally.clone());
        let worker = match &self.poison {
            None => Worker::builder("quickstart", stream, leases, move |lane| DelayCounter::new(lane, &tally)),
            Some(poison) => poison.configure(Worker::builder("quickstart", stream, leases, poison.processors(tally))),
        };
        // What the producer had on its way to a shard that was split meanwhile, it puts again, to the shards that came of it. So the
        // first copy can be left out, as the KCL does.
        let worker = worker.range_policy(RangePolicy::AllOrNothing);
        Ok(worker.initial_position(InitialPosition::TrimHorizon).read_pacing(self.paced).build()?)
    }

    async fn produce_and_watch(&self, screen: &mut Screen, worker: &WorkerHandle) -> Result<()> {
        screen.step(&format!("Putting {} flights into the stream, and resharding it meanwhile.", self.entries.len()));
        let (say, said) = mpsc::unbounded_channel();
        tokio::try_join!(self.produce(say), self.watch(screen, worker, said))?;
        if let Some(poison) = &self.poison {
            poison.show(screen, self.path, &self.tally).await?;
            poison.redrive(screen, &self.tally).await?;
        }
        Ok(())
    }

    /// Puts all flights, quarter by quarter: the second while a shard is split, the third while two are merged. So
    /// parents and children both hold records.
    async fn produce(&self, say: mpsc::UnboundedSender<String>) -> Result<()> {
        let Self { client, stream, entries, .. } = self;
        let producer = stream::producer(stream, self.paced)?;
        let reshards = Reshards::choose(stream).await?;
        let mut quarters = entries.chunks(entries.len().div_ceil(4));
        let mut quarter = || quarters.next().unwrap_or_default();
        // Nobody listens when the watch has failed, and then this is dropped at once.
        let say = |text: String| drop(say.send(text));

        let mut landed = stream::put(&producer, quarter()).await?;
        say(format!("   Splitting {} in two.", short(reshards.to_split())));
        let (second, ()) = tokio::try_join!(stream::put(&producer, quarter()), reshards.split(client, stream))?;
        say(format!("   Merging {} into one.", short_list(reshards.to_merge())));
        let (third, ()) = tokio::try_join!(stream::put(&producer, quarter()), reshards.merge(client, stream))?;
        landed.extend(second.into_iter().chain(third).chain(stream::put(&producer, quarter()).await?));
        producer.close().await;
        say(what_was_put(&landed));
        say("   The producer keeps the flights of an aircraft in order, and the worker finishes a parent before it"
            .into());
        say("   begins with its children: so they arrive in order, too.".into());
        Ok(())
    }

    /// Shows how far the worker is, until it has processed everything that can be, and every shard's lag is zero.
    async fn watch(
        &self,
        screen: &Screen,
        worker: &WorkerHandle,
        mut said: mpsc::UnboundedReceiver<String>,
    ) -> Result<()> {
        let total = (self.entries.len() - self.poison.as_ref().map_or(0, Poison::len)) as u64;
        let mut progress = screen.progress(total);
        loop {
            // Asked for first: what is said before it closes must be seen.
            let producer_is_done = said.is_closed();
            while let Ok(text) = said.try_recv() {
                screen.say(&text);
            }
            let (records, status) = (self.tally.records(), worker.status());
            if producer_is_done && records >= total && caught_up(&status) {
                progress.finish(records, &status);
                return Ok(());
            }
            progress.show(records, &status);
            pause(Duration::from_millis(50)).await;
        }
    }
}

/// In how many records for Kinesis the flights are: the service charges for those, and limits how many a shard takes.
fn what_was_put(landed: &[Landed]) -> String {
    let records: BTreeSet<_> = landed.iter().map(|landed| (&landed.shard, landed.position.sequence_number)).collect();
    let again = landed.iter().filter(|landed| landed.attempts.count() > 1).count();
    let again = if again > 0 { format!("; {again} were put again, since their shard was gone") } else { String::new() };
    format!("   All {} flights are in the stream, in {} records{again}.", landed.len(), records.len())
}

/// Which shard came from which, and how many records were processed of each.
async fn show_lineage(screen: &Screen, stream: &KinesisStream, tally: &Tally) -> Result<()> {
    let shards = stream.list_shards(ShardFilter::All).await?;
    let records = tally.by_shard();
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(["shard", "came from", "went on in", "records"]);
    for shard in &shards {
        let children = shards.iter().filter(|other| other.parents().any(|parent| *parent == shard.id));
        let records = records.get(&shard.id).copied().unwrap_or_default();
        table.add_row([
            Cell::new(short(&shard.id)),
            Cell::new(short_list(shard.parents())),
            Cell::new(short_list(children.map(|child| &child.id))),
            Cell::new(records).set_alignment(CellAlignment::Right),
        ]);
    }
    screen.say(&table.to_string());
    Ok(())
}

/// Prints the result, and compares it with what the file says by itself.
fn check(screen: &Screen, path: &Path, tally: &Tally) -> Result<()> {
    let (counted, expected) = (tally.carriers(), tally::straight_from(path, &BTreeSet::new())?);
    screen.say(&tally::table(&counted).to_string());
    ensure!(counted == expected, "that is not what the file says by itself:\n{}", tally::table(&expected));
    let again = match tally.repeated() {
        0 => "none was delivered twice".to_owned(),
        n => format!("{n} were delivered again and passed over"),
    };
    screen.say(&format!(
        "   Right: the same as a direct read of the file, to the last flight. {} records were processed; {again}.",
        tally.records()
    ));
    Ok(())
}
