//! `local-dynamodb [--port N]`: a DynamoDB engine in memory, for whoever wants to try things without an account.

use anyhow::Result;
use clap::Parser;
use shardwell_integration_dynamodb::Engine;

/// A DynamoDB engine in memory, on loopback. Everything is gone when it ends.
#[derive(Parser)]
struct Cli {
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let engine = Engine::start_on(cli.port).await?;
    println!("{}", engine.endpoint());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
