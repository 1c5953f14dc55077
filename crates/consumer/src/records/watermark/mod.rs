//! The last stage: how far a shard is done, on the way back to its lease.
//!
//! The watermark is the highest position below which everything is done. It is the only thing that the records' side
//! tells the leases' side; a renewal reads it when it is about to write, so any number of batches cost one write.

use std::sync::Mutex;
use std::time::Duration;

use shardwell_core::{Checkpoint, CheckpointWrite, ExtendedSequenceNumber, Lease, Monotonic, Timestamp};

use crate::lock::lock;
use crate::records::fetch::{caught_up_at, state_of};
use crate::{CheckpointError, CheckpointMode, OutOfRange};

/// How far one held shard is, from both sides.
#[derive(Debug)]
pub(crate) struct Progress {
    mode: CheckpointMode,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the lease table is known to hold.
    stored: Checkpoint,
    /// When `stored` was last known to be all there is to store, or was stored.
    stored_at: Monotonic,
    /// What should be stored.
    wanted: Checkpoint,
    /// The largest position handed to the processor.
    delivered: Checkpoint,
    /// The newest user record that was read.
    read_up_to: Option<ExtendedSequenceNumber>,
    /// When the shard was last read to its tip, and what had been read then.
    tip: Option<(Timestamp, Option<ExtendedSequenceNumber>)>,
    /// The newest time at which everything that had arrived was done, as the lease table holds it.
    caught_up_stored: Option<Timestamp>,
    /// Payload bytes done since the throughput was last taken.
    bytes: u64,
    bytes_since: Monotonic,
    throughput_kbps: Option<f64>,
}

/// How much the newest measurement counts in the throughput of a lease (the KCL's alpha).
const THROUGHPUT_WEIGHT: f64 = 0.5;

impl Progress {
    pub(crate) fn new(mode: CheckpointMode, stored: Checkpoint, throughput_kbps: Option<f64>, now: Monotonic) -> Self {
        let state = State {
            stored,
            stored_at: now,
            wanted: stored,
            delivered: stored,
            read_up_to: None,
            tip: None,
            caught_up_stored: None,
            bytes: 0,
            bytes_since: now,
            throughput_kbps,
        };
        Self { mode, state: Mutex::new(state) }
    }

    /// Resumes after another checkpoint than the stored one, because the processor said so. If that lies behind the stored
    /// one, nothing is stored until it has been passed: a checkpoint never moves backwards.
    pub(crate) fn resume_from(&self, checkpoint: Checkpoint) {
        let mut state = lock(&self.state);
        state.wanted = checkpoint;
        state.delivered = checkpoint;
    }

    /// Records up to here are about to be handed to the processor.
    pub(crate) fn delivering(&self, up_to: ExtendedSequenceNumber) {
        let mut state = lock(&self.state);
        state.delivered = state.delivered.max(Checkpoint::At(up_to));
    }

    /// Everything up to here is done.
    pub(crate) fn done(&self, up_to: ExtendedSequenceNumber) {
        if self.mode == CheckpointMode::Automatic {
            let mut state = lock(&self.state);
            state.wanted = state.wanted.max(Checkpoint::At(up_to));
        }
    }

    /// The processor handled this many payload bytes.
    pub(crate) fn handled(&self, bytes: u64) {
        lock(&self.state).bytes += bytes;
    }

    /// The newest user record that was read.
    pub(crate) fn read_up_to(&self, newest: ExtendedSequenceNumber) {
        lock(&self.state).read_up_to = Some(newest);
    }

    /// The newest read was at the tip of the shard.
    pub(crate) fn at_tip(&self, now: Timestamp) {
        let mut state = lock(&self.state);
        state.tip = Some((now, state.read_up_to));
    }

    /// The shard is done to its end.
    pub(crate) fn shard_ended(&self) {
        lock(&self.state).wanted = Checkpoint::ShardEnd;
    }

    /// The processor says how far it is.
    pub(crate) fn checkpoint_by_hand(&self, position: ExtendedSequenceNumber) -> Result<(), CheckpointError> {
        let mut state = lock(&self.state);
        let wanted = Checkpoint::At(position);
        if wanted < state.wanted || wanted > state.delivered {
            let refused = OutOfRange { wanted: position, last: state.wanted, delivered: state.delivered };
            return Err(CheckpointError::OutOfRange(Box::new(refused)));
        }
        state.wanted = wanted;
        Ok(())
    }

    /// The largest position handed to the processor, or the checkpoint it started from.
    pub(crate) fn delivered(&self) -> Checkpoint {
        lock(&self.state).delivered
    }

    /// What should be stored.
    pub(crate) fn wanted(&self) -> Checkpoint {
        lock(&self.state).wanted
    }

    /// What to write with the next renewal, if anything: the checkpoint if it moved, or a fresher time at which everything
    /// was done, once the stored one is older than `refresh`.
    pub(crate) fn to_store(&self, refresh: Duration) -> Option<CheckpointWrite> {
        let state = lock(&self.state);
        let caught_up = state.caught_up_at();
        let moved = state.wanted > state.stored;
        let stale = caught_up.is_some_and(|now| state.caught_up_stored.is_none_or(|old| now.since(old) >= refresh));
        (moved || stale)
            .then(|| CheckpointWrite { state: caught_up.map(state_of), ..CheckpointWrite::new(state.wanted) })
    }

    /// Whether everything that should be stored is.
    pub(crate) fn is_stored(&self) -> bool {
        let state = lock(&self.state);
        state.wanted <= state.stored
    }

    /// The lease table holds this row.
    pub(crate) fn stored(&self, row: &Lease, at: Monotonic) {
        let mut state = lock(&self.state);
        state.stored = row.checkpoint;
        state.stored_at = at;
        state.caught_up_stored = row.state().and_then(caught_up_at);
    }

