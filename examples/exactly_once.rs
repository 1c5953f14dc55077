//! Exactly once into DynamoDB: where each aircraft is and how many flights each carrier had, in one transaction with how far the shard is
//! done, by a consumer that is killed and started again in the middle. Then the tables are compared with the file.
//!
//! ```sh
//! integration/run example exactly_once
//! ```
//!
//! starts a DynamoDB engine on this machine and this program. With an engine of your own:
//!
//! ```sh
//! cargo run --release --example exactly_once -- --dynamodb http://127.0.0.1:8000
//! ```
//!
//! Unlike in `idempotent_upsert`, a carrier is one item, whichever shard a flight came from: a transaction either happens with its
//! position, or not at all, so nothing has to be told apart later.

use anyhow::Result;
use clap::Parser;
use shardwell::aws::sink::{ExactlyOnce, Step};
use shardwell::{
    Batch, Checkpoint, LaneContext, Outcome, ProcessError, ProcessResultExt, RecordProcessor, Start, UserRecord,
    Worker, async_trait, idempotent,
};
use shardwell_examples::dynamodb::story::{self, Arguments, Consumer, tell_batch, text};
use shardwell_examples::dynamodb::tables::{AIRPORT, FLIGHTS, ID, Tables};
use shardwell_examples::flights::{Flight, readable};

/// The consumer.
struct Airfield {
    lane: LaneContext,
    tables: Tables,
    once: Option<ExactlyOnce>,
}

impl Airfield {
    fn step(&self, record: &UserRecord, flight: &Flight<'_>) -> Step {
        let step = Step::new(record).add(&self.tables.carriers, [(ID, text(&*flight.carrier))], FLIGHTS, 1);
        match flight.tail() {
            Some(tail) => step.put(&self.tables.planes, [(ID, text(tail)), (AIRPORT, text(&*flight.dest))]),
            None => step,
        }
    }
}

#[async_trait]
impl RecordProcessor for Airfield {
    /// The position that the transactions left wins over the checkpoint in the lease.
    async fn initialize(&mut self, _: &Start) -> Result<Option<Checkpoint>, ProcessError> {
        let LaneContext { application, stream, shard, lane, .. } = &self.lane;
        let name = format!("{application}/{stream}/{shard}");
        let once = ExactlyOnce::open(self.tables.positions.clone(), name, *lane).await.transient()?;
        let position = once.position().map(Checkpoint::At);
        self.once = Some(once);
        Ok(position)
    }

    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        tell_batch(batch.records().len());
        let (flights, all_read) = readable(batch);
        let steps = flights.iter().map(|(record, flight)| self.step(record, flight)).collect();
        let once = self.once.as_mut().ok_or("not initialized")?;
        let report =
            if self.lane.redrive { once.redriven_batch(steps).await } else { once.transactional_batch(steps).await };
        let outcome = idempotent::outcome(batch, [&report])?;
        all_read.map(|()| outcome)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(Consumer { application, stream, leases, tables }) = arguments.consumer().await? else {
        return story::tell_it(&arguments).await;
    };
    let processors = move |lane: &LaneContext| Airfield { lane: lane.clone(), tables: tables.clone(), once: None };
    Consumer::run(Worker::builder(application, stream, leases, processors)).await
}
