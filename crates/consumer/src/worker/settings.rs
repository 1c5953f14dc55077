//! What a user can tune, as plain data with bounds checked in one place.

use std::time::Duration;

use shardwell_core::aggregation::RangePolicy;
use shardwell_core::delivery::DeliveryPolicy;
use shardwell_core::leasing::plan::{Patience, PlanSettings};
use shardwell_core::leasing::{InitialPosition, LeaseTiming};

use crate::CheckpointMode;

/// What a worker does when records were trimmed by the stream's retention before they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDataLoss {
    /// Reports the loss (log, metric, status) and goes on with the oldest record that is left.
    #[default]
    Continue,
    /// Stops the worker with [`WorkerError::DataLoss`](crate::WorkerError::DataLoss), with nothing checkpointed beyond
    /// the loss.
    Stop,
}

/// Everything about a worker that is a number or a choice. Set through
/// [`WorkerBuilder`](crate::WorkerBuilder), where each is documented.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) initial_position: InitialPosition,
    pub(crate) checkpoints: CheckpointMode,
    pub(crate) on_data_loss: OnDataLoss,
    pub(crate) lease_duration: Duration,
    pub(crate) discovery_interval: Duration,
    pub(crate) planning_interval: Duration,
    /// DynamoDB read units per second that planning may cost.
    pub(crate) planning_read_units: f64,
    pub(crate) plan: PlanSettings,
    /// The upper end of the operating range, in percent.
    pub(crate) max_cpu_percent: f64,
    pub(crate) handoff_deadline: Duration,
    pub(crate) shard_sync_interval: Duration,
    pub(crate) shutdown_deadline: Duration,
    pub(crate) startup_deadline: Duration,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) max_concurrent_batches: usize,
    /// Resolved once the worker is built.
    pub(crate) delivery: DeliveryPolicy,
    pub(crate) redrive_interval: Duration,
    pub(crate) read_pacing: bool,
    pub(crate) range_policy: RangePolicy,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            initial_position: InitialPosition::Latest,
            checkpoints: CheckpointMode::Automatic,
            on_data_loss: OnDataLoss::Continue,
            lease_duration: Duration::from_secs(10),
            discovery_interval: Duration::from_secs(1),
            planning_interval: Duration::from_secs(2),
            planning_read_units: 50.0,
            plan: PlanSettings::default(),
            max_cpu_percent: 80.0,
            handoff_deadline: Duration::from_secs(30),
            shard_sync_interval: Duration::from_secs(60),
            shutdown_deadline: Duration::from_secs(30),
            startup_deadline: Duration::from_secs(60),
            max_buffered_bytes: 64 * 1024 * 1024,
            max_concurrent_batches: 64,
            delivery: DeliveryPolicy::default(),
            redrive_interval: Duration::from_secs(5),
            read_pacing: true,
            range_policy: RangePolicy::DeliverAll,
        }
    }
}

/// The shortest lease duration. Below it, ordinary pauses of a process lose leases.
const MIN_LEASE_DURATION: Duration = Duration::from_millis(100);

impl Settings {
    pub(crate) const fn timing(&self) -> LeaseTiming {
        LeaseTiming::new(self.lease_duration)
    }

    pub(crate) const fn patience(&self) -> Patience {
        Patience { lease_duration: self.lease_duration, handoff_deadline: self.handoff_deadline }
    }

    /// The first rule that is broken, in words that name the settings.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let rules = [
            (
                self.lease_duration >= MIN_LEASE_DURATION,
                format!("lease_duration is {:?}; it must be at least {MIN_LEASE_DURATION:?}", self.lease_duration),
            ),
            (
                !self.discovery_interval.is_zero(),
                "discovery_interval is zero; it must be at least a few milliseconds".to_owned(),
            ),
            (
                !self.planning_interval.is_zero(),
                "planning_interval is zero; it must be at least a few milliseconds".to_owned(),
            ),
            (
                self.planning_read_units > 0.0,
                format!("planning_read_units is {}; it must be above 0", self.planning_read_units),
            ),
            (
                self.plan.max_leases_for_worker > 0,
                "max_leases_for_worker is 0; the worker could not have any".to_owned(),
            ),
            (
                self.max_cpu_percent > 0.0 && self.max_cpu_percent <= 100.0,
                format!("max_cpu_percent is {}; it must be above 0 and at most 100", self.max_cpu_percent),
            ),
            (
                !self.shard_sync_interval.is_zero(),
                "shard_sync_interval is zero; it must be at least a few milliseconds".to_owned(),
            ),
            (self.max_buffered_bytes > 0, "max_buffered_bytes is 0; nothing could be read".to_owned()),
            (self.max_concurrent_batches > 0, "max_concurrent_batches is 0; nothing could be processed".to_owned()),
            (
                self.delivery.batch().bytes <= self.max_buffered_bytes,
                format!(
                    "batch_bytes ({}) is above max_buffered_bytes ({}); such a batch could never fill",
                    self.delivery.batch().bytes,
                    self.max_buffered_bytes
                ),
            ),
            (
                self.delivery.lanes() == 1 || self.checkpoints == CheckpointMode::Automatic,
                "manual checkpoints need a single lane: a processor knows how far its own lane is, and a checkpoint is of \
                 the whole shard"
                    .to_owned(),
            ),
            (
                !self.redrive_interval.is_zero(),
                "redrive_interval is zero; it must be at least a few milliseconds".to_owned(),
            ),
        ];
        rules.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, broken)| Err(broken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_every_rule_can_be_broken() {
        assert_eq!(Settings::default().validate(), Ok(()));
        let broken: [fn(&mut Settings); 12] = [
            |s| s.lease_duration = Duration::from_millis(99),
            |s| s.discovery_interval = Duration::ZERO,
            |s| s.planning_interval = Duration::ZERO,
            |s| s.planning_read_units = f64::NAN,
            |s| s.plan.max_leases_for_worker = 0,
            |s| s.max_cpu_percent = 100.5,
            |s| s.shard_sync_interval = Duration::ZERO,
            |s| s.max_buffered_bytes = 0,
            |s| s.max_concurrent_batches = 0,
            |s| s.delivery = DeliveryPolicy::default().with_batch_bytes(s.max_buffered_bytes + 1),
            |s| {
                s.delivery = DeliveryPolicy::default().with_lanes(2);
                s.checkpoints = CheckpointMode::Manual;
            },
            |s| s.redrive_interval = Duration::ZERO,
        ];
        for change in broken {
            let mut settings = Settings::default();
            change(&mut settings);
            assert!(settings.validate().is_err(), "{settings:?}");
        }
    }
}
