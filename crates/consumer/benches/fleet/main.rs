//! How fast a fleet moves its shards, and what that costs its lease table: whole workers with default settings, in virtual
//! time, on a table that answers within 5 ms and a stream that is read five times a second.
//!
//! ```sh
//! cargo bench -p shardwell-consumer --bench fleet
//! ```
//!
//! Prints the least, the middle and the most of many runs that differ in their seeds, and so in when things happen, beside
//! what is promised and what the KCL needs. A word as argument (`crash`, `cost`, …) measures only that.

mod cost;
mod crash;
mod deploy;
mod join;
mod log;
mod metered;
mod moves;
mod report;
mod runs;
mod start;
mod stop;
mod world;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let measurements: [(&str, fn()); 8] = [
        ("crash", crash::measure),
        ("stop", stop::measure),
        ("join", join::measure),
        ("deploy", deploy::measure),
        ("start", start::measure),
        ("cost", cost::measure),
        ("moves", moves::measure),
        ("duplicates", moves::measure_duplicates),
    ];
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    for (name, measure) in measurements {
        if wanted.is_empty() || wanted.iter().any(|word| *word == name) {
            measure();
        }
    }
}
