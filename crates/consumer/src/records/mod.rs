//! The way of a record.
//!
//! ```text
//!  shard ──► fetch ─────────► deaggregate ──► deliver ────────────────► RecordProcessor::process
//!            (byte budget,    (user records,  (lanes, batches, pool,      │         │ given up
//!             pacing)          filter)         retries)                   ▼ done    ▼
//!  lease ◄────────────────────────────────────────────────────────── watermark  dead letters
//! ```
//!
//! A record moves forward only, through these directories in this order; progress moves back only through the watermark.
//! One [`consume`] runs for each held lease, at [`Place::Pipeline`]; the user's code runs at `Place::Processor`.

mod deaggregate;
mod deliver;
pub(crate) mod fetch;
pub(crate) mod watermark;

use std::sync::{Arc, Mutex};

use metrics::counter;
use shardwell_core::delivery::{Delivery, ResumeState};
use shardwell_core::{Checkpoint, ChildShard, EnvExt, Place};
use tokio::sync::mpsc;
use tracing::{Instrument, error, info_span, warn};

use crate::leases::{self, HeldLease, Stop};
use crate::metrics::SUSPICIONS;
use crate::processor::LaneContext;
use crate::worker::{Shared, WorkerError};
pub(crate) use deaggregate::Filter;
use deliver::{Deliver, Processor};

/// How the consumer of a shard ended.
#[derive(Debug)]
pub(crate) enum ConsumerEnd {
    /// Every record of the shard is done.
    ShardEnded { children: Vec<ChildShard> },
    /// It was told to stop, and what was running has finished or was given up.
    Stopped,
    /// The lease is lost.
    LeaseLost,
    /// The worker cannot go on.
    Fatal(WorkerError),
    /// What was stored beside the checkpoint belongs to other records. Nothing was stored since.
    Misled,
}

impl From<Stop> for ConsumerEnd {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Drain { .. } => Self::Stopped,
            Stop::Lost => Self::LeaseLost,
        }
    }
}

/// Consumes a shard for as long as its lease is held.
pub(crate) async fn consume(shared: Arc<Shared>, lease: Arc<HeldLease>) -> ConsumerEnd {
    let span = info_span!("shard", shard = %lease.shard());
    async {
        let mut end = consume_from(&shared, &lease, Trust::Everything).await;
        if matches!(end, ConsumerEnd::Misled) {
            error!(
                "what was stored beside the checkpoint belongs to other records; going on from the checkpoint alone"
            );
            end = consume_from(&shared, &lease, Trust::CheckpointAlone).await;
        }
        if !matches!(end, ConsumerEnd::LeaseLost) {
            lease.progress().stopped_in_order();
        }
        end
    }
    .instrument(span)
    .await
}

/// What of a lease is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Everything,
    CheckpointAlone,
}

async fn consume_from(shared: &Arc<Shared>, lease: &Arc<HeldLease>, trust: Trust) -> ConsumerEnd {
    let context = LaneContext {
        application: shared.application.clone(),
        stream: lease.stream().name(),
        shard: lease.shard().clone(),
        lane: 0,
        redrive: false,
        worker: shared.worker.clone(),
    };
    let stored = lease.progress().wanted();
    let mut processor = Processor::new(shared.clone(), lease.clone(), context.clone());
    let from = match processor.initialize().await {
        Ok(from) => from,
        Err(end) => return end,
    };
    let resume = match trust {
        Trust::Everything if from == stored => lease.progress().stored_resume(),
        Trust::Everything | Trust::CheckpointAlone => lease.progress().stored_resume().without_records(),
    };
    let since = lease.progress().opened_at().filter(|_| from == stored);
    let delivery = match begin(shared, lease, &resume, from).await {
        Ok(delivery) => delivery,
        Err(end) => return end,
    };
    let (send, fetched) = mpsc::unbounded_channel();
    let room = shared.budget.join();
    let fetch = fetch::Fetch::new(shared.clone(), lease.clone(), room.clone(), from, since);
    let fetching = shared.env.spawn(Place::Pipeline, fetch.run(send).in_current_span());
    let deliver = Deliver::new(shared.clone(), lease.clone(), processor, context, delivery, room, fetched);
    deliver.run(fetching).await
}

/// Makes the delivery ready. What the next term must know, if this one dies, is stored before the shard is opened.
async fn begin(
    shared: &Arc<Shared>,
    lease: &Arc<HeldLease>,
    resume: &ResumeState,
    from: Checkpoint,
) -> Result<Arc<Mutex<Delivery>>, ConsumerEnd> {
    let delivery = Delivery::new(shared.settings.delivery.clone(), resume);
    if let Some(crashes) = delivery.suspicion() {
        counter!(SUSPICIONS, &shared.labels(lease)).increment(1);
        warn!(
            starts = crashes.starts,
            records = crashes.zone,
            "processes died over this shard without any progress; its next records are processed in small batches with \
             nothing else beside them, to find the one that kills"
        );
    }
    let delivery = Arc::new(Mutex::new(delivery));
    let opened_at = (from == Checkpoint::Latest).then(|| shared.env.timestamp());
    lease.progress().begin(delivery.clone(), opened_at);
    tokio::select! {
        biased;
        stop = lease.told_to_stop() => Err(stop.into()),
        stored = leases::flush(shared, lease) => stored.map(|()| delivery).map_err(|_| ConsumerEnd::LeaseLost),
    }
}
