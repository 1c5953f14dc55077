//! Every statement on dead letters, in one place.

use sqlx::sqlite::SqliteSynchronous;

use crate::schema::Schema;

/// The dead letters: in a file of their own, since they are written seldom and must be on the disk, while leases are written
/// all the time and must not wait for it.
pub(crate) static DEAD_LETTERS: Schema = Schema {
    opening: "opening the dead letters",
    in_memory: "MemoryDeadLetters",
    synchronous: SqliteSynchronous::Full,
    migrations_table: "shardwell_dead_letter_migrations",
    migrations: &[("dead letters", include_str!("../../migrations/dead_letters/0001_dead_letters.sql"))],
    applied: "SELECT version FROM shardwell_dead_letter_migrations WHERE success ORDER BY version",
    shape: &[SHAPE],
    try_to_write: "DELETE FROM shardwell_dead_letters WHERE id IS NULL",
    foreign: Some(FOREIGN),
};

macro_rules! columns {
    () => {
        "id, application, stream, shard_id, sequence_number, sub_sequence_number, state, rounds, changed_at_millis, \
         letter, data"
    };
}

/// In the order of identities; parameters 1 to 6 in [`this_letter`] are in this order too.
macro_rules! identity {
    () => {
        "application, stream, shard_id, sequence_number_digits, sequence_number, sub_sequence_number"
    };
}

/// Parameters 1 to 6: the parts of an identity.
macro_rules! this_letter {
    () => {
        concat!("(", identity!(), ") = (?1, ?2, ?3, ?4, ?5, ?6)")
    };
}

/// Parameters 7 to 21: the parts of a query, each absent where it does not matter. Text to be found in errors is in lower
/// case already; states are a JSON array; the parts of an identity come last.
macro_rules! matches {
    () => {
        concat!(
            "(?7 IS NULL OR application = ?7) AND (?8 IS NULL OR stream = ?8) AND (?9 IS NULL OR shard_id = ?9) \
             AND (?10 IS NULL OR partition_key = ?10) AND (?11 IS NULL OR reason = ?11) \
             AND (?12 IS NULL OR EXISTS (SELECT 1 FROM json_each(error) WHERE instr(lower(value), ?12) > 0)) \
             AND (?13 IS NULL OR died_at_millis >= ?13) AND (?14 IS NULL OR died_at_millis < ?14) \
             AND (?15 IS NULL OR state IN (SELECT value FROM json_each(?15))) \
             AND (?16 IS NULL OR (",
            identity!(),
            ") = (?16, ?17, ?18, ?19, ?20, ?21))"
        )
    };
}

/// Parameters: 1 to 6 the identity, 7 partition key, 8 reason, 9 error, 10 died at, 11 letter, 12 data.
///
/// What was redriven has died once more; whatever else there is stays where it is.
pub(crate) const PUT: &str = concat!(
    "INSERT INTO shardwell_dead_letters (",
    identity!(),
    ", partition_key, reason, error, died_at_millis, letter, data, state, rounds, changed_at_millis) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 'dead', 0, ?10) ON CONFLICT (",
    identity!(),
    ") DO UPDATE SET partition_key = excluded.partition_key, reason = excluded.reason, error = excluded.error, \
     died_at_millis = excluded.died_at_millis, letter = excluded.letter, data = excluded.data, \
     changed_at_millis = iif(state = 'redriven', excluded.died_at_millis, changed_at_millis), \
     state = iif(state = 'redriven', 'dead', state)"
);

pub(crate) const LETTER: &str = concat!("SELECT ", columns!(), " FROM shardwell_dead_letters WHERE ", this_letter!());

/// Parameters: 1 to 6 the identity to begin behind, 7 to 21 the query, 22 how many.
pub(crate) const LETTERS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM shardwell_dead_letters WHERE (",
    identity!(),
    ") > (?1, ?2, ?3, ?4, ?5, ?6) AND ",
    matches!(),
    " ORDER BY ",
    identity!(),
    " LIMIT ?22"
);

