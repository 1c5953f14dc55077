//! What the reader sees: numbered steps on standard output, progress on standard error.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use shardwell::{ShardId, ShardState, ShardStatus, WorkerStatus};

/// How often progress is told where there is no terminal to draw it on.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// A shard's number, as in `3` for `shardId-000000000003`.
fn number(shard: &ShardId) -> &str {
    match shard.as_str().rsplit('-').next().unwrap_or_default().trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}

/// A shard by its number, as in `shard 3`.
pub(crate) fn short(shard: &ShardId) -> String {
    format!("shard {}", number(shard))
}

/// Several shards, as in `shard 3 and shard 4`.
pub(crate) fn short_list<'a>(shards: impl IntoIterator<Item = &'a ShardId>) -> String {
    shards.into_iter().map(short).collect::<Vec<_>>().join(" and ")
}

/// The terminal, or what takes its place.
#[derive(Debug)]
pub(crate) struct Screen {
    bars: MultiProgress,
    steps: u32,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { bars: MultiProgress::new(), steps: 0 }
    }

    /// Starts the next step.
    pub(crate) fn step(&mut self, text: &str) {
        self.steps += 1;
        let number = self.steps;
        self.say(&format!("\n{number}. {text}"));
    }

    /// Says something below the present step, without disturbing what is drawn.
    pub(crate) fn say(&self, text: &str) {
        // Nothing to be done if nobody reads any more.
        let _ = self.bars.suspend(|| writeln!(io::stdout(), "{text}"));
    }

    /// Starts to show progress towards `total` records.
    pub(crate) fn progress(&self, total: u64) -> Progress {
        let bar = self.bars.add(ProgressBar::new(total));
        bar.set_style(style("   {bar:30} {pos} of {len} records, {msg}"));
        Progress {
            bars: self.bars.clone(),
            bar,
            shards: Vec::new(),
            started: now(),
            told: now(),
            drawn: !self.bars.is_hidden(),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "only to show a rate to people")]
fn now() -> Instant {
    Instant::now()
}

/// Records, rate, and what each shard is doing.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: MultiProgress,
    bar: ProgressBar,
    shards: Vec<ProgressBar>,
    started: Instant,
    /// When the last line was written.
    told: Instant,
    /// Whether standard error is a terminal.
    drawn: bool,
}

impl Progress {
    /// Shows how things are.
    pub(crate) fn show(&mut self, records: u64, status: &WorkerStatus) {
        if self.drawn {
            self.draw(records, status);
        } else if self.told.elapsed() >= LINE_EVERY {
            self.tell(records, status);
        }
    }

    /// Leaves the final state behind.
    pub(crate) fn finish(mut self, records: u64, status: &WorkerStatus) {
        // What is drawn would go with the next thing that is said. Where that fails, looks suffer and nothing else.
        let _ = self.bars.clear();
        self.tell(records, status);
    }

    /// Records per second since the start.
    fn rate(&self, records: u64) -> u64 {
        (records as f64 / self.started.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn draw(&mut self, records: u64, status: &WorkerStatus) {
        self.bar.set_message(format!("{} a second", self.rate(records)));
        self.bar.set_position(records);
        while self.shards.len() < status.shards.len() {
            let line = self.bars.add(ProgressBar::new(1));
            line.set_style(style("   {msg}"));
            self.shards.push(line);
        }
        for (line, shard) in self.shards.iter().zip(&status.shards) {
            line.set_message(format!("{:<10} {}", short(&shard.shard), doing(shard)));
        }
    }

    fn tell(&mut self, records: u64, status: &WorkerStatus) {
        self.told = now();
        let shards: Vec<String> =
            status.shards.iter().map(|shard| format!("{} {}", number(&shard.shard), doing(shard))).collect();
        let (total, rate) = (self.bar.length().unwrap_or_default(), self.rate(records));
        // Nothing to be done if nobody reads any more.
        let _ =
            writeln!(io::stderr(), "   {records} of {total} records, {rate} a second; shards: {}", shards.join(", "));
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template of ours that does not parse costs looks and nothing else.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What a shard is doing, in a few words.
fn doing(shard: &ShardStatus) -> String {
    match &shard.state {
        ShardState::Finished => "done".to_owned(),
        ShardState::WaitingForParents(parents) => format!("waits for {}", short_list(parents)),
        ShardState::Retrying => {
            format!("tries a batch again: {}", shard.last_error.as_deref().unwrap_or("no reason known"))
        }
        ShardState::Unassigned | ShardState::Elsewhere | ShardState::Starting => "starting".to_owned(),
        ShardState::Stopping => "stopping".to_owned(),
        _ => match shard.behind_latest {
            Some(lag) => format!("lag {:.1} s", lag.as_secs_f64()),
            None => "nothing read yet".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_called_by_their_numbers() {
        assert_eq!(short(&"shardId-000000000000".into()), "shard 0");
        assert_eq!(short(&"shardId-000000000120".into()), "shard 120");
        assert_eq!(short_list(&["shardId-000000000001".into(), "shardId-000000000002".into()]), "shard 1 and shard 2");
    }
}
