//! Every statement on the lease table, in one place. Each writes with one autocommit statement, so that no lock outlives it.

use std::sync::LazyLock;

macro_rules! lease_columns {
    () => {
        "lease_key, stream, shard_id, lease_owner, lease_counter, owner_switches_since_checkpoint, checkpoint, \
         checkpoint_sub_sequence_number, pending_checkpoint, pending_checkpoint_sub_sequence_number, \
         pending_checkpoint_state, parent_shard_ids, child_shard_ids, starting_hash_key, ending_hash_key, \
         throughput_kbps, checkpoint_owner, state_checkpoint, state_checkpoint_sub_sequence_number, state_version, \
         state, write_token"
    };
}

macro_rules! worker_columns {
    () => {
        "worker_id, last_update_seconds, samples, operating_range, support_code, support_heartbeat_seconds, incarnation, \
         beat, streams"
    };
}

pub(crate) const CREATE_LEASE: &str = "INSERT INTO shardwell_leases \
     (application, lease_key, stream, shard_id, lease_counter, owner_switches_since_checkpoint, checkpoint, \
      checkpoint_sub_sequence_number, parent_shard_ids, child_shard_ids, starting_hash_key, ending_hash_key) \
     VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING";

pub(crate) const LEASES: &str =
    concat!("SELECT ", lease_columns!(), " FROM shardwell_leases WHERE application = ?1 ORDER BY lease_key");

pub(crate) const LEASE: &str =
    concat!("SELECT ", lease_columns!(), " FROM shardwell_leases WHERE application = ?1 AND lease_key = ?2");

pub(crate) const LEASES_BY_KEY: &str = concat!(
    "SELECT ",
    lease_columns!(),
    " FROM shardwell_leases WHERE application = ?1 AND lease_key IN (SELECT value FROM json_each(?2))"
);

pub(crate) const LEASES_OF: &str =
    "SELECT lease_key FROM shardwell_leases WHERE application = ?1 AND lease_owner = ?2 ORDER BY lease_key";

/// Parameters: application, key, new owner, seen owner, seen checkpoint owner, seen counter.
pub(crate) const ASSIGN: &str = concat!(
    "UPDATE shardwell_leases SET \
     owner_switches_since_checkpoint = owner_switches_since_checkpoint \
     + (coalesce(lease_owner <> ?3, FALSE) OR coalesce(checkpoint_owner = ?3, FALSE)), \
     lease_owner = ?3, checkpoint_owner = NULL, write_token = NULL, lease_counter = lease_counter + 1 \
     WHERE application = ?1 AND lease_key = ?2 AND lease_owner IS ?4 AND checkpoint_owner IS ?5 \
     AND (?6 IS NULL OR lease_counter = ?6) RETURNING ",
    lease_columns!()
);

/// Parameters: application, key, old owner, new owner.
pub(crate) const START_HANDOFF: &str = concat!(
    "UPDATE shardwell_leases SET lease_owner = ?4, checkpoint_owner = ?3 \
     WHERE application = ?1 AND lease_key = ?2 AND lease_owner = ?3 AND checkpoint_owner IS NULL RETURNING ",
    lease_columns!()
);

/// Parameters: application, key, seen owner, seen checkpoint owner, seen counter.
pub(crate) const EVICT: &str = concat!(
    "UPDATE shardwell_leases SET lease_owner = iif(checkpoint_owner IS NULL, NULL, lease_owner), \
     checkpoint_owner = NULL, write_token = NULL, lease_counter = lease_counter + 1 \
     WHERE application = ?1 AND lease_key = ?2 AND lease_owner IS ?3 AND checkpoint_owner IS ?4 \
     AND (?5 IS NULL OR lease_counter = ?5) RETURNING ",
    lease_columns!()
);

