//! The seam to the lease table, a request for each call.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use shardwell_core::{
    Assignment, Conditional, Created, Eviction, FleetSettings, HandoffStart, LeaderLock, Lease, LeaseKey, LeaseListing,
    LeaseMeta, LeaseStore, MetricsWrite, RenewOutcome, Renewal, Renewed, Reset, Seen, StoreError, StoreErrorKind,
    StreamIdentity, WorkerId, WorkerMetrics,
};

use super::capacity::{Purpose, charged};
use super::change::{as_seen, checkpointing, is_there, renewing};
use super::clients::{self, Clients, DynamoTimeouts};
use super::error::{Operation, Target};
use super::expression::{Condition, Placeholders, Update};
use super::item::{
    ENTITY_TYPE, Item, KEY, coordinator, entity_type, hexadecimal, is_lease, key_of, lease, number, string, strings,
    worker,
};
use super::requests::Requests;
use super::table::{INDEX, TableSettings};

/// How many renewals are under way at once: with 10 ms each, a worker renews 20,000 leases in a third of a lease duration.
const CONCURRENT_RENEWALS: usize = 64;

/// A lease table in DynamoDB: that of the Java KCL 3.5, bit for bit. Clones are cheap and share connections.
///
/// A worker with this store can join a running fleet of Java KCL 3.x workers of the same application (the table has the
/// application's name), work beside them, lead, and take over. See [`prepare`](LeaseStore::prepare) for which fleets.
///
/// It is made from an SDK client and takes over that client's configuration: region, endpoint, credentials, HTTP client,
/// interceptors. Retries and time-outs it sets by itself: every request is one attempt, since the worker repeats what is worth
/// it. How long each may take is said at [`DynamoTimeouts`].
///
/// # The table
/// Beside the KCL's attributes, leases have `shardwellToken` and `shardwellState`, and workers' items `shardwellIncarnation`,
/// `shardwellBeat` and `shardwellStreams`; a Java worker leaves them alone. The items `shardwell:settings` and
/// `shardwell:stream:...` are of the type `LEADER`, which Java workers do not look into. Attributes that are not known are never
/// touched, nor are items that cannot be read; [`LeaseListing::unreadable`] names those.
///
/// # Permissions
/// `dynamodb:DescribeTable`, `GetItem`, `PutItem`, `UpdateItem`, `DeleteItem` and `Scan` on the table, `Query` on its index
/// `LeaseOwnerToLeaseKeyIndex`, `DescribeTable` on the tables `<table>-CoordinatorState`; to create the table, `CreateTable` and,
/// as far as they are used, `UpdateTable`, `TagResource` and `UpdateContinuousBackups`.
#[derive(Clone)]
pub struct DynamoLeaseStore {
    pub(super) inner: Arc<Requests>,
}

