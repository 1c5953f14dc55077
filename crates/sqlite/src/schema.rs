//! The tables, and what tells ours from others'.

use std::collections::BTreeMap;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::SqliteSynchronous;
use sqlx::{Connection, SqlSafeStr, SqliteConnection};

use crate::error::Failure;
use crate::sql;

/// A set of tables in one file.
#[derive(Debug)]
pub(crate) struct Schema {
    /// What is being done when it is opened, for messages.
    pub(crate) opening: &'static str,
    /// What holds the same in memory, for messages.
    pub(crate) in_memory: &'static str,
    pub(crate) synchronous: SqliteSynchronous,
    /// Where it is noted which migrations were applied. Never changes: a table of another name would run them again.
    pub(crate) migrations_table: &'static str,
    /// Description and statements, in the order of their versions, which start at 1.
    pub(crate) migrations: &'static [(&'static str, &'static str)],
    /// Reads which migrations were applied.
    pub(crate) applied: &'static str,
    /// Each reads every column of a table and no row: fails where a table of that name is not ours.
    pub(crate) shape: &'static [&'static str],
    /// Fails on a file that cannot be written, and changes nothing.
    pub(crate) try_to_write: &'static str,
    /// Reads the name of a table of somebody else in a file that does not have ours, if there must be none.
    pub(crate) foreign: Option<&'static str>,
}

/// The lease table. The file may be a database of the user's, with tables and migrations of its own.
pub(crate) static LEASES: Schema = Schema {
    opening: "opening the lease table",
    in_memory: "MemoryLeaseStore",
    synchronous: SqliteSynchronous::Normal,
    migrations_table: "shardwell_migrations",
    migrations: &[
        ("lease table", include_str!("../migrations/0001_lease_table.sql")),
        ("fleet", include_str!("../migrations/0002_fleet.sql")),
    ],
    applied: sql::APPLIED_MIGRATIONS,
    shape: &sql::SHAPE,
    try_to_write: sql::TRY_TO_WRITE,
    foreign: None,
};

impl Schema {
    /// The migrations, with their own bookkeeping.
    pub(crate) fn migrator(&self) -> Migrator {
        let migration = |(version, (description, statements)): (i64, &(&'static str, &'static str))| {
            Migration::new(version, (*description).into(), MigrationType::Simple, statements.into_sql_str(), false)
        };
        let mut migrator = Migrator::with_migrations((1..).zip(self.migrations).map(migration).collect());
        migrator.dangerous_set_table_name(self.migrations_table);
        migrator
    }
}

/// Makes sure, without writing, that the file is not a database of somebody else, where it must not be.
pub(crate) async fn verify_alone(schema: &Schema, connection: &mut SqliteConnection) -> Result<(), Failure> {
    let Some(statement) = schema.foreign else { return Ok(()) };
    let foreign: Vec<String> = sqlx::query_scalar(statement).fetch_all(connection).await?;
    foreign.into_iter().next().map_or(Ok(()), |table| Err(Failure::Foreign(table)))
}

/// Brings the tables up to date and makes sure that they can be written and are ours.
///
/// The write lock is taken first (`BEGIN IMMEDIATE`), so many processes may do this at once: SQLite lets each wait for
/// the one before, which it would not if they began by reading.
pub(crate) async fn migrate(schema: &Schema, connection: &mut SqliteConnection) -> Result<(), Failure> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    apply_missing(schema, &mut transaction).await?;
    verify_shape(schema, &mut transaction).await?;
    sqlx::query(schema.try_to_write).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// What `Migrator::run` does, in steps whose futures may cross threads.
async fn apply_missing(schema: &Schema, connection: &mut SqliteConnection) -> Result<(), Failure> {
    let migrator = schema.migrator();
    connection.ensure_migrations_table(schema.migrations_table).await?;
    let applied = connection.list_applied_migrations(schema.migrations_table).await?;
    let mut applied: BTreeMap<i64, _> = applied.into_iter().map(|was| (was.version, was.checksum)).collect();
    for migration in migrator.iter() {
        match applied.remove(&migration.version) {
            None => drop(connection.apply(schema.migrations_table, migration).await?),
            Some(checksum) if checksum == migration.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(migration.version).into()),
        }
    }
    match applied.keys().next_back() {
        Some(newer) => Err(Failure::Newer(*newer)),
        None => Ok(()),
    }
}

/// Makes sure, without writing, that the tables are there, are ours, and are of this version.
pub(crate) async fn verify(schema: &Schema, connection: &mut SqliteConnection) -> Result<(), Failure> {
    let applied: Vec<i64> = sqlx::query_scalar(schema.applied).fetch_all(&mut *connection).await?;
    let known: Vec<i64> = schema.migrator().iter().map(|migration| migration.version).collect();
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(Failure::Newer(*newer));
    }
    if applied.len() < known.len() {
        return Err(Failure::Older);
    }
    verify_shape(schema, connection).await
}

async fn verify_shape(schema: &Schema, connection: &mut SqliteConnection) -> Result<(), Failure> {
    for statement in schema.shape {
        sqlx::query(*statement).fetch_all(&mut *connection).await?;
    }
    Ok(())
}