/// Parameters: 1 the time, 7 to 21 the query.
pub(crate) const REQUEST: &str = concat!(
    "UPDATE shardwell_dead_letters SET state = 'requested', changed_at_millis = ?1, \
     rounds = CASE state WHEN 'parked' THEN 0 ELSE rounds END \
     WHERE state IN ('dead', 'parked') AND ",
    matches!()
);

/// Parameters: 1 application, 2 stream, 3 worker, 4 now, 5 to 8 the position to begin behind, 9 how many.
pub(crate) const OPEN: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM shardwell_dead_letters AS this WHERE application = ?1 AND stream = ?2 \
     AND state IN ('requested', 'redriving') AND (state = 'requested' OR claimed_until_millis <= ?4) \
     AND NOT EXISTS (SELECT 1 FROM shardwell_dead_letters AS other \
         WHERE other.application = ?1 AND other.stream = ?2 AND other.partition_key = this.partition_key \
         AND other.state = 'redriving' AND other.claimed_by <> ?3 AND other.claimed_until_millis > ?4) \
     AND (sequence_number_digits, sequence_number, sub_sequence_number, shard_id) > (?5, ?6, ?7, ?8) \
     ORDER BY sequence_number_digits, sequence_number, sub_sequence_number, shard_id LIMIT ?9"
);

/// Parameters: a JSON array of row ids, worker, now, until.
pub(crate) const CLAIM: &str = "UPDATE shardwell_dead_letters SET state = 'redriving', \
     rounds = min(rounds + 1, 4294967295), changed_at_millis = ?3, claimed_by = ?2, claimed_until_millis = ?4 \
     WHERE id IN (SELECT value FROM json_each(?1))";

/// Parameters: 1 to 6 the identity, 7 the worker.
pub(crate) const CLAIMED: &str =
    concat!("SELECT ", columns!(), " FROM shardwell_dead_letters WHERE ", this_letter!(), " AND claimed_by = ?7");

/// Parameters: row id, state, rounds, changed at, error, letter. Only for a state that is not claimed.
pub(crate) const RESOLVE: &str = "UPDATE shardwell_dead_letters SET state = ?2, rounds = ?3, changed_at_millis = ?4, \
     error = ?5, letter = ?6, claimed_by = NULL, claimed_until_millis = NULL WHERE id = ?1";

/// Parameters: 1 to 6 the identity, 7 the time.
pub(crate) const MARK_REDRIVEN: &str = concat!(
    "UPDATE shardwell_dead_letters SET state = 'redriven', changed_at_millis = ?7, claimed_by = NULL, \
     claimed_until_millis = NULL WHERE ",
    this_letter!()
);

pub(crate) const DEAD_KEYS: &str = "SELECT DISTINCT partition_key FROM shardwell_dead_letters \
     WHERE application = ?1 AND stream = ?2 AND state <> 'redriven' AND partition_key IS NOT NULL";

const SHAPE: &str = concat!(
    "SELECT ",
    columns!(),
    ", sequence_number_digits, partition_key, reason, error, died_at_millis, claimed_by, claimed_until_millis \
     FROM shardwell_dead_letters LIMIT 0"
);

const FOREIGN: &str = "SELECT name FROM sqlite_schema WHERE substr(name, 1, 7) <> 'sqlite_' \
     AND NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'shardwell_dead_letter_migrations') LIMIT 1";

#[cfg(test)]
mod tests {
    use sqlx::{Column, Connection, Executor, Row, SqlSafeStr, SqliteConnection, Statement};

    use super::*;

    const ALL: [&str; 13] = [
        PUT,
        LETTER,
        LETTERS,
        REQUEST,
        OPEN,
        CLAIM,
        CLAIMED,
        RESOLVE,
        MARK_REDRIVEN,
        DEAD_KEYS,
        SHAPE,
        FOREIGN,
        DEAD_LETTERS.try_to_write,
    ];

