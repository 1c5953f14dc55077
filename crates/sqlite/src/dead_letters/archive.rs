//! Reading letters back, and giving them out for another try.

use std::collections::BTreeSet;

use shardwell_core::dead_letter::{
    ArchivedLetter, Claim, DeadLetterArchive, LetterId, LetterPage, LetterQuery, Resolution, SinkError,
};
use shardwell_core::{PartitionKey, Timestamp, WorkerId, async_trait};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::row::{self, Found};
use super::{SqliteDeadLetters, sql};
use crate::error::Failure;
use crate::row::to_json;

/// How many open letters are looked at together. Above that a claim takes several looks.
const CLAIM_PAGE: usize = 256;

impl SqliteDeadLetters {
    async fn page(&self, wanted: &LetterQuery, after: Option<&LetterId>, limit: usize) -> Result<LetterPage, Failure> {
        let limit = limit.max(1);
        // One more tells whether there is another page.
        let one_more = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
        let query = row::bind_query(row::bind_after(sqlx::query(sql::LETTERS), after), wanted)?.bind(one_more);
        let mut guard = self.database.reader().await;
        let mut rows = query.fetch_all(guard.connection().await?).await?;
        let is_last = rows.len() <= limit;
        rows.truncate(limit);
        let mut page = LetterPage::default();
        if !is_last {
            page.next = rows.last().map(row::id).transpose()?;
        }
        for letter in rows.iter().map(row::found) {
            match readable(letter)? {
                Some(found) => page.letters.push(found.archived),
                None => page.unreadable += 1,
            }
        }
        Ok(page)
    }

    async fn find(&self, id: &LetterId) -> Result<Option<ArchivedLetter>, Failure> {
        let mut guard = self.database.reader().await;
        let row = row::bind_this(sqlx::query(sql::LETTER), id).fetch_optional(guard.connection().await?).await?;
        Ok(row.as_ref().map(row::found).transpose()?.map(|found| found.archived))
    }

    async fn request(&self, wanted: &LetterQuery, at: Timestamp) -> Result<u64, Failure> {
        // The statement has no parameters 2 to 6.
        let query = (2..=6).fold(sqlx::query(sql::REQUEST).bind(at.as_millis()), |query, _| query.bind(None::<i64>));
        let query = row::bind_query(query, wanted)?;
        let mut guard = self.database.writer().await;
        Ok(query.execute(guard.connection().await?).await?.rows_affected())
    }

    /// Looks before it locks: workers ask again and again, and most of the time there is nothing.
    async fn give_out(&self, claim: &Claim) -> Result<Vec<ArchivedLetter>, Failure> {
        if claim.limit == 0 || !self.is_anything_open(claim).await? {
            return Ok(Vec::new());
        }
        let mut guard = self.database.writer().await;
        let mut transaction = guard.connection().await?.begin_with("BEGIN IMMEDIATE").await?;
        let given = open_letters(&mut transaction, claim).await?;
        let rows: Vec<i64> = given.iter().map(|found| found.row).collect();
        let update = sqlx::query(sql::CLAIM).bind(to_json(&rows)?).bind(claim.worker.as_str());
        let update = update.bind(claim.now.as_millis()).bind(claim.until.as_millis());
        update.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(given.into_iter().map(|found| found.archived.claimed(claim.now)).collect())
    }

    async fn is_anything_open(&self, claim: &Claim) -> Result<bool, Failure> {
        let mut guard = self.database.reader().await;
        Ok(!open_rows(guard.connection().await?, claim, None, 1).await?.is_empty())
    }

    async fn end_round(&self, id: &LetterId, worker: &WorkerId, end: &Resolution) -> Result<bool, Failure> {
        let mut guard = self.database.writer().await;
        let mut transaction = guard.connection().await?.begin_with("BEGIN IMMEDIATE").await?;
        let claimed = row::bind_this(sqlx::query(sql::CLAIMED), id).bind(worker.as_str());
        let Some(row) = claimed.fetch_optional(&mut *transaction).await? else { return Ok(false) };
        let Found { row, archived } = row::found(&row)?;
        let resolved = archived.resolved(end);
        let update = sqlx::query(sql::RESOLVE)
            .bind(row)
            .bind(resolved.state.as_str())
            .bind(i64::from(resolved.rounds))
            .bind(resolved.changed_at.as_millis())
            .bind(row::error_column(&resolved.letter)?)
            .bind(row::letter_column(&resolved.letter));
        update.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }
}

