//! `shardwell fleet plan`: what the leader would do.

use std::io::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::Cell;
use serde_json::{Value, json};
use shardwell::core::leasing::plan::{PlanSettings, PlanStrategy};
use shardwell::{Env, LeaseStore, SystemEnv, WorkerId};

use super::look::{Look, look};
use super::proposal::{BeforeAndAfter, Change, Load, Proposal, propose};
use super::report::{Report, Worker, patience};
use super::watched::Watched;
use super::{json as fleet_json, text};
use crate::cli::output::{finish, output};
use crate::cli::place::TableArgs;
use crate::cli::table::{count, heading, number, unlimited};

#[derive(Args, Debug)]
pub(in crate::cli) struct PlanArgs {
    #[command(flatten)]
    table: TableArgs,
    /// Watch for this long before planning, such as 30s [default: the lease duration and a tenth of it]
    ///
    /// Owners and workers are known to be dead after the lease duration, and a handoff is known to be overdue after the
    /// handoff deadline and the lease duration. What a shorter watch does not see counts as alive and on its way.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    watch_for: Option<Duration>,
    /// How loads are counted, as the workers are configured
    #[arg(long, value_enum, default_value_t)]
    strategy: Strategy,
    /// How many leases a worker has at most, as the workers are configured [default: any number]
    #[arg(long, value_name = "N")]
    max_leases: Option<NonZeroUsize>,
    /// How long a worker may take to hand a lease over, as the workers are configured
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    handoff_deadline: Duration,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Strategy {
    /// By the throughput of leases, and with regard to busy machines
    #[default]
    Utilisation,
    /// By the number of leases
    Count,
}

impl PlanArgs {
    fn settings(&self) -> PlanSettings {
        let strategy = match self.strategy {
            Strategy::Utilisation => PlanStrategy::Utilisation,
            Strategy::Count => PlanStrategy::Count,
        };
        let defaults = PlanSettings { strategy, ..PlanSettings::default() };
        match self.max_leases {
            Some(max) => PlanSettings { max_leases_for_worker: max.get(), ..defaults },
            None => defaults,
        }
    }
}

/// Watches, plans, prints.
pub(super) async fn run(args: &PlanArgs) -> Result<()> {
    let env = SystemEnv::new().context("the system refuses a thread")?;
    let application = args.table.one_application().await?;
    let store = args.table.open(&application).await?;
    let (look, watched) = watch(&env, &*store, args.watch_for).await?;
    let report = Report::new(&application, &look, Some(&watched), args.handoff_deadline);
    let patience = patience(&look, args.handoff_deadline);
    let proposal = propose(&look, &watched.observations, &patience, &args.settings());
    let mut out = output();
    let written = match args.json {
        true => writeln!(out, "{:#}", json(&report, &proposal)),
        false => write!(out, "{}", render(&report, &proposal)),
    };
    finish(written.map_err(Into::into), out)
}

/// Looks at the fleet again and again for a while. Gives the last look.
async fn watch(env: &dyn Env, store: &dyn LeaseStore, time: Option<Duration>) -> Result<(Look, Watched)> {
    let mut watched = Watched::default();
    let mut last = look(env, store).await?;
    watched.note(&last);
    let duration = last.lease_duration();
    let time = time.unwrap_or(duration + duration / 10);
    let until = last.asked.plus(time);
    eprintln!("Watching for {time:?} which owners and workers are alive ...");
    if time <= duration {
        eprintln!(
            "That is not longer than the lease duration ({duration:?}): nobody will be known to be dead, and what is not seen \
             to be renewed stays where it is."
        );
    }
    while last.asked < until {
        env.sleep_until(until.min(last.again_at())).await;
        last = look(env, store).await?;
        watched.note(&last);
    }
    Ok((last, watched))
}

fn render(report: &Report<'_>, proposal: &Proposal) -> String {
    let mut text = heading(report.application, report.shards.len(), report.look.settings.as_ref());
    text.push_str(&text::leader(report.leader.as_ref()));
    match proposal.changes.as_slice() {
        [] => text.push_str("No lease would move.\n"),
        changes => text.push_str(&moves(changes)),
    }
    if proposal.spillover > 0 {
        text.push_str(&format!("Nobody has room for {}.\n", count(proposal.spillover)));
    }
    text.push_str(&loads(report, proposal));
    text
}

fn moves(changes: &[Change]) -> String {
    let mut table = unlimited(&["lease", "from", "to", "why"]);
    for Change { lease, from, to, why } in changes {
        let from = from.as_ref().map_or("-", WorkerId::as_str);
        table.add_row([lease.as_str(), from, to.as_str(), why.reason()]);
    }
    format!("{} would move:\n{table}\n", count(changes.len()))
}

/// Nobody's leases come first.
fn loads(report: &Report<'_>, proposal: &Proposal) -> String {
    let mut table = unlimited(&["worker", "state", "leases", "then", "KiB/s", "then"]);
    let mut add = |name: &str, state: String, load: BeforeAndAfter| {
        let leases = |load: Load| number(load.leases.to_string());
        let throughput = |load: Load| number(format!("{:.1}", load.throughput_kbps));
        let BeforeAndAfter { before, after } = load;
        let cells = [leases(before), leases(after), throughput(before), throughput(after)];
        table.add_row([Cell::new(name), Cell::new(state)].into_iter().chain(cells));
    };
    if let Some(load) = proposal.loads.get(&None) {
        add("(nobody)", String::new(), *load);
    }
    for worker in &report.workers {
        add(worker.id.as_str(), text::worker_state(worker), load_of(worker, proposal));
    }
    if table.is_empty() {
        String::new()
    } else {
        format!("Leases that can be worked on, and what they report:\n{table}\n")
    }
}

fn load_of(worker: &Worker, proposal: &Proposal) -> BeforeAndAfter {
    proposal.loads.get(&Some(worker.id.clone())).copied().unwrap_or_default()
}

fn json(report: &Report<'_>, proposal: &Proposal) -> Value {
    let change = |change: &Change| {
        json!({
            "lease": change.lease.as_str(),
            "from": change.from.as_ref().map(WorkerId::as_str),
            "to": change.to.as_str(),
            "why": change.why.code(),
        })
    };
    let worker = |worker: &Worker| {
        let mut value = fleet_json::worker(worker);
        value["load"] = load_json(load_of(worker, proposal));
        value
    };
    let mut value = fleet_json::head(report);
    value["moves"] = proposal.changes.iter().map(change).collect();
    value["spillover"] = proposal.spillover.into();
    value["unowned"] = load_json(proposal.loads.get(&None).copied().unwrap_or_default());
    value["workers"] = report.workers.iter().map(worker).collect();
    value
}

fn load_json(BeforeAndAfter { before, after }: BeforeAndAfter) -> Value {
    let load = |load: Load| json!({ "leases": load.leases, "throughput_kib_per_second": load.throughput_kbps });
    json!({ "before": load(before), "after": load(after) })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{DURATION, HANDOFF, item, lease, lock, look};
    use super::*;

    /// Two leases of a dead worker and one of a living one, at the end of a watch.
    fn with_report<T>(settings: &PlanSettings, then: impl FnOnce(&Report<'_>, &Proposal) -> T) -> T {
        let mut rows = [lease("a", Some("dead")), lease("b", Some("dead")), lease("c", Some("alive"))];
        rows[0].throughput_kbps = Some(100.0);
        let mut watched = Watched::default();
        let leader = Some(lock("dead", "1"));
        let seen = Look { workers: vec![item("alive", 0), item("dead", 0)], leader, ..look(0, &rows) };
        watched.note(&seen);
        rows[2].counter += 1;
        let seen = Look {
            workers: vec![item("alive", 11), item("dead", 0)],
            ..Look { leader: seen.leader, ..look(11, &rows) }
        };
        watched.note(&seen);
        let report = Report::new("delays", &seen, Some(&watched), HANDOFF);
        let proposal = propose(&seen, &watched.observations, &patience(&seen, HANDOFF), settings);
        then(&report, &proposal)
    }

    #[test]
    fn a_plan_shows_moves_with_their_reasons_and_the_loads() {
        let text = with_report(&PlanSettings::default(), render);
        for part in ["Leader: dead, silent for >11s", "2 leases would move:", "its owner is dead", "100.0"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("room") && !text.contains("(nobody)"), "{text}");
        let full = PlanSettings { max_leases_for_worker: 2, ..PlanSettings::default() };
        let text = with_report(&full, render);
        assert!(text.contains("1 lease would move:") && text.contains("Nobody has room for 1 lease."), "{text}");
    }

    #[test]
    fn json_has_codes_and_loads() {
        let value = with_report(&PlanSettings::default(), json);
        let first = json!({ "lease": "a", "from": "dead", "to": "alive", "why": "owner_dead" });
        assert_eq!((&value["moves"][0], &value["spillover"]), (&first, &json!(0)));
        assert_eq!(value["workers"][0]["worker"], "alive");
        let load = &value["workers"][0]["load"];
        assert_eq!((&load["before"]["leases"], &load["after"]["leases"]), (&json!(1), &json!(3)));
        assert_eq!(load["after"]["throughput_kib_per_second"], 100.0);
        assert_eq!(value["lease_duration_ms"], u64::try_from(DURATION.as_millis()).expect("small"));
    }

    #[test]
    fn where_nobody_is_there_nothing_moves() {
        let seen = look(0, &[]);
        let report = Report::new("delays", &seen, None, HANDOFF);
        let text = render(&report, &Proposal::default());
        assert_eq!(text, "Application delays: no leases, lease duration 10s\nLeader: none\nNo lease would move.\n");
    }
}
