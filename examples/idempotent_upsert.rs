//! Idempotent writes into DynamoDB: where each aircraft is (the newest flight wins) and how many flights each carrier had (each counted
//! once), by a consumer that is killed and started again in the middle. Then the tables are compared with the file.
//!
//! ```sh
//! integration/run example idempotent_upsert
//! ```
//!
//! starts a DynamoDB engine on this machine and this program. With an engine of your own:
//!
//! ```sh
//! cargo run --release --example idempotent_upsert -- --dynamodb http://127.0.0.1:8000
//! ```

use anyhow::Result;
use clap::Parser;
use shardwell::aws::sink::{Accumulator, Delta, IdempotentTable, Write};
use shardwell::{
    Batch, LaneContext, Outcome, ProcessError, ProcessResultExt, RecordProcessor, Worker, async_trait, idempotent,
};
use shardwell_examples::dynamodb::story::{self, Arguments, Consumer, tell_batch, text};
use shardwell_examples::dynamodb::tables::{AIRPORT, FLIGHTS, ID, Tables};
use shardwell_examples::flights::Flight;

/// The consumer.
struct Airfield {
    lane: LaneContext,
    planes: IdempotentTable,
    carriers: Accumulator,
}

impl Airfield {
    fn new(lane: LaneContext, tables: Tables) -> Self {
        // Nothing dies here; but a flight that was given up on, and came again, would be counted by a marker of its own.
        let carriers = Accumulator::marked(tables.carriers.clone(), tables.carriers);
        Self { lane, planes: tables.planes, carriers }
    }
}

#[async_trait]
impl RecordProcessor for Airfield {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        tell_batch(batch.records().len());
        let (mut planes, mut counts) = (Vec::new(), Vec::new());
        for record in batch {
            let flight = Flight::parse(&record.data).permanent().at(record)?;
            if let Some(tail) = flight.tail() {
                planes.push(Write::new(record, [(ID, text(tail)), (AIRPORT, text(flight.dest))]));
            }
            // Flights of a carrier are in every shard, in no order across them: so each shard counts for itself.
            let id = format!("{}#{}", flight.carrier, self.lane.shard);
            counts.push(Delta::new(record, [(ID, text(id))]).add(FLIGHTS, 1));
        }
        let (planes, counts) =
            tokio::join!(self.planes.upsert_if_newer(planes), self.carriers.accumulate(counts, self.lane.redrive));
        idempotent::outcome(batch, [&planes, &counts])
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(Consumer { application, stream, leases, tables }) = arguments.consumer() else {
        return story::tell_it(&arguments).await;
    };
    let processors = move |lane: &LaneContext| Airfield::new(lane.clone(), tables.clone());
    Consumer::run(Worker::builder(application, stream, leases, processors)).await
}