pub(crate) const RESET: &str = concat!(
    "UPDATE shardwell_leases SET checkpoint = ?3, checkpoint_sub_sequence_number = ?4, \
     state_checkpoint = iif(?5 IS NULL, NULL, ?3), state_checkpoint_sub_sequence_number = iif(?5 IS NULL, NULL, ?4), \
     state_version = ?5, state = ?6, pending_checkpoint = ?7, pending_checkpoint_sub_sequence_number = ?8, \
     pending_checkpoint_state = ?9, owner_switches_since_checkpoint = 0, lease_owner = NULL, checkpoint_owner = NULL, \
     write_token = NULL, lease_counter = lease_counter + 1 WHERE application = ?1 AND lease_key = ?2 RETURNING ",
    lease_columns!()
);

pub(crate) const UPDATE_CHILDREN: &str = concat!(
    "UPDATE shardwell_leases SET child_shard_ids = ?3 WHERE application = ?1 AND lease_key = ?2 RETURNING ",
    lease_columns!()
);

pub(crate) const UPDATE_HASH_KEYS: &str = concat!(
    "UPDATE shardwell_leases SET starting_hash_key = ?3, ending_hash_key = ?4 \
     WHERE application = ?1 AND lease_key = ?2 RETURNING ",
    lease_columns!()
);

pub(crate) const DELETE_LEASE: &str = "DELETE FROM shardwell_leases WHERE application = ?1 AND lease_key = ?2";

pub(crate) const PUT_WORKER: &str = concat!(
    "INSERT INTO shardwell_workers (application, ",
    worker_columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO UPDATE SET last_update_seconds = ?3, samples = ?4, \
     operating_range = ?5, support_code = ?6, support_heartbeat_seconds = ?7, beat = ?9, streams = ?10 WHERE incarnation IS ?8"
);

pub(crate) const WORKER: &str =
    concat!("SELECT ", worker_columns!(), " FROM shardwell_workers WHERE application = ?1 AND worker_id = ?2");

pub(crate) const WORKERS: &str =
    concat!("SELECT ", worker_columns!(), " FROM shardwell_workers WHERE application = ?1 ORDER BY worker_id");

pub(crate) const DELETE_WORKER: &str = "DELETE FROM shardwell_workers WHERE application = ?1 AND worker_id = ?2 AND last_update_seconds = ?3 \
     AND incarnation IS ?4";

pub(crate) const LEADER: &str =
    "SELECT owner, duration_nanos, version, released, standbys FROM shardwell_leaders WHERE application = ?1";

pub(crate) const TAKE_LEADER: &str = "INSERT INTO shardwell_leaders (application, owner, duration_nanos, version, \
     released, standbys) VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";

pub(crate) const REPLACE_LEADER: &str = "UPDATE shardwell_leaders SET owner = ?2, duration_nanos = ?3, version = ?4, \
     released = ?5, standbys = ?6 WHERE application = ?1 AND version = ?7";

pub(crate) const DELETE_LEADER: &str = "DELETE FROM shardwell_leaders WHERE application = ?1 AND version = ?2";

pub(crate) const SETTINGS: &str = "SELECT lease_duration_nanos, draining FROM shardwell_fleets WHERE application = ?1";

pub(crate) const CREATE_SETTINGS: &str = "INSERT INTO shardwell_fleets (application, lease_duration_nanos, draining) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";

pub(crate) const REPLACE_SETTINGS: &str = "UPDATE shardwell_fleets SET lease_duration_nanos = ?2, draining = ?3 \
     WHERE application = ?1 AND lease_duration_nanos = ?4 AND draining = ?5";

pub(crate) const STREAM: &str =
    "SELECT name, arn, created_at_millis FROM shardwell_streams WHERE application = ?1 AND name = ?2";

pub(crate) const STREAMS: &str =
    "SELECT name, arn, created_at_millis FROM shardwell_streams WHERE application = ?1 ORDER BY name";

pub(crate) const RECORD_STREAM: &str = "INSERT INTO shardwell_streams (application, name, arn, created_at_millis) \
     VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";

pub(crate) const DELETE_STREAM: &str = "DELETE FROM shardwell_streams WHERE application = ?1 AND name = ?2";

pub(crate) const APPLICATIONS: &str = "SELECT application FROM shardwell_leases \
     UNION SELECT application FROM shardwell_workers UNION SELECT application FROM shardwell_leaders \
     UNION SELECT application FROM shardwell_fleets UNION SELECT application FROM shardwell_streams ORDER BY 1";

