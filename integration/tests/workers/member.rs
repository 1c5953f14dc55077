//! A worker of the fleet, in a process of its own.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use shardwell_core::{Monotonic, WorkerId, WriteToken};
use shardwell_integration::{Event, EventKind};

use super::helper::Pause;
use super::lease_table::LeaseTable;
use crate::common::process::{SIGKILL, ServiceProcess};

const SIGTERM: i32 = 15;

/// A worker that runs, or is stopped, or was told to end.
pub(crate) struct Member {
    pub(crate) worker: WorkerId,
    process: ServiceProcess,
    pause: Option<Pause>,
    told_to_end: Option<Monotonic>,
    /// How many of its events were told as news.
    known: usize,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Stopped,
}

impl Member {
    pub(crate) fn new(worker: WorkerId, process: ServiceProcess) -> Self {
        Self { worker, process, pause: None, told_to_end: None, known: 0 }
    }

    /// Kills it, and tells how it ended: it may have stopped just before.
    pub(crate) fn kill(&mut self) -> End {
        self.process.kill();
        self.ended().expect("it is dead")
    }

    pub(crate) fn pause(&mut self) {
        self.pause = Some(Pause::anywhere(self.process.id()));
    }

    pub(crate) fn pause_inside_write(&mut self, table: &LeaseTable) {
        self.pause = Some(Pause::inside_write(self.process.id(), table));
    }

    pub(crate) fn resume(&mut self) {
        self.pause = None;
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Asks the worker to stop. A process that is paused hears of it later.
    pub(crate) fn terminate(&mut self, now: Monotonic) {
        self.process.terminate();
        self.told_to_end = Some(now);
    }

    /// When it was asked to stop.
    pub(crate) const fn told_to_end(&self) -> Option<Monotonic> {
        self.told_to_end
    }

    /// How it ended, if it has; in a way that it was told to.
    pub(crate) fn ended(&mut self) -> Option<End> {
        let signal = self.process.ended()?.signal();
        // One that has not even begun does not hear that it is to stop in order.
        let has_begun = !self.process.trace().is_empty();
        if signal == Some(SIGKILL) || (signal == Some(SIGTERM) && !has_begun) {
            return Some(End::Killed);
        }
        assert!(self.told_to_end.is_some(), "{} ended by itself: {}", self.worker, self.process.trace());
        self.process.assert_ended_well();
        Some(End::Stopped)
    }

    pub(crate) fn has_handled_a_record(&mut self) -> bool {
        self.process.has_handled_a_record()
    }

    /// The tokens of the renewals that it has been about to make so far.
    pub(crate) fn renewals(&mut self) -> Vec<WriteToken> {
        self.process.news();
        let tokens = self.process.events().iter().filter_map(|event| match event.kind {
            EventKind::Renewing { token, .. } => Some(token),
            _ => None,
        });
        tokens.collect()
    }

    /// How long it has been there.
    pub(crate) fn age(&self, now: Monotonic) -> Duration {
        now.since(self.process.started)
    }

    /// What it did since the last call.
    pub(crate) fn news(&mut self) -> &[Event] {
        self.process.news();
        let news = &self.process.events()[self.known..];
        self.known += news.len();
        news
    }

    /// All that it did; of a process that has ended, whose trace tells of nothing that went wrong.
    pub(crate) fn into_events(mut self) -> Vec<Event> {
        self.process.news();
        let trace = self.process.trace();
        assert!(!trace.contains(" ERROR ") && !trace.contains("panicked"), "{trace}");
        self.process.events().to_vec()
    }

    /// The end of what it wrote to its standard error.
    pub(crate) fn last_words(&self) -> String {
        const LINES: usize = 60;
        let trace = self.process.trace();
        let lines: Vec<&str> = trace.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}
