//! Decisions about leases: which to create, who should have which, which to take, how long to trust one, which to remove.

mod claim;
mod cleanup;
pub mod plan;
mod sync;
mod trust;

pub use claim::{Observations, blocking_parents, claimable};
pub use cleanup::removable;
pub use sync::{
    InitialPosition, awaits_parent_lease, child_leases, covers_every_hash_key, first_leases, missing_leases,
};
pub use trust::LeaseTiming;
