//! shardwell
