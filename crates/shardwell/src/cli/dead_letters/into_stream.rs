//! `shardwell dead-letters redrive --into-stream`: payloads as new records of a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use shardwell::core::{self, Task};
use shardwell::dead_letter::{DeadLetter, DeadLetterArchive, LetterId, LetterState};
use shardwell::{Env, EnvExt, PutEntry, RetryPolicy, StreamError, StreamErrorKind, StreamWriter};

use super::filter::Selection;
use super::letters::Letters;
use super::redrive::{Found, RedriveArgs, names, overview, survey};
use super::text::count;
use crate::cli::confirm::confirm;
use crate::cli::signals::Stop;

/// The service's limits on one request.
const MAX_ENTRIES: usize = 500;
const MAX_BYTES: usize = 10 * 1024 * 1024;

const WARNING: &str = "Warning: the records are put as new ones. Their positions and arrival times change, they come \
                       behind all records that followed them, and every consumer of the stream sees them again.";

pub(super) async fn run(args: &RedriveArgs, mut selection: Selection, stream: &str, env: &dyn Env) -> Result<()> {
    let writer = args.connection.stream(stream)?;
    let place = args.place.open_for_writing().await?;
    let waiting = [LetterState::Dead, LetterState::Parked];
    let wanted = if args.filter.states_are_given() { &LetterState::ALL[..] } else { &waiting };
    let found = survey(&place, &selection, wanted).await?;
    println!("{}", overview(&found));
    if found.waiting.is_empty() {
        return Ok(());
    }
    eprintln!("{WARNING}");
    if place.archive().is_none() {
        let file = args.place.path().display();
        eprintln!(
            "The letters in {file} cannot be marked as redriven: move the file away before anybody puts them again."
        );
    }
    if !args.yes && !confirm(&question(&found, stream))? {
        bail!("not confirmed, so nothing was put");
    }
    // Exactly those that were counted: what dies meanwhile, nobody has said yes to.
    selection.ids = found.waiting;
    let archive = place.archive().map(|archive| archive as &dyn DeadLetterArchive);
    let mut transfer = Transfer::new(env, &writer, archive);
    let watch = watch_for_a_stop(env, &transfer.stopped)?;
    let outcome = transfer.all(&mut Letters::of(&place, &selection)?, wanted).await;
    drop(watch);
    let done = transfer.report(stream);
    outcome.with_context(|| done.clone())?;
    println!("{done}.");
    match transfer.keyless {
        0 => Ok(()),
        n => bail!("{} without a partition key cannot be put; hand them to a processor instead", count(n)),
    }
}

fn question(found: &Found, stream: &str) -> String {
    let (letters, streams) = (count(found.waiting.len()), names("stream", &found.streams));
    format!("Put {letters} of {streams} into the stream `{stream}`?")
}

/// Raises the flag when the process is asked to end: between a put and its marks it must not.
fn watch_for_a_stop(env: &dyn Env, stopped: &Arc<AtomicBool>) -> Result<Task<()>> {
    let (mut stop, stopped) = (Stop::install()?, Arc::clone(stopped));
    Ok(env.spawn(core::Place::Coordination, async move {
        if stop.requested().await.is_ok() {
            stopped.store(true, Ordering::Relaxed);
        }
    }))
}

/// Letters on their way into the stream.
struct Transfer<'a> {
    env: &'a dyn Env,
    writer: &'a dyn StreamWriter,
    /// Where letters can be marked.
    archive: Option<&'a dyn DeadLetterArchive>,
    retry: RetryPolicy,
    stopped: Arc<AtomicBool>,
    put: usize,
    marked: usize,
    keyless: usize,
}

/// What goes into one request.
#[derive(Default)]
struct Request {
    letters: Vec<(LetterId, PutEntry)>,
    bytes: usize,
}

impl Request {
    fn has_room_for(&self, entry: &PutEntry) -> bool {
        self.letters.is_empty() || (self.letters.len() < MAX_ENTRIES && self.bytes + weight(entry) <= MAX_BYTES)
    }

    fn push(&mut self, id: LetterId, entry: PutEntry) {
        self.bytes += weight(&entry);
        self.letters.push((id, entry));
    }
}

fn weight(entry: &PutEntry) -> usize {
    entry.data.len() + entry.partition_key.as_str().len()
}

/// The record as it was put; `None` where it has no partition key, which a put needs.
fn entry(letter: DeadLetter) -> Option<PutEntry> {
    let record = letter.record;
    let partition_key = record.partition_key?;
    Some(PutEntry { data: record.data, partition_key, explicit_hash_key: record.explicit_hash_key })
}

impl<'a> Transfer<'a> {
    fn new(env: &'a dyn Env, writer: &'a dyn StreamWriter, archive: Option<&'a dyn DeadLetterArchive>) -> Self {
        let retry = RetryPolicy::default().with_cap(Duration::from_secs(2)).with_max_retries(Some(20));
        Self { env, writer, archive, retry, stopped: Arc::default(), put: 0, marked: 0, keyless: 0 }
    }

