//! The lease store: the seam's calls, each as a statement.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use shardwell_core::{
    Assignment, Conditional, Created, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseKey, LeaseListing,
    LeaseMeta, LeaseStore, MetricsWrite, Renewal, Renewed, Reset, StoreError, StreamIdentity, WorkerId, WorkerMetrics,
    async_trait,
};
use sqlx::Sqlite;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;

use crate::database::{Database, File};
use crate::error::Failure;
use crate::schema::LEASES;
use crate::{renew, row, sql};

/// One application's lease table in a SQLite file, for any number of processes on one machine.
///
/// Clones share their connections; [`dedicated`](LeaseStore::dedicated) handles have their own. The file may hold several
/// applications, and may be a database of the user's own: all tables are named `shardwell_*`, and nothing else is touched,
/// but the file is switched to SQLite's write-ahead log.
///
/// # The file
/// It must be on a **local disk**: the write-ahead log needs memory that all processes share, which no network file system
/// gives. SQLite keeps `<file>-wal` and `<file>-shm` beside it, so the directory must be writable too.
///
/// # Durability
/// With `synchronous=NORMAL` a write that was answered survives a crash of the process. A crash of the whole machine may
/// lose the last writes, never corrupt the file: checkpoints then are a little older, and some records are delivered
/// again. All processes that use the file went down with the machine, so no owner can outlive its lease.
///
/// # Time
/// Calls wait for each other's locks up to the busy time-out, and give up in all after twice that. They need a tokio
/// runtime with its timer, on real time: SQLite runs on threads of its own, which a paused clock does not know about.
///
/// # Cancel safety
/// As [`LeaseStore`] demands. A dropped write is finished or never begun; no lock and no transaction stays behind.
#[derive(Clone, Debug)]
pub struct SqliteLeaseStore {
    database: Arc<Database>,
    application: Arc<str>,
}

impl SqliteLeaseStore {
    /// The lease table of an application in a file, which is created or brought up to date when it is first used.
    /// Made without I/O. A relative path is taken from the current directory at this moment.
    pub fn new(path: impl AsRef<Path>, application: &str) -> Self {
        Self::on(File::new(&LEASES, path.as_ref()), application)
    }

    /// Opens a lease table now, and creates or migrates the file where needed. Safe in many processes at once.
    ///
    /// # Errors
    /// - [`Invalid`](shardwell_core::StoreErrorKind::Invalid): the directory does not exist, or the path names one.
    /// - [`Denied`](shardwell_core::StoreErrorKind::Denied): the file or its directory cannot be written.
    /// - [`Unusable`](shardwell_core::StoreErrorKind::Unusable): not a SQLite database, corrupt, holds tables of our
    ///   names that are not ours, was made by a newer version, or is on a network file system.
    /// - [`Unavailable`](shardwell_core::StoreErrorKind::Unavailable): another process keeps it locked, or the disk is
    ///   full or failing.
    ///
    /// # Cancel safety
    /// May be dropped at any time; an unfinished migration is rolled back.
    pub async fn open(path: impl AsRef<Path>, application: &str) -> Result<Self, StoreError> {
        let store = Self::new(path, application);
        store.prepare().await?;
        Ok(store)
    }

