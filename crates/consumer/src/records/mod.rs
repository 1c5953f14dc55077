//! The way of a record.
//!
//! ```text
//!  shard ──► fetch ─────────► deaggregate ──► deliver ──────────────► RecordProcessor::process
//!            (byte budget,    (user records,  (batch, pool, retry)       │
//!             pacing)          less the done)                            ▼ done
//!  lease ◄───────────────────────────────────────────────────────── watermark
//! ```
//!
//! A record moves forward only, through these directories in this order; progress moves back only through the watermark.
//! One [`consume`] runs for each held lease, at [`Place::Pipeline`]; the user's code runs at `Place::Processor`.

mod deaggregate;
mod deliver;
pub(crate) mod fetch;
pub(crate) mod watermark;

use std::sync::Arc;

use shardwell_core::{ChildShard, EnvExt, Place};
use tokio::sync::mpsc;
use tracing::{Instrument, info_span};

use crate::leases::HeldLease;
use crate::processor::LaneContext;
use crate::worker::{Shared, WorkerError};

pub use deaggregate::OnUndecodable;

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
}

/// Consumes a shard for as long as its lease is held.
pub(crate) async fn consume(shared: Arc<Shared>, lease: Arc<HeldLease>) -> ConsumerEnd {
    let span = info_span!("shard", shard = %lease.shard());
    async {
        let lane = LaneContext {
            application: shared.application.clone(),
            stream: shared.stream.to_string(),
            shard: lease.shard().clone(),
            lane: 0,
            worker: shared.worker.clone(),
        };
        let mut processor = deliver::Processor::new(shared.clone(), lease.clone(), lane);
        let from = match processor.initialize().await {
            Ok(from) => from,
            Err(end) => return end,
        };
        let (send, fetched) = mpsc::unbounded_channel();
        let room = shared.budget.join();
        let fetch = fetch::Fetch::new(shared.clone(), lease.clone(), room.clone(), from);
        let fetching = shared.env.spawn(Place::Pipeline, fetch.run(send).in_current_span());
        deliver::Deliver::new(shared.clone(), lease.clone(), processor, room, fetched).run(fetching).await
    }
    .instrument(span)
    .await
}
