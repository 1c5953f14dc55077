//! Clients of AWS, configured as those of the AWS command line.

use aws_config::{BehaviorVersion, Region};
use shardwell::aws::aws_sdk_dynamodb::Client;
use shardwell::aws::aws_sdk_dynamodb::config::Credentials;

/// A client of DynamoDB, at this endpoint if there is one.
pub(super) async fn dynamodb(endpoint: Option<&str>) -> Client {
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
    Client::new(&loader.load().await)
}
