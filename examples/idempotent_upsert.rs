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
use shardwell::aws::sink::{Accumulator, Delta, IdempotentTable, Version, Write};
use shardwell::{
    Batch, LaneContext, Outcome, ProcessError, RecordProcessor, UserRecord, Worker, async_trait, idempotent,
};
use shardwell_examples::dynamodb::story::{self, Arguments, Consumer, tell_batch, text};
use shardwell_examples::dynamodb::tables::{AIRPORT, FLIGHTS, ID};
use shardwell_examples::flights::{Flight, readable};

/// The consumer.
struct Airfield {
    lane: LaneContext,
    planes: IdempotentTable,
    carriers: Accumulator,
}

#[async_trait]
impl RecordProcessor for Airfield {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        tell_batch(batch.records().len());
        let (flights, all_read) = readable(batch);
        let plane = |(record, flight): &(&UserRecord, Flight<'_>)| {
            let tail = flight.tail()?;
            Some(Write::new(record, [(ID, text(tail)), (AIRPORT, text(&*flight.dest))]))
        };
        let planes = self.planes.upsert_if_newer(flights.iter().filter_map(plane).collect()).await;

        // Last, and only what is written otherwise: a flight that is given up on must not have been counted, for it may come again.
        let is_written =
            |record: &UserRecord| planes.first_failure().is_none_or(|(failed, _)| Version::from(record) < failed);
        let count = |(record, flight): &(&UserRecord, Flight<'_>)| {
            // Flights of a carrier are in every shard, in no order across them: so each shard counts for itself.
            let id = format!("{}#{}", flight.carrier, self.lane.shard);
            Delta::new(record, [(ID, text(id))]).add(FLIGHTS, 1)
        };
        let counts = flights.iter().filter(|(record, _)| is_written(record)).map(count).collect();
        let counts = self.carriers.accumulate(counts, self.lane.redrive).await;

        let outcome = idempotent::outcome(batch, [&planes, &counts])?;
        all_read.map(|()| outcome)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let Some(Consumer { application, stream, leases, tables }) = arguments.consumer().await? else {
        return story::tell_it(&arguments).await;
    };
    // Nothing dies here; but a flight that was given up on, and came again, would be counted by a marker of its own.
    let carriers = Accumulator::marked(tables.carriers.clone(), tables.carriers)?;
    let planes = tables.planes;
    let processors =
        move |lane: &LaneContext| Airfield { lane: lane.clone(), planes: planes.clone(), carriers: carriers.clone() };
    Consumer::run(Worker::builder(application, stream, leases, processors)).await
}
