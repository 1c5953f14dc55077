//! `shardwell dead-letters`, against files that hold what workers leave there.

#[path = "redrive.rs"]
mod redrive;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use shardwell::dead_letter::{
    Attempt, BatchInfo, Claim, DeadLetter, DeadLetterArchive, DeadLetterSink, DeadReason, LetterQuery, LetterState,
    Resolution,
};
use shardwell::file::FileDeadLetters;
use shardwell::sqlite::{SqliteDeadLetters, SqliteLeaseStore};
use shardwell::{ExtendedSequenceNumber, Timestamp, UserRecord};

use super::{NUMBER, assert_code, contents, run, stderr, stdout};

/// 2026-01-01T00:00:00Z, plus some milliseconds.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + millis)
}

/// Dead for a permanent error, in a batch of its own, at position `NUMBER`/`sub`.
fn letter(sub: u64) -> DeadLetter {
    let position = ExtendedSequenceNumber::new(NUMBER.parse().expect("digits"), sub);
    let error = vec!["cannot read the flight".to_owned(), "no such\n\u{1b}[2Jairport".to_owned()];
    DeadLetter {
        application: "delays".into(),
        stream: "flights".into(),
        shard: "shardId-000000000000".into(),
        record: UserRecord {
            position,
            partition_key: Some(format!("N1422{sub}").into()),
            explicit_hash_key: None,
            arrival: at(-1000),
            data: format!("flight {sub}").into(),
        },
        reason: DeadReason::Permanent,
        attempts: vec![Attempt { at: at(-500), error: error.clone() }],
        error,
        batch: BatchInfo {
            id: 7,
            invocations: 1,
            size: 5,
            first: position,
            last: position,
            first_arrival: at(-1000),
            last_arrival: at(-1000),
            partial: true,
        },
        lane: 0,
        worker: "host:1:2".into(),
        died_at: at(0),
    }
}

/// Two that wait, and one in the other shard that has a hash key and a payload that is no text; one of another application.
fn letters() -> Vec<DeadLetter> {
    let mut binary = letter(3);
    binary.shard = "shardId-000000000001".into();
    binary.record.explicit_hash_key = Some(u128::MAX);
    binary.record.data = vec![0xff, 0x1b, 0x00].into();
    binary.reason = DeadReason::RetryAttemptsExhausted;
    binary.error = vec!["DISK on fire".into()];
    binary.died_at = at(60_000);
    let mut other = letter(4);
    other.application = "audit".into();
    other.reason = DeadReason::Oversize;
    vec![letter(1), letter(2), binary, other]
}

/// An archive: `letter(1)` and `letter(2)` dead, `binary` parked, that of `audit` dead, and `letter(5)` redriven.
struct Archive {
    directory: tempfile::TempDir,
    path: PathBuf,
    store: SqliteDeadLetters,
}

