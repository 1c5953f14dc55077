//! How SDK clients are made for their roles: the same for each SDK, whose `Config` and `Client` are types of its own.

/// Defines `client`, `share_identities` and `apart` for an SDK.
macro_rules! role_clients {
    ($sdk:ident) => {
        /// A client for a role: its quota of retries is its own, and every call has an end.
        fn client(
            base: &$sdk::Config,
            role: &'static str,
            retries: $sdk::config::retry::RetryConfig,
            attempt: std::time::Duration,
            all: std::time::Duration,
        ) -> $sdk::Client {
            use $sdk::config::timeout::TimeoutConfig;
            let timeouts = base.timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
            let timeouts = timeouts.operation_attempt_timeout(attempt).operation_timeout(all).build();
            let config = base
                .to_builder()
                .retry_config(retries)
                .retry_partition($sdk::config::retry::RetryPartition::custom(role).build())
                .timeout_config(timeouts);
            $sdk::Client::from_conf(config.build())
        }

        /// The roles load credentials once for all of them, and name the framework in their user agent.
        fn share_identities(base: &$sdk::Config) -> $sdk::Config {
            let mut builder = base.to_builder();
            if base.identity_cache().is_none() {
                builder.set_identity_cache($sdk::config::IdentityCache::lazy().build());
            }
            if let Ok(framework) = $sdk::config::FrameworkMetadata::new("shardwell", Some(env!("CARGO_PKG_VERSION"))) {
                builder.push_framework_metadata(framework);
            }
            builder.build()
        }

        /// The same configuration with credentials cached apart, and with connections apart unless it brings an HTTP client of
        /// its own: without one, each client that is built makes its own.
        pub(super) fn apart(base: &$sdk::Config) -> $sdk::Config {
            let mut builder = base.to_builder();
            // A load of credentials runs inside the call that needed it first; calls of another runtime must not wait for that
            // runtime to be polled.
            builder.set_identity_cache($sdk::config::IdentityCache::lazy().build());
            builder.build()
        }
    };
}
pub(crate) use role_clients;
