//! Amazon Kinesis and DynamoDB behind the seams of shardwell.
//!
//! | feature | what |
//! |---|---|
//! | `dynamodb` (default) | [`DynamoLeaseStore`]: [`LeaseStore`](shardwell_core::LeaseStore) on the table of the Java KCL 3.5; [`sink`]: idempotent writes from a processor |
//! | `kinesis` (default) | [`KinesisStream`]: [`Stream`](shardwell_core::Stream) by polling and [`StreamWriter`](shardwell_core::StreamWriter) |
//!
//! This is the only crate of the project that names the AWS SDK, and the only one whose public API shows its types:
//! a stream is made from a client that the caller has configured, with the caller's credentials, region and endpoint.
//!
//! ```no_run
//! # fn demo(config: aws_sdk_kinesis::Config) {
//! let client = aws_sdk_kinesis::Client::from_conf(config);
//! let by_name = shardwell_aws::KinesisStream::new(&client, "flights");
//! let by_arn = shardwell_aws::KinesisStream::new(&client, "arn:aws:kinesis:eu-west-1:111122223333:stream/flights");
//! # }
//! ```

#![warn(missing_docs)]

mod clients;
#[cfg(feature = "dynamodb")]
mod dynamodb;
mod failure;
#[cfg(feature = "kinesis")]
mod kinesis;
#[cfg(test)]
mod scripted;

#[cfg(feature = "dynamodb")]
pub use aws_sdk_dynamodb;
#[cfg(feature = "kinesis")]
pub use aws_sdk_kinesis;
#[cfg(feature = "dynamodb")]
pub use dynamodb::sink;
#[cfg(feature = "dynamodb")]
pub use dynamodb::{Billing, CONSUMED_HALF_UNITS, DynamoLeaseStore, DynamoTimeouts, TableSettings};
#[cfg(feature = "kinesis")]
pub use kinesis::{KinesisStream, KinesisTimeouts, StreamRef};
