//! The way to a stream, from arguments and the variables that every AWS tool knows.

use anyhow::{Context, Result, bail};
use clap::Args;
use shardwell::aws::KinesisStream;
use shardwell::aws::aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use shardwell::aws::aws_sdk_kinesis::{Client, Config};

#[derive(Args, Debug)]
#[command(next_help_heading = "The way to --into-stream")]
pub(super) struct ConnectionArgs {
    /// Where the service is, such as http://127.0.0.1:4567 for a local engine [default: AWS_ENDPOINT_URL_KINESIS,
    /// AWS_ENDPOINT_URL, else the service itself]
    #[arg(long, value_name = "URL", requires = "into_stream")]
    endpoint: Option<String>,
    /// The region of the stream [default: that of its ARN, AWS_REGION, AWS_DEFAULT_REGION]
    ///
    /// Credentials are those of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN. For those of a profile:
    /// eval "$(aws configure export-credentials --format env)"
    #[arg(long, requires = "into_stream")]
    region: Option<String>,
}

/// What is needed to reach a stream.
#[derive(Debug)]
struct Connection {
    region: String,
    endpoint: Option<String>,
    credentials: Credentials,
}

impl ConnectionArgs {
    /// The stream, of which nothing is known yet: no request is made.
    pub(super) fn stream(&self, stream: &str) -> Result<KinesisStream> {
        let connection = self.resolve(stream, |name| std::env::var(name).ok())?;
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(connection.region))
            .credentials_provider(connection.credentials);
        config.set_endpoint_url(connection.endpoint);
        Ok(KinesisStream::new(&Client::from_conf(config.build()), stream))
    }

    fn resolve(&self, stream: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Connection> {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        let of_arn = stream.starts_with("arn:").then(|| stream.split(':').nth(3)).flatten().map(str::to_owned);
        let region = self.region.clone().or(of_arn).or_else(|| first(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let region = region.context("the region of the stream is not known; say --region, or set AWS_REGION")?;
        let endpoint = self.endpoint.clone().or_else(|| first(&["AWS_ENDPOINT_URL_KINESIS", "AWS_ENDPOINT_URL"]));
        let (Some(key), Some(secret)) = (first(&["AWS_ACCESS_KEY_ID"]), first(&["AWS_SECRET_ACCESS_KEY"])) else {
            bail!(
                "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (any values for a local \
                 engine), for a profile with eval \"$(aws configure export-credentials --format env)\""
            )
        };
        let credentials = Credentials::new(key, secret, first(&["AWS_SESSION_TOKEN"]), None, "environment");
        Ok(Connection { region, endpoint, credentials })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &ConnectionArgs, stream: &str, variables: &[(&str, &str)]) -> Result<Connection> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        args.resolve(stream, find)
    }

    const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    const NONE: ConnectionArgs = ConnectionArgs { endpoint: None, region: None };

    #[test]
    fn arguments_come_before_arns_and_arns_before_variables() {
        let args = ConnectionArgs { region: Some("eu-west-1".to_owned()), endpoint: Some("http://a".to_owned()) };
        let variables = [&KEYS[..], &[("AWS_REGION", "us-east-1"), ("AWS_ENDPOINT_URL", "http://b")]].concat();
        let arn = "arn:aws:kinesis:eu-north-1:111122223333:stream/flights";
        for (args, stream, region, endpoint) in [
            (&args, arn, "eu-west-1", "http://a"),
            (&NONE, arn, "eu-north-1", "http://b"),
            (&NONE, "flights", "us-east-1", "http://b"),
        ] {
            let connection = resolve(args, stream, &variables).expect("all is there");
            assert_eq!((connection.region.as_str(), connection.endpoint.as_deref()), (region, Some(endpoint)));
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = resolve(&NONE, "flights", &KEYS).expect_err("no region").to_string();
        assert!(error.contains("--region"), "{error}");
        let empty = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let error = resolve(&NONE, "flights", &empty).expect_err("no credentials").to_string();
        assert!(error.contains("AWS_ACCESS_KEY_ID"), "{error}");
    }
}
