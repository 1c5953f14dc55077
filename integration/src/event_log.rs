//! What a consuming process did, written so that it survives the death of the process at any moment.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use shardwell_core::{Checkpoint, SequenceNumber, ShardId, Timestamp, WorkerId, WriteToken};

/// A file that one process appends to. Each event is a single write, so it is in the file whole once
/// [`write`](Self::write) has returned, whatever befalls the process then.
#[derive(Debug)]
pub struct EventLog(File);

/// Reads a log while it is written.
#[derive(Debug)]
pub struct LogTail {
    path: PathBuf,
    /// How many bytes were read, all of them whole lines.
    read: u64,
}

/// Something that happened in a consuming process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, by the wall clock of the machine.
    pub at: Timestamp,
    /// In which shard.
    pub shard: ShardId,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The processor of the shard was initialized, to resume after this checkpoint.
    Initialized(Checkpoint),
    /// The processor handled a record.
    Record {
        /// The position of the record.
        sequence_number: SequenceNumber,
        /// The running number that it was put with.
        number: u64,
        /// Its partition key, which has no space in it.
        key: String,
    },
    /// The processor was handed a record that it failed on.
    Failed {
        /// The running number that it was put with.
        number: u64,
    },
    /// The processor handled a dead letter that was redriven.
    Redriven {
        /// The running number that it was put with.
        number: u64,
        /// Its partition key, which has no space in it.
        key: String,
    },
    /// The worker is about to renew the lease of the shard.
    Renewing {
        /// The counter that the lease must have.
        counter: u64,
        /// What the write leaves in the row. The same again where the outcome of the write before is not known.
        token: WriteToken,
        /// The checkpoint to be written.
        checkpoint: Option<Checkpoint>,
    },
    /// The worker is about to give the lease of the shard to another owner.
    Passing {
        /// The counter that the lease must have, if that matters.
        counter: Option<u64>,
        /// The new owner, if there is to be one.
        to: Option<WorkerId>,
    },
    /// The processor was told that the lease is lost.
    LeaseLost,
    /// The processor was told that the shard is done.
    ShardEnded,
    /// The processor was told that the worker stops.
    ShutdownRequested,
}

/// A line that is not an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedEvent(String);

impl EventLog {
    /// Opens a log for appending, and creates it where needed.
    ///
    /// # Errors
    /// When the system refuses the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().append(true).create(true).open(path).map(Self)
    }

    /// Appends an event.
    ///
    /// # Errors
    /// When the system refuses the write.
    pub fn write(&self, event: &Event) -> io::Result<()> {
        (&self.0).write_all(format!("{event}\n").as_bytes())
    }

    /// Everything in a log: see [`LogTail::read`].
    ///
    /// # Errors
    /// As there.
    pub fn read(path: &Path) -> io::Result<Vec<Event>> {
        LogTail::new(path).read()
    }
}

impl LogTail {
    /// A log that is read from its beginning.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), read: 0 }
    }

    /// What is in the log that was not read yet; nothing if there is no such file. A process may die in the middle of a
    /// write, so a last line without its end is left out.
    ///
    /// # Errors
    /// When the file cannot be read, or holds a line that is not an event.
    pub fn read(&mut self) -> io::Result<Vec<Event>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        self.read += bytes.len() as u64;
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        text.lines().map(|line| line.parse().map_err(io::Error::other)).collect()
    }
}

/// Stands where there is nothing.
const NOTHING: &str = "-";

/// One line without its end.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.at.as_millis(), self.shard)?;
        match &self.kind {
            EventKind::Initialized(checkpoint) => write!(f, "initialized {}", checkpoint.to_stored().0),
            EventKind::Record { sequence_number, number, key } => write!(f, "record {sequence_number} {number} {key}"),
            EventKind::Failed { number } => write!(f, "failed {number}"),
            EventKind::Redriven { number, key } => write!(f, "redriven {number} {key}"),
            EventKind::Renewing { counter, token, checkpoint: None } => {
                write!(f, "renewing {counter} {}", token.get())
            }
            EventKind::Renewing { counter, token, checkpoint: Some(checkpoint) } => {
                let (checkpoint, sub) = checkpoint.to_stored();
                write!(f, "renewing {counter} {} {checkpoint} {sub}", token.get())
            }
            EventKind::Passing { counter, to } => {
                let counter = counter.map_or_else(|| NOTHING.to_owned(), |counter| counter.to_string());
                write!(f, "passing {counter} {}", to.as_ref().map_or(NOTHING, WorkerId::as_str))
            }
            EventKind::LeaseLost => f.write_str("lease-lost"),
            EventKind::ShardEnded => f.write_str("shard-ended"),
            EventKind::ShutdownRequested => f.write_str("shutdown-requested"),
        }
    }
}

