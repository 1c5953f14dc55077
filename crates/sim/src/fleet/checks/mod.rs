//! What must hold, checked at every step.

mod leases;
mod records;
mod times;

use std::fmt;
use std::time::Duration;

pub(crate) use leases::{LeaseChecks, TermId, Write, show};
pub(crate) use records::{BatchId, Handled, number_of};
pub(crate) use times::Times;

use super::tally::Invariant;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which; `None` where a worker ended in a way that it must not.
    pub invariant: Option<Invariant>,
    /// When, since the beginning of the run.
    pub at: Duration,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.invariant.map_or_else(|| "a worker".to_owned(), |invariant| invariant.to_string());
        write!(f, "{name} at {:.3} s: {}", self.at.as_secs_f64(), self.what)
    }
}
