//! The names of things: cheap to clone, never empty by accident, each its own type.

use std::fmt;
use std::sync::Arc;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// The id of a shard, such as `shardId-000000000003`: unique within its stream, never used again.
    ShardId
}

name! {
    /// The id of a worker: one per incarnation of a process, so a restarted process is another worker.
    WorkerId
}

name! {
    /// The key of a lease in its table: the shard id for a single stream (the KCL's format), or
    /// `account:stream:creation epoch:shard id` where several streams share a table.
    LeaseKey
}

impl LeaseKey {
    /// The key of a shard's lease in a table of several streams, or of one (`None`).
    pub fn in_stream(stream: Option<&str>, shard: &ShardId) -> Self {
        match stream {
            Some(stream) => format!("{stream}:{shard}").into(),
            None => shard.into(),
        }
    }
}

impl From<&ShardId> for LeaseKey {
    fn from(shard: &ShardId) -> Self {
        Self(shard.0.clone())
    }
}
