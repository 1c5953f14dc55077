//! Where dead letters are.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use shardwell::sqlite::SqliteDeadLetters;

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct PlaceArgs {
    /// The SQLite file that holds the letters
    #[arg(long, value_name = "FILE")]
    sqlite: Option<PathBuf>,
    /// The file with a letter in each line, as JSON
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Letters that can be read.
#[derive(Debug)]
pub(super) enum Place {
    Archive(SqliteDeadLetters),
    File(PathBuf),
}

impl PlaceArgs {
    pub(super) fn path(&self) -> &Path {
        // One of them is given, or the arguments would not have been taken.
        self.sqlite.as_deref().or(self.file.as_deref()).unwrap_or(Path::new(""))
    }

    /// For looking on: nothing is created or changed.
    pub(super) async fn open(&self) -> Result<Place> {
        match &self.sqlite {
            Some(path) => Ok(Place::Archive(SqliteDeadLetters::open_existing(path).await?)),
            None => Ok(Place::File(self.path().to_owned())),
        }
    }

    /// For changing the state of letters, where there is one.
    pub(super) async fn open_for_writing(&self) -> Result<Place> {
        let place = self.open().await?;
        match &self.sqlite {
            // Only now: opening for writing would create a missing file.
            Some(path) => Ok(Place::Archive(SqliteDeadLetters::open(path).await?)),
            None => Ok(place),
        }
    }
}

impl Place {
    /// Where letters have a state.
    pub(super) const fn archive(&self) -> Option<&SqliteDeadLetters> {
        match self {
            Self::Archive(archive) => Some(archive),
            Self::File(_) => None,
        }
    }
}
