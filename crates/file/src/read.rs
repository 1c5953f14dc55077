//! Reading letters back from a file, line by line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Take};
use std::path::Path;
use std::time::Duration;

use shardwell_core::dead_letter::{DeadLetter, InvalidLetter, LetterId, SinkError};

use crate::MAX_LINE_BYTES;
use crate::failure::Failure;
use crate::lock::{Lock, lock};

/// How long those who write are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A letter, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The number of the line, from 1.
    pub number: u64,
    /// The letter.
    pub letter: DeadLetter,
}

/// A line that holds no letter. The lines after it can be read all the same.
#[derive(Debug, thiserror::Error)]
#[error("line {number}: {problem}")]
pub struct BadLine {
    /// The number of the line, from 1.
    pub number: u64,
    /// What is wrong with it.
    #[source]
    pub problem: Problem,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It is the last one and not whole: a process died while it wrote, and put the letter again if it came back.
    #[error("the last line is not whole; it was being written when a process died")]
    Torn,
    /// It is longer than [`MAX_LINE_BYTES`].
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// It is not UTF-8.
    #[error("the line is not text")]
    NotText(#[source] std::str::Utf8Error),
    /// It is not the JSON of a letter: cut off, a document of Lambda's, of a newer version, or something else.
    #[error("{0}")]
    Letter(#[source] InvalidLetter),
    /// The file cannot be read; no lines follow.
    #[error("the file cannot be read: {0}")]
    Io(#[source] io::Error),
}

/// Reads the letters in a file. Of several lines about one record, which a worker writes after a crash, the last one
/// counts, in its place; the others are passed over. Blocks its thread.
///
/// The file is read as it is now: what is appended later is not seen. All identities are held in memory, and one letter.
///
/// # Errors
/// When the file cannot be opened or read, or somebody keeps it locked for 10 s.
pub fn read(path: impl AsRef<Path>) -> Result<Letters, SinkError> {
    let path = path.as_ref();
    open(path).map_err(|failure| failure.into_sink_error("reading the dead letters", path))
}

fn open(path: &Path) -> Result<Letters, Failure> {
    let failed = |e| Failure::Io("reading the file", e);
    let mut file = File::open(path).map_err(failed)?;
    let length = settled_length(&file)?;
    let mut last = BTreeMap::new();
    let mut lines = Lines::new(&mut file, length);
    while let Some(line) = lines.next_line() {
        match line {
            Ok(line) => drop(last.insert(line.letter.id(), line.number)),
            Err(BadLine { problem: Problem::Io(error), .. }) => return Err(failed(error)),
            Err(_) => {}
        }
    }
    file.rewind().map_err(failed)?;
    Ok(Letters { lines: Lines::new(file, length), last })
}

/// How long the file is when nobody is in the middle of a write.
fn settled_length(file: &File) -> Result<u64, Failure> {
    let failed = |e| Failure::Io("looking at the file", e);
    lock(file, Lock::Shared, PATIENCE)?;
    let length = file.metadata().map_err(failed)?.len();
    file.unlock().map_err(failed)?;
    Ok(length)
}

/// The letters in a file, in the order of their lines.
#[derive(Debug)]
pub struct Letters {
    lines: Lines<File>,
    /// The line of each record that counts.
    last: BTreeMap<LetterId, u64>,
}

impl Iterator for Letters {
    type Item = Result<Line, BadLine>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.lines.next_line()? {
                Ok(line) if self.last.get(&line.letter.id()).is_some_and(|last| *last > line.number) => {}
                other => return Some(other),
            }
        }
    }
}

/// All lines that are not empty.
#[derive(Debug)]
struct Lines<R> {
    reader: BufReader<Take<R>>,
    number: u64,
    ended: bool,
}

impl<R: Read> Lines<R> {
    fn new(reader: R, length: u64) -> Self {
        Self { reader: BufReader::new(reader.take(length)), number: 0, ended: false }
    }

    fn next_line(&mut self) -> Option<Result<Line, BadLine>> {
        while !self.ended {
            self.number += 1;
            let number = self.number;
            let bad = |problem| Some(Err(BadLine { number, problem }));
            match self.next_bytes() {
                Err(error) => {
                    self.ended = true;
                    return bad(Problem::Io(error));
                }
                Ok(Bytes::End) => self.ended = true,
                Ok(Bytes::TooLong) => return bad(Problem::TooLong),
                Ok(Bytes::Line { bytes, .. }) if bytes.is_empty() => {}
                Ok(Bytes::Line { bytes, whole }) => {
                    return match parse(&bytes) {
                        Ok(letter) => Some(Ok(Line { number, letter })),
                        Err(_) if !whole => bad(Problem::Torn),
                        Err(problem) => bad(problem),
                    };
                }
            }
        }
        None
    }

    fn next_bytes(&mut self) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        // One more for the line feed, and one more to see that it is too long.
        let limit = MAX_LINE_BYTES as u64 + 2;
        if self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
            return Ok(Bytes::End);
        }
        let whole = bytes.pop_if(|last| *last == b'\n').is_some();
        if bytes.len() <= MAX_LINE_BYTES {
            return Ok(Bytes::Line { bytes, whole });
        }
        if !whole {
            self.reader.skip_until(b'\n')?;
        }
        Ok(Bytes::TooLong)
    }
}

enum Bytes {
    Line { bytes: Vec<u8>, whole: bool },
    TooLong,
    End,
}

fn parse(bytes: &[u8]) -> Result<DeadLetter, Problem> {
    let text = std::str::from_utf8(bytes).map_err(Problem::NotText)?;
    DeadLetter::from_json(text).map_err(Problem::Letter)
}
