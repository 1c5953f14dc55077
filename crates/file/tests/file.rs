//! Letters in a file: the suite of the seam, and what can happen to a file.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use shardwell_core::async_trait;
use shardwell_core::dead_letter::{
    DeadLetter, DeadLetterSink, InvalidLetter, SinkError, SinkErrorKind, lambda_document,
};
use shardwell_core::testing::dead_letters::{Place, exercise_sink, letter};
use shardwell_file::{FileDeadLetters, Format, MAX_LINE_BYTES, Problem, read};

struct InFile(PathBuf);

#[async_trait]
impl Place for InFile {
    async fn open(&self) -> Arc<dyn DeadLetterSink> {
        Arc::new(FileDeadLetters::new(&self.0))
    }

    async fn kept(&self) -> Vec<DeadLetter> {
        letters(&self.0)
    }
}

/// The letters in a file, of which every line must be whole.
fn letters(path: &Path) -> Vec<DeadLetter> {
    read(path).expect("opened").map(|line| line.unwrap_or_else(|bad| panic!("{bad}")).letter).collect()
}

type Numbered<T> = Vec<(u64, T)>;

/// The numbers of the lines with a letter, and what is wrong with the others.
fn lines(path: &Path) -> (Numbered<DeadLetter>, Numbered<Problem>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for line in read(path).expect("opened") {
        match line {
            Ok(line) => good.push((line.number, line.letter)),
            Err(line) => bad.push((line.number, line.problem)),
        }
    }
    (good, bad)
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dead-letters.ndjson");
    (directory, path)
}

fn assert_says(error: &SinkError, kind: SinkErrorKind, words: &[&str]) {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    for word in words {
        assert!(message.contains(word), "`{word}` in: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conforms_as_a_sink() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let directory = tempfile::tempdir().expect("a directory");
    exercise_sink(|| async { InFile(directory.path().join(NEXT.fetch_add(1, Ordering::Relaxed).to_string())) }).await;
}

#[tokio::test]
async fn each_letter_is_a_line_and_the_last_of_a_record_counts() {
    let (_directory, path) = temporary();
    let sink = FileDeadLetters::new(&path);
    assert_eq!((sink.path(), sink.format()), (path.as_path(), Format::Full));
    sink.put(&[letter(1), letter(2)]).await.expect("put");
    let mut again = letter(1);
    again.lane = 9;
    sink.put(&[again.clone()]).await.expect("put");
    let text = std::fs::read_to_string(&path).expect("read");
    let expected: String = [letter(1), letter(2), again.clone()].iter().map(|letter| letter.to_json() + "\n").collect();
    assert_eq!(text, expected);
    let (good, bad) = lines(&path);
    assert_eq!(good, [(2, letter(2)), (3, again)]);
    assert!(bad.is_empty());
}

#[tokio::test]
async fn lambdas_document_is_a_line_for_each_burial() {
    let (_directory, path) = temporary();
    let burial = [letter(1), letter(2)];
    for payload in [false, true] {
        let sink = FileDeadLetters::new(&path).with_format(Format::Lambda { payload });
        sink.put(&burial).await.expect("put");
    }
    let text = std::fs::read_to_string(&path).expect("read");
    let documents: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let expected = [false, true].map(|payload| lambda_document(&burial, payload).expect("a document"));
    assert_eq!(documents, expected);
    let (good, bad) = lines(&path);
    assert!(good.is_empty());
    assert!(matches!(bad[..], [(1, Problem::Letter(_)), (2, Problem::Letter(InvalidLetter::Malformed(_)))]), "{bad:?}");
}

#[tokio::test]
async fn a_torn_line_is_reported_and_nothing_is_glued_to_it() {
    for cut in [1, 20, 300] {
        let (_directory, path) = temporary();
        let sink = FileDeadLetters::new(&path);
        sink.put(&[letter(1)]).await.expect("put");
        let torn = &letter(2).to_json()[..cut];
        OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(torn.as_bytes())).expect("torn");
        let (good, bad) = lines(&path);
        assert_eq!(good, [(1, letter(1))]);
        assert!(matches!(bad[..], [(2, Problem::Torn)]), "{bad:?}");

        sink.put(&[letter(3)]).await.expect("put");
        FileDeadLetters::new(&path).put(&[letter(4)]).await.expect("put");
        let (good, bad) = lines(&path);
        assert_eq!(good, [(1, letter(1)), (3, letter(3)), (4, letter(4))]);
        assert!(matches!(bad[..], [(2, Problem::Letter(InvalidLetter::Malformed(_)))]), "{bad:?}");
    }
}

#[tokio::test]
async fn a_line_that_lacks_only_its_line_feed_is_whole() {
    let (_directory, path) = temporary();
    std::fs::write(&path, letter(1).to_json()).expect("written");
    assert_eq!(letters(&path), [letter(1)]);
    FileDeadLetters::new(&path).put(&[letter(2)]).await.expect("put");
    assert_eq!(letters(&path), [letter(1), letter(2)]);
}

#[tokio::test]
async fn lines_that_hold_no_letter_are_reported_one_by_one() {
    let (_directory, path) = temporary();
    let newer = letter(5).to_json().replacen("\"version\":1", "\"version\":7", 1);
    let mut contents = b"\n\n{\"not\": \"a letter\"}\n\xff\xfe\n".to_vec();
    contents.extend(vec![0; 5000]);
    contents.extend(format!("\n{newer}\n{}\n", letter(1).to_json()).bytes());
    contents.extend(vec![b'x'; MAX_LINE_BYTES + 1]);
    contents.extend(format!("\n{}\n", letter(2).to_json()).bytes());
    contents.extend(b"{}\n");
    std::fs::write(&path, contents).expect("written");
    let (good, bad) = lines(&path);
    assert_eq!(good, [(7, letter(1)), (9, letter(2))]);
    assert_eq!(bad.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4, 5, 6, 8, 10]);
    let problems: Vec<Problem> = bad.into_iter().map(|(_, problem)| problem).collect();
    assert!(
        matches!(
            problems[..],
            [
                Problem::Letter(InvalidLetter::Malformed(_)),
                Problem::NotText(_),
                Problem::Letter(InvalidLetter::Malformed(_)),
                Problem::Letter(InvalidLetter::Newer { version: 7 }),
                Problem::TooLong,
                Problem::Letter(InvalidLetter::Malformed(_)),
            ]
        ),
        "{problems:?}"
    );
    assert_eq!(read(&path).expect("opened").find_map(Result::err).expect("a bad line").to_string(), {
        "line 3: this is not the JSON of a dead letter"
    });
}