/// What cannot be read is passed over and logged: a newer version of shardwell wrote it, or somebody's hand.
fn readable(letter: Result<Found, Failure>) -> Result<Option<Found>, Failure> {
    match letter {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Unreadable(why)) => {
            tracing::warn!(%why, "a dead letter is passed over");
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// The letters that a claim gets. Goes on behind those that cannot be read, or they would be in the way for ever.
async fn open_letters(connection: &mut SqliteConnection, claim: &Claim) -> Result<Vec<Found>, Failure> {
    let mut given = Vec::new();
    let mut after = None;
    while given.len() < claim.limit {
        let wanted = (claim.limit - given.len()).min(CLAIM_PAGE);
        let rows = open_rows(connection, claim, after.as_ref(), wanted).await?;
        after = rows.last().map(row::id).transpose()?;
        for letter in rows.iter().map(row::found) {
            given.extend(readable(letter)?);
        }
        if rows.len() < wanted {
            break;
        }
    }
    Ok(given)
}

async fn open_rows(
    connection: &mut SqliteConnection,
    claim: &Claim,
    after: Option<&LetterId>,
    limit: usize,
) -> Result<Vec<SqliteRow>, Failure> {
    let (number, sub, shard) = match after {
        Some(id) => (id.position.sequence_number.to_string(), id.position.sub_sequence_number, id.shard.as_str()),
        None => (String::new(), 0, ""),
    };
    let query = sqlx::query(sql::OPEN)
        .bind(claim.application.as_str())
        .bind(claim.stream.as_str())
        .bind(claim.worker.as_str())
        .bind(claim.now.as_millis())
        .bind(row::digits(&number))
        .bind(number)
        .bind(i64::try_from(sub).unwrap_or(i64::MAX))
        .bind(shard)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX));
    Ok(query.fetch_all(connection).await?)
}

#[async_trait]
impl DeadLetterArchive for SqliteDeadLetters {
    async fn letters(
        &self,
        query: &LetterQuery,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<LetterPage, SinkError> {
        self.database.call("listing dead letters", self.page(query, after, limit)).await
    }

    async fn letter(&self, id: &LetterId) -> Result<Option<ArchivedLetter>, SinkError> {
        self.database.call("reading a dead letter", self.find(id)).await
    }

    async fn request_redrive(&self, query: &LetterQuery, at: Timestamp) -> Result<u64, SinkError> {
        self.database.call("requesting a redrive of dead letters", self.request(query, at)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<ArchivedLetter>, SinkError> {
        self.database.call("claiming dead letters", self.give_out(claim)).await
    }

    async fn resolve(&self, id: &LetterId, worker: &WorkerId, resolution: &Resolution) -> Result<bool, SinkError> {
        self.database.call("ending a round of a dead letter", self.end_round(id, worker, resolution)).await
    }

    async fn mark_redriven(&self, id: &LetterId, at: Timestamp) -> Result<bool, SinkError> {
        let call = async {
            let query = row::bind_this(sqlx::query(sql::MARK_REDRIVEN), id).bind(at.as_millis());
            let mut guard = self.database.writer().await;
            Ok(query.execute(guard.connection().await?).await?.rows_affected() > 0)
        };
        self.database.call("marking a dead letter as redriven", call).await
    }

    async fn dead_keys(&self, application: &str, stream: &str) -> Result<BTreeSet<PartitionKey>, SinkError> {
        let call = async {
            let query = sqlx::query_scalar(sql::DEAD_KEYS).bind(application).bind(stream);
            let mut guard = self.database.reader().await;
            let keys: Vec<String> = query.fetch_all(guard.connection().await?).await?;
            Ok(keys.into_iter().map(PartitionKey::from).collect())
        };
        self.database.call("reading the keys of dead letters", call).await
    }
}
