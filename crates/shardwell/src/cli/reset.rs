//! `shardwell leases reset`: an application forgets how far it was.

use anyhow::{Context, Result, bail};
use clap::Args;
use shardwell::{LeaseListing, LeaseStore, SystemEnv, WorkerId};

use super::confirm::confirm;
use super::place::TableArgs;
use super::table::count;
use super::watch::{self, Verdict};

#[derive(Args, Debug)]
pub(super) struct ResetArgs {
    #[command(flatten)]
    table: TableArgs,
    /// The application
    #[arg(long, value_name = "NAME")]
    application: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Remove the leases even while a worker renews them
    ///
    /// A worker that runs meanwhile loses its leases, takes new ones at its initial position, and processes everything
    /// from there again.
    #[arg(long)]
    force: bool,
}

/// Looks, asks, removes.
pub(super) async fn run(args: &ResetArgs) -> Result<()> {
    let store = args.table.open_for_writing(&args.application).await?;
    let listing = store.leases().await?;
    if listing.leases.is_empty() && listing.unreadable.is_empty() && store.stream_identities().await?.is_empty() {
        bail!(
            "application `{}` has no leases and no record of a stream, so there is nothing to reset",
            args.application
        );
    }
    if !args.force {
        refuse_while_alive(&*store, &args.application).await?;
    }
    if !args.yes && !confirm(&question(args, &listing))? {
        bail!("not confirmed, so nothing was removed");
    }
    let removed = remove(&*store).await?;
    println!(
        "Removed {} of application `{}`; it starts again at its initial position.",
        count(removed),
        args.application
    );
    Ok(())
}

fn question(args: &ResetArgs, listing: &LeaseListing) -> String {
    let leases = count(listing.leases.len() + listing.unreadable.len());
    format!("Remove {leases} of application `{}`, with all of their checkpoints?", args.application)
}

async fn refuse_while_alive(store: &dyn LeaseStore, application: &str) -> Result<()> {
    let env = SystemEnv::new().context("the system refuses a thread")?;
    let duration = watch::lease_duration(store.fleet_settings().await?.as_ref());
    let waiting = |listing: &LeaseListing| {
        let owned = listing.leases.iter().filter(|lease| lease.actual_owner().is_some()).count();
        let owned = count(owned);
        eprintln!("{owned} owned by workers; watching for {duration:?} whether those are alive ...");
    };
    match watch::until_decided(&env, store, duration, waiting).await? {
        Verdict::Lives(worker) => bail!(refusal(application, &worker)),
        Verdict::NobodyLives | Verdict::Undecided => Ok(()),
    }
}

fn refusal(application: &str, worker: &WorkerId) -> String {
    format!(
        "worker {worker} of application `{application}` is alive; stop all workers of the application first, or \
         remove their leases all the same with --force"
    )
}

/// Removes the leases, then the records of who the streams were: if this ends in between, a worker still refuses to start on a
/// stream that was created again, and a second attempt does the rest.
async fn remove(store: &dyn LeaseStore) -> Result<usize> {
    let listing = store.leases().await?;
    let keys: Vec<_> = listing.leases.iter().map(|lease| &lease.key).chain(&listing.unreadable).collect();
    for key in &keys {
        store.delete_lease(key).await?;
    }
    for stream in store.stream_identities().await? {
        store.delete_stream_identity(&stream.name).await?;
    }
    Ok(keys.len())
}