#[tokio::test]
async fn a_letter_that_makes_too_long_a_line_is_refused() {
    let (_directory, path) = temporary();
    let sink = FileDeadLetters::new(&path);
    let mut long = letter(1);
    long.record.data = vec![0; MAX_LINE_BYTES / 4 * 3].into();
    let error = sink.put(&[letter(0), long]).await.expect_err("too long");
    assert_says(&error, SinkErrorKind::Refused, &["delays/flights/shardId-000000000000/1/0", "67108864"]);
    sink.put(&[letter(2)]).await.expect("put");
    assert_eq!(letters(&path), [letter(2)], "nothing of the batch was written");
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_followed_by_another() {
    let (directory, path) = temporary();
    let (sink, other) = (FileDeadLetters::new(&path), FileDeadLetters::new(&path));
    for n in 0..4 {
        sink.put(&[letter(2 * n)]).await.expect("put");
        other.put(&[letter(2 * n + 1)]).await.expect("put");
        let moved = directory.path().join(format!("moved-{n}"));
        std::fs::rename(&path, &moved).expect("moved");
        assert_eq!(letters(&moved), [letter(2 * n), letter(2 * n + 1)]);
    }
    sink.put(&[letter(100)]).await.expect("put");
    std::fs::remove_file(&path).expect("deleted");
    other.put(&[letter(101)]).await.expect("put");
    sink.put(&[letter(102)]).await.expect("put");
    assert_eq!(letters(&path), [letter(101), letter(102)], "never to a file that is gone");

    std::fs::remove_file(&path).expect("deleted");
    std::fs::write(&path, "").expect("another one took its place");
    sink.put(&[letter(103)]).await.expect("put");
    assert_eq!(letters(&path), [letter(103)]);
}

/// However close the rotation comes to a write, the letters are in one of the files.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn rotation_in_the_midst_of_writes_loses_nothing() {
    const TASKS: u64 = 3;
    const PUTS: u64 = 40;
    let (directory, path) = temporary();
    let stop = Arc::new(AtomicBool::new(false));
    let rotate = {
        let (directory, path, stop) = (directory.path().to_owned(), path.clone(), Arc::clone(&stop));
        move || {
            let mut rotated = 0;
            while !stop.load(Ordering::Relaxed) {
                rotated += usize::from(std::fs::rename(&path, directory.join(format!("moved-{rotated}"))).is_ok());
                std::thread::yield_now();
            }
            rotated
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a test on real threads")]
    let rotating = std::thread::spawn(rotate);
    let put_some = |task: u64| {
        let sink = FileDeadLetters::new(&path);
        async move {
            for n in 0..PUTS {
                // With the most bad luck the file moves away again and again between opening and locking it.
                while let Err(error) = sink.put(&[letter(task * 1000 + n)]).await {
                    assert_says(&error, SinkErrorKind::Unavailable, &["again and again"]);
                }
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a test on real threads")]
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(put_some(task))).collect();
    for task in tasks {
        task.await.expect("a task does not panic");
    }
    stop.store(true, Ordering::Relaxed);
    let rotated = rotating.join().expect("it rotates");
    assert!(rotated > 5, "the files are rotated on the way: {rotated}");
    let files = std::fs::read_dir(directory.path()).expect("a listing").map(|entry| entry.expect("an entry").path());
    let mut kept: Vec<_> = files.flat_map(|file| letters(&file)).collect();
    kept.sort_by_key(DeadLetter::id);
    kept.dedup();
    let expected: Vec<_> = (0..TASKS).flat_map(|task| (0..PUTS).map(move |n| letter(task * 1000 + n))).collect();
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn what_holds_something_else_is_left_alone() {
    let (directory, path) = temporary();
    for contents in ["# Notes\n", "SQLite format 3\0", "[1]", " "] {
        std::fs::write(&path, contents).expect("written");
        let sink = FileDeadLetters::new(&path);
        for error in [sink.prepare().await.expect_err("not ours"), sink.put(&[letter(1)]).await.expect_err("not ours")]
        {
            assert_says(&error, SinkErrorKind::Unusable, &["dead-letters.ndjson", "something else"]);
        }
        assert_eq!(std::fs::read_to_string(&path).expect("read"), contents);
    }
    let error = FileDeadLetters::new(directory.path()).prepare().await.expect_err("a directory");
    assert_says(&error, SinkErrorKind::Unusable, &["not a plain file"]);
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let error = FileDeadLetters::new(&pipe).prepare().await.expect_err("a pipe");
    assert_says(&error, SinkErrorKind::Unusable, &["not a plain file"]);
}

#[tokio::test]
async fn paths_that_cannot_be_used_say_why() {
    let (directory, path) = temporary();
    let error =
        FileDeadLetters::new(directory.path().join("absent/letters")).prepare().await.expect_err("no directory");
    assert_says(&error, SinkErrorKind::Unusable, &["no directory", "absent", "create it"]);
    std::fs::write(&path, "").expect("written");
    let error = FileDeadLetters::new(path.join("letters")).prepare().await.expect_err("no directory");
    assert_says(&error, SinkErrorKind::Unusable, &["no directory"]);
    FileDeadLetters::new("").prepare().await.expect_err("no path");
    let error = read(directory.path().join("none")).expect_err("no file");
    assert_says(&error, SinkErrorKind::Unusable, &["reading the dead letters", "no such file"]);
    assert!(read(directory.path()).is_err(), "a directory cannot be read");
}

#[tokio::test]
async fn a_lock_that_is_kept_too_long_is_an_error_and_waited_out_otherwise() {
    let (_directory, path) = temporary();
    let sink = FileDeadLetters::new(&path);
    sink.prepare().await.expect("made ready");
    let other = File::open(&path).expect("opened");
    other.lock().expect("locked");
    let hasty = FileDeadLetters::new(&path).with_timeout(Duration::from_millis(30));
    for n in [1, 2] {
        let error = hasty.put(&[letter(n)]).await.expect_err("locked");
        assert_says(&error, SinkErrorKind::Unavailable, &["putting dead letters", "locked for 30ms"]);
    }
    let buried = [letter(3)];
    let put = sink.put(&buried);
    let release = async { other.unlock().expect("unlocked") };
    let (put, ()) = tokio::join!(put, release);
    put.expect("waited");
    hasty.put(&[letter(4)]).await.expect("it goes on afterwards");
    assert_eq!(letters(&path), [letter(3), letter(4)]);
}

/// A reader does not take what is being written for torn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_whole_lines_while_others_write() {
    let (_directory, path) = temporary();
    let sink = FileDeadLetters::new(&path);
    sink.prepare().await.expect("made ready");
    let mut large = letter(1);
    large.record.data = vec![7; 1 << 20].into();
    #[expect(clippy::disallowed_methods, reason = "a test on real threads")]
    let writing = tokio::spawn(async move {
        for _ in 0..20 {
            sink.put(&[large.clone(), letter(2)]).await.expect("put");
        }
    });
    let mut reads = 0;
    while !writing.is_finished() {
        letters(&path);
        reads += 1;
        tokio::task::yield_now().await;
    }
    writing.await.expect("it does not panic");
    assert!(reads > 3, "{reads}");
    assert_eq!(letters(&path).len(), 2);
}
