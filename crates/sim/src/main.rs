//! Runs seeds: `cargo run --release -p shardwell-sim -- --seeds 1000 --from 0`.
#![expect(
    clippy::disallowed_methods,
    reason = "how long the runs take is measured on the real clock, by threads of the system"
)]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use shardwell_sim::{Invariant, Kind, Lie, Options, Outcome, Tally, run};

/// A fifth of a run goes into allocations; this makes them cheap.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
Usage: shardwell-sim [--seeds N] [--from S] [--threads T] [--lie NAME] [--trace]

Runs N seeds from S on (default: 100 from 0), each a fleet of workers in virtual time with faults. The first that fails is run
again, its trace is printed, and the command that repeats it.

  --threads T   how many seeds run at a time; default: one for each processor
  --lie NAME    lets the workers break a rule: the run is to fail. `--lie list` names them
  --trace       prints the trace of every seed
";

/// What the command line asks for.
struct Arguments {
    seeds: u64,
    from: u64,
    threads: usize,
    lie: Option<Lie>,
    trace: bool,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(arguments) => simulate(&arguments),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments { seeds: 100, from: 0, threads, lie: None, trace: false };
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().unwrap_or_default();
            value.parse::<u64>().map_err(|_| format!("{word} takes a number, not `{value}`\n\n{USAGE}"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--from" => arguments.from = number()?,
            "--threads" => arguments.threads = usize::try_from(number()?).unwrap_or(1).max(1),
            "--lie" => arguments.lie = Some(lie(&words.next().unwrap_or_default())?),
            "--trace" => arguments.trace = true,
            _ => return Err(format!("unknown argument: {word}\n\n{USAGE}")),
        }
    }
    Ok(arguments)
}

fn lie(name: &str) -> Result<Lie, String> {
    let names = || Lie::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Lie::ALL
        .iter()
        .find(|lie| lie.to_string() == name)
        .copied()
        .ok_or_else(|| format!("there are these lies: {}", names()))
}

/// What all threads have done so far.
#[derive(Default)]
struct Progress {
    tally: Tally,
    done: u64,
    failed: Option<u64>,
}

fn simulate(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let (next, stop) = (AtomicU64::new(arguments.from), AtomicBool::new(false));
    let progress = Mutex::new(Progress::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.from + arguments.seeds {
                        break;
                    }
                    let outcome = run(seed, Options { keep_log: arguments.trace, lie: arguments.lie });
                    if arguments.trace {
                        println!("=== seed {seed}\n{}", outcome.log);
                    }
                    note(&progress, seed, &outcome, &stop, started);
                }
            });
        }
    });
    let progress = progress.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seconds = started.elapsed().as_secs_f64();
    print_tally(&progress.tally, progress.done, seconds);
    match progress.failed {
        Some(seed) => fail(seed, arguments),
        None => untested(&progress, arguments),
    }
}

fn note(progress: &Mutex<Progress>, seed: u64, outcome: &Outcome, stop: &AtomicBool, started: Instant) {
    let mut progress = progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    progress.tally.add(&outcome.tally);
    progress.done += 1;
    if outcome.violation.is_some() {
        stop.store(true, Ordering::Relaxed);
        progress.failed = Some(progress.failed.map_or(seed, |other| other.min(seed)));
    }
    if progress.done.is_multiple_of(1000) {
        let rate = progress.done as f64 / started.elapsed().as_secs_f64();
        eprintln!("{} seeds, {rate:.1} a second", progress.done);
    }
}

fn print_tally(tally: &Tally, seeds: u64, seconds: f64) {
    println!(
        "{seeds} seeds in {seconds:.1} s, {:.1} a second; {:.1} virtual hours",
        seeds as f64 / seconds,
        tally.virtual_seconds / 3600.0
    );
    println!(
        "{} records, {} delivered again; {} leases handed over, {} taken; {} innocent records condemned by kills",
        tally.records, tally.repeated, tally.planned_moves, tally.forced_moves, tally.condemned
    );
    let exercised = |invariant: &Invariant| format!("{invariant} {}", tally.exercised.get(invariant).unwrap_or(&0));
    println!("exercised: {}", Invariant::ALL.iter().map(exercised).collect::<Vec<_>>().join(", "));
    let share = |kind: &Kind| {
        let count = tally.happened.get(kind).copied().unwrap_or(0);
        format!("{kind} {:.0} %", count as f64 * 100.0 / seeds as f64)
    };
    println!("seeds with: {}", Kind::ALL.iter().map(share).collect::<Vec<_>>().join(", "));
}

/// Runs a seed that failed once more, for its trace.
fn fail(seed: u64, arguments: &Arguments) -> ExitCode {
    let outcome = run(seed, Options { keep_log: true, lie: arguments.lie });
    if !arguments.trace {
        println!("=== seed {seed}\n{}", outcome.log);
    }
    let lie = arguments.lie.map(|lie| format!(" --lie {lie}")).unwrap_or_default();
    match outcome.violation {
        Some(violation) => println!("seed {seed} violates {violation}"),
        None => println!("seed {seed} failed before and does not fail now: two runs of one seed differ"),
    }
    println!("again: cargo run --release -p shardwell-sim -- --seeds 1 --from {seed} --trace{lie}");
    ExitCode::FAILURE
}

/// Many seeds must put everything to the test; a few need not.
fn untested(progress: &Progress, arguments: &Arguments) -> ExitCode {
    let untested = progress.tally.untested(progress.done);
    if arguments.seeds < 100 || untested.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("not tested enough: {}", untested.join("; "));
    ExitCode::FAILURE
}
