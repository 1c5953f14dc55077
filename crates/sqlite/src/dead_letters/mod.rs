//! Dead letters in a file of their own.

mod archive;
mod row;
mod sql;
mod store;

pub use store::SqliteDeadLetters;
