//! `shardwell fleet`: who has which lease, what the leader would change, and moving leases off a worker.

mod drain;
mod emptied;
mod json;
mod look;
mod plan;
mod proposal;
mod report;
#[cfg(test)]
mod row;
#[cfg(test)]
mod sample;
mod status;
mod text;
mod watched;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum FleetCommand {
    /// Show the leader, the workers, and for each shard who has it and how far it is
    ///
    /// Only reads. One look tells who has a lease and not whether that worker lives: that takes looking again, which
    /// --watch does. "caught up" is when everything that had arrived in a shard was last known to be done; it is written
    /// with the checkpoints and on a quiet shard only now and then, so a shard is behind by that much at most.
    Status(status::StatusArgs),
    /// Show what the leader would change now, and why, without changing anything
    ///
    /// Only reads. Watches the table for a while first, as a leader does, to know which owners and workers are alive.
    /// The leader's own settings are not in the table: give --strategy, --max-leases and --handoff-deadline as its
    /// workers are configured.
    Plan(plan::PlanArgs),
    /// Have everything moved off a worker, and nothing more given to it
    ///
    /// The leader asks the worker to hand its leases over to the others, with their checkpoints: nothing is delivered
    /// twice for it. The worker itself goes on running. Takes effect with the leader's next round of planning.
    Drain(drain::DrainArgs),
}

pub(super) async fn run(command: &FleetCommand) -> Result<()> {
    match command {
        FleetCommand::Status(args) => status::run(args).await,
        FleetCommand::Plan(args) => plan::run(args).await,
        FleetCommand::Drain(args) => drain::run(args).await,
    }
}
