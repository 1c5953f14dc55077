//! Conformance suites of the seams: free functions that every implementation runs. Not covered by semver.

pub mod dead_letters;
pub mod env;
pub mod lease_store;
pub mod stream;
