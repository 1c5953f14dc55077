//! The last stage: how far a shard is done, on the way back to its lease.
//!
//! The watermark is the highest position below which everything is done or dead. It, and what is known beyond it, is the
//! only thing that the records' side tells the leases' side; a renewal reads it when it is about to write, so any number
//! of batches cost one write.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use shardwell_core::delivery::{Delivery, ResumeState};
use shardwell_core::{Checkpoint, CheckpointWrite, ExtendedSequenceNumber, Lease, Monotonic, Timestamp};

use crate::lock::lock;
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
    /// What should be stored, as far as was looked.
    wanted: Checkpoint,
    /// Where the watermark is, once the consumer has begun.
    delivery: Option<Arc<Mutex<Delivery>>>,
    /// What is known beyond the watermark, as of the same look.
    resume: Option<ResumeState>,
    /// What the lease table is known to hold beside `stored`. Without the time of the tip.
    stored_resume: ResumeState,
    /// When the shard was first opened at its tip, or from when on an operator wants it to be read.
    opened_at: Option<Timestamp>,
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
    pub(crate) fn new(mode: CheckpointMode, row: &Lease, now: Monotonic) -> Self {
        let resume = resume_of(row);
        let state = State {
            stored: row.checkpoint,
            stored_at: now,
            wanted: row.checkpoint,
            delivery: None,
            resume: None,
            opened_at: resume.opened_at(),
            caught_up_stored: resume.caught_up_at(),
            stored_resume: resume.without_time(),
            delivered: row.checkpoint,
            read_up_to: None,
            tip: None,
            bytes: 0,
            bytes_since: now,
            throughput_kbps: row.throughput_kbps,
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

    /// The consumer begins to deliver. `opened_at` is the time now, if it opens the shard at its tip.
    pub(crate) fn begin(&self, delivery: Arc<Mutex<Delivery>>, opened_at: Option<Timestamp>) {
        let mut state = lock(&self.state);
        state.delivery = Some(delivery);
        state.opened_at = state.opened_at.or(opened_at);
    }

    /// When the shard was first opened at its tip, in this term of the lease or an earlier one, or from when on an operator wants it
    /// to be read. Nothing from there on may be missed.
    pub(crate) fn opened_at(&self) -> Option<Timestamp> {
        lock(&self.state).opened_at
    }

    /// When everything that had arrived in the shard was done, as the lease table says.
    pub(crate) fn caught_up_at(&self) -> Option<Timestamp> {
        lock(&self.state).caught_up_stored
    }

    /// The consumer ended, and the process did not die of it.
    pub(crate) fn stopped_in_order(&self) {
        if let Some(delivery) = &lock(&self.state).delivery {
            lock(delivery).stopped_in_order();
        }
    }

    /// What the lease table holds beside the checkpoint.
    pub(crate) fn stored_resume(&self) -> ResumeState {
        match self.mode {
            CheckpointMode::Automatic => lock(&self.state).stored_resume.clone(),
            CheckpointMode::Manual => lock(&self.state).stored_resume.clone().without_records(),
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
        self.look().wanted
    }

    /// Looks where the watermark is, and what is known beyond it: both at once, since each means nothing without the other.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        if let Some(delivery) = &state.delivery {
            let delivery = lock(delivery);
            state.resume = Some(delivery.resume());
            if let (CheckpointMode::Automatic, Some(watermark)) = (self.mode, delivery.watermark()) {
                state.wanted = state.wanted.max(Checkpoint::At(watermark));
            }
        }
        guard
    }

    /// What to write with the next renewal, if anything: the checkpoint if it moved, or a fresher time at which everything
    /// was done, once the stored one is older than `refresh`.
    pub(crate) fn to_store(&self, refresh: Duration) -> Option<CheckpointWrite> {
        let state = self.look();
        let caught_up = state.caught_up_at();
        let moved = state.wanted > state.stored;
        let stale = caught_up.is_some_and(|now| state.caught_up_stored.is_none_or(|old| now.since(old) >= refresh));
        let resume = state.resume(self.mode);
        let changed = resume.as_ref().is_some_and(|resume| *resume != state.stored_resume);
        (moved || stale || changed).then(|| {
            // An older time stays true: what was done then is done.
            let caught_up_at = caught_up.or(state.caught_up_stored).map(Timestamp::as_millis);
            let resume = ResumeState { caught_up_at, ..resume.unwrap_or_else(|| state.stored_resume.clone()) };
            CheckpointWrite { state: resume.encode(), ..CheckpointWrite::new(state.wanted.max(state.stored)) }
        })
    }

    /// Whether everything that should be stored is.
    pub(crate) fn is_stored(&self) -> bool {
        let state = self.look();
        let resume = state.resume(self.mode);
        state.wanted <= state.stored && resume.is_none_or(|resume| resume == state.stored_resume)
    }

    /// The lease table holds this row.
    pub(crate) fn stored(&self, row: &Lease, at: Monotonic) {
        let mut state = lock(&self.state);
        state.stored = row.checkpoint;
        state.stored_at = at;
        let resume = resume_of(row);
        state.caught_up_stored = resume.caught_up_at();
        state.stored_resume = resume.without_time();
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

/// What a row says beside its checkpoint.
fn resume_of(row: &Lease) -> ResumeState {
    row.state().and_then(ResumeState::decode).unwrap_or_default()
}

impl State {
    /// What should be stored beside the checkpoint; `None` before the consumer has begun. Without the time of the tip.
    fn resume(&self, mode: CheckpointMode) -> Option<ResumeState> {
        let resume = self.resume.clone()?;
        if self.wanted.is_shard_end() {
            return Some(ResumeState::default());
        }
        // Ordinals count from the watermark, so they mean nothing beside another checkpoint.
        let beside_the_watermark = mode == CheckpointMode::Automatic && self.wanted >= self.stored;
        let resume = if beside_the_watermark { resume } else { resume.without_records() };
        let names_no_record = matches!(self.wanted, Checkpoint::Latest | Checkpoint::TrimHorizon);
        let opened_at = self.opened_at.filter(|_| names_no_record).map(Timestamp::as_millis);
        Some(ResumeState { opened_at, ..resume })
    }

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
    use shardwell_core::delivery::{DeliveryPolicy, Event, Intake, Now};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A shard at 10 of which nothing has been read.
    struct Shard {
        progress: Progress,
        delivery: Arc<Mutex<Delivery>>,
        row: Lease,
    }

    impl Shard {
        fn new(mode: CheckpointMode) -> Self {
            let row = Lease::new("shard".into(), Checkpoint::At(position(10)));
            let progress = Progress::new(mode, &row, Monotonic::ZERO);
            let policy = DeliveryPolicy::default().resolve(false).expect("valid");
            let delivery = Arc::new(Mutex::new(Delivery::new(policy, &ResumeState::default())));
            progress.begin(delivery.clone(), None);
            Self { progress, delivery, row }
        }

        fn done(&self, number: u64) {
            let event = Event::Arrived(vec![Intake::Passed(position(number))]);
            lock(&self.delivery).step(event, Now::default(), 0, true);
        }

        /// What a renewal stores now, and whether it stores anything.
        fn store(&mut self) -> Option<Checkpoint> {
            let write = self.progress.to_store(HOUR)?;
            let belongs_to = write.checkpoint;
            self.row.checkpoint = belongs_to;
            self.row.checkpoint_state =
                write.state.map(|(version, data)| shardwell_core::CheckpointState { belongs_to, version, data });
            self.progress.stored(&self.row, Monotonic::ZERO);
            Some(belongs_to)
        }

        fn resume(&self) -> ResumeState {
            resume_of(&self.row)
        }
    }

    fn position(number: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(number.into(), 0)
    }

    fn at(number: u64) -> Option<Checkpoint> {
        Some(Checkpoint::At(position(number)))
    }

    #[test]
    fn a_term_begins_with_a_write_and_ends_in_order_with_another() {
        let mut shard = Shard::new(CheckpointMode::Automatic);
        assert_eq!(shard.store(), None, "a term in which nothing came is none");
        lock(&shard.delivery).begin();
        assert_eq!((shard.store(), shard.resume().crashes.starts), (at(10), 1));
        assert!(shard.progress.is_stored());
        shard.progress.stopped_in_order();
        assert!(!shard.progress.is_stored());
        assert_eq!((shard.store(), shard.resume()), (at(10), ResumeState::default()));
    }

    #[test]
    fn the_time_of_the_tip_is_stored_once_everything_read_is_done() {
        let mut shard = Shard::new(CheckpointMode::Automatic);
        let time = |hours| Timestamp::default().plus(HOUR * hours);
        shard.progress.read_up_to(position(12));
        shard.progress.at_tip(time(1));
        assert_eq!(shard.store(), None, "12 is read and not done");
        shard.done(12);
        assert_eq!((shard.store(), shard.resume().caught_up_at()), (at(12), Some(time(1))));
        shard.progress.at_tip(time(1).plus(HOUR / 2));
        assert_eq!(shard.store(), None, "fresh enough");
        shard.progress.at_tip(time(2));
        assert_eq!((shard.store(), shard.resume().caught_up_at()), (at(12), Some(time(2))));
        shard.progress.read_up_to(position(14));
        shard.progress.at_tip(time(5));
        assert_eq!(shard.store(), None, "13 and 14 are not done");
        shard.done(13);
        assert_eq!((shard.store(), shard.resume().caught_up_at()), (at(13), Some(time(2))), "what was true stays true");
    }

    #[test]
    fn what_is_done_is_stored_once() {
        let mut shard = Shard::new(CheckpointMode::Automatic);
        shard.done(12);
        shard.done(15);
        assert_eq!(shard.store(), at(15));
        assert_eq!(shard.store(), None);
        shard.done(13);
        assert_eq!(shard.store(), None, "never backwards");
        shard.progress.shard_ended();
        assert_eq!((shard.store(), shard.resume()), (Some(Checkpoint::ShardEnd), ResumeState::default()));
    }

    #[test]
    fn a_position_behind_the_stored_checkpoint_is_not_stored() {
        let mut shard = Shard::new(CheckpointMode::Automatic);
        shard.progress.resume_from(Checkpoint::At(position(5)));
        shard.done(9);
        assert_eq!(shard.store(), None);
        assert!(shard.progress.is_stored());
        shard.done(11);
        assert_eq!(shard.store(), at(11));
    }

    #[test]
    fn by_hand_only_between_the_last_checkpoint_and_what_was_delivered() {
        let mut shard = Shard::new(CheckpointMode::Manual);
        shard.progress.delivering(position(20));
        shard.done(20);
        assert_eq!(shard.store(), None, "what is done does not matter here");
        assert!(shard.progress.checkpoint_by_hand(position(21)).is_err());
        assert!(shard.progress.checkpoint_by_hand(position(9)).is_err());
        assert_eq!(shard.progress.checkpoint_by_hand(position(10)), Ok(()), "equal to the last one: nothing to store");
        assert_eq!(shard.store(), None);
        assert_eq!(shard.progress.checkpoint_by_hand(position(20)), Ok(()));
        assert_eq!(shard.store(), at(20));
        assert!(shard.progress.checkpoint_by_hand(position(19)).is_err(), "also before it is stored");
    }

    #[test]
    fn throughput_moves_with_each_measurement() {
        let shard = Shard::new(CheckpointMode::Automatic);
        let at = |seconds| Monotonic::from_origin(Duration::from_secs(seconds));
        shard.progress.handled(10 * 1024);
        assert_eq!(shard.progress.take_throughput(at(1)), Some(10.0));
        assert_eq!(shard.progress.take_throughput(at(1)), Some(10.0), "too soon to say");
        assert_eq!(shard.progress.take_throughput(at(2)), Some(5.0));
    }
}
