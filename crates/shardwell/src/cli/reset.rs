//! `shardwell leases reset`: an application forgets how far it was, or goes on somewhere else.

use anyhow::{Context, Result, bail};
use clap::Args;
use shardwell::core::{Conditional, Reset};
use shardwell::{Lease, LeaseListing, LeaseStore, SystemEnv, WorkerId};

use super::confirm::confirm;
use super::place::TableArgs;
use super::position::Position;
use super::table::count;
use super::watch::{self, Verdict};

#[derive(Args, Debug)]
pub(super) struct ResetArgs {
    #[command(flatten)]
    table: TableArgs,
    /// Keep the leases, and go on at this position: TRIM_HORIZON, LATEST, a time, or after a sequence number
    ///
    /// A time is one such as 2026-03-01T12:00:00Z: what arrived then or later is processed. Java workers read all that the stream
    /// holds instead. A sequence number takes one --shard, and counts as processed, as does all before it. LATEST leaves
    /// finished shards finished.
    #[arg(long, value_name = "POSITION")]
    to: Option<Position>,
    /// Only this shard; may be repeated
    ///
    /// Where the application consumes several streams, the lease's key names it: STREAM:SHARD, as `leases list --json` shows.
    #[arg(long, value_name = "SHARD", requires = "to")]
    shard: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Do it even while a worker renews the leases
    ///
    /// A worker that runs meanwhile loses the leases; whoever has them next goes on at the new position.
    #[arg(long)]
    force: bool,
}

/// Looks, asks, removes or moves.
pub(super) async fn run(args: &ResetArgs) -> Result<()> {
    let application = args.table.one_application().await?;
    let store = args.table.open_for_writing(&application).await?;
    match args.to {
        None => forget(args, &*store, &application).await,
        Some(to) => go_on_at(args, to, &*store, &application).await,
    }
}

async fn forget(args: &ResetArgs, store: &dyn LeaseStore, application: &str) -> Result<()> {
    let listing = store.leases().await?;
    if listing.leases.is_empty() && listing.unreadable.is_empty() && store.stream_identities().await?.is_empty() {
        bail!("application `{application}` has no leases and no record of a stream, so there is nothing to reset");
    }
    let leases = count(listing.leases.len() + listing.unreadable.len());
    agree(
        args,
        store,
        application,
        &format!("Remove {leases} of application `{application}`, with all of their checkpoints?"),
    )
    .await?;
    let removed = remove(store).await?;
    println!("Removed {} of application `{application}`; it starts again at its initial position.", count(removed));
    Ok(())
}

async fn go_on_at(args: &ResetArgs, to: Position, store: &dyn LeaseStore, application: &str) -> Result<()> {
    let leases = store.leases().await?.leases;
    let (chosen, finished) = chosen(&leases, &args.shard, to, application)?;
    let what = count(chosen.len());
    agree(args, store, application, &format!("Have {what} of application `{application}` go on {to}?")).await?;
    for lease in &chosen {
        let reset = Reset { key: lease.key.clone(), to: to.to_write() };
        if let Conditional::Refused(_) = store.reset(&reset).await? {
            bail!("the lease {} is gone meanwhile; look at `leases list`, and begin again", lease.key);
        }
    }
    let rest = if finished > 0 { format!(" {} that are finished stay so.", count(finished)) } else { String::new() };
    println!("Moved {what} of application `{application}`: it goes on {to}.{rest}");
    Ok(())
}

/// The leases that are meant, and how many of those that are finished are left out.
fn chosen<'a>(
    leases: &'a [Lease],
    shards: &[String],
    to: Position,
    application: &str,
) -> Result<(Vec<&'a Lease>, usize)> {
    let named = |lease: &Lease, name: &String| lease.shard.as_str() == name || lease.key.as_str() == name;
    for name in shards {
        match leases.iter().filter(|lease| named(lease, name)).count() {
            0 => bail!(
                "application `{application}` has no lease of a shard `{name}`; `leases list` shows those that it has"
            ),
            1 => {}
            _ => bail!("several streams of application `{application}` have a shard `{name}`; say STREAM:SHARD"),
        }
    }
    let is_meant = |lease: &&Lease| shards.is_empty() || shards.iter().any(|name| named(lease, name));
    let meant: Vec<&Lease> = leases.iter().filter(is_meant).collect();
    if matches!(to, Position::After(_)) && (shards.is_empty() || meant.len() != 1) {
        bail!("a sequence number is one of a shard; name that one shard, with --shard");
    }
    if meant.is_empty() {
        bail!("application `{application}` has no leases, so there is nothing to move");
    }
    let all = meant.len();
    let chosen: Vec<&Lease> =
        meant.into_iter().filter(|lease| !(to.leaves_finished() && lease.is_finished())).collect();
    let finished = all - chosen.len();
    Ok((chosen, finished))
}

/// Makes sure that nobody is in the way, and that it is meant.
async fn agree(args: &ResetArgs, store: &dyn LeaseStore, application: &str, question: &str) -> Result<()> {
    if !args.force {
        refuse_while_alive(store, application).await?;
    }
    if !args.yes && !confirm(question)? {
        bail!("not confirmed, so nothing was changed");
    }
    Ok(())
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
         take their leases away all the same with --force"
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

#[cfg(test)]
mod tests {
    use shardwell::Checkpoint;

    use super::*;

    fn lease(stream: Option<&str>, shard: &str, checkpoint: Checkpoint) -> Lease {
        Lease::in_stream(stream, shard.into(), checkpoint)
    }

    fn keys(leases: &[Lease], shards: &[&str], to: &str) -> Result<(Vec<String>, usize)> {
        let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
        let (chosen, finished) = chosen(leases, &shards, to.parse().expect("a position"), "delays")?;
        Ok((chosen.into_iter().map(|lease| lease.key.to_string()).collect(), finished))
    }

    #[test]
    fn all_leases_are_meant_or_those_of_the_named_shards() {
        let leases = [
            lease(None, "a", Checkpoint::ShardEnd),
            lease(None, "b", Checkpoint::TrimHorizon),
            lease(None, "c", Checkpoint::Latest),
        ];
        let of = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(keys(&leases, &[], "TRIM_HORIZON").expect("all"), (of(&["a", "b", "c"]), 0));
        assert_eq!(keys(&leases, &[], "LATEST").expect("what goes on"), (of(&["b", "c"]), 1));
        assert_eq!(keys(&leases, &["c", "a"], "TRIM_HORIZON").expect("those"), (of(&["a", "c"]), 0));
        assert_eq!(keys(&leases, &["b"], "4711").expect("that"), (of(&["b"]), 0));
        for (shards, to) in [(&["d"][..], "LATEST"), (&[], "4711"), (&["a", "b"], "4711")] {
            assert!(keys(&leases, shards, to).is_err(), "{shards:?} to {to}");
        }
        assert!(keys(&[], &[], "LATEST").is_err());
    }

    #[test]
    fn a_shard_of_one_of_several_streams_is_named_by_its_lease() {
        let (one, other) = ("1:flights:2", "1:trains:2");
        let leases = [lease(Some(one), "a", Checkpoint::Latest), lease(Some(other), "a", Checkpoint::Latest)];
        let error = keys(&leases, &["a"], "TRIM_HORIZON").expect_err("which?").to_string();
        assert!(error.contains("STREAM:SHARD"), "{error}");
        let key = leases[1].key.to_string();
        assert_eq!(keys(&leases, &[&key], "TRIM_HORIZON").expect("that one"), (vec![key], 0));
    }
}
