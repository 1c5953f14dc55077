//! The kinds of things that happen to a fleet.

use super::named::named;

named! {
    /// Something that happens to a fleet: a fault, or a change that it must follow.
    Kind {
        /// A process dies.
        Crash,
        /// A process stands still for longer than its leases last, and goes on.
        Freeze,
        /// The leader dies.
        LeaderDeath,
        /// Somebody dies in the middle of a handoff: the old owner, the new one, or the leader.
        DeathInHandoff,
        /// A worker joins.
        Join,
        /// A worker stops gracefully.
        Leave,
        /// Several workers stop gracefully at the same time.
        StopTogether,
        /// Every worker is replaced, one after the other.
        RollingDeploy,
        /// An operator drains a worker.
        Drain,
        /// A worker ceases to consume one of several streams, and begins again.
        StreamLeft,
        /// A second process comes with the id of one that is there.
        DuplicateId,
        /// A worker that is not ours takes a lease, processes a little, checkpoints as it does, and lets go.
        ForeignWorker,
        /// An operator deletes a lease.
        LostLease,
        /// Processors take many times as long.
        SlowProcessor,
        /// Processors of one worker answer no more.
        HungProcessor,
        /// What the processors need is out of order.
        FailingProcessor,
        /// Processors panic now and then.
        PanickingProcessor,
        /// The sink for dead letters fails.
        FailingSink,
        /// The lease table throttles.
        StoreThrottled,
        /// The lease table throttles writes, and can be read.
        WritesThrottled,
        /// The lease table fails.
        StoreFailing,
        /// The lease table is slow.
        StoreSlow,
        /// Writes to the lease table are applied and reported as failed.
        LostReplies,
        /// Listings and the index of the lease table lag behind, as a whole or row by row.
        StaleReads,
        /// The clocks of the workers run at different rates.
        ClockRates,
        /// The stream throttles.
        SourceThrottled,
        /// The stream fails.
        SourceFailing,
        /// A worker is paused for longer than its iterators live.
        ExpiredIterators,
        /// A shard is split.
        Split,
        /// Two shards are merged.
        Merge,
        /// The number of shards is changed.
        UpdateShardCount,
        /// Records that no processor can handle.
        PoisonRecords,
    }
}