pub(crate) const JOURNAL_MODE: &str = "PRAGMA journal_mode";

pub(crate) const SWITCH_TO_WAL: &str = "PRAGMA journal_mode = WAL";

pub(crate) const APPLIED_MIGRATIONS: &str = "SELECT version FROM shardwell_migrations WHERE success ORDER BY version";

/// Fails on a file that cannot be written, and changes nothing.
pub(crate) const TRY_TO_WRITE: &str = "DELETE FROM shardwell_fleets WHERE application IS NULL";

/// Each reads every column of a table and no row: fails where a table of that name is not ours.
pub(crate) const SHAPE: [&str; 5] = [
    concat!("SELECT application, ", lease_columns!(), " FROM shardwell_leases LIMIT 0"),
    concat!("SELECT application, ", worker_columns!(), " FROM shardwell_workers LIMIT 0"),
    "SELECT application, owner, duration_nanos, version, released, standbys FROM shardwell_leaders LIMIT 0",
    "SELECT application, lease_duration_nanos, draining FROM shardwell_fleets LIMIT 0",
    "SELECT application, name, arn, created_at_millis FROM shardwell_streams LIMIT 0",
];

/// The parameters of one renewal, in the order in which [`renew`] takes them.
pub(crate) const RENEWAL_PARAMETERS: usize = 11;

/// How many renewals the prepared statements take; what is left over is filled with keys that match nothing.
pub(crate) const RENEWALS_PER_STATEMENT: [usize; 3] = [1, 16, 256];

static RENEW: [LazyLock<String>; 3] = [
    LazyLock::new(|| renew(RENEWALS_PER_STATEMENT[0])),
    LazyLock::new(|| renew(RENEWALS_PER_STATEMENT[1])),
    LazyLock::new(|| renew(RENEWALS_PER_STATEMENT[2])),
];

/// The smallest statement that takes so many renewals, and how many it takes.
pub(crate) fn renew_statement(renewals: usize) -> (&'static str, usize) {
    let fits = RENEWALS_PER_STATEMENT.iter().position(|size| *size >= renewals);
    let index = fits.unwrap_or(RENEWALS_PER_STATEMENT.len() - 1);
    (RENEW[index].as_str(), RENEWALS_PER_STATEMENT[index])
}

/// Renews many leases with one statement, hence in one transaction that no stalled process can hold open.
/// Parameters: [`RENEWAL_PARAMETERS`] for each renewal, then application and worker.
fn renew(renewals: usize) -> String {
    // Without numbers: SQLite looks numbered parameters up one by one, which takes longer than the rest for so many.
    let row = format!("({})", ["?"; RENEWAL_PARAMETERS].join(", "));
    let values = vec![row; renewals].join(", ");
    let application = renewals * RENEWAL_PARAMETERS + 1;
    let worker = application + 1;
    format!(
        "WITH renewal (lease_key, counter, token, kbps, checkpoint, sub, state_version, state, pending, pending_sub, \
         pending_state) AS (VALUES {values}) \
         UPDATE shardwell_leases AS lease SET \
         lease_counter = lease.lease_counter + 1, \
         write_token = renewal.token, \
         throughput_kbps = coalesce(renewal.kbps, lease.throughput_kbps), \
         checkpoint = coalesce(renewal.checkpoint, lease.checkpoint), \
         checkpoint_sub_sequence_number = coalesce(renewal.sub, lease.checkpoint_sub_sequence_number), \
         owner_switches_since_checkpoint = \
             iif(renewal.checkpoint IS NULL, lease.owner_switches_since_checkpoint, 0), \
         state_checkpoint = iif(renewal.checkpoint IS NULL, lease.state_checkpoint, \
             iif(renewal.state_version IS NULL, NULL, renewal.checkpoint)), \
         state_checkpoint_sub_sequence_number = \
             iif(renewal.checkpoint IS NULL, lease.state_checkpoint_sub_sequence_number, \
             iif(renewal.state_version IS NULL, NULL, renewal.sub)), \
         state_version = iif(renewal.checkpoint IS NULL, lease.state_version, renewal.state_version), \
         state = iif(renewal.checkpoint IS NULL, lease.state, renewal.state), \
         pending_checkpoint = iif(renewal.checkpoint IS NULL, lease.pending_checkpoint, renewal.pending), \
         pending_checkpoint_sub_sequence_number = \
             iif(renewal.checkpoint IS NULL, lease.pending_checkpoint_sub_sequence_number, renewal.pending_sub), \
         pending_checkpoint_state = \
             iif(renewal.checkpoint IS NULL, lease.pending_checkpoint_state, renewal.pending_state) \
         FROM renewal \
         WHERE lease.application = ?{application} AND lease.lease_key = renewal.lease_key \
         AND lease.lease_counter = renewal.counter \
         AND (lease.lease_owner = ?{worker} OR lease.checkpoint_owner = ?{worker}) \
         RETURNING {}",
        lease_columns!()
    )
}