    async fn migrated() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.expect("a database in memory");
        DEAD_LETTERS.migrator().run(&mut connection).await.expect("the migrations run");
        connection
    }

    #[tokio::test]
    async fn every_statement_fits_the_schema() {
        let mut connection = migrated().await;
        for statement in ALL.into_iter().chain([DEAD_LETTERS.applied]) {
            connection.prepare(statement.into_sql_str()).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    #[tokio::test]
    async fn every_statement_that_gives_letters_gives_the_same_columns() {
        let mut connection = migrated().await;
        let expected = columns!().split(", ").collect::<Vec<_>>();
        for statement in [LETTER, LETTERS, OPEN, CLAIMED] {
            let prepared = connection.prepare(statement.into_sql_str()).await.expect("prepared");
            let columns: Vec<_> = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
            assert_eq!(columns, expected, "{statement}");
        }
    }

    /// However many letters there are: by an index, in its order, never by a walk over the table or a sort.
    #[tokio::test]
    async fn letters_are_found_by_an_index() {
        let mut connection = migrated().await;
        let identity = "sqlite_autoindex_shardwell_dead_letters_1";
        let held = "shardwell_dead_letters_held (application=? AND stream=? AND partition_key=?)";
        let keys = "shardwell_dead_letters_keys (application=? AND stream=? AND partition_key>?)";
        let open = "shardwell_dead_letters_open (application=? AND stream=? AND \
                    (sequence_number_digits,sequence_number,sub_sequence_number,shard_id)>(?,?,?,?))";
        for (statement, indexes) in [
            (LETTER, vec![identity]),
            (LETTERS, vec![identity]),
            (CLAIMED, vec![identity]),
            (MARK_REDRIVEN, vec![identity]),
            (OPEN, vec![open, held]),
            (DEAD_KEYS, vec![keys]),
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let rows = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut connection).await.expect("a plan");
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            for index in indexes {
                assert!(
                    plan.iter().any(|step| step.starts_with("SEARCH") && step.contains(index)),
                    "{index}: {plan:#?}"
                );
            }
            let walks = plan.iter().any(|step| step.contains("SCAN shardwell") || step.contains("TEMP B-TREE"));
            assert!(!walks, "{statement}: {plan:#?}");
        }
    }

    #[tokio::test]
    async fn what_could_never_be_read_is_not_stored() {
        let mut connection = migrated().await;
        let insert = |columns: &str| {
            let statement = format!(
                "INSERT INTO shardwell_dead_letters (application, stream, shard_id, sub_sequence_number, reason, \
                 died_at_millis, rounds, changed_at_millis, letter, data, sequence_number_digits, sequence_number, \
                 state, error, claimed_by, claimed_until_millis) \
                 VALUES ('a', 's', 'h', 0, 'r', 0, 0, 0, '', x'', {columns})"
            );
            sqlx::query(sqlx::AssertSqlSafe(statement))
        };
        for columns in [
            "2, '7', 'dead', '[]', NULL, NULL",
            "2, '07', 'dead', '[]', NULL, NULL",
            "2, '7x', 'dead', '[]', NULL, NULL",
            "0, '', 'dead', '[]', NULL, NULL",
            "1, '7', 'dead', '[', NULL, NULL",
            "1, '7', 'dead', '[]', 'w', 1",
            "1, '7', 'redriving', '[]', NULL, NULL",
            "1, '7', 'redriving', '[]', 'w', NULL",
        ] {
            let error = insert(columns).execute(&mut connection).await.expect_err(columns);
            assert!(error.to_string().contains("CHECK"), "{columns}: {error}");
        }
        for columns in ["1, '0', 'dead', '[]', NULL, NULL", "1, '7', 'redriving', '[]', 'w', 1"] {
            insert(columns).execute(&mut connection).await.expect(columns);
        }
    }
}