    /// What the lease table holds, and since when that is known.
    pub(crate) fn last_stored(&self) -> (Checkpoint, Monotonic) {
        let state = lock(&self.state);
        (state.stored, state.stored_at)
    }

    /// The throughput of the shard in KiB per second, measured anew from the bytes since the last call.
    pub(crate) fn take_throughput(&self, now: Monotonic) -> Option<f64> {
        let mut state = lock(&self.state);
        let seconds = now.since(state.bytes_since).as_secs_f64();
        // A shorter time says little: a flush right after a renewal would count a burst as a rate.
        if seconds >= 0.1 {
            let measured = state.bytes as f64 / 1024.0 / seconds;
            let mean = state.throughput_kbps.map_or(measured, |old| old + THROUGHPUT_WEIGHT * (measured - old));
            state.throughput_kbps = Some((mean * 1e6).round() / 1e6);
            state.bytes = 0;
            state.bytes_since = now;
        }
        state.throughput_kbps
    }
}

impl State {
    /// The newest time at which everything that had arrived in the shard is done.
    fn caught_up_at(&self) -> Option<Timestamp> {
        let (time, read) = self.tip?;
        let done = match (self.wanted, read) {
            (Checkpoint::ShardEnd, _) => true,
            (Checkpoint::At(position), Some(read)) => position >= read,
            (_, None) => true,
            (Checkpoint::AtTimestamp | Checkpoint::TrimHorizon | Checkpoint::Latest, Some(_)) => false,
        };
        done.then_some(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn row(checkpoint: Checkpoint, write: Option<&CheckpointWrite>) -> Lease {
        let mut row = Lease::new("shard".into(), checkpoint);
        row.checkpoint_state = write
            .and_then(|write| write.state.clone())
            .map(|(version, data)| shardwell_core::CheckpointState { belongs_to: checkpoint, version, data });
        row
    }

    fn to_store(progress: &Progress) -> Option<Checkpoint> {
        progress.to_store(HOUR).map(|write| write.checkpoint)
    }

    #[test]
    fn the_time_of_the_tip_is_stored_once_everything_read_is_done() {
        let progress = progress(CheckpointMode::Automatic);
        let time = |hours| Timestamp::default().plus(HOUR * hours);
        progress.read_up_to(position(12));
        progress.at_tip(time(0));
        assert_eq!(progress.to_store(HOUR), None, "12 is read and not done");
        progress.done(position(12));
        let write = progress.to_store(HOUR).expect("both are new");
        assert_eq!(write.state, Some(state_of(time(0))));
        progress.stored(&row(write.checkpoint, Some(&write)), Monotonic::ZERO);
        progress.at_tip(time(0).plus(HOUR / 2));
        assert_eq!(progress.to_store(HOUR), None, "fresh enough");
        progress.at_tip(time(1));
        assert_eq!(progress.to_store(HOUR).expect("stale").state, Some(state_of(time(1))));
        progress.read_up_to(position(13));
        progress.at_tip(time(5));
        assert_eq!(progress.to_store(HOUR), None, "13 is not done");
    }

    fn position(number: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(number.into(), 0)
    }

    fn progress(mode: CheckpointMode) -> Progress {
        Progress::new(mode, Checkpoint::At(position(10)), None, Monotonic::ZERO)
    }

    #[test]
    fn what_is_done_is_stored_once() {
        let progress = progress(CheckpointMode::Automatic);
        assert_eq!(to_store(&progress), None);
        progress.done(position(12));
        progress.done(position(15));
        assert_eq!(to_store(&progress), Some(Checkpoint::At(position(15))));
        progress.stored(&row(Checkpoint::At(position(15)), None), Monotonic::ZERO);
        assert_eq!(to_store(&progress), None);
        progress.done(position(13));
        assert_eq!(to_store(&progress), None, "never backwards");
        progress.shard_ended();
        assert_eq!(to_store(&progress), Some(Checkpoint::ShardEnd));
    }

    #[test]
    fn a_position_behind_the_stored_checkpoint_is_not_stored() {
        let progress = progress(CheckpointMode::Automatic);
        progress.resume_from(Checkpoint::At(position(5)));
        progress.done(position(9));
        assert_eq!(to_store(&progress), None);
        assert!(progress.is_stored());
        progress.done(position(11));
        assert_eq!(to_store(&progress), Some(Checkpoint::At(position(11))));
    }

    #[test]
    fn by_hand_only_between_the_last_checkpoint_and_what_was_delivered() {
        let progress = progress(CheckpointMode::Manual);
        progress.delivering(position(20));
        progress.done(position(20));
        assert_eq!(to_store(&progress), None, "what is done does not matter here");
        assert!(progress.checkpoint_by_hand(position(21)).is_err());
        assert!(progress.checkpoint_by_hand(position(9)).is_err());
        assert_eq!(progress.checkpoint_by_hand(position(10)), Ok(()), "equal to the last one: nothing to store");
        assert_eq!(to_store(&progress), None);
        assert_eq!(progress.checkpoint_by_hand(position(20)), Ok(()));
        assert_eq!(to_store(&progress), Some(Checkpoint::At(position(20))));
        assert!(progress.checkpoint_by_hand(position(19)).is_err(), "also before it is stored");
    }

    #[test]
    fn throughput_moves_with_each_measurement() {
        let progress = progress(CheckpointMode::Automatic);
        let at = |seconds| Monotonic::from_origin(Duration::from_secs(seconds));
        progress.handled(10 * 1024);
        assert_eq!(progress.take_throughput(at(1)), Some(10.0));
        assert_eq!(progress.take_throughput(at(1)), Some(10.0), "too soon to say");
        assert_eq!(progress.take_throughput(at(2)), Some(5.0));
    }
}
