//! The command as a process: what it prints, what it refuses, and what it leaves behind.

#[path = "command/dead_letters.rs"]
mod dead_letters;
#[path = "command/fleet.rs"]
mod fleet;
#[path = "../src/cli/fleet/row.rs"]
mod row;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use shardwell::core::{Assignment, FleetSettings};
use shardwell::sqlite::SqliteLeaseStore;
use shardwell::{Checkpoint, ExtendedSequenceNumber, Lease, LeaseStore, StreamIdentity, Timestamp};

const NUMBER: &str = "49590338271490256608559692538361571095921575989136588898";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardwell"));
    command.args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the command runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", stdout(output), stderr(output));
}

/// A lease table with a split in the middle of its way: application `delays`, and `audit` with nothing but settings.
struct Table {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Table {
    async fn new(lease_duration: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("leases.sqlite");
        let table = Self { directory, path };
        let store = table.store("delays").await;
        for lease in leases() {
            store.create_lease(&lease).await.expect("created");
        }
        store.swap_fleet_settings(None, &FleetSettings::new(lease_duration)).await.expect("written");
        let identity = StreamIdentity {
            name: "flights".to_owned(),
            arn: "arn:aws:kinesis:us-east-1:000000000000:stream/flights".to_owned(),
            created_at: Timestamp::from_millis(1_700_000_000_000),
        };
        store.record_stream_identity(&identity).await.expect("written");
        let other = table.store("audit").await;
        other.swap_fleet_settings(None, &FleetSettings::new(lease_duration)).await.expect("written");
        table
    }

    async fn store(&self, application: &str) -> SqliteLeaseStore {
        SqliteLeaseStore::open(&self.path, application).await.expect("opened")
    }

    async fn assign(&self, worker: &str) {
        let store = self.store("delays").await;
        let lease = store.lease(&"shardId-000000000000".into()).await.expect("read").expect("there");
        store.assign(&Assignment::of(&lease, worker.into())).await.expect("written").applied().expect("as seen");
    }

    async fn lease_count(&self) -> usize {
        self.store("delays").await.leases().await.expect("read").leases.len()
    }

    async fn knows_stream(&self) -> bool {
        self.store("delays").await.stream_identity("flights").await.expect("read").is_some()
    }

    fn file(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        contents(self.directory.path())
    }
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("read")))
        .collect()
}

fn leases() -> [Lease; 2] {
    let position = ExtendedSequenceNumber::new(NUMBER.parse().expect("digits"), 3);
    let mut parent = Lease::new("shardId-000000000000".into(), Checkpoint::At(position));
    parent.children = ["shardId-000000000001".into(), "shardId-000000000002".into()].into();
    let mut child = Lease::new("shardId-000000000001".into(), Checkpoint::TrimHorizon);
    child.parents = ["shardId-000000000000".into()].into();
    [parent, child]
}

#[test]
fn help_names_the_commands_and_what_they_are_for() {
    let help = run(&["--help"]);
    assert_code(&help, 0);
    for word in ["local", "leases", "fleet", "dead-letters", "--version", "RUST_LOG"] {
        assert!(stdout(&help).contains(word), "{word} is not in\n{}", stdout(&help));
    }
    let leases = stdout(&run(&["leases", "--help"]));
    assert!(leases.contains("list") && leases.contains("reset"), "{leases}");
    let local = stdout(&run(&["local", "--help"]));
    for option in ["--port", "--host", "--region", "--state-delay-ms", "--stream", "4567", "us-east-1"] {
        assert!(local.contains(option), "{option} is not in\n{local}");
    }
    let reset = stdout(&run(&["leases", "reset", "--help"]));
    for option in ["--sqlite", "--application", "--yes", "--force"] {
        assert!(reset.contains(option), "{option} is not in\n{reset}");
    }
}

#[test]
fn arguments_that_make_no_sense_end_with_code_2() {
    for arguments in [&["leases", "list"][..], &["local", "--port", "70000"], &["local", "--stream", "x"], &["x"], &[]]
    {
        assert_code(&run(arguments), 2);
    }
}

#[tokio::test]
async fn a_list_shows_every_lease_of_every_application() {
    let table = Table::new(Duration::from_secs(10)).await;
    table.assign("worker-1").await;
    let list = run(&["leases", "list", "--sqlite", table.file()]);
    assert_code(&list, 0);
    let text = stdout(&list);
    for part in
        ["audit: no leases", "delays: 2 leases", "worker-1", "waiting for parents", "49590338...", "TRIM_HORIZON"]
    {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains(NUMBER));
    let full = run(&["leases", "list", "--sqlite", table.file(), "--application", "delays", "--full"]);
    assert!(stdout(&full).contains(&format!("{NUMBER}/3")), "{}", stdout(&full));
    assert!(!stdout(&full).contains("audit"));
}

