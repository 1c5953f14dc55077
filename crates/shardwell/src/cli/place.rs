//! Where lease tables are, and opening them.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use shardwell::LeaseStore;
use shardwell::sqlite::SqliteLeaseStore;

#[derive(Args, Debug)]
pub(super) struct TableArgs {
    /// The SQLite file that holds the leases
    #[arg(long, value_name = "FILE")]
    sqlite: PathBuf,
}

impl TableArgs {
    /// The application that is wanted, if the file knows it; else all.
    pub(super) async fn applications(&self, wanted: Option<&str>) -> Result<Vec<String>> {
        let known = SqliteLeaseStore::applications(&self.sqlite).await?;
        match wanted {
            None => Ok(known),
            Some(wanted) => {
                ensure_known(wanted, &known)?;
                Ok(vec![wanted.to_owned()])
            }
        }
    }

    /// For looking on: nothing is created or changed.
    pub(super) async fn open(&self, application: &str) -> Result<Arc<dyn LeaseStore>> {
        Ok(Arc::new(SqliteLeaseStore::open_existing(&self.sqlite, application).await?))
    }

    /// For changing what is there of an application.
    pub(super) async fn open_for_writing(&self, application: &str) -> Result<Arc<dyn LeaseStore>> {
        self.applications(Some(application)).await?;
        // Only now: opening for writing would create a missing file.
        Ok(Arc::new(SqliteLeaseStore::open(&self.sqlite, application).await?))
    }
}

impl fmt::Display for TableArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.sqlite.display(), f)
    }
}

/// An error that names the applications that are there.
fn ensure_known(wanted: &str, known: &[String]) -> Result<()> {
    if known.iter().any(|name| name == wanted) {
        return Ok(());
    }
    match known {
        [] => bail!("there is no application `{wanted}` in the file, nor any other"),
        known => bail!("there is no application `{wanted}` in the file; it holds: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_application_is_told_apart_from_an_empty_file() {
        let known = ["delays".to_owned(), "audit".to_owned()];
        assert!(ensure_known("audit", &known).is_ok());
        let error = ensure_known("delay", &known).expect_err("unknown").to_string();
        assert_eq!(error, "there is no application `delay` in the file; it holds: delays, audit");
        assert!(ensure_known("delays", &[]).is_err());
    }
}
