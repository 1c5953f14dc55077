//! What becomes of letters that were requested.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use shardwell::Env;
use shardwell::core::Monotonic;
use shardwell::dead_letter::{DeadLetterArchive, LetterId, LetterState};

/// How often to look.
const PAUSE: Duration = Duration::from_millis(500);
/// How many open letters are met before it is time for a pause: a worker takes them from the front.
const OPEN_AT_ONCE: usize = 100;
/// When nothing has happened for this long, somebody should look whether a worker runs at all.
const QUIET: Duration = Duration::from_secs(20);

/// How many letters came to which end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ends {
    redriven: usize,
    dead: usize,
    parked: usize,
    removed: usize,
}

impl Ends {
    /// Counts a letter in this state, if it is one that letters stay in; without a state it is no longer there.
    fn settle(&mut self, state: Option<LetterState>) -> bool {
        match state {
            Some(LetterState::Redriven) => self.redriven += 1,
            Some(LetterState::Dead) => self.dead += 1,
            Some(LetterState::Parked) => self.parked += 1,
            None => self.removed += 1,
            Some(_) => return false,
        }
        true
    }

    const fn failures(&self) -> usize {
        self.dead + self.parked + self.removed
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} redriven", self.redriven)?;
        let others = [(self.dead, "dead again"), (self.parked, "parked"), (self.removed, "removed by somebody")];
        others.into_iter().filter(|(n, _)| *n > 0).try_for_each(|(n, what)| write!(f, ", {n} {what}"))
    }
}

/// Waits until every letter has come to an end. An error unless all of them are redriven.
pub(super) async fn until_settled(
    env: &dyn Env,
    archive: &dyn DeadLetterArchive,
    mut open: BTreeSet<LetterId>,
    timeout: Option<Duration>,
) -> Result<()> {
    let deadline = timeout.map(|timeout| env.now().plus(timeout));
    let mut ends = Ends::default();
    let mut changed = env.now();
    let mut warned = false;
    loop {
        let before = ends.clone();
        look(archive, &mut open, &mut ends).await?;
        if open.is_empty() {
            break;
        }
        if ends != before {
            changed = env.now();
            eprintln!("{ends}; {} to go", open.len());
        }
        if deadline.is_some_and(|deadline| env.now() >= deadline) {
            bail!("{ends}, and {} not tried in time; they stay requested", open.len());
        }
        if !warned && env.now().since(changed) >= QUIET {
            warned = true;
            eprintln!(
                "Nothing has happened for {QUIET:?}: does a worker of the application run, with this file as its sink?"
            );
        }
        env.sleep_until(earlier(env.now().plus(PAUSE), deadline)).await;
    }
    println!("{ends}.");
    match ends.failures() {
        0 => Ok(()),
        1 => bail!("1 letter is not redriven; `dead-letters list` shows its last error"),
        n => bail!("{n} letters are not redriven; `dead-letters list` shows their last errors"),
    }
}

fn earlier(at: Monotonic, deadline: Option<Monotonic>) -> Monotonic {
    deadline.map_or(at, |deadline| at.min(deadline))
}

/// Looks at letters from the front until enough of them are still open.
async fn look(archive: &dyn DeadLetterArchive, open: &mut BTreeSet<LetterId>, ends: &mut Ends) -> Result<()> {
    let mut still_open = BTreeSet::new();
    while still_open.len() < OPEN_AT_ONCE
        && let Some(id) = open.pop_first()
    {
        let state = archive.letter(&id).await?.map(|letter| letter.state);
        if !ends.settle(state) {
            still_open.insert(id);
        }
    }
    open.append(&mut still_open);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_comes_to_an_end_once_no_worker_has_it() {
        let mut ends = Ends::default();
        for open in [LetterState::Requested, LetterState::Redriving] {
            assert!(!ends.settle(Some(open)));
        }
        assert_eq!(ends, Ends::default());
        for end in [Some(LetterState::Redriven), Some(LetterState::Dead), Some(LetterState::Parked), None] {
            assert!(ends.settle(end));
        }
        assert_eq!(ends.to_string(), "1 redriven, 1 dead again, 1 parked, 1 removed by somebody");
        assert_eq!(ends.failures(), 3);
    }
}