#[tokio::test]
async fn json_has_everything_in_full() {
    let table = Table::new(Duration::from_secs(10)).await;
    table.assign("worker-1").await;
    let list = run(&["leases", "list", "--sqlite", table.file(), "--application", "delays", "--json"]);
    assert_code(&list, 0);
    let value: serde_json::Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let application = &value[0];
    assert_eq!(application["application"], "delays");
    assert_eq!(application["lease_duration_ms"], 10_000);
    assert_eq!(application["unreadable"], serde_json::json!([]));
    let lease = &application["leases"][0];
    assert_eq!(lease["shard"], "shardId-000000000000");
    assert_eq!(lease["state"], "owned");
    assert_eq!(lease["owner"], "worker-1");
    assert_eq!(lease["counter"], 1);
    assert_eq!(lease["checkpoint"]["sequence_number"], NUMBER);
    assert_eq!(lease["checkpoint"]["sub_sequence_number"], 3);
    assert_eq!(lease["children"], serde_json::json!(["shardId-000000000001", "shardId-000000000002"]));
    assert_eq!(application["leases"][1]["parents"], serde_json::json!(["shardId-000000000000"]));
}

#[tokio::test]
async fn a_list_neither_creates_nor_changes_a_file() {
    let table = Table::new(Duration::from_secs(10)).await;
    // Held open, as by a worker: what SQLite keeps beside the file stays.
    let worker = table.store("delays").await;
    worker.leases().await.expect("read");
    let before = table.files();
    assert_code(&run(&["leases", "list", "--sqlite", table.file()]), 0);
    let database = |files: &BTreeMap<String, Vec<u8>>| {
        files
            .iter()
            .filter(|(name, _)| !name.ends_with("-shm"))
            .map(|(n, b)| (n.clone(), b.clone()))
            .collect::<Vec<_>>()
    };
    assert!(database(&before) == database(&table.files()), "a file changed");

    // Nobody has it open: SQLite may put its log beside the file, and leaves the file itself alone.
    drop(worker);
    let before = std::fs::read(&table.path).expect("read");
    assert_code(&run(&["leases", "list", "--sqlite", table.file()]), 0);
    assert!(before == std::fs::read(&table.path).expect("read"), "the file changed");

    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing.sqlite");
    let list = run(&["leases", "list", "--sqlite", missing.to_str().expect("UTF-8")]);
    assert_code(&list, 1);
    assert!(stderr(&list).starts_with("error: "), "{}", stderr(&list));
    assert!(stderr(&list).contains("missing.sqlite"), "{}", stderr(&list));
    assert_eq!(contents(directory.path()).len(), 0);
}

#[tokio::test]
async fn an_unknown_application_is_an_error_that_names_the_known() {
    let table = Table::new(Duration::from_secs(10)).await;
    for verb in [&["list"][..], &["reset", "--yes"]] {
        let mut arguments = vec!["leases"];
        arguments.extend(verb);
        arguments.extend(["--sqlite", table.file(), "--application", "delay"]);
        let output = run(&arguments);
        assert_code(&output, 1);
        assert!(stderr(&output).contains("audit, delays"), "{}", stderr(&output));
    }
}

fn reset_arguments<'a>(table: &'a Table, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["leases", "reset", "--sqlite", table.file()];
    arguments.extend(["--application", "delays"]);
    arguments.extend(more);
    arguments
}

#[tokio::test]
async fn a_reset_removes_the_leases_and_the_record_of_the_stream() {
    let table = Table::new(Duration::from_secs(10)).await;
    let reset = run(&reset_arguments(&table, &["--yes"]));
    assert_code(&reset, 0);
    assert!(stdout(&reset).contains("Removed 2 leases"), "{}", stdout(&reset));
    assert_eq!(table.lease_count().await, 0);
    assert!(!table.knows_stream().await);
    let again = run(&reset_arguments(&table, &["--yes"]));
    assert_code(&again, 1);
    assert!(stderr(&again).contains("has no leases"), "{}", stderr(&again));
}

