//! Implementations of the seams in memory.
