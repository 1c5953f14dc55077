//! The lease table in SQLite, looked at from outside of shardwell: with triggers that only these tests install.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use shardwell_core::{Lease, LeaseStore, WorkerId};
use shardwell_integration::APPLICATION;
use shardwell_sqlite::SqliteLeaseStore;

use super::helper::{WriteLock, python};
use super::history::LeaseWrite;

/// A file with the lease table, and the history of every lease in it.
pub(crate) struct LeaseTable {
    path: PathBuf,
    store: SqliteLeaseStore,
}

impl LeaseTable {
    /// Creates the table, and keeps its history from its first write on.
    pub(crate) async fn create(path: PathBuf) -> Self {
        let store = SqliteLeaseStore::open(&path, APPLICATION).await.expect("a new table");
        let table = Self { path, store };
        table.run(include_str!("audit.sql"));
        table
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All leases.
    pub(crate) async fn leases(&self) -> Vec<Lease> {
        let listing = self.store.leases().await.expect("a table that is not harmed");
        assert_eq!(listing.unreadable, [], "no row is harmed");
        listing.leases
    }

    /// The workers that are in the plan.
    pub(crate) async fn workers(&self) -> Vec<WorkerId> {
        let workers = self.store.worker_metrics().await.expect("a table that is not harmed");
        workers.into_iter().map(|metrics| metrics.worker).collect()
    }

    /// Every write to the leases so far, after the first `known`.
    pub(crate) fn history_after(&self, known: usize) -> Vec<LeaseWrite> {
        let rows = self.run(&format!(
            "SELECT json_object('lease', lease_key, 'before', json(before), 'after', json(after)) \
             FROM audit WHERE sequence > {known} ORDER BY sequence;\n"
        ));
        rows.lines().map(|row| serde_json::from_str(row).unwrap_or_else(|error| panic!("{error}: {row}"))).collect()
    }

    /// How often the leases have been written.
    pub(crate) fn writes(&self) -> usize {
        let count = self.run("SELECT count(*) FROM audit;\n");
        count.trim().parse().expect("a number")
    }

    /// Has the next renewal by a worker take seconds.
    pub(crate) fn slow_down(&self, worker: &WorkerId) {
        self.run(include_str!("slow_write.sql"));
        self.run(&format!("INSERT INTO slow_write VALUES ('{worker}');\n"));
    }

    /// Keeps everybody from writing, until what this gives is dropped.
    pub(crate) fn lock(&self) -> WriteLock {
        WriteLock::take(self)
    }

    /// Runs statements; gives the first column of every row, each in a line.
    pub(crate) fn run(&self, statements: &str) -> String {
        let mut child = python("sql.py")
            .arg(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, with SQLite in its standard library");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(statements.as_bytes()).expect("somebody reads it");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{statements}");
        String::from_utf8(output.stdout).expect("text")
    }
}