impl DynamoLeaseStore {
    /// The lease table of this name, in the region and account of the client.
    ///
    /// # Panics
    /// Never with a client that the SDK has accepted: its configuration is checked again with only retries and time-outs
    /// changed.
    pub fn new(client: &Client, table: impl Into<String>) -> Self {
        let base = client.config().clone();
        let region = base.region().map(ToString::to_string);
        let timeouts = DynamoTimeouts::default();
        let inner = Requests {
            clients: Clients::new(&base, &timeouts),
            base,
            dedicated: None,
            timeouts,
            target: Target { table: table.into(), region },
            settings: TableSettings::default(),
            adopts_2x_tables: false,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sets how the table is created if it is not there. Default: [`TableSettings::default`].
    #[must_use]
    pub fn with_table_settings(self, settings: TableSettings) -> Self {
        self.changed(|inner| inner.settings = settings)
    }

    /// Sets how long requests may take. Default: [`DynamoTimeouts::default`].
    #[must_use]
    pub fn with_timeouts(self, timeouts: DynamoTimeouts) -> Self {
        self.changed(|inner| {
            inner.clients = Clients::new(&inner.base, &timeouts);
            inner.timeouts = timeouts;
        })
    }

    /// Takes over a table that looks like one of the KCL 1.x or 2.x, adding its index. Only for a fleet of which no worker runs any
    /// more: those workers take leases for themselves. Default: such a table is refused.
    #[must_use]
    pub fn with_adoption_of_2x_tables(self) -> Self {
        self.changed(|inner| inner.adopts_2x_tables = true)
    }

    /// Sets the client that [`LeaseStore::dedicated`] works with. Needed only if the first client was given an HTTP client of its
    /// own: connections belong to that, and `dedicated` cannot make another one like it.
    #[must_use]
    pub fn with_dedicated_client(self, client: &Client) -> Self {
        self.changed(|inner| inner.dedicated = Some(client.config().clone()))
    }

    /// The name of the table.
    pub fn table(&self) -> &str {
        &self.inner.target.table
    }

    fn changed(mut self, change: impl FnOnce(&mut Requests)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    async fn renew_one(&self, worker: &WorkerId, renewal: &Renewal) -> RenewOutcome {
        let change = renewing(worker, renewal);
        let answer =
            self.inner.update(&self.inner.clients.renew, Purpose::Renewals, renewal.key.as_str(), change).await;
        let row = |item: &Item| if is_lease(item) { self.inner.lease(item).map(Some) } else { Ok(None) };
        let (is_applied, row) = match answer {
            Ok(Ok(item)) => (true, row(&item)),
            Ok(Err(item)) => (false, item.as_ref().map_or(Ok(None), row)),
            Err(error) => return RenewOutcome::Unknown(error),
        };
        match row {
            Ok(Some(row)) if is_applied || renewal.was_applied(&row) => RenewOutcome::applied(row),
            Ok(row) => RenewOutcome::Lost(row),
            Err(error) => RenewOutcome::Unknown(error),
        }
    }
}

impl fmt::Debug for DynamoLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoLeaseStore").field("table", &self.inner.target.table).finish_non_exhaustive()
    }
}

impl fmt::Display for DynamoLeaseStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DynamoDB {}", self.inner.target)
    }
}

#[async_trait]
impl LeaseStore for DynamoLeaseStore {
    fn dedicated(&self) -> Arc<dyn LeaseStore> {
        let base = self.inner.dedicated.clone().unwrap_or_else(|| clients::apart(&self.inner.base));
        let clients = Clients::new(&base, &self.inner.timeouts);
        let inner = Requests { base, clients, ..Requests::clone(&self.inner) };
        Arc::new(Self { inner: Arc::new(inner) })
    }

    /// Creates the table with its index if it is not there, and waits until both can be used; adds the index to a table of
    /// the KCL that lacks it.
    ///
    /// # Errors
    /// As the seam's. Beside that, [`StoreErrorKind::Unusable`] for a fleet that is not in the KCL's 3.x mode, or that still keeps
    /// its state in tables of its own: the message says what to do.
    async fn prepare(&self) -> Result<(), StoreError> {
        super::prepare::prepare(&self.inner).await
    }

    async fn create_lease(&self, lease: &Lease) -> Result<Created, StoreError> {
        lease.ensure_creatable()?;
        let item = lease::new_item(lease);
        Ok(match self.inner.put(Purpose::Assignments, item, Condition::Absent(KEY)).await? {
            true => Created::New,
            false => Created::Existed,
        })
    }

    async fn leases(&self) -> Result<LeaseListing, StoreError> {
        Ok(self.inner.leases_in(&self.inner.scan().await?))
    }

    async fn lease(&self, key: &LeaseKey) -> Result<Option<Lease>, StoreError> {
        let item = self.inner.get(Purpose::Lookups, key.as_str()).await?;
        item.filter(is_lease).map(|item| self.inner.lease(&item)).transpose()
    }