    /// Puts every letter that is still in one of the states.
    async fn all(&mut self, letters: &mut Letters<'_>, wanted: &[LetterState]) -> Result<()> {
        let mut request = Request::default();
        while let Some(page) = letters.next_page().await? {
            for letter in page.into_iter().filter(|letter| wanted.contains(&letter.state)) {
                let id = letter.letter.id();
                let Some(entry) = entry(letter.letter) else {
                    eprintln!("{id} has no partition key");
                    self.keyless += 1;
                    continue;
                };
                if !request.has_room_for(&entry) {
                    self.send(std::mem::take(&mut request)).await?;
                }
                request.push(id, entry);
            }
        }
        self.send(request).await
    }

    /// Puts these, again and again for what the stream refuses.
    async fn send(&mut self, request: Request) -> Result<()> {
        let mut left = request.letters;
        let mut failures = 0;
        while !left.is_empty() {
            if self.stopped.load(Ordering::Relaxed) {
                bail!("stopped, as asked; the others wait as before");
            }
            let before = left.len();
            let refusal;
            (left, refusal) = self.put(left).await?;
            let Some(refusal) = refusal else { break };
            failures = if left.len() < before { 1 } else { failures + 1 };
            let Some(delay) = self.retry.delay(failures, self.env.random()) else {
                return Err(
                    refusal.context(format!("the stream refused {} {failures} times in a row", count(left.len())))
                );
            };
            self.env.sleep(delay).await;
        }
        Ok(())
    }

    /// One request. Marks what the stream took, and gives back what it refused with one of the reasons.
    async fn put(&mut self, letters: Vec<(LetterId, PutEntry)>) -> Result<(Vec<(LetterId, PutEntry)>, Option<Error>)> {
        let (ids, entries): (Vec<_>, Vec<_>) = letters.into_iter().unzip();
        let results = match self.writer.put(&entries).await {
            Ok(results) => results,
            Err(error) if error.kind() == StreamErrorKind::Throttled => {
                return Ok((ids.into_iter().zip(entries).collect(), Some(error.into())));
            }
            Err(error) => return Err(failed(&ids, error)),
        };
        ensure!(results.len() == ids.len(), "the stream answered for {} of {} records", results.len(), ids.len());
        let (mut left, mut refusal) = (Vec::new(), None);
        for ((id, entry), result) in ids.into_iter().zip(entries).zip(results) {
            match result {
                Ok(_) => self.mark(&id).await?,
                Err(error) => {
                    refusal = Some(error.into());
                    left.push((id, entry));
                }
            }
        }
        Ok((left, refusal))
    }

    async fn mark(&mut self, id: &LetterId) -> Result<()> {
        self.put += 1;
        let Some(archive) = self.archive else { return Ok(()) };
        let marked = archive.mark_redriven(id, self.env.timestamp()).await;
        let marked = marked.with_context(|| format!("{id} is in the stream and could not be marked as redriven"))?;
        self.marked += usize::from(marked);
        Ok(())
    }

    /// What is done, without a full stop.
    fn report(&self, stream: &str) -> String {
        let put = format!("{} put into the stream `{stream}`", count(self.put));
        match self.archive {
            Some(_) => format!("{put}, {} marked as redriven", self.marked),
            None => put,
        }
    }
}

