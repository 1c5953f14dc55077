//! The log of a run: what happened in the world, line by line.

use std::fmt;

use shardwell_core::Monotonic;

/// A log that is kept, or not: of the many runs that fail nothing nobody reads one.
#[derive(Debug, Default)]
pub(crate) struct Log(Option<String>);

impl Log {
    pub(crate) fn new(keep: bool) -> Self {
        Self(keep.then(String::new))
    }

    /// Whether anybody will read it.
    pub(crate) const fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn line(&mut self, now: Monotonic, line: fmt::Arguments<'_>) {
        if let Some(text) = &mut self.0 {
            use fmt::Write as _;
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:10.3} {line}", now.since_origin().as_secs_f64());
        }
    }

    pub(crate) fn take(&mut self) -> String {
        self.0.take().unwrap_or_default()
    }
}
