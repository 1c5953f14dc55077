//! A consumer service for AWS: run as many of these processes as you like; they share the shards of the stream.
//!
//! ```sh
//! cargo run --release --example consumer_service --features real-aws -- flights delays
//! ```
//!
//! consumes the stream `flights` as the application `delays`, whose lease table in DynamoDB has that name and is created if it is not
//! there. Region and credentials come from where the AWS command line takes them. What the credentials must allow, and no more:
//!
//! ```json
//! {
//!   "Version": "2012-10-17",
//!   "Statement": [
//!     {
//!       "Effect": "Allow",
//!       "Action": [
//!         "kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:GetShardIterator", "kinesis:GetRecords"
//!       ],
//!       "Resource": "arn:aws:kinesis:REGION:ACCOUNT:stream/flights"
//!     },
//!     {
//!       "Effect": "Allow",
//!       "Action": [
//!         "dynamodb:CreateTable", "dynamodb:DescribeTable", "dynamodb:UpdateTable", "dynamodb:Scan",
//!         "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"
//!       ],
//!       "Resource": "arn:aws:dynamodb:REGION:ACCOUNT:table/delays"
//!     },
//!     {
//!       "Effect": "Allow",
//!       "Action": "dynamodb:Query",
//!       "Resource": "arn:aws:dynamodb:REGION:ACCOUNT:table/delays/index/LeaseOwnerToLeaseKeyIndex"
//!     },
//!     {
//!       "Effect": "Allow",
//!       "Action": "dynamodb:DescribeTable",
//!       "Resource": "arn:aws:dynamodb:REGION:ACCOUNT:table/delays-CoordinatorState"
//!     }
//!   ]
//! }
//! ```
//!
//! A table that exists already needs no `CreateTable`, and `UpdateTable` only if it lacks the index.

use anyhow::{Context, Result};
use aws_config::BehaviorVersion;
use shardwell::aws::{DynamoLeaseStore, KinesisStream, aws_sdk_dynamodb, aws_sdk_kinesis};
use shardwell::{Batch, Outcome, ProcessError, RecordProcessor, Worker, async_trait};
use shardwell_examples::Stop;

struct Printer;

#[async_trait]
impl RecordProcessor for Printer {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        for record in batch {
            println!("{} {} bytes", record.position, record.data.len());
        }
        Ok(Outcome::Done)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut words = std::env::args().skip(1);
    let (stream, application) = words.next().zip(words.next()).context("say which stream, and which application")?;
    let config = aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await;
    let stream = KinesisStream::new(&aws_sdk_kinesis::Client::new(&config), stream);
    let leases = DynamoLeaseStore::new(&aws_sdk_dynamodb::Client::new(&config), &application);
    let worker = Worker::builder(application, stream, leases, |_| Printer).build()?;
    let mut stop = Stop::install()?;
    worker.run_until(stop.requested()).await.context("the worker stopped")
}