#[tokio::test]
async fn a_reset_to_a_position_moves_checkpoints_and_takes_the_leases_away() {
    let table = Table::new(Duration::from_secs(1)).await;
    table.assign("dead").await;
    let parent = async || {
        let lease = table.store("delays").await.lease(&"shardId-000000000000".into()).await.expect("read");
        lease.expect("there")
    };
    let before = parent().await;
    let moved = run(&reset_arguments(&table, &["--yes", "--to", "latest", "--shard", "shardId-000000000000"]));
    assert_code(&moved, 0);
    assert!(stdout(&moved).contains("Moved 1 lease of application `delays`: it goes on after the newest record."));
    let after = parent().await;
    assert_eq!((after.checkpoint, &after.owner, after.counter), (Checkpoint::Latest, &None, before.counter + 1));
    assert_eq!(after.children, before.children);

    let moved = run(&reset_arguments(&table, &["--yes", "--to", "2013-01-01T05:00:00Z"]));
    assert!(stdout(&moved).contains("Moved 2 leases"), "{}", stdout(&moved));
    let list = stdout(&run(&["leases", "list", "--sqlite", table.file(), "--application", "delays"]));
    assert_eq!(list.matches("from 2013-01-01T05:00:00").count(), 2, "{list}");
    assert!(table.knows_stream().await);

    for wrong in [&["--to", "yesterday"][..], &["--shard", "shardId-000000000000"]] {
        assert_code(&run(&reset_arguments(&table, wrong)), 2);
    }
    let unknown = run(&reset_arguments(&table, &["--yes", "--to", "latest", "--shard", "shardId-9"]));
    assert_code(&unknown, 1);
    assert!(stderr(&unknown).contains("no lease of a shard `shardId-9`"), "{}", stderr(&unknown));
}

#[tokio::test]
async fn where_a_file_holds_several_applications_one_is_to_be_named() {
    let table = Table::new(Duration::from_secs(10)).await;
    let unnamed = run(&["leases", "reset", "--yes", "--sqlite", table.file()]);
    assert_code(&unnamed, 1);
    assert!(stderr(&unnamed).contains("with --application: "), "{}", stderr(&unnamed));
    assert!(stderr(&unnamed).contains("holds audit, delays"), "{}", stderr(&unnamed));
    assert_eq!(table.lease_count().await, 2);
}

