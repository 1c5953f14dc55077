//! A consuming process.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use shardwell_core::Monotonic;
use shardwell_integration::{Event, EventKind, EventLog};

const SIGKILL: i32 = 9;

/// The program `consume`. Killed when dropped.
pub(crate) struct ConsumerProcess {
    pub(crate) started: Monotonic,
    child: Child,
    log: PathBuf,
    errors: PathBuf,
    ended: Option<ExitStatus>,
}

impl ConsumerProcess {
    /// Starts it. It writes `<files>.log`, and its trace to `<files>.err`.
    pub(crate) fn start(started: Monotonic, endpoint: &str, stream: &str, leases: &Path, files: &Path) -> Self {
        let (log, errors) = (files.with_extension("log"), files.with_extension("err"));
        let child = Command::new(env!("CARGO_BIN_EXE_consume"))
            .args([endpoint, stream])
            .args([leases, &log])
            .stdin(Stdio::null())
            .stderr(File::create(&errors).expect("a file"))
            .spawn()
            .expect("a process");
        Self { started, child, log, errors, ended: None }
    }

    /// What it did so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        EventLog::read(&self.log).expect("a log of events")
    }

    pub(crate) fn has_handled_a_record(&mut self) -> bool {
        assert!(!self.has_ended(), "ended by itself: {:?}; {}", self.ended, self.trace());
        self.events().iter().any(|event| matches!(event.kind, EventKind::Record { .. }))
    }

    /// Kills it, and returns when it is dead.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is there to be killed");
        let status = self.child.wait().expect("it ends");
        self.ended = Some(status);
        assert_eq!(status.signal(), Some(SIGKILL), "it ended by itself: {status}; {}", self.trace());
    }

    /// Asks it to stop gracefully.
    pub(crate) fn terminate(&mut self) {
        // The standard library sends no other signal than SIGKILL.
        let kill = format!("kill -TERM {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success(), "the signal is sent");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it can be asked");
        }
        self.ended.is_some()
    }

    pub(crate) fn assert_ended_well(&self) {
        assert!(self.ended.is_some_and(|status| status.success()), "{:?}; {}", self.ended, self.trace());
    }

    /// Asserts that its worker reported no error.
    pub(crate) fn assert_no_error(&self) {
        let trace = self.trace();
        assert!(!trace.contains(" ERROR ") && !trace.contains("panicked"), "{trace}");
    }

    fn trace(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.errors).expect("a file")).into_owned()
    }
}

impl Drop for ConsumerProcess {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself, which is as good here.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
