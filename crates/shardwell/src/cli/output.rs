//! Standard output, whose reader may stop at any time.

use std::io::{self, BufWriter, Stdout, Write};

use anyhow::{Error, Result};

/// Writes through a buffer. Whoever reads may have seen enough: that is no error.
pub(super) type Output = BufWriter<Stdout>;

pub(super) fn output() -> Output {
    BufWriter::new(io::stdout())
}

/// Ends the output, and says how it went.
pub(super) fn finish(result: Result<()>, mut out: Output) -> Result<()> {
    let result = result.and_then(|()| Ok(out.flush()?));
    // What is still in the buffer of a broken output would be tried again.
    drop(out.into_parts());
    match result {
        Err(error) if is_broken_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
