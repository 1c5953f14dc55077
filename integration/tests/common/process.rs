//! A consuming process.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use shardwell_core::Monotonic;
use shardwell_integration::{Event, EventKind, LogTail};

pub(crate) const SIGKILL: i32 = 9;

/// A service that writes an event log. Killed when dropped.
pub(crate) struct ServiceProcess {
    pub(crate) started: Monotonic,
    child: Child,
    log: LogTail,
    events: Vec<Event>,
    errors: PathBuf,
    ended: Option<ExitStatus>,
}

impl ServiceProcess {
    /// Starts it. It is one that writes `<files>.log`; its trace goes to `<files>.err`.
    pub(crate) fn start(started: Monotonic, mut command: Command, files: &Path) -> Self {
        let errors = files.with_extension("err");
        // The service ends when this end of the pipe is gone: nothing stays behind when a test is killed.
        let child =
            command.stdin(Stdio::piped()).stderr(File::create(&errors).expect("a file")).spawn().expect("a process");
        let log = LogTail::new(files.with_extension("log"));
        Self { started, child, log, events: Vec::new(), errors, ended: None }
    }

    /// What it did since the last call.
    pub(crate) fn news(&mut self) -> &[Event] {
        let known = self.events.len();
        self.events.extend(self.log.read().expect("a log of events"));
        &self.events[known..]
    }

    /// All that it did, as far as [`news`](Self::news) has told.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    pub(crate) fn has_handled_a_record(&mut self) -> bool {
        assert!(self.ended().is_none(), "ended by itself: {:?}; {}", self.ended, self.trace());
        self.news();
        self.events.iter().any(|event| matches!(event.kind, EventKind::Record { .. }))
    }

    /// Kills it, and returns when it is dead. What it died of is another signal if that was faster.
    pub(crate) fn kill(&mut self) -> Option<i32> {
        self.child.kill().expect("it is there to be killed");
        let status = self.child.wait().expect("it ends");
        self.ended = Some(status);
        status.signal()
    }

    /// The number that the system knows it by.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop gracefully.
    pub(crate) fn terminate(&mut self) {
        // The standard library sends no other signal than SIGKILL.
        let kill = format!("kill -TERM {}", self.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
        assert!(status.success(), "the signal is sent");
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it can be asked");
        }
        self.ended
    }

    pub(crate) fn assert_ended_well(&self) {
        assert!(self.ended.is_some_and(|status| status.success()), "{:?}; {}", self.ended, self.trace());
    }

    /// What it wrote to its standard error.
    pub(crate) fn trace(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.errors).expect("a file")).into_owned()
    }
}

impl Drop for ServiceProcess {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself, which is as good here.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