impl FromStr for Event {
    type Err = MalformedEvent;

    fn from_str(line: &str) -> Result<Self, MalformedEvent> {
        parse(line).ok_or_else(|| MalformedEvent(line.to_owned()))
    }
}

fn parse(line: &str) -> Option<Event> {
    let fields: Vec<&str> = line.split(' ').collect();
    let [at, shard, kind @ ..] = &fields[..] else { return None };
    let kind = match kind {
        ["initialized", checkpoint] => EventKind::Initialized(Checkpoint::from_stored(checkpoint, 0).ok()?),
        ["record", sequence_number, number, key] => EventKind::Record {
            sequence_number: sequence_number.parse().ok()?,
            number: number.parse().ok()?,
            key: (*key).to_owned(),
        },
        ["failed", number] => EventKind::Failed { number: number.parse().ok()? },
        ["redriven", number, key] => EventKind::Redriven { number: number.parse().ok()?, key: (*key).to_owned() },
        ["renewing", counter, token, checkpoint @ ..] => EventKind::Renewing {
            counter: counter.parse().ok()?,
            token: WriteToken::new(token.parse().ok()?),
            checkpoint: match checkpoint {
                [] => None,
                [checkpoint, sub] => Some(Checkpoint::from_stored(checkpoint, sub.parse().ok()?).ok()?),
                _ => return None,
            },
        },
        ["passing", counter, to] => EventKind::Passing {
            counter: if *counter == NOTHING { None } else { Some(counter.parse().ok()?) },
            to: (*to != NOTHING).then(|| (*to).into()),
        },
        ["lease-lost"] => EventKind::LeaseLost,
        ["shard-ended"] => EventKind::ShardEnded,
        ["shutdown-requested"] => EventKind::ShutdownRequested,
        _ => return None,
    };
    Some(Event { at: Timestamp::from_millis(at.parse().ok()?), shard: (*shard).into(), kind })
}

impl fmt::Display for MalformedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an event: {:?}", self.0)
    }
}

impl std::error::Error for MalformedEvent {}

#[cfg(test)]
mod tests {
    use shardwell_core::ExtendedSequenceNumber;

    use super::*;

    #[test]
    fn every_event_is_read_back_and_a_torn_one_is_left_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        assert_eq!(EventLog::read(&path).expect("no file is an empty log"), []);
        let log = EventLog::open(&path).expect("opened");
        let inside = ExtendedSequenceNumber::new(49u64.into(), 2);
        let kinds = [
            EventKind::Initialized(Checkpoint::TrimHorizon),
            EventKind::Record { sequence_number: 49u64.into(), number: 7, key: "key-1".into() },
            EventKind::Failed { number: 8 },
            EventKind::Redriven { number: 8, key: "key-2".into() },
            EventKind::Renewing { counter: 3, token: WriteToken::new(u64::MAX), checkpoint: None },
            EventKind::Renewing { counter: 4, token: WriteToken::new(5), checkpoint: Some(Checkpoint::At(inside)) },
            EventKind::Passing { counter: Some(5), to: Some("worker-2".into()) },
            EventKind::Passing { counter: None, to: None },
            EventKind::LeaseLost,
            EventKind::ShardEnded,
            EventKind::ShutdownRequested,
        ];
        let events = kinds.map(|kind| Event { at: Timestamp::from_millis(5), shard: "shard".into(), kind });
        for event in &events {
            log.write(event).expect("written");
        }
        (&log.0).write_all(b"5 shard record 50 8 ke").expect("written");
        assert_eq!(EventLog::read(&path).expect("read"), events);
        let mut tail = LogTail::new(&path);
        assert_eq!(tail.read().expect("read"), events);
        (&log.0).write_all(b"y-1\n").expect("written");
        let kind = EventKind::Record { sequence_number: 50u64.into(), number: 8, key: "key-1".into() };
        let finished = Event { at: Timestamp::from_millis(5), shard: "shard".into(), kind };
        assert_eq!(tail.read().expect("read"), [finished]);
        assert_eq!(tail.read().expect("read"), []);
        (&log.0).write_all(b"5 shard record x 8 key\n").expect("written");
        EventLog::read(&path).expect_err("x is no sequence number");
    }
}
