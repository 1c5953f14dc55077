//! Letters to rows and back.

use shardwell_core::Timestamp;
use shardwell_core::dead_letter::{ArchivedLetter, DeadLetter, DeadReason, LetterId, LetterQuery, LetterState};
use shardwell_core::{Bytes, ExtendedSequenceNumber, PartitionKey, ShardId, UserRecord};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row, Sqlite};

use super::sql;
use crate::error::Failure;
use crate::row::{signed, to_json, unsigned};

pub(super) type Statement<'q> = Query<'q, Sqlite, SqliteArguments>;

/// A letter, and the row that it is in.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) row: i64,
    pub(super) archived: ArchivedLetter,
}

/// A letter, from the columns that every statement on letters gives.
pub(super) fn found(row: &SqliteRow) -> Result<Found, Failure> {
    let id = id(row)?;
    decode(&id, row).map_err(|why| Failure::Unreadable(format!("the letter {id} cannot be read: {why}")))
}

/// The identity, which can be read even where the rest cannot.
pub(super) fn id(row: &SqliteRow) -> Result<LetterId, Failure> {
    let sequence_number: String = row.try_get("sequence_number")?;
    let sequence_number =
        sequence_number.parse().map_err(|e| Failure::Damaged(format!("the sequence number of a letter: {e}")))?;
    let position = ExtendedSequenceNumber::new(sequence_number, unsigned(row.try_get("sub_sequence_number")?)?);
    Ok(LetterId {
        application: row.try_get("application")?,
        stream: row.try_get("stream")?,
        shard: ShardId::from(row.try_get::<String, _>("shard_id")?),
        position,
    })
}

fn decode(id: &LetterId, row: &SqliteRow) -> Result<Found, String> {
    let text = |e: sqlx::Error| e.to_string();
    let mut letter = DeadLetter::from_json(row.try_get("letter").map_err(text)?).map_err(|e| e.to_string())?;
    if letter.id() != *id {
        return Err(format!("it says that it is {}", letter.id()));
    }
    letter.record.data = Bytes::from(row.try_get::<Vec<u8>, _>("data").map_err(text)?);
    let state: String = row.try_get("state").map_err(text)?;
    let rounds: i64 = row.try_get("rounds").map_err(text)?;
    let archived = ArchivedLetter {
        letter,
        state: LetterState::parse(&state).ok_or_else(|| format!("the state `{state}` is not known here"))?,
        rounds: u32::try_from(rounds).map_err(|e| format!("{rounds} rounds: {e}"))?,
        changed_at: Timestamp::from_millis(row.try_get("changed_at_millis").map_err(text)?),
    };
    Ok(Found { row: row.try_get("id").map_err(text)?, archived })
}

/// The letter without its payload, which has a column of its own.
pub(super) fn letter_column(letter: &DeadLetter) -> String {
    let record = UserRecord { data: Bytes::new(), ..letter.record.clone() };
    DeadLetter { record, ..letter.clone() }.to_json()
}

pub(super) fn error_column(letter: &DeadLetter) -> Result<String, Failure> {
    to_json(&letter.error)
}

/// The statement that puts a letter.
pub(super) fn put(letter: &DeadLetter) -> Result<Statement<'_>, Failure> {
    let id = letter.id();
    let sub = signed(id.position.sub_sequence_number)?;
    Ok(bind_id(sqlx::query(sql::PUT), &id, Some(sub))
        .bind(letter.record.partition_key.as_ref().map(PartitionKey::as_str))
        .bind(letter.reason.as_str())
        .bind(error_column(letter)?)
        .bind(letter.died_at.as_millis())
        .bind(letter_column(letter))
        .bind(&letter.record.data[..]))
}

/// Binds the identity of one letter. One that cannot be stored is never there.
pub(super) fn bind_this<'q>(query: Statement<'q>, id: &LetterId) -> Statement<'q> {
    bind_id(query, id, i64::try_from(id.position.sub_sequence_number).ok())
}

/// Binds the identity that a page begins behind; the smallest there can be without one.
pub(super) fn bind_after<'q>(query: Statement<'q>, after: Option<&LetterId>) -> Statement<'q> {
    match after {
        Some(id) => bind_id(query, id, Some(i64::try_from(id.position.sub_sequence_number).unwrap_or(i64::MAX))),
        None => query.bind("").bind("").bind("").bind(0i64).bind("").bind(-1i64),
    }
}

fn bind_id<'q>(query: Statement<'q>, id: &LetterId, sub: Option<i64>) -> Statement<'q> {
    let sequence_number = id.position.sequence_number.to_string();
    query
        .bind(id.application.clone())
        .bind(id.stream.clone())
        .bind(id.shard.as_str().to_owned())
        .bind(digits(&sequence_number))
        .bind(sequence_number)
        .bind(sub)
}

/// At most 129.
pub(super) fn digits(sequence_number: &str) -> i64 {
    i64::try_from(sequence_number.len()).unwrap_or(i64::MAX)
}

/// Binds parameters 7 to 21, as every statement with a query takes them.
pub(super) fn bind_query<'q>(query: Statement<'q>, wanted: &'q LetterQuery) -> Result<Statement<'q>, Failure> {
    let states: Vec<&str> = wanted.states.iter().map(|state| state.as_str()).collect();
    let states = if states.is_empty() { None } else { Some(to_json(&states)?) };
    let query = query
        .bind(wanted.application.as_deref())
        .bind(wanted.stream.as_deref())
        .bind(wanted.shard.as_ref().map(ShardId::as_str))
        .bind(wanted.partition_key.as_ref().map(PartitionKey::as_str))
        .bind(wanted.reason.map(DeadReason::as_str))
        .bind(wanted.error.as_ref().map(|text| text.to_ascii_lowercase()))
        .bind(wanted.since.map(Timestamp::as_millis))
        .bind(wanted.before.map(Timestamp::as_millis))
        .bind(states);
    Ok(match &wanted.id {
        Some(id) => bind_this(query, id),
        None => (0..6).fold(query, |query, _| query.bind(None::<i64>)),
    })
}
