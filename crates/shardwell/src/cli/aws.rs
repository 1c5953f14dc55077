//! Clients of AWS, configured as those of the AWS command line.

use aws_config::{BehaviorVersion, Region, SdkConfig};
use clap::Args;
use shardwell::aws::aws_sdk_dynamodb::config::Credentials;
use shardwell::aws::{aws_sdk_dynamodb, aws_sdk_kinesis};

/// A stream.
#[derive(Args, Debug)]
pub(super) struct StreamArgs {
    /// The name of the stream, or its ARN
    #[arg(long = "stream", value_name = "NAME")]
    name: String,
    /// Where Kinesis answers, if not at AWS
    ///
    /// Region and credentials are those of the AWS command line. With an endpoint they may be missing: engines on one's own machine ask for
    /// none.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
}

impl StreamArgs {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }
}

/// A client of DynamoDB, at this endpoint if there is one.
pub(super) async fn dynamodb(endpoint: Option<&str>) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&config(endpoint).await)
}

/// A client of Kinesis, at this endpoint if there is one.
pub(super) async fn kinesis(endpoint: Option<&str>) -> aws_sdk_kinesis::Client {
    aws_sdk_kinesis::Client::new(&config(endpoint).await)
}

async fn config(endpoint: Option<&str>) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12());
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
        let is_set = |name: &str| std::env::var_os(name).is_some();
        if !is_set("AWS_ACCESS_KEY_ID") && !is_set("AWS_PROFILE") {
            loader = loader.credentials_provider(Credentials::new("local", "local", None, None, "placeholder"));
        }
        if !is_set("AWS_REGION") && !is_set("AWS_DEFAULT_REGION") && !is_set("AWS_PROFILE") {
            loader = loader.region(Region::from_static("us-east-1"));
        }
    }
    loader.load().await
}
