//! Where lease tables are, and opening them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use shardwell::LeaseStore;
use shardwell::aws::DynamoLeaseStore;
use shardwell::sqlite::SqliteLeaseStore;

use super::aws;

/// An application's lease table.
#[derive(Args, Debug)]
pub(super) struct TableArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Where DynamoDB answers, if not at AWS
    ///
    /// Region and credentials are those of the AWS command line. With an endpoint they may be missing: engines on one's own
    /// machine ask for none.
    #[arg(long, value_name = "URL", requires = "dynamodb", conflicts_with = "sqlite")]
    endpoint: Option<String>,
    /// The application; a DynamoDB table is that of the application of its name
    #[arg(long, value_name = "NAME")]
    application: Option<String>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct PlaceArgs {
    /// The SQLite file that holds the leases
    #[arg(long, value_name = "FILE")]
    sqlite: Option<PathBuf>,
    /// The DynamoDB table that holds the leases
    #[arg(long, value_name = "TABLE")]
    dynamodb: Option<String>,
}

/// Where a table is.
enum Place<'a> {
    Sqlite(&'a Path),
    DynamoDb(&'a str),
}

impl TableArgs {
    fn place(&self) -> Place<'_> {
        match (&self.place.sqlite, &self.place.dynamodb) {
            (Some(file), _) => Place::Sqlite(file),
            (None, Some(table)) => Place::DynamoDb(table),
            (None, None) => unreachable!("the arguments demand one of them"),
        }
    }

    /// The application that was named; else all that are there.
    pub(super) async fn applications(&self) -> Result<Vec<String>> {
        let known = match self.place() {
            Place::Sqlite(file) => SqliteLeaseStore::applications(file).await?,
            Place::DynamoDb(table) => vec![table.to_owned()],
        };
        match &self.application {
            None => Ok(known),
            Some(wanted) => {
                self.ensure_known(wanted, &known)?;
                Ok(vec![wanted.clone()])
            }
        }
    }

    /// The one application that is meant.
    pub(super) async fn one_application(&self) -> Result<String> {
        let mut names = self.applications().await?;
        match (self.place(), &self.application, &names[..]) {
            (Place::DynamoDb(_), _, _) | (_, Some(_), _) => Ok(names.remove(0)),
            (Place::Sqlite(_), None, []) => bail!("{self} holds no application yet"),
            (Place::Sqlite(_), None, names) => {
                bail!("say which application, with --application: {self} holds {}", names.join(", "))
            }
        }
    }

    /// For looking on: nothing is created or changed.
    pub(super) async fn open(&self, application: &str) -> Result<Arc<dyn LeaseStore>> {
        Ok(match self.place() {
            Place::Sqlite(file) => Arc::new(SqliteLeaseStore::open_existing(file, application).await?),
            Place::DynamoDb(table) => self.dynamodb(table).await,
        })
    }

    /// For changing what is there of an application that is known to be there.
    pub(super) async fn open_for_writing(&self, application: &str) -> Result<Arc<dyn LeaseStore>> {
        Ok(match self.place() {
            Place::Sqlite(file) => Arc::new(SqliteLeaseStore::open(file, application).await?),
            Place::DynamoDb(table) => self.dynamodb(table).await,
        })
    }

    async fn dynamodb(&self, table: &str) -> Arc<dyn LeaseStore> {
        Arc::new(DynamoLeaseStore::new(&aws::dynamodb(self.endpoint.as_deref()).await, table))
    }

    /// What names this table on the command line.
    pub(super) fn arguments(&self, application: &str) -> String {
        match (self.place(), &self.endpoint) {
            (Place::Sqlite(file), _) => format!("--sqlite {} --application {application}", file.display()),
            (Place::DynamoDb(table), None) => format!("--dynamodb {table}"),
            (Place::DynamoDb(table), Some(endpoint)) => format!("--dynamodb {table} --endpoint {endpoint}"),
        }
    }

    /// An error that names the applications that are there.
    fn ensure_known(&self, wanted: &str, known: &[String]) -> Result<()> {
        if known.iter().any(|name| name == wanted) {
            return Ok(());
        }
        match (self.place(), known) {
            (Place::DynamoDb(table), _) => {
                bail!("table `{table}` is that of the application of its name, not of `{wanted}`")
            }
            (Place::Sqlite(_), []) => bail!("there is no application `{wanted}` in the file, nor any other"),
            (Place::Sqlite(_), known) => {
                bail!("there is no application `{wanted}` in the file; it holds: {}", known.join(", "))
            }
        }
    }
}

impl fmt::Display for TableArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Place::Sqlite(file) => write!(f, "{}", file.display()),
            Place::DynamoDb(table) => write!(f, "table `{table}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(sqlite: Option<&str>, dynamodb: Option<&str>, endpoint: Option<&str>) -> TableArgs {
        let owned = |text: &str| text.to_owned();
        TableArgs {
            place: PlaceArgs { sqlite: sqlite.map(PathBuf::from), dynamodb: dynamodb.map(owned) },
            endpoint: endpoint.map(owned),
            application: None,
        }
    }

    #[test]
    fn an_unknown_application_is_told_apart_from_an_empty_file() {
        let (file, known) = (arguments(Some("f.db"), None, None), ["delays".to_owned(), "audit".to_owned()]);
        assert!(file.ensure_known("audit", &known).is_ok());
        let error = file.ensure_known("delay", &known).expect_err("unknown").to_string();
        assert_eq!(error, "there is no application `delay` in the file; it holds: delays, audit");
        assert!(file.ensure_known("delays", &[]).is_err());
    }

    #[tokio::test]
    async fn a_table_is_that_of_the_application_of_its_name() {
        let mut table = arguments(None, Some("delays"), Some("http://127.0.0.1:8000"));
        assert_eq!(table.one_application().await.expect("its name"), "delays");
        assert_eq!(table.arguments("delays"), "--dynamodb delays --endpoint http://127.0.0.1:8000");
        table.application = Some("audit".to_owned());
        let error = table.one_application().await.expect_err("another one").to_string();
        assert_eq!(error, "table `delays` is that of the application of its name, not of `audit`");
    }
}
