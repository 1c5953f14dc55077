//! The history of the leases, and what a lawful write is.

use serde::Deserialize;
use shardwell_core::{Checkpoint, InvalidSequenceNumber, ShardId, WorkerId, WriteToken};

/// A write to a lease's row.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "StoredWrite")]
pub(crate) struct LeaseWrite {
    pub(crate) lease: ShardId,
    pub(crate) before: Option<Row>,
    pub(crate) after: Option<Row>,
}

/// What the audit holds of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) owner: Option<WorkerId>,
    pub(crate) checkpoint_owner: Option<WorkerId>,
    pub(crate) counter: u64,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) token: Option<WriteToken>,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WriteKind {
    /// The row is new.
    Created,
    /// Its holder renewed it, maybe with a checkpoint.
    Renewed,
    /// Its holder was asked to hand it over.
    HandoffStarted,
    /// It was assigned to a worker, or taken from one; no token is left.
    Passed,
    /// Something was noted that has nothing to do with owners and checkpoints.
    Noted,
    /// The row is gone.
    Removed,
}

impl Row {
    /// Who may renew and checkpoint: the old owner during a handoff, else the owner.
    pub(crate) fn holder(&self) -> Option<&WorkerId> {
        self.checkpoint_owner.as_ref().or(self.owner.as_ref())
    }

    fn owners(&self) -> [Option<&WorkerId>; 2] {
        [self.owner.as_ref(), self.checkpoint_owner.as_ref()]
    }
}

impl LeaseWrite {
    /// What the write did; why not, if no write may do that. By the counter, the owners and the checkpoint, of which this
    /// says how they move together: the counter by one with every write that renews, assigns or takes, and with no other;
    /// the checkpoint with a renewal alone, which leaves the owners as they are, and never backwards.
    pub(crate) fn kind(&self) -> Result<WriteKind, String> {
        match (&self.before, &self.after) {
            (None, Some(new)) => created(new),
            (Some(before), Some(after)) => updated(before, after),
            (Some(old), None) if old.checkpoint.is_shard_end() => Ok(WriteKind::Removed),
            (Some(_), None) => Err("a lease was removed before the end of its shard".into()),
            (None, None) => Err("no row".into()),
        }
    }
}

fn created(new: &Row) -> Result<WriteKind, String> {
    let is_blank = new.owners() == [None; 2] && new.counter == 0 && new.token.is_none();
    if is_blank { Ok(WriteKind::Created) } else { Err("a new lease has an owner, a counter or a token".into()) }
}

fn updated(before: &Row, after: &Row) -> Result<WriteKind, String> {
    if after.checkpoint < before.checkpoint {
        return Err("the checkpoint went back".into());
    }
    let is_renewal = after.token.is_some() && before.token != after.token;
    let same_token = before.token == after.token;
    if before.checkpoint != after.checkpoint && !is_renewal {
        return Err("a checkpoint that came with no renewal".into());
    }
    let same_owners = before.owners() == after.owners();
    match after.counter.checked_sub(before.counter) {
        Some(1) if is_renewal && same_owners => Ok(WriteKind::Renewed),
        Some(1) if after.token.is_none() && after.checkpoint_owner.is_none() => Ok(WriteKind::Passed),
        Some(0) if same_token && same_owners => Ok(WriteKind::Noted),
        Some(0) if same_token && is_handoff(before, after) => Ok(WriteKind::HandoffStarted),
        _ => Err("counter, owners and token did not change together as any write has it".into()),
    }
}

fn is_handoff(before: &Row, after: &Row) -> bool {
    before.checkpoint_owner.is_none()
        && before.owner.is_some()
        && after.checkpoint_owner == before.owner
        && after.owner.is_some()
}

#[derive(Deserialize)]
struct StoredWrite {
    lease: String,
    before: Option<StoredRow>,
    after: Option<StoredRow>,
}

#[derive(Deserialize)]
struct StoredRow {
    owner: Option<String>,
    checkpoint_owner: Option<String>,
    counter: u64,
    checkpoint: String,
    sub_sequence_number: u64,
    token: Option<i64>,
}

impl TryFrom<StoredWrite> for LeaseWrite {
    type Error = InvalidSequenceNumber;

