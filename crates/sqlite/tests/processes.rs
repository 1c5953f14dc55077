//! Many processes on one file: this test binary starts itself again as each of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use futures_util::StreamExt;
use shardwell_core::dead_letter::{DeadLetterArchive, DeadLetterSink, LetterQuery};
use shardwell_core::testing::dead_letters::letter;
use shardwell_core::{
    Assignment, Checkpoint, Created, Lease, LeaseStore, RenewOutcome, Renewal, Seen, ShardId, WorkerId, WriteToken,
};
use shardwell_sqlite::{SqliteDeadLetters, SqliteLeaseStore};

const FILE: &str = "SHARDWELL_TEST_FILE";
const WORKER: &str = "SHARDWELL_TEST_WORKER";
const LEASES: usize = 40;

/// Marks the lines of a child among those of the test harness.
const MARK: &str = "child says: ";

struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts one of the `child_*` functions below.
    fn start(executable: &Path, role: &str, file: &Path, worker: &str, unprivileged: bool) -> Self {
        let mut command = Command::new(executable);
        command.args([role, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(FILE, file).env(WORKER, worker).stdin(Stdio::piped()).stdout(Stdio::piped());
        if unprivileged {
            const NOBODY: u32 = 65534;
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    fn start_self(role: &str, file: &Path, worker: &str) -> Self {
        Self::start(&std::env::current_exe().expect("this test"), role, file, worker, false)
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

    fn go(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"go\n").expect("it listens");
    }

    /// Everything else that it says until its end, which must be a good one.
    fn finish(mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.hear()).collect();
        assert!(self.child.wait().expect("it ends").success(), "{said:?}");
        said
    }
}

fn say(what: &str) {
    println!("{MARK}{what}");
}

fn wait_for_go() {
    say("ready");
    std::io::stdin().read_line(&mut String::new()).expect("a line");
}

fn environment(name: &str) -> String {
    std::env::var(name).expect("set by the parent")
}

async fn renew(store: &SqliteLeaseStore, me: &WorkerId, row: &Lease) -> Lease {
    let (key, token) = (row.key.clone(), WriteToken::new(row.counter));
    let renewal = Renewal { key, counter: row.counter, token, throughput_kbps: None, checkpoint: None };
    let answer = store.renew(me, vec![renewal]).next().await.expect("an answer");
    match answer.outcome {
        RenewOutcome::Renewed(row) => row,
        other => panic!("renewed: {other:?}"),
    }
}

/// Opens the file with all the others, creates what is missing, takes what is free, and renews it.
#[tokio::test]
#[ignore = "run as a process by the tests below"]
async fn child_that_competes() {
    let me = WorkerId::from(environment(WORKER));
    wait_for_go();
    let store = SqliteLeaseStore::open(environment(FILE), "race").await.unwrap_or_else(|e| panic!("opened: {e}"));
    for n in 0..LEASES {
        let lease = Lease::new(ShardId::from(format!("{n}")), Checkpoint::TrimHorizon);
        if store.create_lease(&lease).await.expect("an answer") == Created::New {
            say(&format!("created {}", lease.key));
        }
    }
    for lease in store.leases().await.expect("a listing").leases {
        if lease.owner.is_some() {
            continue;
        }
        if let Some(row) = store.assign(&Assignment::of(&lease, me.clone())).await.expect("an answer").applied() {
            let row = renew(&store, &me, &row).await;
            say(&format!("won {}", row.key));
        }
    }
}

/// Renews one lease for ever, and says each counter after it was answered.
#[tokio::test]
#[ignore = "run as a process by the tests below"]
async fn child_that_renews_for_ever() {
    let me = WorkerId::from(environment(WORKER));
    let store = SqliteLeaseStore::open(environment(FILE), "kill").await.expect("opened");
    let lease = Lease::new("shard".into(), Checkpoint::TrimHorizon);
    store.create_lease(&lease).await.expect("created");
    let lease = store.lease(&lease.key).await.expect("read").expect("there");
    let assignment =
        Assignment { seen: Seen { counter: None, ..Seen::of(&lease) }, ..Assignment::of(&lease, me.clone()) };
    let mut row = store.assign(&assignment).await.expect("an answer").applied().expect("assigned");
    loop {
        row = renew(&store, &me, &row).await;
        say(&row.counter.to_string());
    }
}

/// How many letters a burial of [`child_that_buries_for_ever`] has.
const BURIAL: u64 = 3;

/// Puts letters for ever, and says how many burials were answered.
#[tokio::test]
#[ignore = "run as a process by the tests below"]
async fn child_that_buries_for_ever() {
    let dead_letters = SqliteDeadLetters::open(environment(FILE)).await.expect("opened");
    let begin: u64 = environment(WORKER).parse().expect("a number");
    for n in begin.. {
        let burial: Vec<_> = (n * BURIAL..(n + 1) * BURIAL).map(letter).collect();
        dead_letters.put(&burial).await.expect("put");
        say(&(n + 1).to_string());
    }
}

/// Says why the file cannot be opened.
#[tokio::test]
#[ignore = "run as a process by the tests below"]
async fn child_that_may_not_write() {
    match SqliteLeaseStore::open(environment(FILE), "denied").await {
        Ok(_) => say("opened"),
        Err(error) => say(&format!("{:?}: {error}", error.kind())),
    }
}

#[test]
fn sixteen_processes_start_at_once_on_a_missing_file() {
    for _ in 0..4 {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("leases.db");
        let mut processes: Vec<_> =
            (0..16).map(|i| Process::start_self("child_that_competes", &file, &format!("worker-{i}"))).collect();
        for process in &mut processes {
            assert_eq!(process.hear().as_deref(), Some("ready"));
        }
        assert!(!file.exists());
        processes.iter_mut().for_each(Process::go);
        let mut said: BTreeMap<String, usize> = BTreeMap::new();
        for line in processes.into_iter().flat_map(Process::finish) {
            *said.entry(line).or_default() += 1;
        }
        assert!(said.values().all(|times| *times == 1), "each lease is created and won once: {said:?}");
        assert_eq!(said.len(), 2 * LEASES, "every lease is created and won: {said:?}");
    }
}

#[tokio::test]
async fn a_killed_process_loses_no_answered_write_and_leaves_no_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("leases.db");
    let store = SqliteLeaseStore::new(&file, "kill");
    for round in 1..=5 {
        let mut process = Process::start_self("child_that_renews_for_ever", &file, &format!("worker-{round}"));
        let mut heard = process.hear().expect("it renews");
        for _ in 0..40 * round {
            heard = process.hear().expect("it renews");
        }
        process.child.kill().expect("killed");
        heard = std::iter::from_fn(|| process.hear()).last().unwrap_or(heard);
        process.child.wait().expect("it has ended");
        let answered: u64 = heard.parse().expect("a counter");
        let row = store.lease(&"shard".into()).await.expect("read").expect("there");
        assert!((answered..=answered + 1).contains(&row.counter), "{answered} was answered, {} is stored", row.counter);
        store.assign(&Assignment::of(&row, "next".into())).await.expect("no lock is left").applied().expect("assigned");
    }
}

#[tokio::test]
async fn a_killed_process_loses_no_letter_that_was_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("dead-letters.db");
    let dead_letters = SqliteDeadLetters::open(&file).await.expect("opened");
    let mut answered = 0;
    for round in 1..=4 {
        let mut process = Process::start_self("child_that_buries_for_ever", &file, &answered.to_string());
        let mut heard = process.hear().expect("it puts letters");
        for _ in 0..7 * round {
            heard = process.hear().expect("it puts letters");
        }
        process.child.kill().expect("killed");
        heard = std::iter::from_fn(|| process.hear()).last().unwrap_or(heard);
        process.child.wait().expect("it has ended");
        answered = heard.parse().expect("a number");

        let page = dead_letters.letters(&LetterQuery::default(), None, usize::MAX).await.expect("a page");
        let kept: Vec<_> = page.letters.into_iter().map(|archived| archived.letter).collect();
        let expected: Vec<_> = (0..kept.len() as u64).map(letter).collect();
        assert_eq!(kept, expected, "none is missing");
        let burials = kept.len() as u64 / BURIAL;
        assert_eq!(kept.len() as u64 % BURIAL, 0, "a burial is kept together");
        assert!((answered..=answered + 1).contains(&burials), "{answered} were answered, {burials} are kept");
        dead_letters.put(&[letter(0)]).await.expect("no lock is left");
    }
}

