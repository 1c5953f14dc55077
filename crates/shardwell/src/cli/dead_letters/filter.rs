//! Which letters are meant.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use shardwell::Timestamp;
use shardwell::dead_letter::{ArchivedLetter, DeadReason, LetterId, LetterQuery, LetterState};

#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Which letters")]
pub(super) struct FilterArgs {
    /// Of this application
    #[arg(long, value_name = "NAME")]
    application: Option<String>,
    /// Of this stream, as the worker names it
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Of this shard
    #[arg(long, value_name = "SHARD")]
    shard: Option<String>,
    /// Of this partition key
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Dead for this reason
    #[arg(long, value_parser = reasons(), ignore_case = true)]
    reason: Option<DeadReason>,
    /// With this text in the error or its causes, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Dead at this time or later: RFC 3339 in UTC, or so long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Dead before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<Moment>,
    /// In these states, separated by commas [default: all but redriven]
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = states())]
    state: Vec<LetterState>,
    /// In any state
    #[arg(long, conflicts_with = "state")]
    all: bool,
    /// This letter, whatever its state; may be given more than once
    #[arg(long = "id", value_name = "ID")]
    by_id: Vec<LetterId>,
}

/// A point in time, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    At(Timestamp),
    Ago(Duration),
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) query: LetterQuery,
    /// If there are any: among these only.
    pub(super) ids: BTreeSet<LetterId>,
}

fn reasons() -> impl TypedValueParser<Value = DeadReason> {
    let unknown = || "no such reason".to_owned();
    let find = |name: &str| DeadReason::ALL.into_iter().find(|reason| reason.as_str().eq_ignore_ascii_case(name));
    PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::as_str))
        .try_map(move |name| find(&name).ok_or_else(unknown))
}

fn states() -> impl TypedValueParser<Value = LetterState> {
    let unknown = || "no such state".to_owned();
    PossibleValuesParser::new(LetterState::ALL.map(LetterState::as_str))
        .try_map(move |name| LetterState::parse(&name).ok_or_else(unknown))
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Moment::Ago(ago));
    }
    let at =
        text.parse().map_err(|_| "give a time such as 2013-01-01T05:15:00Z, or how long ago, such as 2h or 7days")?;
    Ok(Moment::At(at))
}

impl Moment {
    fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.minus(ago),
        }
    }
}

impl FilterArgs {
    /// What is asked for, with more letters that are named elsewhere.
    pub(super) fn selection(&self, more: &[LetterId], now: Timestamp) -> Selection {
        let ids: BTreeSet<LetterId> = self.by_id.iter().chain(more).cloned().collect();
        let states = match (self.states_are_given(), ids.is_empty()) {
            (true, _) => self.state.iter().copied().collect(),
            // Who names a letter means that one.
            (false, false) => BTreeSet::new(),
            (false, true) => LetterState::ALL.into_iter().filter(|state| *state != LetterState::Redriven).collect(),
        };
        let query = LetterQuery {
            application: self.application.clone(),
            stream: self.stream.clone(),
            shard: self.shard.as_deref().map(Into::into),
            partition_key: self.key.as_deref().map(Into::into),
            reason: self.reason,
            error: self.error.clone(),
            since: self.since.map(|since| since.at(now)),
            before: self.before.map(|before| before.at(now)),
            states,
            id: None,
        };
        Selection { query, ids }
    }

    /// Whether the states were chosen by hand.
    pub(super) const fn states_are_given(&self) -> bool {
        self.all || !self.state.is_empty()
    }

    /// Whether nothing narrows the choice down but the state.
    pub(super) fn is_for_everything(&self) -> bool {
        let Self { application, stream, shard, key, reason, error, since, before, state: _, all: _, by_id } = self;
        let texts = [application, stream, shard, key, error];
        texts.iter().all(|text| text.is_none())
            && reason.is_none()
            && since.is_none()
            && before.is_none()
            && by_id.is_empty()
    }
}

impl Selection {
    pub(super) fn matches(&self, letter: &ArchivedLetter) -> bool {
        (self.ids.is_empty() || self.ids.contains(&letter.letter.id())) && self.query.matches(letter)
    }

    /// Each of these, for an archive.
    pub(super) fn queries(&self) -> Vec<LetterQuery> {
        if self.ids.is_empty() {
            return vec![self.query.clone()];
        }
        self.ids.iter().map(|id| LetterQuery { id: Some(id.clone()), ..self.query.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_or_a_while_ago() {
        let now = Timestamp::from_millis(10_000_000);
        assert_eq!(moment("2h").map(|when| when.at(now)), Ok(Timestamp::from_millis(10_000_000 - 7_200_000)));
        assert_eq!(moment("1970-01-01T00:00:01Z").map(|when| when.at(now)), Ok(Timestamp::from_millis(1000)));
        for text in ["", "yesterday", "2013-01-01", "-2h", "12"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn redriven_letters_are_left_out_unless_they_are_asked_for() {
        let now = Timestamp::from_millis(0);
        let states = |args: &FilterArgs, ids: &[LetterId]| args.selection(ids, now).query.states;
        let id: LetterId = "delays/flights/shardId-000000000000/7/0".parse().expect("an identity");
        let mut args = FilterArgs::default();
        assert_eq!(states(&args, &[]).len(), 4);
        assert!(!states(&args, &[]).contains(&LetterState::Redriven));
        assert!(states(&args, std::slice::from_ref(&id)).is_empty());
        args.all = true;
        assert!(states(&args, &[]).is_empty());
        args = FilterArgs { state: vec![LetterState::Redriven], ..FilterArgs::default() };
        assert_eq!(states(&args, &[id]), [LetterState::Redriven].into());
    }

    #[test]
    fn a_state_alone_narrows_nothing_down() {
        let mut args = FilterArgs { state: vec![LetterState::Parked], ..FilterArgs::default() };
        assert!(args.is_for_everything());
        args.shard = Some("shardId-000000000000".to_owned());
        assert!(!args.is_for_everything());
    }
}