    async fn leases_of(&self, worker: &WorkerId) -> Result<Vec<LeaseKey>, StoreError> {
        let inner = &self.inner;
        let mut placeholders = Placeholders::default();
        let condition = Condition::Is(lease::OWNER, string(worker.as_str())).render(&mut placeholders);
        let request = inner.clients.items.query().table_name(&inner.target.table).index_name(INDEX);
        let request = request
            .key_condition_expression(condition)
            .set_expression_attribute_names(placeholders.names())
            .set_expression_attribute_values(placeholders.values())
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let mut pages = request.into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| inner.target.error(Operation::Query, error))?;
            charged(&inner.target.table, Purpose::Discovery, page.consumed_capacity());
            keys.extend(page.items.unwrap_or_default().iter().filter_map(key_of).map(LeaseKey::from));
        }
        keys.sort();
        Ok(keys)
    }

    fn renew<'a>(&'a self, worker: &'a WorkerId, renewals: Vec<Renewal>) -> BoxStream<'a, Renewed> {
        let renewed = move |renewal: Renewal| async move {
            let outcome = self.renew_one(worker, &renewal).await;
            Renewed { key: renewal.key, outcome }
        };
        stream::iter(renewals).map(renewed).buffer_unordered(CONCURRENT_RENEWALS).boxed()
    }

    async fn assign(&self, assignment: &Assignment) -> Result<Conditional, StoreError> {
        let Assignment { key, seen, to } = assignment;
        let mut update = Update::default();
        update.set(lease::OWNER, string(to.as_str())).remove(lease::CHECKPOINT_OWNER).remove(lease::TOKEN);
        update.raise(lease::COUNTER);
        // The KCL's rule: another owner before, or the end of a handoff that gives the lease back to its old owner.
        if seen.owner.as_ref().is_some_and(|owner| owner != to) || seen.checkpoint_owner.as_ref() == Some(to) {
            update.raise(lease::OWNER_SWITCHES);
        }
        self.inner.write(key, update.when(as_seen(seen))).await
    }

    async fn start_handoff(&self, handoff: &HandoffStart) -> Result<Conditional, StoreError> {
        let HandoffStart { key, from, to } = handoff;
        let mut update = Update::default();
        update.set(lease::OWNER, string(to.as_str())).set(lease::CHECKPOINT_OWNER, string(from.as_str()));
        let seen = Seen { owner: Some(from.clone()), checkpoint_owner: None, counter: None };
        self.inner.write(key, update.when(as_seen(&seen))).await
    }

    async fn evict(&self, eviction: &Eviction) -> Result<Conditional, StoreError> {
        let Eviction { key, seen } = eviction;
        let mut update = Update::default();
        if seen.checkpoint_owner.is_none() {
            update.remove(lease::OWNER);
        }
        update.remove(lease::CHECKPOINT_OWNER).remove(lease::TOKEN).raise(lease::COUNTER);
        self.inner.write(key, update.when(as_seen(seen))).await
    }

    async fn reset(&self, reset: &Reset) -> Result<Conditional, StoreError> {
        let mut update = Update::default();
        checkpointing(&mut update, &reset.to);
        update.remove(lease::OWNER).remove(lease::CHECKPOINT_OWNER).remove(lease::TOKEN).raise(lease::COUNTER);
        self.inner.write(&reset.key, update.when(is_there())).await
    }

    async fn update_meta(&self, key: &LeaseKey, meta: &LeaseMeta) -> Result<Conditional, StoreError> {
        let mut update = Update::default();
        match meta {
            LeaseMeta::Children(children) => {
                update.put(lease::CHILDREN, strings(children));
            }
            LeaseMeta::HashKeyRange(range) => {
                update.set(lease::STARTING_HASH_KEY, string(range.start().to_string()));
                update.set(lease::ENDING_HASH_KEY, string(range.end().to_string()));
            }
        }
        self.inner.write(key, update.when(is_there())).await
    }

    async fn delete_lease(&self, key: &LeaseKey) -> Result<(), StoreError> {
        self.inner.delete(Purpose::Assignments, key.as_str(), None).await.map(drop)
    }

    async fn put_worker_metrics(&self, metrics: &WorkerMetrics) -> Result<MetricsWrite, StoreError> {
        let incarnation = metrics.heartbeat.map(|heartbeat| hexadecimal(heartbeat.incarnation));
        let mut update = Update::default();
        update.set(ENTITY_TYPE, string(worker::TYPE));
        update.set(worker::LAST_UPDATE, worker::seconds_value(metrics.last_update));
        update.set(worker::SAMPLES, worker::series_value(&metrics.samples));
        update.set(worker::OPERATING_RANGE, worker::series_value(&metrics.operating_range));
        update.set(worker::SUPPORT_CODE, number(metrics.support_code));
        update.set(worker::SUPPORT_HEARTBEAT, worker::seconds_value(metrics.support_heartbeat));
        update.put(worker::INCARNATION, incarnation.clone());
        update.put(worker::BEAT, metrics.heartbeat.map(|heartbeat| number(heartbeat.beat)));
        update.put(worker::STREAMS, metrics.streams.as_ref().map(super::item::list));
        let change = update.when(Condition::Any(vec![
            Condition::Absent(KEY),
            Condition::All(vec![
                Condition::Is(ENTITY_TYPE, string(worker::TYPE)),
                Condition::as_seen(worker::INCARNATION, incarnation),
            ]),
        ]));
        let id = metrics.worker.as_str();
        let item = match self.inner.update(&self.inner.clients.items, Purpose::Coordination, id, change).await? {
            Ok(_) => return Ok(MetricsWrite::Written),
            Err(item) => item.unwrap_or_default(),
        };
        if entity_type(&item) != Some(worker::TYPE) {
            let message =
                format!("`{id}` is the key of something else in {}; give the worker another id", self.inner.target);
            return Err(StoreError::new(StoreErrorKind::Invalid, message));
        }
        Ok(MetricsWrite::Foreign(self.inner.read(&item, worker::read)?))
    }

    async fn worker_metrics(&self) -> Result<Vec<WorkerMetrics>, StoreError> {
        Ok(self.inner.workers_in(&self.inner.scan().await?))
    }

    async fn look(&self) -> Result<(LeaseListing, Vec<WorkerMetrics>), StoreError> {
        let items = self.inner.scan().await?;
        Ok((self.inner.leases_in(&items), self.inner.workers_in(&items)))
    }

    async fn delete_worker_metrics(&self, seen: &WorkerMetrics) -> Result<bool, StoreError> {
        let incarnation = seen.heartbeat.map(|heartbeat| hexadecimal(heartbeat.incarnation));
        let condition = Condition::All(vec![
            Condition::Is(worker::LAST_UPDATE, worker::seconds_value(seen.last_update)),
            Condition::as_seen(worker::INCARNATION, incarnation),
        ]);
        self.inner.delete(Purpose::Coordination, seen.worker.as_str(), Some(condition)).await
    }

    async fn leader_lock(&self) -> Result<Option<LeaderLock>, StoreError> {
        self.inner.find(coordinator::LEADER, coordinator::read_lock).await
    }

    async fn swap_leader_lock(&self, seen: Option<&str>, lock: Option<&LeaderLock>) -> Result<bool, StoreError> {
        let condition = match seen {
            Some(version) => Condition::Is(coordinator::LOCK_VERSION, string(version)),
            None => Condition::Absent(KEY),
        };
        match (lock, seen) {
            (Some(lock), _) => self.inner.put(Purpose::Coordination, coordinator::lock_item(lock), condition).await,
            (None, Some(_)) => self.inner.delete(Purpose::Coordination, coordinator::LEADER, Some(condition)).await,
            (None, None) => Ok(self.leader_lock().await?.is_none()),
        }
    }

    async fn fleet_settings(&self) -> Result<Option<FleetSettings>, StoreError> {
        self.inner.find(coordinator::SETTINGS, coordinator::read_settings).await
    }

    async fn swap_fleet_settings(
        &self,
        seen: Option<&FleetSettings>,
        settings: &FleetSettings,
    ) -> Result<bool, StoreError> {
        let condition = match seen {
            None => Condition::Absent(KEY),
            Some(seen) => Condition::All(vec![
                Condition::Is(coordinator::LEASE_DURATION, coordinator::duration_value(seen.lease_duration)),
                Condition::as_seen(coordinator::DRAINING, strings(&seen.draining)),
            ]),
        };
        self.inner.put(Purpose::Coordination, coordinator::settings_item(settings), condition).await
    }

    async fn stream_identity(&self, name: &str) -> Result<Option<StreamIdentity>, StoreError> {
        self.inner.find(&coordinator::stream_key(name), coordinator::read_stream).await
    }

    async fn stream_identities(&self) -> Result<Vec<StreamIdentity>, StoreError> {
        let items = self.inner.scan().await?;
        let of_streams = items.iter().filter(|item| {
            key_of(item).is_some_and(|key| key.starts_with(coordinator::STREAM_PREFIX)) && !is_lease(item)
        });
        let mut identities =
            of_streams.map(|item| self.inner.read(item, coordinator::read_stream)).collect::<Result<Vec<_>, _>>()?;
        identities.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(identities)
    }

    async fn record_stream_identity(&self, identity: &StreamIdentity) -> Result<Created, StoreError> {
        let is_new =
            self.inner.put(Purpose::Coordination, coordinator::stream_item(identity), Condition::Absent(KEY)).await?;
        Ok(if is_new { Created::New } else { Created::Existed })
    }

    async fn delete_stream_identity(&self, name: &str) -> Result<(), StoreError> {
        self.inner.delete(Purpose::Coordination, &coordinator::stream_key(name), None).await.map(drop)
    }
}