#[tokio::test]
async fn a_reset_asks_and_takes_only_a_yes() {
    let table = Table::new(Duration::from_secs(10)).await;
    let unanswered = run(&reset_arguments(&table, &[]));
    assert_code(&unanswered, 1);
    assert!(stderr(&unanswered).contains("Remove 2 leases of application `delays`"), "{}", stderr(&unanswered));
    assert!(stderr(&unanswered).contains("nothing was changed"));
    assert_eq!(table.lease_count().await, 2);

    let mut child = command(&reset_arguments(&table, &[]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    child.stdin.take().expect("piped").write_all(b"yes\n").expect("it listens");
    assert_code(&child.wait_with_output().expect("it ends"), 0);
    assert_eq!(table.lease_count().await, 0);
}

#[tokio::test]
async fn a_reset_goes_on_when_no_owner_has_renewed_for_the_lease_duration() {
    let table = Table::new(Duration::from_secs(1)).await;
    table.assign("dead").await;
    let reset = run(&reset_arguments(&table, &["--yes"]));
    assert_code(&reset, 0);
    assert!(stderr(&reset).contains("1 lease owned by workers; watching for 1s"), "{}", stderr(&reset));
    assert_eq!(table.lease_count().await, 0);
}

#[tokio::test]
async fn a_reset_refuses_while_an_owner_lives_unless_forced() {
    // So long that the watch can only end by a counter that moves.
    let table = Table::new(Duration::from_secs(3600)).await;
    table.assign("living").await;
    let mut reset = command(&reset_arguments(&table, &["--yes"]))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut lines = BufReader::new(reset.stderr.take().expect("piped")).lines();
    let watching = lines.next().expect("a line").expect("text");
    assert!(watching.contains("watching for 3600s"), "{watching}");
    // Every assignment raises the counter, as a renewal does.
    table.assign("living").await;
    let refusal = lines.next().expect("a line").expect("text");
    assert!(refusal.contains("worker living of application `delays` is alive"), "{refusal}");
    assert_eq!(reset.wait().expect("it ends").code(), Some(1));
    assert_eq!(table.lease_count().await, 2);

    assert_code(&run(&reset_arguments(&table, &["--yes", "--force"])), 0);
    assert_eq!(table.lease_count().await, 0);
}

/// A running `shardwell local`, killed when a test is done with it.
struct Local {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
}

impl Local {
    fn start(arguments: &[&str]) -> Self {
        let mut child = command(&["local", "--port", "0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("text");
        let address = line.trim_end().rsplit_once("http://").map(|(_, address)| address.to_owned());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        Self { child, stdout, address }
    }

    fn call(&self, operation: &str, body: &str) -> String {
        let mut connection = TcpStream::connect(&self.address).expect("it listens");
        let length = body.len();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nX-Amz-Target: Kinesis_20131202.{operation}\r\n\
             Content-Type: application/x-amz-json-1.1\r\nContent-Length: {length}\r\n\r\n{body}",
            self.address
        );
        connection.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        // Fails where the process has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn local_serves_the_streams_that_it_was_told_to_create() {
    let local = Local::start(&["--stream", "flights:3", "--stream", "audit:1", "--region", "eu-west-1"]);
    assert!(local.address.starts_with("127.0.0.1:"), "{}", local.address);
    let answer = local.call("DescribeStreamSummary", r#"{"StreamName":"flights"}"#);
    for part in ["200 OK", r#""StreamStatus":"ACTIVE""#, r#""OpenShardCount":3"#, "arn:aws:kinesis:eu-west-1:"] {
        assert!(answer.contains(part), "{part} is not in\n{answer}");
    }
    assert!(local.call("ListStreams", "{}").contains("audit"));
}

#[cfg(unix)]
#[test]
fn local_ends_cleanly_at_either_signal_and_frees_its_port() {
    for signal in ["-TERM", "-INT"] {
        let mut local = Local::start(&[]);
        let sent = Command::new("kill").args([signal, &local.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let status = local.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{signal}");
        let mut rest = String::new();
        local.stdout.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "", "one line on standard output");
        let mut said = String::new();
        local.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        for part in ["--endpoint-url", "AWS_ENDPOINT_URL_KINESIS", "credentials", "Stopped."] {
            assert!(said.contains(part), "{part} is not in\n{said}");
        }
        TcpListener::bind(&local.address).expect("the port is free");
    }
}

#[test]
fn local_says_when_its_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let output = run(&["local", "--port", &port]);
    assert_code(&output, 1);
    assert!(stderr(&output).contains(&format!("port {port} on 127.0.0.1 is taken")), "{}", stderr(&output));
    assert_eq!(stdout(&output), "");
}

#[test]
fn local_refuses_a_stream_that_cannot_be() {
    let output = run(&["local", "--port", "0", "--stream", "flights:0"]);
    assert_code(&output, 1);
    assert!(stderr(&output).contains("`flights` with 0 shards"), "{}", stderr(&output));
}

fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("piped");
    // Small enough for the pipe, so nobody waits for anybody.
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

#[test]
fn records_can_be_aggregated_and_taken_apart_again() {
    let user_records = "{\"data\":\"YQ==\",\"partition_key\":\"k1\"}\n\
                        {\"data\":\"Yg==\",\"partition_key\":\"k2\",\"explicit_hash_key\":\"7\"}\n";
    let encoded = run_with_input(&["records", "encode"], user_records);
    assert_code(&encoded, 0);
    assert_eq!(stdout(&encoded).lines().count(), 1);
    assert!(stdout(&encoded).contains("\"partition_key\":\"a\""), "{}", stdout(&encoded));
    for how in [&["records", "decode"][..], &["records", "decode", "--kcl"]] {
        let decoded = run_with_input(how, &stdout(&encoded));
        assert_code(&decoded, 0);
        let expected = "{\"data\":\"YQ==\",\"partition_key\":\"k1\",\"explicit_hash_key\":null,\
                        \"sub_sequence_number\":0,\"classification\":\"aggregated\"}\n\
                        {\"data\":\"Yg==\",\"partition_key\":\"k2\",\"explicit_hash_key\":\"7\",\
                        \"sub_sequence_number\":1,\"classification\":\"aggregated\"}\n";
        assert_eq!(stdout(&decoded), expected);
    }
}

#[test]
fn a_malformed_line_sets_the_exit_code_and_the_others_are_done() {
    let decoded = run_with_input(&["records", "decode"], "{\"data\":\"YQ==\"}\nnonsense\n{\"data\":\"Yg==\"}\n");
    assert_code(&decoded, 1);
    assert_eq!(stdout(&decoded).lines().count(), 2);
    assert!(stderr(&decoded).contains("line 2: not a record"), "{}", stderr(&decoded));
    let unkeyed = run_with_input(&["records", "encode"], "{\"data\":\"YQ==\"}\n");
    assert_code(&unkeyed, 1);
    assert!(stderr(&unkeyed).contains("line 1: a user record needs a partition key"), "{}", stderr(&unkeyed));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for verb in ["encode", "decode"] {
        let mut child = command(&["records", verb])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        drop(child.stdout.take());
        let mut stdin = child.stdin.take().expect("piped");
        // More than its buffer holds, so that it must write; whether it still reads all of it does not matter.
        let line = format!("{{\"data\":\"{}\",\"partition_key\":\"k\"}}\n", "YWFh".repeat(10_000));
        let _ = stdin.write_all(line.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("the command ends");
        assert_code(&output, 0);
        assert_eq!(stderr(&output), "", "{verb}");
    }
}