/// The error of a whole request, with what became of its letters.
fn failed(ids: &[LetterId], error: StreamError) -> Error {
    let first = ids.first().map(ToString::to_string).unwrap_or_default();
    let letters = match ids.len() {
        0 | 1 => first,
        n => format!("{first} and {} after it", count(n - 1)),
    };
    let fate =
        if error.may_have_applied() { "it is not known whether the stream took" } else { "the stream did not take" };
    Error::from(error).context(format!("{fate} {letters}, which stay as they are"))
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Mutex;

    use shardwell::core::memory::MemoryDeadLetters;
    use shardwell::dead_letter::{DeadLetterSink, LetterQuery};
    use shardwell::{Placed, PutError, PutErrorKind, PutResult, SystemEnv, async_trait};

    use super::super::sample::letter;
    use super::*;

    /// A stream that takes every other record of a request, and remembers what it took.
    #[derive(Debug, Default)]
    struct Fussy {
        taken: Mutex<Vec<PutEntry>>,
        requests: Mutex<Vec<usize>>,
        /// Answers requests as a whole with this.
        fails: Option<StreamErrorKind>,
        takes_none: bool,
    }

    impl fmt::Display for Fussy {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("fussy")
        }
    }

    #[async_trait]
    impl StreamWriter for Fussy {
        async fn put(&self, entries: &[PutEntry]) -> Result<Vec<PutResult>, StreamError> {
            self.requests.lock().expect("unharmed").push(entries.len());
            if let Some(kind) = self.fails {
                return Err(StreamError::new(kind, "no"));
            }
            let answer = |(index, entry): (usize, &PutEntry)| {
                if self.takes_none || index % 2 == 1 {
                    let code = "ProvisionedThroughputExceededException".to_owned();
                    return Err(PutError { kind: PutErrorKind::Throttled, code, message: "slow down".to_owned() });
                }
                self.taken.lock().expect("unharmed").push(entry.clone());
                Ok(Placed { shard: "shardId-000000000000".into(), sequence_number: 1u64.into() })
            };
            Ok(entries.iter().enumerate().map(answer).collect())
        }
    }

    fn request(letters: u64) -> Request {
        let mut request = Request::default();
        for number in 0..letters {
            let letter = letter(number);
            request.push(letter.id(), entry(letter).expect("it has a key"));
        }
        request
    }

    #[tokio::test]
    async fn what_is_refused_is_put_again_and_what_is_taken_is_marked_once() {
        let env = SystemEnv::new().expect("threads");
        let (writer, archive) = (Fussy::default(), MemoryDeadLetters::new());
        let letters: Vec<DeadLetter> = (0..8).map(letter).collect();
        archive.put(&letters).await.expect("put");
        let mut transfer = Transfer::new(&env, &writer, Some(&archive));
        transfer.retry = RetryPolicy::default().with_initial(Duration::ZERO);
        transfer.send(request(8)).await.expect("all are taken in the end");
        assert_eq!(*writer.requests.lock().expect("unharmed"), [8, 4, 2, 1]);
        let mut keys: Vec<_> = writer.taken.lock().expect("unharmed").iter().map(|e| e.explicit_hash_key).collect();
        keys.sort();
        assert_eq!(keys, (0..8).map(Some).collect::<Vec<_>>());
        assert_eq!(transfer.report("flights"), "8 letters put into the stream `flights`, 8 marked as redriven");
        let page = archive.letters(&LetterQuery::default(), None, 100).await.expect("read");
        assert!(page.letters.iter().all(|letter| letter.state == LetterState::Redriven));
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_is_given_up_on() {
        let env = SystemEnv::new().expect("threads");
        let throttled = Fussy { fails: Some(StreamErrorKind::Throttled), ..Fussy::default() };
        let deaf = Fussy { takes_none: true, ..Fussy::default() };
        for writer in [&throttled, &deaf] {
            let mut transfer = Transfer::new(&env, writer, None);
            transfer.retry = RetryPolicy::default().with_initial(Duration::ZERO).with_max_retries(Some(3));
            let error = transfer.send(request(2)).await.expect_err("refused").to_string();
            assert_eq!(error, "the stream refused 2 letters 4 times in a row");
            assert_eq!(writer.requests.lock().expect("unharmed").len(), 4);
            assert_eq!(transfer.put, 0);
        }
    }

    #[tokio::test]
    async fn a_request_of_which_nobody_knows_is_not_repeated() {
        let env = SystemEnv::new().expect("threads");
        for (kind, fate) in [
            (StreamErrorKind::Timeout, "it is not known whether the stream took"),
            (StreamErrorKind::Denied, "the stream did not take"),
        ] {
            let writer = Fussy { fails: Some(kind), ..Fussy::default() };
            let mut transfer = Transfer::new(&env, &writer, None);
            let error = transfer.send(request(3)).await.expect_err("failed").to_string();
            assert_eq!(
                error,
                format!(
                    "{fate} delays/flights/shardId-000000000000/0/0 and 2 letters after it, which stay as they are"
                )
            );
            assert_eq!(writer.requests.lock().expect("unharmed").len(), 1);
        }
    }

    #[tokio::test]
    async fn a_stop_comes_between_requests() {
        let env = SystemEnv::new().expect("threads");
        let writer = Fussy::default();
        let mut transfer = Transfer::new(&env, &writer, None);
        transfer.stopped.store(true, Ordering::Relaxed);
        let error = transfer.send(request(1)).await.expect_err("stopped").to_string();
        assert!(error.starts_with("stopped, as asked"), "{error}");
        assert!(writer.requests.lock().expect("unharmed").is_empty());
    }

    #[test]
    fn a_request_keeps_to_the_limits_of_the_service() {
        let full = request(500);
        assert!(!full.has_room_for(&PutEntry::new("k", "")));
        let mut large = Request::default();
        let large_entry = PutEntry::new("k", vec![0; MAX_BYTES]);
        assert!(large.has_room_for(&large_entry), "one that is too large is for the service to refuse");
        large.push(letter(1).id(), PutEntry::new("k", vec![0; MAX_BYTES - 2]));
        assert!(large.has_room_for(&PutEntry::new("k", "")));
        assert!(!large.has_room_for(&PutEntry::new("k", "x")));
    }

    #[test]
    fn a_record_without_a_key_cannot_be_put() {
        let mut keyless = letter(1);
        keyless.record.partition_key = None;
        assert_eq!(entry(keyless), None);
    }
}