    /// Opens the lease table of an application in an existing file for reading only: for tools that look on. The file is
    /// neither created nor migrated, and every write is refused as
    /// [`Denied`](shardwell_core::StoreErrorKind::Denied).
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Denied`](shardwell_core::StoreErrorKind::Denied) where there is no file.
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    pub async fn open_existing(path: impl AsRef<Path>, application: &str) -> Result<Self, StoreError> {
        let mut file = Self::new(path, application).database.file().clone();
        file.read_only = true;
        let store = Self::on(file, application);
        store.prepare().await?;
        Ok(store)
    }

    /// The names of the applications that have anything in an existing file, ordered. Reads only.
    ///
    /// # Errors
    /// As [`open_existing`](Self::open_existing).
    ///
    /// # Cancel safety
    /// Reads only; may be dropped at any time.
    pub async fn applications(path: impl AsRef<Path>) -> Result<Vec<String>, StoreError> {
        let store = Self::open_existing(path, "").await?;
        let call = async {
            let mut guard = store.database.reader().await;
            Ok(sqlx::query_scalar(sql::APPLICATIONS).fetch_all(guard.connection().await?).await?)
        };
        store.database.call("listing the applications", call).await
    }

    /// How long a call waits for other processes' locks. Default: 5 s. Keep it **below a third of the lease duration**: a
    /// renewal that waits longer comes too late to be repeated. Too small turns a moment of contention into errors.
    ///
    /// The result has connections of its own.
    #[must_use]
    pub fn with_busy_timeout(&self, busy_timeout: Duration) -> Self {
        Self::on(File { busy_timeout, ..self.database.file().clone() }, &self.application)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// The application.
    pub fn application(&self) -> &str {
        &self.application
    }

    fn on(file: File, application: &str) -> Self {
        Self { database: Arc::new(Database::new(file)), application: application.into() }
    }

    fn query(&self, statement: &'static str) -> Query<'_, Sqlite, SqliteArguments> {
        sqlx::query(statement).bind(&*self.application)
    }

    /// Runs a statement that gives no rows, and tells how many it changed.
    async fn execute<'q>(
        &'q self,
        what: &str,
        query: Result<Query<'q, Sqlite, SqliteArguments>, Failure>,
    ) -> Result<u64, StoreError> {
        let call = async {
            let mut guard = self.database.writer().await;
            Ok(query?.execute(guard.connection().await?).await?.rows_affected())
        };
        self.database.call(what, call).await
    }

    /// Runs a conditional write on a lease; where it was refused, reads the row as it is.
    async fn conditional<'q>(
        &'q self,
        what: &str,
        key: &LeaseKey,
        query: Result<Query<'q, Sqlite, SqliteArguments>, Failure>,
    ) -> Result<Conditional, StoreError> {
        let call = async {
            let mut guard = self.database.writer().await;
            // All rows to the end of the statement: only there is it known to be committed.
            let rows = query?.fetch_all(guard.connection().await?).await?;
            rows.first().map(row::lease).transpose().map_err(|unreadable| unreadable.failure)
        };
        match self.database.call::<_, StoreError>(what, call).await? {
            Some(lease) => Ok(Conditional::Applied(lease)),
            None => Ok(Conditional::Refused(self.lease(key).await?)),
        }
    }

    /// Reads at most one row.
    async fn read_one<T: Send>(
        &self,
        what: &str,
        query: Query<'_, Sqlite, SqliteArguments>,
        decode: impl FnOnce(&sqlx::sqlite::SqliteRow) -> Result<T, Failure> + Send,
    ) -> Result<Option<T>, StoreError> {
        let call = async {
            let mut guard = self.database.reader().await;
            query.fetch_optional(guard.connection().await?).await?.as_ref().map(decode).transpose()
        };
        self.database.call(what, call).await
    }

    /// Reads many rows.
    async fn read_all<T: Send>(
        &self,
        what: &str,
        query: Query<'_, Sqlite, SqliteArguments>,
        decode: impl Fn(&sqlx::sqlite::SqliteRow) -> Result<T, Failure> + Send,
    ) -> Result<Vec<T>, StoreError> {
        let call = async {
            let mut guard = self.database.reader().await;
            query.fetch_all(guard.connection().await?).await?.iter().map(decode).collect()
        };
        self.database.call(what, call).await
    }
}

impl fmt::Display for SqliteLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease table of {} in {}", self.application, self.path().display())
    }
}

fn created(rows: u64) -> Created {
    if rows == 0 { Created::Existed } else { Created::New }
}

#[async_trait]
impl LeaseStore for SqliteLeaseStore {
    fn dedicated(&self) -> Arc<dyn LeaseStore> {
        Arc::new(Self::on(self.database.file().clone(), &self.application))
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        self.database.prepare().await
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError> {
        lease.ensure_creatable()?;
        let (checkpoint, sub) = lease.checkpoint.to_stored();
        let bind = || {
            let query = self.query(sql::CREATE_LEASE);
            Ok(query
                .bind(lease.key.as_str())
                .bind(lease.stream.as_deref())
                .bind(lease.shard.as_str())
                .bind(checkpoint)
                .bind(row::signed(sub)?)
                .bind(row::shards_to_json(&lease.parents)?)
                .bind(row::shards_to_json(&lease.children)?)
                .bind(lease.hash_key_range.map(|range| range.start().to_string()))
                .bind(lease.hash_key_range.map(|range| range.end().to_string())))
        };
        self.execute("creating a lease", bind()).await.map(created)
    }

    async fn leases(&self) -> Result<LeaseListing, StoreError> {
        let rows = self.read_all("listing the leases", self.query(sql::LEASES), |row| Ok(row::lease(row))).await?;
        let mut listing = LeaseListing::default();
        for row in rows {
            match row {
                Ok(lease) => listing.leases.push(lease),
                Err(unreadable) => {
                    tracing::warn!(lease = %unreadable.key, reason = ?unreadable.failure, "a lease cannot be read");
                    listing.unreadable.push(unreadable.key);
                }
            }
        }
        Ok(listing)
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let query = self.query(sql::LEASE).bind(key.as_str());
        self.read_one("reading a lease", query, |row| row::lease(row).map_err(|unreadable| unreadable.failure)).await
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        let query = self.query(sql::LEASES_OF).bind(worker.as_str());
        let key = |row: &sqlx::sqlite::SqliteRow| {
            let key: String = sqlx::Row::try_get(row, "lease_key")?;
            Ok(LeaseKey::from(key))
        };
        self.read_all("looking for a worker's leases", query, key).await
    }

    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed> {
        stream::iter(renew::batches(renewals))
            .then(move |batch| renew::renew(&self.database, &self.application, worker, batch).boxed())
            .flat_map(stream::iter)
            .boxed()
    }

    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError> {
        let bind = || {
            let query = self.query(sql::ASSIGN).bind(assignment.key.as_str()).bind(assignment.to.as_str());
            Ok(query
                .bind(assignment.seen.owner.as_ref().map(WorkerId::as_str))
                .bind(assignment.seen.checkpoint_owner.as_ref().map(WorkerId::as_str))
                .bind(assignment.seen.counter.map(row::signed).transpose()?))
        };
        self.conditional("assigning a lease", &assignment.key, bind()).await
    }

    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
        let query = self.query(sql::START_HANDOFF).bind(handoff.key.as_str());
        let query = query.bind(handoff.from.as_str()).bind(handoff.to.as_str());
        self.conditional("starting a handoff", &handoff.key, Ok(query)).await
    }

    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError> {
        let bind = || {
            let query = self.query(sql::EVICT).bind(eviction.key.as_str());
            Ok(query
                .bind(eviction.seen.owner.as_ref().map(WorkerId::as_str))
                .bind(eviction.seen.checkpoint_owner.as_ref().map(WorkerId::as_str))
                .bind(eviction.seen.counter.map(row::signed).transpose()?))
        };
        self.conditional("evicting a lease", &eviction.key, bind()).await
    }

    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError> {
        let query = self.query(sql::RESET).bind(reset.key.as_str());
        self.conditional("resetting a lease", &reset.key, renew::bind_checkpoint(query, &reset.to)).await
    }

    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError> {
        let query = match meta {
            LeaseMeta::Children(children) => row::shards_to_json(children)
                .map(|children| self.query(sql::UPDATE_CHILDREN).bind(key.as_str()).bind(children)),
            LeaseMeta::HashKeyRange(range) => Ok(self
                .query(sql::UPDATE_HASH_KEYS)
                .bind(key.as_str())
                .bind(range.start().to_string())
                .bind(range.end().to_string())),
        };
        self.conditional("updating a lease", key, query).await
    }

    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError> {
        let query = self.query(sql::DELETE_LEASE).bind(key.as_str());
        self.execute("deleting a lease", Ok(query)).await.map(drop)
    }

    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError> {
        let heartbeat = metrics.heartbeat;
        let bind = || {
            Ok(self
                .query(sql::PUT_WORKER)
                .bind(metrics.worker.as_str())
                .bind(metrics.last_update.as_millis().div_euclid(1000))
                .bind(row::metrics_to_json(&metrics.samples)?)
                .bind(row::metrics_to_json(&metrics.operating_range)?)
                .bind(metrics.support_code)
                .bind(metrics.support_heartbeat.as_millis().div_euclid(1000))
                .bind(heartbeat.map(|heartbeat| heartbeat.incarnation.cast_signed()))
                .bind(heartbeat.map(|heartbeat| heartbeat.beat.cast_signed()))
                .bind(metrics.streams.as_ref().map(row::to_json).transpose()?))
        };
        // What refused the write may be gone when it is looked for: then it is written again.
        loop {
            if self.execute("writing a worker's metrics", bind()).await? == 1 {
                return Ok(MetricsWrite::Written);
            }
            let query = self.query(sql::WORKER).bind(metrics.worker.as_str());
            let foreign = self.read_one("reading a worker's metrics", query, row::worker_metrics).await?;
            if let Some(foreign) = foreign.filter(|foreign| !metrics.may_replace(foreign)) {
                return Ok(MetricsWrite::Foreign(foreign));
            }
        }
    }

    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError> {
        self.read_all("reading the workers' metrics", self.query(sql::WORKERS), row::worker_metrics).await
    }

    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError> {
        let seconds = seen.last_update.as_millis().div_euclid(1000);
        let incarnation = seen.heartbeat.map(|heartbeat| heartbeat.incarnation.cast_signed());
        let query = self.query(sql::DELETE_WORKER).bind(seen.worker.as_str()).bind(seconds).bind(incarnation);
        Ok(self.execute("deleting a worker's metrics", Ok(query)).await? == 1)
    }

    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError> {
        self.read_one("reading the leader lock", self.query(sql::LEADER), row::leader_lock).await
    }

    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError> {
        let fill = |statement, lock: &LeaderLock| {
            let query = self.query(statement).bind(lock.owner.to_string()).bind(row::nanos(lock.duration)?);
            let query = query.bind(lock.version.clone()).bind(lock.released);
            Ok(query.bind(row::workers_to_json(&lock.standbys)?))
        };
        let query = match (seen, lock) {
            (None, None) => return Ok(self.leader_lock().await?.is_none()),
            (None, Some(lock)) => fill(sql::TAKE_LEADER, lock),
            (Some(seen), Some(lock)) => fill(sql::REPLACE_LEADER, lock).map(|query| query.bind(seen.to_owned())),
            (Some(seen), None) => Ok(self.query(sql::DELETE_LEADER).bind(seen.to_owned())),
        };
        Ok(self.execute("writing the leader lock", query).await? == 1)
    }

    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError> {
        self.read_one("reading the fleet's settings", self.query(sql::SETTINGS), row::fleet_settings).await
    }

    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError> {
        let bind = || {
            let fill = |statement, settings: &FleetSettings| {
                let query = self.query(statement).bind(row::nanos(settings.lease_duration)?);
                Ok(query.bind(row::workers_to_json(&settings.draining)?))
            };
            match seen {
                None => fill(sql::CREATE_SETTINGS, settings),
                Some(seen) => {
                    let query = fill(sql::REPLACE_SETTINGS, settings)?.bind(row::nanos(seen.lease_duration)?);
                    Ok(query.bind(row::workers_to_json(&seen.draining)?))
                }
            }
        };
        Ok(self.execute("writing the fleet's settings", bind()).await? == 1)
    }

    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError> {
        let query = self.query(sql::STREAM).bind(name.to_owned());
        self.read_one("reading a stream's identity", query, row::stream_identity).await
    }

    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError> {
        self.read_all("reading the streams' identities", self.query(sql::STREAMS), row::stream_identity).await
    }

    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError> {
        let query = self.query(sql::RECORD_STREAM).bind(identity.name.clone()).bind(identity.arn.clone());
        let query = query.bind(identity.created_at.as_millis());
        self.execute("recording a stream's identity", Ok(query)).await.map(created)
    }

    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError> {
        let query = self.query(sql::DELETE_STREAM).bind(name.to_owned());
        self.execute("deleting a stream's identity", Ok(query)).await.map(drop)
    }
}
