//! Processes of their own: an engine that ends with whoever started it, and what a process has used.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shardwell_local::LocalEngine;

/// Serves an engine until its standard input closes; tells on its standard output where. What [`EngineProcess`] starts.
///
/// # Errors
/// Where the system refuses a port.
#[expect(clippy::disallowed_methods, reason = "it waits for its standard input, which blocks")]
pub async fn serve_engine() -> Result<()> {
    let engine = LocalEngine::builder().state_delay(Duration::ZERO).start().await?;
    println!("{}", engine.endpoint());
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    engine.stop().await;
    Ok(())
}

/// This program with the argument `engine`, which is to [serve](serve_engine) one. It ends with the value.
#[derive(Debug)]
pub struct EngineProcess {
    child: Child,
    endpoint: String,
}

impl EngineProcess {
    /// Starts it, and waits until it says where it answers.
    ///
    /// # Errors
    /// Where it cannot be started, or says nothing.
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.arg("engine").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut endpoint = String::new();
        let stdout = child.stdout.take().context("its standard output")?;
        BufReader::new(stdout).read_line(&mut endpoint)?;
        Ok(Self { child, endpoint: endpoint.trim().to_owned() })
    }

    /// Stops it for as long as this lives: it keeps its connections, and answers nothing.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn pause(&self) -> Result<Paused<'_>> {
        signal("-STOP", &self.child)?;
        Ok(Paused(self))
    }

    /// Where it answers.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// An engine that stands still.
#[derive(Debug)]
pub struct Paused<'a>(&'a EngineProcess);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        // If it is gone it need not go on.
        let _ = signal("-CONT", &self.0.child);
    }
}

fn signal(signal: &str, child: &Child) -> Result<()> {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status()?;
    ensure!(sent.success(), "kill {signal} failed");
    Ok(())
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends when its standard input closes; nothing is left to be done if it does not.
        let _ = self.child.wait();
    }
}

/// User and system time of this process so far (Linux, proc(5)).
///
/// # Errors
/// Where there is no `/proc`.
pub fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("fields")?.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // The unit that Linux shows to programs, whatever the kernel's own.
    Ok(ticks as f64 / 100.0)
}

/// The most memory that this process had at a time, in MiB (Linux, proc(5)).
///
/// # Errors
/// Where there is no `/proc`.
pub fn peak_rss_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("VmHWM")?;
    let kib: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kib / 1024.0)
}
