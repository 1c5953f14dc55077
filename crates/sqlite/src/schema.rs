//! The tables, and what tells ours from others'.

use std::collections::BTreeMap;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, SqlSafeStr, SqliteConnection};

use crate::error::Failure;
use crate::sql;

/// Where it is noted which migrations were applied. Never changes: a table of another name would run them again.
const MIGRATIONS_TABLE: &str = "shardwell_migrations";

/// The migrations, with their own bookkeeping: the file may be a database of the user's, with migrations of its own.
pub(crate) fn migrator() -> Migrator {
    let lease_table = include_str!("../migrations/0001_lease_table.sql");
    let migration = Migration::new(1, "lease table".into(), MigrationType::Simple, lease_table.into_sql_str(), false);
    let mut migrator = Migrator::with_migrations(vec![migration]);
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator
}

/// Brings the tables up to date and makes sure that they can be written and are ours.
///
/// The write lock is taken first (`BEGIN IMMEDIATE`), so many processes may do this at once: SQLite lets each wait for
/// the one before, which it would not if they began by reading.
pub(crate) async fn migrate(connection: &mut SqliteConnection) -> Result<(), Failure> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    apply_missing(&mut transaction).await?;
    verify_shape(&mut transaction).await?;
    sqlx::query(sql::TRY_TO_WRITE).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}

/// What `Migrator::run` does, in steps whose futures may cross threads.
async fn apply_missing(connection: &mut SqliteConnection) -> Result<(), Failure> {
    let migrator = migrator();
    connection.ensure_migrations_table(MIGRATIONS_TABLE).await?;
    let applied = connection.list_applied_migrations(MIGRATIONS_TABLE).await?;
    let mut applied: BTreeMap<i64, _> = applied.into_iter().map(|was| (was.version, was.checksum)).collect();
    for migration in migrator.iter() {
        match applied.remove(&migration.version) {
            None => drop(connection.apply(MIGRATIONS_TABLE, migration).await?),
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
pub(crate) async fn verify(connection: &mut SqliteConnection) -> Result<(), Failure> {
    let applied: Vec<i64> = sqlx::query_scalar(sql::APPLIED_MIGRATIONS).fetch_all(&mut *connection).await?;
    let known: Vec<i64> = migrator().iter().map(|migration| migration.version).collect();
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(Failure::Newer(*newer));
    }
    if applied.len() < known.len() {
        return Err(Failure::Older);
    }
    verify_shape(connection).await
}

async fn verify_shape(connection: &mut SqliteConnection) -> Result<(), Failure> {
    for statement in sql::SHAPE {
        sqlx::query(statement).fetch_all(&mut *connection).await?;
    }
    Ok(())
}
