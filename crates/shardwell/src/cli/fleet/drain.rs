//! `shardwell fleet drain`: a worker that is to have no leases.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use shardwell::core::FleetSettings;
use shardwell::{Env, EnvExt, LeaseStore, SystemEnv, WorkerId};

use super::emptied::{self, Left};
use super::look::{Look, look};
use super::text::names;
use crate::cli::place::TableArgs;
use crate::cli::table::count;

#[derive(Args, Debug)]
pub(in crate::cli) struct DrainArgs {
    /// The worker, as `fleet status` shows it
    #[arg(value_name = "WORKER")]
    worker: String,
    #[command(flatten)]
    table: TableArgs,
    /// Let the worker have leases again
    #[arg(long)]
    undo: bool,
    /// Wait until the worker has no leases
    #[arg(long, conflicts_with = "undo")]
    wait: bool,
    /// Wait for this long at most, such as 5m; the exit code is 1 if leases are left
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, requires = "wait")]
    timeout: Option<Duration>,
}

/// Looks, writes, and says what follows.
pub(super) async fn run(args: &DrainArgs) -> Result<()> {
    let env = SystemEnv::new().context("the system refuses a thread")?;
    let application = args.table.one_application().await?;
    let store = args.table.open_for_writing(&application).await?;
    let worker = WorkerId::from(args.worker.as_str());
    let seen = look(&env, &*store).await?;
    ensure_known(&seen, &application, &worker)?;
    if args.undo {
        return undo(&env, &*store, &application, &worker).await;
    }
    let is_new = update(&env, &*store, &application, |draining| draining.insert(worker.clone())).await?;
    println!("{}", announcement(&seen, &worker, is_new));
    for warning in warnings(&seen, &worker) {
        eprintln!("{warning}");
    }
    if args.wait {
        return emptied::until_empty(&env, &*store, &worker, args.timeout).await;
    }
    println!("Follow it with: shardwell fleet status --watch {}", args.table.arguments(&application));
    Ok(())
}

async fn undo(env: &dyn Env, store: &dyn LeaseStore, application: &str, worker: &WorkerId) -> Result<()> {
    if update(env, store, application, |draining| draining.remove(worker)).await? {
        println!("Worker {worker} is not drained any more: the leader may give it leases again.");
    } else {
        println!("Worker {worker} was not being drained.");
    }
    Ok(())
}

/// An error that names the workers that are there. One that is being drained may be gone already.
fn ensure_known(seen: &Look, application: &str, worker: &WorkerId) -> Result<()> {
    let known = seen.known_workers();
    if known.contains(worker) || seen.draining().contains(worker) {
        return Ok(());
    }
    if known.is_empty() {
        bail!("application `{application}` has no worker `{worker}`, nor any other: none is registered or has a lease");
    }
    bail!("application `{application}` has no worker `{worker}`; it has: {}", names(&known))
}

/// How often to try again when somebody else writes the settings at the same time.
const ATTEMPTS: u32 = 20;
/// How long to leave the settings alone then.
const PAUSE: Duration = Duration::from_millis(50);

/// Changes who is drained. `change` says whether it changed anything; so does the answer.
async fn update(
    env: &dyn Env,
    store: &dyn LeaseStore,
    application: &str,
    mut change: impl FnMut(&mut BTreeSet<WorkerId>) -> bool + Send,
) -> Result<bool> {
    for _ in 0..ATTEMPTS {
        let Some(seen) = store.fleet_settings().await? else {
            bail!(
                "application `{application}` has no settings yet, since no worker of it has ever run; start a worker, \
                 and try again"
            );
        };
        let mut settings: FleetSettings = seen.clone();
        if !change(&mut settings.draining) {
            return Ok(false);
        }
        if store.swap_fleet_settings(Some(&seen), &settings).await? {
            return Ok(true);
        }
        env.sleep(PAUSE).await;
    }
    bail!("the settings of application `{application}` were changed by others {ATTEMPTS} times in a row; try again")
}

fn announcement(seen: &Look, worker: &WorkerId, is_new: bool) -> String {
    let already = if is_new { "" } else { " already" };
    let leases = Left::by(&seen.listing.leases, worker).leases;
    let what = match leases {
        0 => "it has no leases and gets none".to_owned(),
        n => format!("the leader moves {} off it and gives it nothing more", count(n)),
    };
    format!("Worker {worker} is{already} being drained: {what}.")
}