#[test]
fn what_may_not_be_written_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    };
    allow(root, 0o755);
    let executable = root.join("this-test");
    std::fs::copy(std::env::current_exe().expect("this test"), &executable).expect("copied");
    allow(&executable, 0o755);

    let [closed, open] = ["closed", "open"].map(|name| root.join(name));
    for path in [&closed, &open] {
        std::fs::create_dir(path).expect("a directory");
        let file = path.join("leases.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        drop(runtime.block_on(SqliteLeaseStore::open(&file, "denied")).expect("opened by who may"));
        // The thread of the connection closes the file, and then the runtime is of no use any more.
        drop(runtime);
        allow(&file, 0o444);
    }
    allow(&open, 0o777);
    allow(&closed, 0o555);
    // Root may write everything, so it asks nobody.
    let unprivileged = std::fs::write(closed.join("probe"), "").is_ok();
    for (file, advice) in [
        (open.join("leases.db"), "may only be read"),
        (closed.join("leases.db"), "allow this user"),
        (closed.join("absent.db"), "cannot be created"),
    ] {
        let process = Process::start(&executable, "child_that_may_not_write", &file, "", unprivileged);
        let said = process.finish().join("\n");
        assert!(said.starts_with("Denied: ") && said.contains(advice), "{}: {said}", file.display());
    }
    allow(&closed, 0o755);
}
