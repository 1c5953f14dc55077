//! `shardwell dead-letters redrive`: to a processor of a worker that runs, and into a stream of an engine that runs.

use std::process::{Child, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use shardwell::core::Place;
use shardwell::dead_letter::{DeadLetterArchive, LetterQuery, LetterState};
use shardwell::memory::{MemoryLeaseStore, MemoryStream};
use shardwell::sqlite::SqliteDeadLetters;
use shardwell::{Batch, Env, EnvExt, Outcome, ProcessError, RecordProcessor, SystemEnv, Worker, async_trait};

use super::super::{Local, assert_code, command, run, run_with_input, stderr, stdout};
use super::{Archive, file, letter, letters, text};

#[tokio::test]
async fn a_redrive_requests_what_waits_and_leaves_the_rest_alone() {
    let archive = Archive::new().await;
    let redrive = archive.run("redrive", &["--application", "delays"]);
    assert_code(&redrive, 0);
    let said = stdout(&redrive);
    assert!(said.contains("3 letters match."), "{said}");
    assert!(said.contains("Requested another try for 3 letters of application `delays`."), "{said}");
    let states = archive.states().await;
    let requested = states.iter().filter(|(_, state)| **state == LetterState::Requested).map(|(id, _)| id);
    assert!(requested.clone().count() == 3 && requested.clone().all(|id| id.starts_with("delays/")), "{states:?}");
    assert_eq!((archive.count(LetterState::Dead).await, archive.count(LetterState::Redriven).await), (1, 1));

    let again = archive.run("redrive", &["--application", "delays", "--all"]);
    assert_code(&again, 0);
    let said = stdout(&again);
    assert!(said.contains("No letter that matches waits for another try; 3 are with a worker"), "{said}");
    assert!(said.contains("; 1 redriven."), "{said}");
}

#[tokio::test]
async fn single_letters_are_redriven_by_name() {
    let archive = Archive::new().await;
    let (one, other, missing) = (letter(1).id().to_string(), letters()[3].id().to_string(), letter(9).id().to_string());
    let unknown = archive.run("redrive", &[&one, &missing]);
    assert_code(&unknown, 1);
    assert!(stderr(&unknown).contains(&format!("there is no dead letter {missing}")), "{}", stderr(&unknown));
    assert_eq!(archive.count(LetterState::Requested).await, 0);
    assert_code(&archive.run("redrive", &[&one, &other]), 0);
    let states = archive.states().await;
    assert_eq!((states[&one], states[&other]), (LetterState::Requested, LetterState::Requested));
    assert_eq!(archive.count(LetterState::Requested).await, 2);
}

#[tokio::test]
async fn everything_is_redriven_only_after_a_yes() {
    let archive = Archive::new().await;
    let unanswered = archive.run("redrive", &[]);
    assert_code(&unanswered, 1);
    let asked = stderr(&unanswered);
    assert!(asked.contains("Hand 4 letters of applications `audit`, `delays` to a processor again?"), "{asked}");
    assert!(asked.contains("nothing was requested"), "{asked}");
    assert_eq!(archive.count(LetterState::Requested).await, 0);
    assert_code(&run_with_input(&archive.arguments("redrive", &["--state", "parked"]), "y\n"), 0);
    assert_eq!(archive.count(LetterState::Requested).await, 1);
    assert_code(&archive.run("redrive", &["--yes"]), 0);
    assert_eq!(archive.count(LetterState::Requested).await, 4);
}

#[tokio::test]
async fn many_letters_are_redriven_only_after_a_yes() {
    let archive = Archive::of(&(0..101).map(letter).collect::<Vec<_>>()).await;
    let many = archive.run("redrive", &["--application", "delays"]);
    assert_code(&many, 1);
    assert!(stderr(&many).contains("Hand 101 letters"), "{}", stderr(&many));
    assert_eq!(archive.count(LetterState::Requested).await, 0);
}

#[tokio::test]
async fn a_file_is_refused_for_a_processor_and_says_what_to_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path()).await;
    let redrive = run(&["dead-letters", "redrive", "--yes", "--file", text(&path)]);
    assert_code(&redrive, 1);
    for part in ["--into-stream", "SqliteDeadLetters", "cannot be handed to a processor"] {
        assert!(stderr(&redrive).contains(part), "{part} is not in {}", stderr(&redrive));
    }
}

