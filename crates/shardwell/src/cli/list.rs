//! `shardwell leases list`: what a lease table holds.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use shardwell::core::FleetSettings;
use shardwell::core::leasing::Unfinished;
use shardwell::{Checkpoint, Lease, LeaseKey, LeaseListing, ShardId, WorkerId};

use super::place::TableArgs;
use super::table;

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    table: TableArgs,
    /// Show long sequence numbers in full
    #[arg(long)]
    full: bool,
    /// Write JSON, with everything in full
    #[arg(long, conflicts_with = "full")]
    json: bool,
}

/// What the table holds of one application.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) name: String,
    pub(super) settings: Option<FleetSettings>,
    pub(super) listing: LeaseListing,
}

/// Reads and prints.
pub(super) async fn run(args: &ListArgs) -> Result<()> {
    let mut applications = Vec::new();
    for name in args.table.applications().await? {
        let store = args.table.open(&name).await?;
        let (settings, listing) = (store.fleet_settings().await?, store.leases().await?);
        applications.push(Application { name, settings, listing });
    }
    let text = match (args.json, applications.is_empty()) {
        (true, _) => format!("{:#}\n", json(&applications)),
        (false, true) => format!("{} holds no application yet.\n", args.table),
        (false, false) => applications.iter().map(|one| table::render(one, args.full)).collect::<Vec<_>>().join("\n"),
    };
    print(&text)
}

fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the list"),
    }
}

/// What a lease is waiting for or doing, as far as the table tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Every record is done.
    Finished,
    /// These parents have leases that are not finished.
    WaitingForParents(Vec<ShardId>),
    /// The old owner is asked to hand it over.
    HandingOver,
    /// A worker has it. Whether that worker lives, only a change of the counter tells.
    Owned,
    /// Nobody has it.
    Free,
}

impl State {
    pub(super) fn of(lease: &Lease, unfinished: &Unfinished<'_>) -> Self {
        let blocking: Vec<ShardId> = unfinished.parents_of(lease).cloned().collect();
        match lease {
            _ if lease.is_finished() => Self::Finished,
            _ if !blocking.is_empty() => Self::WaitingForParents(blocking),
            _ if lease.handoff_requested() => Self::HandingOver,
            _ if lease.owner.is_some() => Self::Owned,
            _ => Self::Free,
        }
    }

    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::WaitingForParents(_) => "waiting for parents",
            Self::HandingOver => "handing over",
            Self::Owned => "owned",
            Self::Free => "free",
        }
    }
}

fn json(applications: &[Application]) -> Value {
    applications.iter().map(application_json).collect()
}

fn application_json(application: &Application) -> Value {
    let leases = &application.listing.leases;
    json!({
        "application": application.name,
        "lease_duration_ms": application.settings.as_ref().map(|s| as_millis(s.lease_duration)),
        "leases": leases.iter().map(|lease| lease_json(lease, &Unfinished::of(leases))).collect::<Vec<_>>(),
        "unreadable": application.listing.unreadable.iter().map(LeaseKey::as_str).collect::<Vec<_>>(),
    })
}

pub(super) fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Sequence numbers as text: no JSON reader keeps 56 digits of a number.
fn lease_json(lease: &Lease, unfinished: &Unfinished<'_>) -> Value {
    let state = State::of(lease, unfinished);
    let ids = |shards: &mut dyn Iterator<Item = &ShardId>| shards.map(ShardId::to_string).collect::<Vec<_>>();
    let pending = lease.pending_checkpoint.as_ref().map(|pending| checkpoint_json(pending.checkpoint));
    let range = lease.hash_key_range.map(|range| json!([range.start().to_string(), range.end().to_string()]));
    json!({
        "key": lease.key.as_str(),
        "stream": lease.stream_name(),
        "shard": lease.shard.as_str(),
        "state": state.name(),
        "owner": lease.owner.as_ref().map(WorkerId::as_str),
        "checkpoint_owner": lease.checkpoint_owner.as_ref().map(WorkerId::as_str),
        "counter": lease.counter,
        "owner_switches_since_checkpoint": lease.owner_switches_since_checkpoint,
        "checkpoint": checkpoint_json(lease.checkpoint),
        "pending_checkpoint": pending,
        "parents": ids(&mut lease.parents.iter()),
        "children": ids(&mut lease.children.iter()),
        "hash_key_range": range,
        "throughput_kib_per_second": lease.throughput_kbps,
    })
}

fn checkpoint_json(checkpoint: Checkpoint) -> Value {
    let (text, sub_sequence_number) = checkpoint.to_stored();
    json!({ "sequence_number": text, "sub_sequence_number": sub_sequence_number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_lease_and_its_parents() {
        let mut parent = Lease::new("p".into(), Checkpoint::TrimHorizon);
        let mut child = Lease::new("c".into(), Checkpoint::TrimHorizon);
        child.parents = ["p".into()].into();
        let state = |lease: &Lease, all: &[&Lease]| {
            State::of(lease, &Unfinished::of(&all.iter().map(|lease| (*lease).clone()).collect::<Vec<_>>()))
        };
        assert_eq!(state(&parent, &[&parent]), State::Free);
        assert_eq!(state(&child, &[&parent, &child]), State::WaitingForParents(vec!["p".into()]));
        parent.owner = Some("w".into());
        assert_eq!(state(&parent, &[&parent]), State::Owned);
        parent.checkpoint_owner = Some("v".into());
        assert_eq!(state(&parent, &[&parent]), State::HandingOver);
        parent.checkpoint = Checkpoint::ShardEnd;
        assert_eq!(state(&parent, &[&parent]), State::Finished);
        assert_eq!(state(&child, &[&parent, &child]), State::Free);
    }
}
