//! Dead letters that somebody asked to be tried again: given out by the archive, handed to a processor of their own, one
//! record at a time and in the order of their keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use shardwell_core::dead_letter::{ArchivedLetter, Claim, Resolution, SinkError};
use shardwell_core::{Checkpoint, PartitionKey, ShardId, delivery};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::causes::{causes, with_causes};
use crate::host::{Host, Limit, Reason};
use crate::metrics::REDRIVEN;
use crate::processor::{LaneContext, Outcome, Start};
use crate::worker::{Phase, Shared};
use crate::{Batch, Checkpointer};

/// How many letters are tried before others get a turn.
const LETTERS_AT_ONCE: usize = 10;
/// How long letters are ours. Longer than trying them should take; as long as a letter over which the process dies waits
/// for its next try.
const CLAIM_TIME: Duration = Duration::from_secs(300);

/// Tries letters for as long as the worker runs. Ends at once where letters cannot be read back, and at a stop once the
/// letters at hand are resolved.
pub(crate) async fn run(shared: Arc<Shared>) {
    if shared.dead_letters.archive().is_none() {
        return;
    }
    let mut phase = shared.phase.watch();
    let mut again_at = shared.env.now();
    loop {
        tokio::select! {
            biased;
            _ = phase.until(|phase| *phase != Phase::Running) => return,
            () = shared.env.sleep_until(again_at) => {}
        }
        again_at = shared.env.now().plus(shared.settings.redrive_interval);
        if *shared.paused.look() {
            continue;
        }
        match redrive_all(&shared).await {
            Ok(true) => again_at = shared.env.now(),
            Ok(false) => {}
            Err(error) => warn!(error = %with_causes(&error), "cannot redrive dead letters; trying again"),
        }
    }
}

/// Tries the letters that wait, some of each stream. Answers whether there may be more.
async fn redrive_all(shared: &Shared) -> Result<bool, SinkError> {
    let mut more = false;
    for stream in shared.streams.consumed() {
        more |= redrive_some(shared, stream.name()).await? >= LETTERS_AT_ONCE;
    }
    Ok(more)
}

/// Tries the letters of a stream that wait, up to a number. Answers how many there were.
async fn redrive_some(shared: &Shared, stream: String) -> Result<usize, SinkError> {
    let Some(archive) = shared.dead_letters.archive() else { return Ok(0) };
    let now = shared.env.timestamp();
    let claim = Claim {
        application: shared.application.clone(),
        stream,
        worker: shared.worker.clone(),
        now,
        until: now.plus(CLAIM_TIME),
        limit: LETTERS_AT_ONCE,
    };
    let letters = archive.claim(&claim).await?;
    let count = letters.len();
    let mut hosts = BTreeMap::new();
    let mut failed_keys = BTreeSet::new();
    for letter in letters {
        let resolution = redrive(shared, &mut hosts, &mut failed_keys, &letter).await;
        report(shared, &letter, &resolution);
        if !archive.resolve(&letter.letter.id(), &shared.worker, &resolution).await? {
            warn!(letter = %letter.letter.id(), "it took too long to try this letter; another worker has it now");
        }
    }
    for host in hosts.values_mut() {
        shut_down(host).await;
    }
    Ok(count)
}

