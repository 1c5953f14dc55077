//! Renewals: many leases with one statement.

use std::collections::{BTreeMap, BTreeSet};

use shardwell_core::{
    CheckpointWrite, Lease, LeaseKey, PendingWrite, RenewOutcome, Renewal, Renewed, StoreError, StoreErrorKind,
    WorkerId,
};
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use crate::database::Database;
use crate::error::Failure;
use crate::{row, sql};

/// The bytes of state after which a batch is closed: bounds what one statement writes while others wait.
const BATCH_BYTES: usize = 1 << 20;

/// Splits renewals into batches, in order. No lease is twice in a batch, since one statement writes a row once.
pub(crate) fn batches(renewals: Vec<Renewal>) -> Vec<Vec<Renewal>> {
    let largest = sql::RENEWALS_PER_STATEMENT.iter().copied().max().unwrap_or(1);
    let mut batches = Vec::new();
    let (mut batch, mut keys, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
    for renewal in renewals {
        let size = state_bytes(&renewal);
        if batch.len() == largest || keys.contains(&renewal.key) || (bytes + size > BATCH_BYTES && !batch.is_empty()) {
            batches.push(std::mem::take(&mut batch));
            keys.clear();
            bytes = 0;
        }
        bytes += size;
        keys.insert(renewal.key.clone());
        batch.push(renewal);
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

fn state_bytes(renewal: &Renewal) -> usize {
    let Some(CheckpointWrite { state, pending, .. }) = &renewal.checkpoint else { return 0 };
    let state = state.as_ref().map_or(0, |(_, data)| data.len());
    match pending {
        PendingWrite::Clear => state,
        PendingWrite::Set(pending) => state + pending.state.as_ref().map_or(0, bytes::Bytes::len),
    }
}

/// Renews a batch and answers every renewal of it.
pub(crate) async fn renew<'a>(
    database: &'a Database,
    application: &'a str,
    worker: &'a WorkerId,
    batch: Vec<Renewal>,
) -> Vec<Renewed> {
    let (mut answers, storable) = refuse_what_cannot_be_stored(database, batch);
    let written = database.call("renewing leases", write(database, application, worker, &storable)).await;
    let written = match written {
        Ok(written) => written,
        Err(error) => {
            answers.extend(storable.into_iter().map(|renewal| unknown(renewal.key, &error)));
            return answers;
        }
    };
    let mut refused = Vec::new();
    for renewal in storable {
        match written.get(&renewal.key) {
            Some(Ok(row)) => answers.push(answer(renewal.key, RenewOutcome::applied(row.clone()))),
            Some(Err(why)) => answers.push(damaged(database, renewal.key, why)),
            None => refused.push(renewal),
        }
    }
    answers.extend(read_back(database, application, refused).await);
    answers
}

/// What was refused is classified by the row as it is: a repeated write finds its own token there.
async fn read_back(database: &Database, application: &str, refused: Vec<Renewal>) -> Vec<Renewed> {
    if refused.is_empty() {
        return Vec::new();
    }
    let rows = match database.call("reading leases back", read(database, application, &refused)).await {
        Ok(rows) => rows,
        Err(error) => return refused.into_iter().map(|renewal| unknown(renewal.key, &error)).collect(),
    };
    let classify = |renewal: Renewal| match rows.get(&renewal.key) {
        Some(Ok(row)) if renewal.was_applied(row) => answer(renewal.key, RenewOutcome::applied(row.clone())),
        Some(Ok(row)) => answer(renewal.key, RenewOutcome::Lost(Some(row.clone()))),
        Some(Err(why)) => damaged(database, renewal.key, why),
        None => answer(renewal.key, RenewOutcome::Lost(None)),
    };
    refused.into_iter().map(classify).collect()
}

type Rows = BTreeMap<LeaseKey, Result<Lease, String>>;

fn rows_by_key(rows: &[sqlx::sqlite::SqliteRow]) -> Rows {
    let decode = |row| match row::lease(row) {
        Ok(lease) => (lease.key.clone(), Ok(lease)),
        Err(unreadable) => (unreadable.key, Err(format!("{:?}", unreadable.failure))),
    };
    rows.iter().map(decode).collect()
}

async fn write(database: &Database, application: &str, worker: &WorkerId, batch: &[Renewal]) -> Result<Rows, Failure> {
    if batch.is_empty() {
        return Ok(Rows::new());
    }
    let (statement, takes) = sql::renew_statement(batch.len());
    let mut query = sqlx::query(statement);
    for renewal in batch {
        query = bind(query, renewal)?;
    }
    for _ in batch.len() * sql::RENEWAL_PARAMETERS..takes * sql::RENEWAL_PARAMETERS {
        query = query.bind(None::<i64>);
    }
    query = query.bind(application).bind(worker.as_str());
    let mut guard = database.writer().await;
    // All rows to the end of the statement: only there is it known to be committed.
    Ok(rows_by_key(&query.fetch_all(guard.connection().await?).await?))
}

async fn read(database: &Database, application: &str, renewals: &[Renewal]) -> Result<Rows, Failure> {
    let keys: Vec<&str> = renewals.iter().map(|renewal| renewal.key.as_str()).collect();
    let keys = serde_json::to_string(&keys).map_err(|e| Failure::Invalid(e.to_string()))?;
    let mut guard = database.reader().await;
    let query = sqlx::query(sql::LEASES_BY_KEY).bind(application).bind(keys);
    Ok(rows_by_key(&query.fetch_all(guard.connection().await?).await?))
}

pub(crate) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Binds the parameters of one renewal, as [`sql::RENEWAL_PARAMETERS`] counts them.
fn bind<'q>(query: Statement<'q>, renewal: &'q Renewal) -> Result<Statement<'q>, Failure> {
    let query = query
        .bind(renewal.key.as_str())
        .bind(row::signed(renewal.counter)?)
        .bind(renewal.token.get().cast_signed())
        .bind(renewal.throughput_kbps.filter(|kbps| kbps.is_finite()));
    match &renewal.checkpoint {
        Some(write) => bind_checkpoint(query, write),
        None => Ok((0..7).fold(query, |query, _| query.bind(None::<i64>))),
    }
}

/// Binds the seven parameters of a checkpoint.
pub(crate) fn bind_checkpoint<'q>(query: Statement<'q>, write: &'q CheckpointWrite) -> Result<Statement<'q>, Failure> {
    let (checkpoint, sub) = write.checkpoint.to_stored();
    let query = query.bind(checkpoint).bind(row::signed(sub)?);
    let query = match &write.state {
        Some((version, data)) => query.bind(i64::from(*version)).bind(data.as_ref()),
        None => query.bind(None::<i64>).bind(None::<Vec<u8>>),
    };
    Ok(match &write.pending {
        PendingWrite::Clear => query.bind(None::<String>).bind(None::<i64>).bind(None::<Vec<u8>>),
        PendingWrite::Set(pending) => {
            let (checkpoint, sub) = pending.checkpoint.to_stored();
            query.bind(checkpoint).bind(row::signed(sub)?).bind(pending.state.as_deref())
        }
    })
}

/// Takes out what would spoil the statement for the others: numbers beyond SQLite's.
fn refuse_what_cannot_be_stored(database: &Database, batch: Vec<Renewal>) -> (Vec<Renewed>, Vec<Renewal>) {
    let (mut answers, mut storable) = (Vec::new(), Vec::new());
    for renewal in batch {
        match bind(sqlx::query(""), &renewal).err() {
            None => storable.push(renewal),
            Some(failure) => {
                let file = database.file();
                let report = failure.report("renewing leases", &file.path, file.busy_timeout);
                answers.push(answer(renewal.key, RenewOutcome::Unknown(report.into())));
            }
        }
    }
    (answers, storable)
}

const fn answer(key: LeaseKey, outcome: RenewOutcome) -> Renewed {
    Renewed { key, outcome }
}

fn unknown(key: LeaseKey, error: &StoreError) -> Renewed {
    answer(key, RenewOutcome::Unknown(StoreError::new(error.kind(), error.to_string())))
}

fn damaged(database: &Database, key: LeaseKey, why: &str) -> Renewed {
    let message = format!("the lease {key} in {} cannot be read: {why}", database.path().display());
    answer(key, RenewOutcome::Unknown(StoreError::new(StoreErrorKind::Unusable, message)))
}
