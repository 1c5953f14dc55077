//! Asking before something is lost.

use std::io::{self, BufRead, Write};

use anyhow::{Context, Result};

/// Asks on standard error and reads the answer from standard input; whatever is not a yes is a no.
pub(super) fn confirm(question: &str) -> Result<bool> {
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).context("cannot ask for confirmation")?;
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    if read == 0 {
        // The terminal's cursor is still behind the question.
        eprintln!();
    }
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::is_yes;

    #[test]
    fn only_a_yes_is_a_yes() {
        assert!(["y", "Y\n", " yes \r\n"].into_iter().all(is_yes));
        assert!(!["", "\n", "n", "yep", "no", "delays"].into_iter().any(is_yes));
    }
}
