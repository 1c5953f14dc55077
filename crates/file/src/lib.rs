//! The dead letters of shardwell in a file: a line of JSON each, on the disk before the worker goes on.
//!
//! ```
//! use shardwell_core::dead_letter::DeadLetterSink;
//! use shardwell_file::{FileDeadLetters, read};
//!
//! # let directory = tempfile::tempdir().expect("a directory");
//! # let path = directory.path().join("dead-letters.ndjson");
//! # let letter = shardwell_core::testing::dead_letters::letter(7);
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(async {
//! let dead_letters = FileDeadLetters::new(&path);
//! dead_letters.put(&[letter]).await?;
//!
//! for line in read(&path)? {
//!     match line {
//!         Ok(line) => println!("{}: {}", line.letter.id(), line.letter.error_line()),
//!         Err(bad) => eprintln!("{bad}"),
//!     }
//! }
//! # Ok::<_, shardwell_core::dead_letter::SinkError>(())
//! # }).expect("it works");
//! ```
//!
//! What blocks is in `append.rs`, `lock.rs` and `read.rs`; `sink.rs` takes it off the threads of async tasks.

#![warn(missing_docs)]

mod append;
mod failure;
mod lock;
mod read;
mod sink;

pub use read::{BadLine, Letters, Line, Problem, read};
pub use sink::{FileDeadLetters, Format};

/// How long a line may be, in bytes: a letter with the largest payload of a stream (10 MiB) takes a quarter of it.
pub const MAX_LINE_BYTES: usize = 64 << 20;
