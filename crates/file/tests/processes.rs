//! Many processes on one file: this test binary starts itself again as each of them.
#![cfg(unix)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use shardwell_core::dead_letter::{DeadLetter, DeadLetterSink};
use shardwell_core::testing::dead_letters::letter;
use shardwell_file::{FileDeadLetters, Problem, read};

const FILE: &str = "SHARDWELL_TEST_FILE";
const BEGIN: &str = "SHARDWELL_TEST_BEGIN";

/// How many letters a burial has.
const BURIAL: u64 = 3;

/// How far the letters of the processes are apart.
const EACH: u64 = 1_000_000;

/// Marks the lines of a child among those of the test harness.
const MARK: &str = "child says: ";

struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(mut command: Command, role: &str, file: &Path, begin: u64) -> Self {
        command.args([role, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(FILE, file).env(BEGIN, begin.to_string()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn start_self(role: &str, file: &Path, begin: u64) -> Self {
        Self::start(Command::new(std::env::current_exe().expect("this test")), role, file, begin)
    }

    /// The next thing that it says, or nothing when it has ended.
    fn hear(&mut self) -> Option<String> {
        loop {
            let line = self.lines.next()?.ok()?;
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.to_owned());
            }
        }
    }
}

fn say(what: impl std::fmt::Display) {
    println!("{MARK}{what}");
}

fn environment(name: &str) -> String {
    std::env::var(name).expect("set by the parent")
}

fn burial(n: u64) -> Vec<DeadLetter> {
    (n * BURIAL..(n + 1) * BURIAL).map(letter).collect()
}

/// Puts letters for ever, and says which burials were answered.
#[tokio::test]
#[ignore = "run as a process by the tests below"]
async fn child_that_buries_for_ever() {
    let sink = FileDeadLetters::new(environment(FILE));
    let begin: u64 = environment(BEGIN).parse().expect("a number");
    for n in begin.. {
        sink.put(&burial(n)).await.expect("put");
        say(n);
    }
}

/// Puts a small letter, a large one, and a small one.
#[tokio::test]
#[ignore = "run as a process by the tests below"]
async fn child_without_much_room() {
    let sink = FileDeadLetters::new(environment(FILE));
    let mut large = letter(1);
    large.record.data = vec![7; 1 << 20].into();
    for letter in [letter(0), large, letter(2)] {
        match sink.put(&[letter]).await {
            Ok(()) => say("put"),
            Err(error) => say(format!("{:?}: {error}", error.kind())),
        }
    }
}

#[test]
fn killed_processes_lose_no_letter_that_was_answered_and_spoil_none_of_the_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dead-letters.ndjson");
    let mut answered = Vec::new();
    for round in 0..4u64 {
        let mut processes: Vec<_> = (0..4u64)
            .map(|i| Process::start_self("child_that_buries_for_ever", &file, (round * 4 + i) * EACH))
            .collect();
        for process in &mut processes {
            for _ in 0..10 {
                answered.push(process.hear().expect("it puts letters"));
            }
        }
        // One after the other, while the rest goes on.
        for mut process in processes {
            process.child.kill().expect("killed");
            answered.extend(std::iter::from_fn(|| process.hear()));
            process.child.wait().expect("it has ended");
        }
    }
    let mut kept = std::collections::BTreeMap::new();
    for line in read(&file).expect("opened") {
        match line {
            Ok(line) => drop(kept.insert(line.letter.id(), line.letter)),
            Err(bad) => assert!(matches!(bad.problem, Problem::Torn | Problem::Letter(_)), "{bad}"),
        }
    }
    for burial in answered.iter().map(|n| burial(n.parse().expect("a number"))) {
        for letter in burial {
            assert_eq!(kept.get(&letter.id()), Some(&letter), "what was answered is there");
        }
    }
}

/// The system writes what still fits, and then no more.
#[test]
fn what_does_not_fit_leaves_no_trace() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dead-letters.ndjson");
    let mut command = Command::new("sh");
    // In units of 512 bytes or of 1 KiB, depending on the shell. Without the trap the system would end the process.
    command.args(["-c", "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\""]).arg(std::env::current_exe().expect("this"));
    let mut process = Process::start(command, "child_without_much_room", &file, 0);
    let said: Vec<_> = std::iter::from_fn(|| process.hear()).collect();
    assert!(process.child.wait().expect("it ends").success(), "{said:?}");
    assert!(matches!(&said[..], [a, _, c] if a == "put" && c == "put"), "{said:?}");
    assert!(said[1].starts_with("Unavailable: ") && said[1].contains("as large as it may become"), "{said:?}");
    let lines: Vec<_> = read(&file).expect("opened").map(|line| line.expect("whole").letter).collect();
    assert_eq!(lines, [letter(0), letter(2)]);
}