impl Archive {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("dead-letters.sqlite");
        let store = SqliteDeadLetters::open(&path).await.expect("opened");
        store.put(&letters()).await.expect("put");
        let (parked, redriven) = (letters()[2].id(), letter(5));
        store.put(std::slice::from_ref(&redriven)).await.expect("put");
        assert!(store.mark_redriven(&redriven.id(), at(1)).await.expect("marked"));
        let query = LetterQuery { id: Some(parked.clone()), ..LetterQuery::default() };
        store.request_redrive(&query, at(2)).await.expect("requested");
        let (application, stream) = ("delays".to_owned(), "flights".to_owned());
        let claim = Claim { application, stream, worker: "w".into(), now: at(3), until: at(4), limit: 1 };
        assert_eq!(store.claim(&claim).await.expect("claimed").len(), 1);
        let resolution = Resolution::Failed { at: at(3), error: vec!["DISK on fire".into()], park: true };
        assert!(store.resolve(&parked, &"w".into(), &resolution).await.expect("resolved"));
        Self { directory, path, store }
    }

    /// A fresh archive that holds these, dead.
    async fn of(letters: &[DeadLetter]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("dead-letters.sqlite");
        let store = SqliteDeadLetters::open(&path).await.expect("opened");
        store.put(letters).await.expect("put");
        Self { directory, path, store }
    }

    fn arguments<'a>(&'a self, verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["dead-letters", verb, "--sqlite", text(&self.path)];
        arguments.extend(more);
        arguments
    }

    fn run(&self, verb: &str, more: &[&str]) -> Output {
        run(&self.arguments(verb, more))
    }

    /// The lines of `list --json`.
    #[track_caller]
    fn list(&self, more: &[&str]) -> Vec<Value> {
        let output = self.run("list", &[&["--json"], more].concat());
        assert_code(&output, 0);
        stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    async fn states(&self) -> BTreeMap<String, LetterState> {
        let page = self.store.letters(&LetterQuery::default(), None, 100).await.expect("read");
        page.letters.iter().map(|letter| (letter.letter.id().to_string(), letter.state)).collect()
    }

    /// How many letters are in a state.
    async fn count(&self, state: LetterState) -> usize {
        self.states().await.values().filter(|other| **other == state).count()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The same letters as lines in a file.
async fn file(directory: &Path) -> PathBuf {
    let path = directory.join("dead-letters.ndjson");
    FileDeadLetters::new(&path).put(&letters()).await.expect("put");
    path
}

#[test]
fn help_names_the_verbs_and_the_filters() {
    let help = stdout(&run(&["dead-letters", "--help"]));
    for verb in ["list", "show", "redrive", "export"] {
        assert!(help.contains(verb), "{verb} is not in\n{help}");
        let help = stdout(&run(&["dead-letters", verb, "--help"]));
        for option in [
            "--sqlite",
            "--file",
            "--application",
            "--stream",
            "--shard",
            "--key",
            "--reason",
            "--error",
            "--since",
            "--before",
            "--state",
            "--all",
            "--id",
        ] {
            assert!(help.contains(option), "{option} is not in\n{help}");
        }
    }
}

#[test]
fn arguments_that_make_no_sense_end_with_code_2() {
    for arguments in [
        &["list"][..],
        &["list", "--sqlite", "a", "--file", "b"],
        &["list", "--sqlite", "a", "--state", "lost"],
        &["list", "--sqlite", "a", "--state", "dead", "--all"],
        &["list", "--sqlite", "a", "--since", "yesterday"],
        &["show", "--sqlite", "a", "no-identity"],
        &["redrive", "--sqlite", "a", "--wait", "--into-stream", "s"],
        &["redrive", "--sqlite", "a", "--timeout", "1s"],
        &["redrive", "--sqlite", "a", "--endpoint", "http://127.0.0.1:1"],
    ] {
        assert_code(&run(&[&["dead-letters"], arguments].concat()), 2);
    }
}

#[tokio::test]
async fn a_list_shows_what_waits_and_neither_payloads_nor_keys() {
    let archive = Archive::new().await;
    let list = archive.run("list", &[]);
    assert_code(&list, 0);
    let shown = stdout(&list);
    for part in [
        "Application audit, stream flights: 1 letter\n",
        "Application delays, stream flights: 3 letters\n",
        "2026-01-01T00:00:00Z",
        "49590338...1575989136588898/1",
        "shardId-000000000001",
        "cannot read the flight: no such  [2Jairport",
        "4 letters: 3 dead, 1 parked; 1 RetryAttemptsExhausted, 2 Permanent, 1 Oversize\n",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    for hidden in ["N14221", "flight 1", NUMBER, "redriven", "\u{1b}"] {
        assert!(!shown.contains(hidden), "{hidden:?} is in\n{shown}");
    }
    let full = stdout(&archive.run("list", &["--full", "--show-keys", "--all"]));
    for part in [&format!("delays/flights/shardId-000000000000/{NUMBER}/1"), "N14221", "1 redriven"] {
        assert!(full.contains(part), "{part} is not in\n{full}");
    }
    let none = archive.run("list", &["--application", "delay"]);
    assert_code(&none, 0);
    assert!(stdout(&none).starts_with("No letters match."), "{}", stdout(&none));
}

#[tokio::test]
async fn letters_are_chosen_by_what_is_known_of_them() {
    let archive = Archive::new().await;
    let id = letter(5).id().to_string();
    for (filter, expected) in [
        (&[][..], 4),
        (&["--all"], 5),
        (&["--application", "delays"], 3),
        (&["--stream", "flights"], 4),
        (&["--stream", "flight"], 0),
        (&["--shard", "shardId-000000000001"], 1),
        (&["--key", "N14222"], 1),
        (&["--reason", "oversize"], 1),
        (&["--error", "disk"], 1),
        (&["--error", "NO SUCH"], 3),
        (&["--since", "2026-01-01T00:01:00Z"], 1),
        (&["--before", "2026-01-01T00:01:00Z"], 3),
        (&["--before", "1s"], 4),
        (&["--since", "1s"], 0),
        (&["--state", "parked,redriven"], 2),
        (&["--id", &id], 1),
        (&["--id", &id, "--state", "dead"], 0),
        (&["--id", &id, "--id", &letter(1).id().to_string()], 2),
    ] {
        assert_eq!(archive.list(filter).len(), expected, "{filter:?}");
    }
    let lines = archive.list(&["--key", "N14221", "--show-keys"]);
    assert_eq!(lines[0]["id"], format!("delays/flights/shardId-000000000000/{NUMBER}/1"));
    assert_eq!(lines[0]["partition_key"], "N14221");
    assert_eq!(lines[0]["state"], "dead");
    assert_eq!(lines[0]["error"], serde_json::json!(["cannot read the flight", "no such\n\u{1b}[2Jairport"]));
    assert!(archive.list(&["--key", "N14221"])[0].get("partition_key").is_none());
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let archive = Archive::of(&(0..250).map(letter).collect::<Vec<_>>()).await;
    assert_eq!(archive.list(&[]).len(), 250);
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("letters.ndjson");
    let sink = FileDeadLetters::new(&path);
    sink.put(&(0..250).map(letter).collect::<Vec<_>>()).await.expect("put");
    let list = run(&["dead-letters", "list", "--json", "--file", text(&path)]);
    assert_eq!(stdout(&list).lines().count(), 250);
}

#[tokio::test]
async fn looking_neither_creates_nor_changes_a_file() {
    let archive = Archive::new().await;
    let id = letter(1).id().to_string();
    let before = std::fs::read(&archive.path).expect("read");
    for arguments in [&["list"][..], &["show", &id], &["export"]] {
        assert_code(&archive.run(arguments[0], &arguments[1..]), 0);
    }
    assert!(before == std::fs::read(&archive.path).expect("read"), "the file changed");

    let directory = tempfile::tempdir().expect("a directory");
    let missing = directory.path().join("missing");
    for how in ["--sqlite", "--file"] {
        for verb in [&["list"][..], &["show"], &["export"], &["redrive", "--yes"]] {
            let output = run(&[&["dead-letters"], verb, &[how, text(&missing)]].concat());
            assert_code(&output, 1);
            assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
            assert!(stderr(&output).contains("missing"), "{}", stderr(&output));
        }
    }
    assert_eq!(contents(directory.path()).len(), 0);
}

#[tokio::test]
async fn a_lease_table_is_no_place_for_letters() {
    let directory = tempfile::tempdir().expect("a directory");
    let leases = directory.path().join("leases.sqlite");
    SqliteLeaseStore::open(&leases, "delays").await.expect("opened");
    for verb in ["list", "redrive"] {
        let output = run(&["dead-letters", verb, "--sqlite", text(&leases)]);
        assert_code(&output, 1);
        assert!(stderr(&output).contains("leases.sqlite"), "{}", stderr(&output));
    }
}

#[tokio::test]
async fn one_letter_is_shown_with_everything() {
    let archive = Archive::new().await;
    let show = archive.run("show", &[&letter(1).id().to_string()]);
    assert_code(&show, 0);
    let shown = stdout(&show);
    for part in [
        NUMBER,
        "dead since 2026-01-01T00:00:00.000Z, after 0 rounds",
        "because: no such",
        " [2Jairport",
        "N14221",
        "host:1:2, lane 0",
        "7: 5 records, handed over 1 times; the processor said which records failed",
        "2025-12-31T23:59:59.500Z",
        "8 bytes, as text:\nflight 1\n",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'));
    let binary = stdout(&archive.run("show", &["--reason", "RetryAttemptsExhausted"]));
    assert!(binary.contains("parked since") && binary.contains("after 1 rounds"), "{binary}");
    assert!(binary.ends_with(&format!("3 bytes, in base64:\n{}\n", STANDARD.encode([0xff, 0x1b, 0x00]))), "{binary}");

    let payload = archive.run("show", &["--payload", "--reason", "RetryAttemptsExhausted"]);
    assert_eq!(payload.stdout, [0xff, 0x1b, 0x00]);
    let document = archive.run("show", &["--lambda", "--reason", "RetryAttemptsExhausted"]);
    let document: Value = serde_json::from_slice(&document.stdout).expect("JSON");
    assert_eq!(document["requestContext"]["condition"], "RetryAttemptsExhausted");
    let event: Value = serde_json::from_str(document["payload"].as_str().expect("text")).expect("JSON");
    assert_eq!(event["Records"][0]["kinesis"]["data"], STANDARD.encode([0xff, 0x1b, 0x00]));
}

#[tokio::test]
async fn a_letter_that_is_not_there_or_not_the_only_one_is_an_error() {
    let archive = Archive::new().await;
    let file = file(archive.directory.path()).await;
    let missing = letter(99).id().to_string();
    for place in [["--sqlite", text(&archive.path)], ["--file", text(&file)]] {
        let show = |more: &[&str]| run(&[&["dead-letters", "show"], &place[..], more].concat());
        let one = show(&[&missing]);
        assert_code(&one, 1);
        assert!(stderr(&one).contains(&format!("there is no dead letter {missing}")), "{}", stderr(&one));
        let many = show(&["--application", "delays"]);
        assert_code(&many, 1);
        assert!(stderr(&many).contains("more than one letter matches"), "{}", stderr(&many));
        assert!(stderr(&many).contains(&letter(2).id().to_string()), "{}", stderr(&many));
        let none = show(&["--application", "delay"]);
        assert_code(&none, 1);
        assert!(stderr(&none).contains("no letter matches"), "{}", stderr(&none));
        assert_code(&show(&[&letter(2).id().to_string()]), 0);
    }
}

#[tokio::test]
async fn what_is_exported_can_be_read_as_a_file_of_letters() {
    let archive = Archive::new().await;
    let export = archive.run("export", &["--application", "delays"]);
    assert_code(&export, 0);
    let exported: Vec<DeadLetter> =
        stdout(&export).lines().map(|line| DeadLetter::from_json(line).expect("a letter")).collect();
    let (mut expected, attempts) = (letters(), exported[2].attempts.clone());
    expected.truncate(3);
    // It has died once more since.
    expected[2].attempts = attempts;
    assert_eq!(exported, expected);

    let path = archive.directory.path().join("exported.ndjson");
    std::fs::write(&path, &export.stdout).expect("written");
    let again = run(&["dead-letters", "export", "--file", text(&path)]);
    assert_code(&again, 0);
    assert_eq!(stdout(&again), stdout(&export));
}

#[tokio::test]
async fn what_cannot_be_exported_is_an_error_after_the_rest_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path()).await;
    let whole = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, format!("nonsense\n{whole}")).expect("written");
    let export = run(&["dead-letters", "export", "--file", text(&path)]);
    assert_code(&export, 1);
    assert_eq!(stdout(&export), whole);
    assert!(stderr(&export).contains("line 1: "), "{}", stderr(&export));
    assert!(stderr(&export).contains("1 letter cannot be read; the others are exported"), "{}", stderr(&export));
    let list = run(&["dead-letters", "list", "--file", text(&path)]);
    assert_code(&list, 0);
    assert!(stdout(&list).contains("4 letters: 4 dead") && stderr(&list).contains("line 1: "), "{}", stderr(&list));
}

#[tokio::test]
async fn lambdas_documents_bring_the_letters_of_a_batch_together() {
    let archive = Archive::new().await;
    let export = archive.run("export", &["--lambda"]);
    assert_code(&export, 0);
    let documents: Vec<Value> = stdout(&export).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |condition: &str| -> Vec<&Value> {
        documents.iter().filter(|document| document["requestContext"]["condition"] == condition).collect()
    };
    // The two permanent ones are of two batches, since a batch is told apart by its first record too.
    assert_eq!((documents.len(), of("Permanent").len()), (4, 2));
    let together: Vec<DeadLetter> = [1, 2]
        .map(|sub| {
            let mut together = letter(sub);
            together.batch.first = letter(1).record.position;
            together
        })
        .into();
    let export = Archive::of(&together).await.run("export", &["--lambda"]);
    let document: Value = serde_json::from_slice(&export.stdout).expect("one document");
    assert_eq!(document["KinesisBatchInfo"]["batchSize"], 2);
}
