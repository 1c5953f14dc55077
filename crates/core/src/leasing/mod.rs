//! Decisions about leases: which to create, who leads, who lives, who should have which, how long to trust one, which to remove.

mod cleanup;
mod leader;
mod observe;
mod parents;
pub mod plan;
mod strain;
mod sync;
mod syncer;
mod trust;

pub use cleanup::{Removals, removable};
pub use leader::{LeaderTiming, LockWatch, planning_interval};
pub use observe::Observations;
pub use parents::Unfinished;
pub use strain::Strain;
pub use sync::{
    InitialPosition, awaits_parent_lease, child_leases, cover_every_hash_key, first_leases, leave_a_hole,
    missing_leases,
};
pub use syncer::syncs_for_leader;
pub use trust::LeaseTiming;