/// Tries one letter.
async fn redrive(
    shared: &Shared,
    hosts: &mut BTreeMap<ShardId, Host>,
    failed_keys: &mut BTreeSet<Option<PartitionKey>>,
    letter: &ArchivedLetter,
) -> Resolution {
    let rounds = shared.settings.delivery.redrive_rounds();
    let key = letter.letter.record.partition_key.clone();
    if letter.rounds > rounds {
        let error = "it was given out again and again and never came back: the process may die of it".to_owned();
        return Resolution::Failed { at: shared.env.timestamp(), error: vec![error], park: true };
    }
    let stopping = *shared.phase.look() != Phase::Running;
    let held_back = key.is_some() && failed_keys.contains(&key);
    if stopping || held_back {
        return Resolution::Released { at: shared.env.timestamp(), requested: stopping };
    }
    let host = hosts.entry(letter.letter.shard.clone()).or_insert_with(|| {
        let lane = LaneContext {
            application: shared.application.clone(),
            stream: letter.letter.stream.clone(),
            shard: letter.letter.shard.clone(),
            lane: letter.letter.lane,
            redrive: true,
            worker: shared.worker.clone(),
        };
        Host::new(shared.env.clone(), shared.factory.clone(), lane)
    });
    let answer = process(shared, host, letter).await;
    let at = shared.env.timestamp();
    match answer {
        Ok(()) => Resolution::Redriven { at },
        Err(error) => {
            failed_keys.insert(key);
            Resolution::Failed { at, error, park: letter.rounds >= rounds }
        }
    }
}

/// Hands the record over by itself. An error is the processor's, with its causes.
async fn process(shared: &Shared, host: &mut Host, letter: &ArchivedLetter) -> Result<(), Vec<String>> {
    let _place = shared.pool.acquire().await.map_err(|closed| vec![closed.to_string()])?;
    initialize(host, letter).await?;
    let cancel = CancellationToken::new();
    let timeout = shared.settings.delivery.processor_timeout();
    let limit = timeout.map(|timeout| Limit { at: shared.env.now().plus(timeout), timeout, cancel: cancel.clone() });
    let records = delivery::Batch::of_one(letter.letter.record.clone());
    let batch = Batch::new(records, host.lane().clone(), letter.rounds, None, cancel, Checkpointer::for_redrive());
    let answer = host
        .call(limit, |mut processor| {
            Box::pin(async move {
                let answer = processor.process(&batch).await;
                (processor, answer)
            })
        })
        .await;
    match answer {
        Ok(Outcome::Done) => Ok(()),
        Ok(Outcome::Failed(failed)) => match failed.first() {
            Some(failure) => Err(causes(failure.error.cause())),
            None => Ok(()),
        },
        Err(reason) => Err(error_of(&reason)),
    }
}

async fn initialize(host: &mut Host, letter: &ArchivedLetter) -> Result<(), Vec<String>> {
    if host.is_made() {
        return Ok(());
    }
    let checkpoint = Checkpoint::At(letter.letter.record.position);
    let start = Start { lane: host.lane().clone(), checkpoint, pending: None };
    let answer = host
        .call(None, |mut processor| {
            Box::pin(async move {
                let answer = processor.initialize(&start).await;
                (processor, answer)
            })
        })
        .await;
    answer.map(drop).map_err(|reason| error_of(&reason))
}

async fn shut_down(host: &mut Host) {
    if !host.is_made() {
        return;
    }
    let answer = host
        .call(None, |mut processor| {
            Box::pin(async move {
                let answer = processor.shutdown_requested(&Checkpointer::for_redrive()).await;
                (processor, answer)
            })
        })
        .await;
    if let Err(reason) = answer {
        warn!(%reason, "the processor of redriven letters failed to shut down");
    }
}

fn error_of(reason: &Reason) -> Vec<String> {
    match reason {
        Reason::Failed(error) => causes(error.cause()),
        Reason::Panicked(_) | Reason::TimedOut(_) => vec![reason.to_string()],
    }
}

fn report(shared: &Shared, letter: &ArchivedLetter, resolution: &Resolution) {
    let id = letter.letter.id();
    let result = match resolution {
        Resolution::Redriven { .. } => {
            info!(letter = %id, "a dead letter is redriven");
            "redriven"
        }
        Resolution::Failed { error, park: false, .. } => {
            warn!(letter = %id, error = error.join(": "), "a dead letter failed again");
            "failed"
        }
        Resolution::Failed { error, park: true, .. } => {
            error!(letter = %id, error = error.join(": "), "a dead letter failed in every round and is parked");
            "parked"
        }
        Resolution::Released { .. } => return,
    };
    counter!(REDRIVEN, "application" => shared.application.clone(), "result" => result).increment(1);
}
