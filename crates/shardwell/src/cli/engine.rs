//! `shardwell local`: the development engine as a process.

use std::io::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use shardwell::core::memory::kinesis::StreamSettings;
use shardwell::local::LocalEngine;
use shardwell::{EnvExt, SystemEnv};

use super::signals::Stop;

#[derive(Args, Debug)]
pub(super) struct LocalArgs {
    /// The port to listen on; 0 takes any free one
    #[arg(long, default_value_t = 4567)]
    port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// The region that ARNs name; requests signed for any region are answered
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// How long a stream takes to be created, resharded or deleted, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100)]
    state_delay_ms: u64,
    /// A stream to create at the start, such as flights:4; may be given more than once
    #[arg(long = "stream", value_name = "NAME:SHARDS")]
    streams: Vec<NewStream>,
}

/// A stream to create.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NewStream {
    name: String,
    shards: u32,
}

impl FromStr for NewStream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, shards) =
            text.rsplit_once(':').ok_or("give a name and a number of shards, such as flights:4".to_owned())?;
        let shards = shards.parse().map_err(|_| format!("`{shards}` is not a number of shards"))?;
        Ok(Self { name: name.to_owned(), shards })
    }
}

/// Runs the engine until the process is asked to end.
pub(super) async fn run(args: &LocalArgs) -> Result<()> {
    let mut stop = Stop::install()?;
    let delay = Duration::from_millis(args.state_delay_ms);
    let engine = LocalEngine::builder()
        .host(args.host)
        .port(args.port)
        .region(&args.region)
        .state_delay(delay)
        .start()
        .await
        .context("the engine cannot start")?;
    create(&engine, &args.streams)?;
    if !args.streams.is_empty() {
        // Whoever waits for the line below finds the streams active.
        let env = SystemEnv::new().context("the system refuses a thread")?;
        tokio::select! {
            biased;
            stopped = stop.requested() => return stopped,
            () = env.sleep(delay) => {}
        }
    }
    announce(&engine, &args.region).context("cannot say where the engine listens")?;
    stop.requested().await?;
    engine.stop().await;
    eprintln!("Stopped.");
    Ok(())
}

fn create(engine: &LocalEngine, streams: &[NewStream]) -> Result<()> {
    for NewStream { name, shards } in streams {
        let now = engine.now();
        let created = engine.kinesis().lock().create_stream(name, StreamSettings::new(*shards), now);
        created.with_context(|| format!("cannot create the stream `{name}` with {shards} shards"))?;
    }
    Ok(())
}

/// One line on standard output, for scripts that wait for it; the rest is for people.
fn announce(engine: &LocalEngine, region: &str) -> io::Result<()> {
    let endpoint = engine.endpoint();
    let mut output = io::stdout().lock();
    writeln!(output, "Kinesis for development listens on {endpoint}")?;
    output.flush()?;
    eprintln!(
        "
  AWS CLI   aws kinesis list-streams --endpoint-url {endpoint} --region {region}
  AWS SDKs  AWS_ENDPOINT_URL_KINESIS={endpoint} AWS_REGION={region}

Any credentials will do, such as AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local.
Streams are gone when this stops. Ctrl-C stops it."
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_a_name_and_a_number_of_shards() {
        let flights = NewStream { name: "flights".to_owned(), shards: 4 };
        assert_eq!("flights:4".parse(), Ok(flights));
        for wrong in ["flights", "flights:", "flights:four", "flights:-1"] {
            assert!(wrong.parse::<NewStream>().is_err(), "{wrong}");
        }
    }
}