/// Takes what says so, and fails with the rest.
struct Picky;

#[async_trait]
impl RecordProcessor for Picky {
    async fn process(&mut self, batch: &Batch) -> Result<Outcome, ProcessError> {
        for record in batch {
            if record.data != "flight 1" {
                return Err("still no such airport".into());
            }
        }
        Ok(Outcome::Done)
    }
}

#[tokio::test]
async fn a_redrive_can_be_waited_for() {
    let archive = Archive::new().await;
    let env = Arc::new(SystemEnv::new().expect("threads"));
    let shared: Arc<dyn Env> = env.clone();
    let stream = MemoryStream::create(shared, "flights", 1).expect("created");
    let worker = Worker::builder("delays", stream, MemoryLeaseStore::new(), |_lane| Picky)
        .dead_letters(SqliteDeadLetters::new(&archive.path))
        .redrive_interval(Duration::from_millis(50))
        .build()
        .expect("built");
    let handle = worker.handle();
    let running = env.spawn(Place::Coordination, worker.run());

    let good = archive.arguments("redrive", &["--wait", "--timeout", "60s", "--key", "N14221"]);
    let good = command(&good).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let good = finished(good).await;
    assert_code(&good, 0);
    assert!(stdout(&good).ends_with("\n1 redriven.\n"), "{}", stdout(&good));

    let bad = archive.arguments("redrive", &["--wait", "--timeout", "60s", "--application", "delays"]);
    let bad = finished(command(&bad).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")).await;
    assert_code(&bad, 1);
    assert!(stdout(&bad).ends_with("\n0 redriven, 2 dead again.\n"), "{}", stdout(&bad));
    assert!(stderr(&bad).contains("2 letters are not redriven"), "{}", stderr(&bad));
    assert!(archive.list(&["--key", "N14222"])[0]["error"][0] == "still no such airport");

    handle.request_shutdown();
    running.await.expect("it runs").expect("it stops cleanly");
}

/// Waits for a process without blocking the thread that the worker needs.
async fn finished(child: Child) -> Output {
    let env = SystemEnv::new().expect("threads");
    env.spawn(Place::Processor, async move { child.wait_with_output() }).await.expect("it runs").expect("it ends")
}

#[tokio::test]
async fn a_wait_ends_with_an_error_when_nobody_takes_the_letters() {
    let archive = Archive::new().await;
    let wait = archive.run("redrive", &["--wait", "--timeout", "10ms", "--key", "N14221"]);
    assert_code(&wait, 1);
    assert!(stderr(&wait).contains("0 redriven, and 1 not tried in time; they stay requested"), "{}", stderr(&wait));
    assert_eq!(archive.count(LetterState::Requested).await, 1);
}

/// `redrive --into-stream flights`, towards an engine.
fn into_stream(place: [&str; 2], endpoint: &str, more: &[&str]) -> Output {
    let endpoint = format!("http://{endpoint}");
    let fixed = ["dead-letters", "redrive", "--into-stream", "flights", "--endpoint", &endpoint];
    let mut command = command(&[&fixed[..], &place, &["--region", "us-east-1"], more].concat());
    let keys = command.env("AWS_ACCESS_KEY_ID", "local").env("AWS_SECRET_ACCESS_KEY", "local");
    keys.env("NO_PROXY", "127.0.0.1").output().expect("the command runs")
}

/// Every record of a shard: its partition key and payload.
fn records(local: &Local, shard: &str) -> Vec<(String, Vec<u8>)> {
    let body = |answer: String| -> Value {
        serde_json::from_str(answer.split_once("\r\n\r\n").expect("a body").1).expect("JSON")
    };
    let request = format!(r#"{{"StreamName":"flights","ShardId":"{shard}","ShardIteratorType":"TRIM_HORIZON"}}"#);
    let iterator = body(local.call("GetShardIterator", &request));
    let request = format!(r#"{{"ShardIterator":{}}}"#, iterator["ShardIterator"]);
    let answer = body(local.call("GetRecords", &request));
    let record = |record: &Value| {
        let data = STANDARD.decode(record["Data"].as_str().expect("text")).expect("base64");
        (record["PartitionKey"].as_str().expect("text").to_owned(), data)
    };
    answer["Records"].as_array().expect("records").iter().map(record).collect()
}

#[tokio::test]
async fn payloads_go_back_into_a_stream_with_their_keys_and_are_marked() {
    let archive = Archive::new().await;
    let local = Local::start(&["--stream", "flights:2"]);
    let place = ["--sqlite", text(&archive.path)];
    let unanswered = into_stream(place, &local.address, &["--application", "delays"]);
    assert_code(&unanswered, 1);
    for part in ["positions and arrival times change", "every consumer", "3 letters of stream `flights`", "nothing was"]
    {
        assert!(stderr(&unanswered).contains(part), "{part} is not in {}", stderr(&unanswered));
    }
    assert!(records(&local, "shardId-000000000000").is_empty());

    let put = into_stream(place, &local.address, &["--application", "delays", "--yes"]);
    assert_code(&put, 0);
    let said = stdout(&put);
    assert!(said.ends_with("3 letters put into the stream `flights`, 3 marked as redriven.\n"), "{said}");
    assert!(stderr(&put).contains("every consumer"), "{}", stderr(&put));
    assert_eq!(archive.count(LetterState::Redriven).await, 4);
    // The explicit hash key leads to the last shard, wherever the hash of the partition key would.
    let last = records(&local, "shardId-000000000001");
    assert!(last.contains(&("N14223".to_owned(), vec![0xff, 0x1b, 0x00])), "{last:?}");
    let mut all = [records(&local, "shardId-000000000000"), last].concat();
    all.sort();
    let of = |sub: u64| (format!("N1422{sub}"), format!("flight {sub}").into_bytes());
    assert_eq!(all, [of(1), of(2), ("N14223".to_owned(), vec![0xff, 0x1b, 0x00])]);

    let again = into_stream(place, &local.address, &["--application", "delays", "--yes"]);
    assert_code(&again, 0);
    assert!(stdout(&again).contains("No letter that matches waits"), "{}", stdout(&again));
}

#[tokio::test]
async fn more_than_a_request_holds_goes_back_into_a_stream() {
    let archive = Archive::of(&(0..501).map(letter).collect::<Vec<_>>()).await;
    let local = Local::start(&["--stream", "flights:1"]);
    let put = into_stream(["--sqlite", text(&archive.path)], &local.address, &["--yes"]);
    assert_code(&put, 0);
    assert_eq!(archive.store.letters(&LetterQuery::default(), None, 1000).await.expect("read").letters.len(), 501);
    let left = LetterQuery { states: [LetterState::Dead].into(), ..LetterQuery::default() };
    assert_eq!(archive.store.letters(&left, None, 1000).await.expect("read").letters.len(), 0);
    assert_eq!(records(&local, "shardId-000000000000").len(), 501);
}

#[tokio::test]
async fn letters_of_a_file_go_back_into_a_stream_and_stay_in_the_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path()).await;
    let before = std::fs::read(&path).expect("read");
    let local = Local::start(&["--stream", "flights:1"]);
    let put = into_stream(["--file", text(&path)], &local.address, &["--yes", "--key", "N14222"]);
    assert_code(&put, 0);
    assert!(stderr(&put).contains("cannot be marked as redriven"), "{}", stderr(&put));
    assert!(stdout(&put).ends_with("1 letter put into the stream `flights`.\n"), "{}", stdout(&put));
    assert_eq!(records(&local, "shardId-000000000000"), [("N14222".to_owned(), b"flight 2".to_vec())]);
    assert!(before == std::fs::read(&path).expect("read"));
}

#[tokio::test]
async fn letters_stay_dead_when_the_stream_does_not_take_them() {
    let archive = Archive::new().await;
    let local = Local::start(&["--stream", "audit:1"]);
    let put = into_stream(["--sqlite", text(&archive.path)], &local.address, &["--yes", "--key", "N14221"]);
    assert_code(&put, 1);
    assert!(stderr(&put).contains("0 letters put") || stderr(&put).contains("no letters put"), "{}", stderr(&put));
    assert!(stderr(&put).contains("did not take delays/flights/"), "{}", stderr(&put));
    assert_eq!(archive.count(LetterState::Redriven).await, 1);
}
