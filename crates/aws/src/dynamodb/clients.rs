//! SDK clients, one for each role: their retries, time-outs and connections are set here and nowhere else.

use std::time::Duration;

use aws_sdk_dynamodb::config::AsyncSleep;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::{Client, Config};
use shardwell_core::{StoreError, StoreErrorKind};

use crate::clients::role_clients;

/// How long calls may take. Every call has an end, whatever the client that it came from was configured with; the client's
/// connect and read time-outs stay as they were.
///
/// | call | default |
/// |---|---|
/// | a renewal: one attempt only | 2 s |
/// | any other request to the table: one attempt only | 5 s |
/// | making the table ready: one attempt of up to three | 10 s |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DynamoTimeouts {
    renewal: Duration,
    request: Duration,
    control: Duration,
}

impl Default for DynamoTimeouts {
    fn default() -> Self {
        Self { renewal: Duration::from_secs(2), request: Duration::from_secs(5), control: Duration::from_secs(10) }
    }
}

impl DynamoTimeouts {
    /// For a renewal. Default: 2 s, less than the third of a lease duration (of 10 s) that lies between two of them. A worker
    /// bounds it by what remains of the lease besides.
    #[must_use]
    pub const fn with_renewal(mut self, renewal: Duration) -> Self {
        self.renewal = renewal;
        self
    }

    /// For any other request: a page of a listing, an assignment, the leader lock. Default: 5 s.
    #[must_use]
    pub const fn with_request(mut self, request: Duration) -> Self {
        self.request = request;
        self
    }

    /// For an attempt of a request that creates, changes or describes the table. Default: 10 s.
    #[must_use]
    pub const fn with_control(mut self, control: Duration) -> Self {
        self.control = control;
        self
    }
}

/// One client for each role. Each has its own quota of retries and its own throttling in the SDK, so that none of the others can
/// keep renewals waiting.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Renews: one attempt, since the worker repeats a renewal by what remains of its lease.
    pub(super) renew: Client,
    /// Everything else that reads and writes items: one attempt, since whoever plans or discovers comes again anyway.
    pub(super) items: Client,
    /// Makes the table ready: nobody above retries that at once, so the SDK does.
    pub(super) control: Client,
}

impl Clients {
    pub(super) fn new(base: &Config, timeouts: &DynamoTimeouts) -> Self {
        let base = share_identities(base);
        let once = RetryConfig::standard().with_max_attempts(1);
        let (renewal, request) = (timeouts.renewal, timeouts.request);
        Self {
            renew: client(&base, "shardwell-dynamodb-renew", once.clone(), renewal, renewal),
            items: client(&base, "shardwell-dynamodb-items", once, request, request),
            control: client(
                &base,
                "shardwell-dynamodb-control",
                RetryConfig::standard(),
                timeouts.control,
                timeouts.control * 3,
            ),
        }
    }
}

role_clients!(aws_sdk_dynamodb);

/// Waits as the SDK does.
pub(super) async fn sleep(config: &Config, time: Duration) -> Result<(), StoreError> {
    let Some(sleep) = config.sleep_impl() else {
        let message = "the client has no way to sleep; give its configuration a `sleep_impl`";
        return Err(StoreError::new(StoreErrorKind::Invalid, message));
    };
    sleep.sleep(time).await;
    Ok(())
}
