//! The letters that are asked for, a page at a time, from wherever they are.

use std::collections::{BTreeSet, btree_set};
use std::path::Path;

use anyhow::{Result, bail};
use shardwell::dead_letter::{ArchivedLetter, DeadLetterArchive, LetterId};
use shardwell::file::{self, Line};
use shardwell::sqlite::SqliteDeadLetters;

use super::filter::Selection;
use super::place::Place;

/// How many letters are held at once. Their payloads come along, which can be large.
const PAGE: usize = 100;

/// Letters yet to be read.
#[derive(Debug)]
pub(super) struct Letters<'a> {
    selection: &'a Selection,
    cursor: Cursor<'a>,
    unreadable: u64,
}

#[derive(Debug)]
enum Cursor<'a> {
    Matching { archive: &'a SqliteDeadLetters, after: Option<LetterId> },
    Named { archive: &'a SqliteDeadLetters, ids: btree_set::Iter<'a, LetterId> },
    Lines(Lines<'a>),
    End,
}

#[derive(Debug)]
struct Lines<'a> {
    path: &'a Path,
    lines: Box<file::Letters>,
    /// Named, and not found so far.
    missing: BTreeSet<&'a LetterId>,
}

impl<'a> Letters<'a> {
    pub(super) fn of(place: &'a Place, selection: &'a Selection) -> Result<Self> {
        let cursor = match place {
            Place::Archive(archive) if selection.ids.is_empty() => Cursor::Matching { archive, after: None },
            Place::Archive(archive) => Cursor::Named { archive, ids: selection.ids.iter() },
            Place::File(path) => {
                let lines = Box::new(file::read(path)?);
                Cursor::Lines(Lines { path, lines, missing: selection.ids.iter().collect() })
            }
        };
        Ok(Self { selection, cursor, unreadable: 0 })
    }

    /// The next letters, which may be none; `None` at the end. A letter that was named and is not there is an error.
    pub(super) async fn next_page(&mut self) -> Result<Option<Vec<ArchivedLetter>>> {
        let selection = self.selection;
        match &mut self.cursor {
            Cursor::End => Ok(None),
            Cursor::Matching { archive, after } => {
                let page = archive.letters(&selection.query, after.as_ref(), PAGE).await?;
                self.unreadable += page.unreadable;
                match page.next {
                    Some(next) => *after = Some(next),
                    None => self.cursor = Cursor::End,
                }
                Ok(Some(page.letters))
            }
            Cursor::Named { archive, ids } => {
                let Some(id) = ids.next() else { return Ok(None) };
                let Some(letter) = archive.letter(id).await? else {
                    bail!("there is no dead letter {id} in {}", archive.path().display())
                };
                Ok(Some(Vec::from_iter(selection.matches(&letter).then_some(letter))))
            }
            Cursor::Lines(lines) => {
                let page = lines.page(selection, &mut self.unreadable)?;
                if page.is_none() {
                    self.cursor = Cursor::End;
                }
                Ok(page)
            }
        }
    }

    /// How many could not be read so far. Each was reported.
    pub(super) const fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

impl Lines<'_> {
    fn page(&mut self, selection: &Selection, unreadable: &mut u64) -> Result<Option<Vec<ArchivedLetter>>> {
        let mut letters = Vec::new();
        while letters.len() < PAGE {
            match self.lines.next() {
                Some(Ok(Line { letter, .. })) => {
                    let letter = ArchivedLetter::new(letter);
                    self.missing.remove(&letter.letter.id());
                    letters.extend(selection.matches(&letter).then_some(letter));
                }
                Some(Err(bad)) => {
                    *unreadable += 1;
                    eprintln!("{}, {bad}", self.path.display());
                }
                None if letters.is_empty() => return self.end(),
                None => break,
            }
        }
        Ok(Some(letters))
    }

    fn end(&self) -> Result<Option<Vec<ArchivedLetter>>> {
        match self.missing.first() {
            Some(id) => bail!("there is no dead letter {id} in {}", self.path.display()),
            None => Ok(None),
        }
    }
}