#[cfg(test)]
mod tests {
    use sqlx::{Column, Connection, Executor, Row, SqlSafeStr, SqliteConnection, Statement};

    use super::*;

    async fn migrated() -> SqliteConnection {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.expect("a database in memory");
        crate::schema::LEASES.migrator().run(&mut connection).await.expect("the migrations run");
        connection
    }

    #[tokio::test]
    async fn every_statement_fits_the_schema() {
        let mut connection = migrated().await;
        let mut statements = vec![
            CREATE_LEASE,
            LEASES,
            LEASE,
            LEASES_BY_KEY,
            LEASES_OF,
            ASSIGN,
            START_HANDOFF,
            EVICT,
            RESET,
            UPDATE_CHILDREN,
            UPDATE_HASH_KEYS,
            DELETE_LEASE,
            PUT_WORKER,
            WORKERS,
            DELETE_WORKER,
            LEADER,
            TAKE_LEADER,
            REPLACE_LEADER,
            DELETE_LEADER,
            SETTINGS,
            CREATE_SETTINGS,
            REPLACE_SETTINGS,
            STREAM,
            STREAMS,
            RECORD_STREAM,
            DELETE_STREAM,
            APPLICATIONS,
            JOURNAL_MODE,
            SWITCH_TO_WAL,
            APPLIED_MIGRATIONS,
            TRY_TO_WRITE,
        ];
        statements.extend(SHAPE);
        statements.extend(RENEWALS_PER_STATEMENT.map(|size| renew_statement(size).0));
        for statement in statements {
            connection.prepare(statement.into_sql_str()).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    #[tokio::test]
    async fn every_statement_that_gives_leases_gives_the_same_columns() {
        let mut connection = migrated().await;
        let expected = lease_columns!().split(", ").collect::<Vec<_>>();
        let renew = renew_statement(1).0;
        for statement in [LEASES, LEASE, LEASES_BY_KEY, ASSIGN, START_HANDOFF, EVICT, UPDATE_CHILDREN, renew] {
            let prepared = connection.prepare(statement.into_sql_str()).await.expect("prepared");
            let columns: Vec<_> = prepared.columns().iter().map(|column| column.name().to_owned()).collect();
            assert_eq!(columns, expected, "{statement}");
        }
    }

    /// However large the table: by key, never by a walk over all of it.
    #[tokio::test]
    async fn renewals_look_leases_up_by_key() {
        let mut connection = migrated().await;
        for size in RENEWALS_PER_STATEMENT {
            let explain = format!("EXPLAIN QUERY PLAN {}", renew_statement(size).0);
            let rows = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut connection).await.expect("a plan");
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            let by_key = plan.iter().any(|step| {
                step.contains("SEARCH lease USING PRIMARY KEY") && step.contains("application=? AND lease_key=?")
            });
            assert!(by_key && !plan.iter().any(|step| step.contains("SCAN lease")), "{size}: {plan:?}");
        }
    }

    #[test]
    fn the_smallest_statement_that_fits_is_taken() {
        for (renewals, takes) in [(1, 1), (2, 16), (16, 16), (17, 256), (256, 256)] {
            assert_eq!(renew_statement(renewals).1, takes);
        }
    }
}
