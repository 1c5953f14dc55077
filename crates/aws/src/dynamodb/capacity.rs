//! What requests cost.

use aws_sdk_dynamodb::types::ConsumedCapacity;
use metrics::counter;

/// Counter: what DynamoDB charged, in halves of a capacity unit, the least that it charges; by `table` and by what the request
/// was for: `purpose` is `renewals`, `assignments`, `listings`, `lookups`, `discovery`, `coordination`, or, of a table that records are
/// written to, `sink`.
pub const CONSUMED_HALF_UNITS: &str = "shardwell_dynamodb_consumed_half_units_total";

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Renewals, with the checkpoints in them.
    Renewals,
    /// Leases that are created, given away, and removed.
    Assignments,
    /// Reading the whole table.
    Listings,
    /// Reading one item.
    Lookups,
    /// Finding what a worker was given.
    Discovery,
    /// Workers' items, the leader lock, and what the fleet agrees on.
    Coordination,
    /// Writing what records say.
    Sink,
}

impl Purpose {
    const fn name(self) -> &'static str {
        match self {
            Self::Renewals => "renewals",
            Self::Assignments => "assignments",
            Self::Listings => "listings",
            Self::Lookups => "lookups",
            Self::Discovery => "discovery",
            Self::Coordination => "coordination",
            Self::Sink => "sink",
        }
    }
}

/// Counts what a request cost, if the service said so.
pub(super) fn charged(table: &str, purpose: Purpose, capacity: Option<&ConsumedCapacity>) {
    let Some(units) = capacity.and_then(ConsumedCapacity::capacity_units) else { return };
    let halves = (units * 2.0).ceil() as u64;
    counter!(CONSUMED_HALF_UNITS, "table" => table.to_owned(), "purpose" => purpose.name()).increment(halves);
}
