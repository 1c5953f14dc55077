//! Helper processes that do something to others for as long as the test wants it, and undo it when they are told or left alone.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::lease_table::LeaseTable;

/// A process that says a word when it has done its part, and undoes it when its standard input ends: when this is dropped, or
/// the test is killed.
struct Helper(Child);

/// A process that is stopped, until this is dropped.
pub(crate) struct Pause {
    _helper: Helper,
}

/// The write lock of a lease table, held from outside until this is dropped.
pub(crate) struct WriteLock {
    _helper: Helper,
}

/// A process that stayed stopped would never notice that its test is gone, so nothing keeps the helper from letting it go on.
/// That the signal is sent does not mean that every thread has stopped; Linux tells of each.
const STOP: &str = r#"
    trap "" HUP INT TERM
    kill -STOP "$1" || exit
    while grep -hs "^State:" "/proc/$1"/task/*/status | grep -qv "(stopped)"; do :; done
    echo stopped
    read -r _
    kill -CONT "$1" 2>/dev/null
"#;

impl Pause {
    /// Stops a process wherever it is.
    pub(crate) fn anywhere(process: u32) -> Self {
        let mut helper = Command::new("sh");
        helper.args(["-c", STOP, "sh", &process.to_string()]);
        Self { _helper: Helper::start(helper, "stopped") }
    }

    /// Stops a process in the middle of a long write to the lease table.
    pub(crate) fn inside_write(process: u32, table: &LeaseTable) -> Self {
        let mut helper = python("stop_inside_write.py");
        helper.arg(table.path()).arg(process.to_string());
        Self { _helper: Helper::start(helper, "stopped") }
    }
}

impl WriteLock {
    /// Takes the lock as soon as it is free.
    pub(crate) fn take(table: &LeaseTable) -> Self {
        let mut helper = python("hold_write_lock.py");
        helper.arg(table.path());
        Self { _helper: Helper::start(helper, "held") }
    }
}

/// Runs one of the scripts of these tests.
pub(super) fn python(script: &str) -> Command {
    let scripts = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/workers"));
    let script: PathBuf = scripts.join(script);
    let mut command = Command::new("python3");
    command.arg(script);
    command
}

impl Helper {
    fn start(mut helper: Command, word: &str) -> Self {
        let mut child = helper.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a process");
        let stdout = child.stdout.take().expect("a pipe");
        let helper = Self(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("it can be read");
        assert_eq!(line.trim_end(), word, "the helper does its part");
        helper
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // How it ended says nothing that matters: a process that was killed meanwhile cannot go on.
        let _ = self.0.wait();
    }
}