    fn try_from(stored: StoredWrite) -> Result<Self, Self::Error> {
        let row = |stored: Option<StoredRow>| stored.map(Row::try_from).transpose();
        Ok(Self { lease: stored.lease.into(), before: row(stored.before)?, after: row(stored.after)? })
    }
}

impl TryFrom<StoredRow> for Row {
    type Error = InvalidSequenceNumber;

    fn try_from(stored: StoredRow) -> Result<Self, Self::Error> {
        Ok(Self {
            owner: stored.owner.map(Into::into),
            checkpoint_owner: stored.checkpoint_owner.map(Into::into),
            counter: stored.counter,
            checkpoint: Checkpoint::from_stored(&stored.checkpoint, stored.sub_sequence_number)?,
            token: stored.token.map(|token| WriteToken::new(token.cast_unsigned())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<&str> = Some("a");
    const B: Option<&str> = Some("b");

    /// Owner, checkpoint owner, counter, checkpoint, token.
    type Fields = (Option<&'static str>, Option<&'static str>, u64, u64, u64);

    fn row((owner, checkpoint_owner, counter, checkpoint, token): Fields) -> Row {
        let stored = StoredRow {
            owner: owner.map(Into::into),
            checkpoint_owner: checkpoint_owner.map(Into::into),
            counter,
            checkpoint: checkpoint.to_string(),
            sub_sequence_number: 0,
            token: (token > 0).then(|| token.cast_signed()),
        };
        stored.try_into().expect("a checkpoint")
    }

    fn kind(before: Option<Fields>, after: Option<Fields>) -> Option<WriteKind> {
        LeaseWrite { lease: "shard".into(), before: before.map(row), after: after.map(row) }.kind().ok()
    }

    #[test]
    fn lawful_writes_are_told_apart() {
        let held = Some((A, None, 5, 10, 1));
        assert_eq!(kind(None, Some((None, None, 0, 10, 0))), Some(WriteKind::Created));
        assert_eq!(kind(held, Some((A, None, 6, 10, 2))), Some(WriteKind::Renewed));
        assert_eq!(kind(held, Some((A, None, 6, 11, 2))), Some(WriteKind::Renewed));
        assert_eq!(kind(held, Some((B, A, 5, 10, 1))), Some(WriteKind::HandoffStarted));
        assert_eq!(kind(Some((B, A, 5, 10, 1)), Some((B, A, 6, 11, 2))), Some(WriteKind::Renewed));
        assert_eq!(kind(Some((B, A, 6, 11, 2)), Some((B, None, 7, 11, 0))), Some(WriteKind::Passed));
        assert_eq!(kind(held, Some((B, None, 6, 10, 0))), Some(WriteKind::Passed));
        assert_eq!(kind(held, Some((None, None, 6, 10, 0))), Some(WriteKind::Passed));
        assert_eq!(kind(Some((A, None, 6, 10, 0)), Some((A, None, 7, 10, 0))), Some(WriteKind::Passed));
        assert_eq!(kind(held, held), Some(WriteKind::Noted));
    }

    #[test]
    fn unlawful_writes_are_found() {
        let held = Some((A, None, 5, 10, 1));
        let unlawful = [
            ("a checkpoint that goes back", (A, None, 6, 9, 2)),
            ("a checkpoint without a renewal", (A, None, 5, 11, 1)),
            ("a checkpoint with a change of hands", (B, None, 6, 11, 0)),
            ("a renewal with a change of hands", (B, None, 6, 10, 2)),
            ("a change of hands that leaves the counter", (B, None, 5, 10, 0)),
            ("a change of hands that leaves the token", (B, None, 6, 10, 1)),
            ("a token that is removed", (A, None, 5, 10, 0)),
            ("a renewal that leaves the counter", (A, None, 5, 10, 2)),
            ("a counter that rises by two", (A, None, 7, 10, 2)),
            ("a counter that falls", (A, None, 4, 10, 2)),
            ("a handoff by somebody else", (A, B, 5, 10, 1)),
        ];
        for (what, after) in unlawful {
            assert_eq!(kind(held, Some(after)), None, "{what}");
        }
        assert_eq!(kind(held, None), None, "a removal before the end");
        assert_eq!(kind(None, Some((A, None, 0, 10, 0))), None, "a lease that is born with an owner");
    }
}
