//! What the examples that write into DynamoDB share.

pub mod story;
pub mod tables;