/// What keeps a drain from having an effect.
fn warnings(seen: &Look, worker: &WorkerId) -> Vec<String> {
    let draining = seen.draining();
    let takes = |id: &WorkerId| id != worker && !draining.contains(id);
    let mut warnings = Vec::new();
    if !seen.is_registered(worker) {
        warnings.push(format!(
            "Worker {worker} is not registered, so it is stopping or dead; the leader gives its leases away once they expire."
        ));
    }
    if !seen.workers.iter().any(|metrics| takes(&metrics.worker)) {
        warnings.push(
            "No other worker is registered that could take its leases, so it keeps them until one is.".to_owned(),
        );
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::task::{Context as TaskContext, Poll, Waker};

    use shardwell::memory::MemoryLeaseStore;

    use super::super::sample::{DURATION, draining, item, lease, look};
    use super::*;

    /// The output of a call to a store in memory, which waits for nothing.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        match std::pin::pin!(future).poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits for something"),
        }
    }

    fn drained(store: &MemoryLeaseStore) -> Vec<String> {
        let settings = at_once(store.fleet_settings()).expect("read").expect("there");
        settings.draining.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_change_that_somebody_else_was_faster_than_is_made_again() {
        let env = SystemEnv::new().expect("threads");
        let store = MemoryLeaseStore::new();
        let settings = FleetSettings::new(DURATION);
        assert!(store.swap_fleet_settings(None, &settings).await.expect("written"));
        let mut others = vec!["x", "y"];
        let change = |draining: &mut BTreeSet<WorkerId>| {
            if let Some(other) = others.pop() {
                let mut theirs = settings.clone();
                theirs.draining.clone_from(draining);
                let seen = theirs.clone();
                theirs.draining.insert(other.into());
                assert!(at_once(store.swap_fleet_settings(Some(&seen), &theirs)).expect("written"));
            }
            draining.insert("w".into())
        };
        assert!(update(&env, &store, "delays", change).await.expect("written"));
        assert_eq!(drained(&store), ["w", "x", "y"]);
        let again = update(&env, &store, "delays", |draining| draining.insert("w".into())).await;
        assert!(!again.expect("read"), "nothing to change");
    }

    #[tokio::test]
    async fn before_any_worker_ran_there_is_nothing_to_change() {
        let env = SystemEnv::new().expect("threads");
        let error = update(&env, &MemoryLeaseStore::new(), "delays", |_| true).await.expect_err("no settings");
        assert!(error.to_string().contains("start a worker"), "{error}");
    }

    #[test]
    fn known_is_who_is_registered_or_has_a_lease_or_is_drained() {
        let seen = Look { workers: vec![item("idle", 0)], ..look(0, &[lease("a", Some("busy"))]) };
        let seen = draining(seen, &["gone"]);
        for known in ["idle", "busy", "gone"] {
            assert!(ensure_known(&seen, "delays", &known.into()).is_ok(), "{known}");
        }
        let error = ensure_known(&seen, "delays", &"bussy".into()).expect_err("unknown").to_string();
        assert_eq!(error, "application `delays` has no worker `bussy`; it has: busy, idle");
        let error = ensure_known(&look(0, &[]), "delays", &"w".into()).expect_err("unknown").to_string();
        assert!(error.contains("nor any other"), "{error}");
    }

    #[test]
    fn what_follows_depends_on_who_else_is_there() {
        let worker = WorkerId::from("w");
        let seen = Look { workers: vec![item("w", 0), item("x", 0)], ..look(0, &[lease("a", Some("w"))]) };
        assert!(announcement(&seen, &worker, true).contains("is being drained: the leader moves 1 lease off it"));
        assert!(announcement(&look(0, &[]), &worker, false).contains("is already being drained: it has no leases"));
        assert_eq!(warnings(&seen, &worker), Vec::<String>::new());
        let alone = warnings(&draining(seen, &["x"]), &worker);
        assert!(alone.len() == 1 && alone[0].contains("No other worker"), "{alone:?}");
        let unregistered = Look { workers: vec![item("x", 0)], ..look(0, &[lease("a", Some("w"))]) };
        let warned = warnings(&unregistered, &worker);
        assert!(warned.len() == 1 && warned[0].contains("is not registered"), "{warned:?}");
    }
}
