//! A position in a stream, as it is written on the command line.

use std::fmt;
use std::str::FromStr;

use shardwell::core::delivery::ResumeState;
use shardwell::core::{CheckpointWrite, ExtendedSequenceNumber, SequenceNumber};
use shardwell::{Checkpoint, Timestamp};

/// Where an application is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// At the oldest record.
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// At the first record that arrived at or after a time.
    Time(Timestamp),
    /// After a record.
    After(ExtendedSequenceNumber),
}

impl Position {
    /// What says so in a lease.
    pub(super) fn to_write(self) -> CheckpointWrite {
        match self {
            Self::TrimHorizon => CheckpointWrite::new(Checkpoint::TrimHorizon),
            Self::Latest => CheckpointWrite::new(Checkpoint::Latest),
            Self::After(position) => CheckpointWrite::new(Checkpoint::At(position)),
            // The KCL keeps no time in a lease. A worker that does not know ours reads everything, rather than too little.
            Self::Time(time) => {
                let resume = ResumeState { opened_at: Some(time.as_millis()), ..ResumeState::default() };
                CheckpointWrite { state: resume.encode(), ..CheckpointWrite::new(Checkpoint::TrimHorizon) }
            }
        }
    }

    /// Whether what is finished stays so: there is nothing new in a shard that has ended.
    pub(super) const fn leaves_finished(self) -> bool {
        matches!(self, Self::Latest)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("at the oldest record"),
            Self::Latest => f.write_str("after the newest record"),
            Self::Time(time) => write!(f, "at {time}"),
            Self::After(position) => write!(f, "after record {position}"),
        }
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_uppercase().replace('-', "_").as_str() {
            "TRIM_HORIZON" => return Ok(Self::TrimHorizon),
            "LATEST" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(time) = text.parse() {
            return Ok(Self::Time(time));
        }
        let (number, sub_sequence) = text.split_once('/').unwrap_or((text, "0"));
        match (number.parse::<SequenceNumber>(), sub_sequence.parse()) {
            (Ok(number), Ok(sub_sequence)) => Ok(Self::After(ExtendedSequenceNumber::new(number, sub_sequence))),
            _ => Err(
                "it must be TRIM_HORIZON, LATEST, a time such as 2026-03-01T12:00:00Z, or the sequence number of a \
                      record, with /SUB for a user record of an aggregated one"
                    .to_owned(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_people_write_them() {
        let position = |text: &str| text.parse::<Position>();
        assert_eq!(position("TRIM_HORIZON"), Ok(Position::TrimHorizon));
        assert_eq!(position("trim-horizon"), Ok(Position::TrimHorizon));
        assert_eq!(position("latest"), Ok(Position::Latest));
        assert_eq!(position("1970-01-01T00:00:01Z"), Ok(Position::Time(Timestamp::from_millis(1000))));
        let after = |number: u64, sub| Position::After(ExtendedSequenceNumber::new(number.into(), sub));
        assert_eq!(position("4711"), Ok(after(4711, 0)));
        assert_eq!(position("4711/3"), Ok(after(4711, 3)));
        for wrong in ["", "yesterday", "4711/", "4711/x", "-1", "SHARD_END"] {
            assert!(position(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_is_told_beside_the_trim_horizon() {
        let write = Position::Time(Timestamp::from_millis(7)).to_write();
        assert_eq!(write.checkpoint, Checkpoint::TrimHorizon);
        assert!(write.state.is_some());
        assert_eq!(Position::TrimHorizon.to_write(), CheckpointWrite::new(Checkpoint::TrimHorizon));
    }
}
