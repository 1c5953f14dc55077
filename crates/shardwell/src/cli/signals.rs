//! The signals that ask a program to end.

use anyhow::{Context, Result};

/// Ends when the user presses Ctrl-C or the system asks the process to terminate.
///
/// Installed when this is made, so that no signal is missed between that and the first wait.
#[derive(Debug)]
pub(super) struct Stop {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    #[cfg(unix)]
    pub(super) fn install() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| signal(kind).context("the system does not let this process listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    pub(super) async fn requested(&mut self) -> Result<()> {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn install() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    pub(super) async fn requested(&mut self) -> Result<()> {
        tokio::signal::ctrl_c().await.context("the system does not let this process listen for Ctrl-C")
    }
}
