//! The service's own time of a call, from the `Date` of its answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_sdk_kinesis::primitives::{DateTime, DateTimeFormat};
use shardwell_core::Timestamp;

/// A `Date` has whole seconds, and the machines of the service need not agree to the millisecond on arrival times.
const MARGIN: Duration = Duration::from_secs(2);

/// How far this machine's clock may be off before the service refuses its signatures.
const LOCAL_CLOCK_ERROR: Duration = Duration::from_secs(5 * 60);

/// Remembers the `Date` of the last answer that it saw.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenedAt(Arc<Mutex<Option<Timestamp>>>);

impl OpenedAt {
    /// A time at which the call had certainly not been answered yet, as close to the answer as is known.
    pub(super) fn not_after(&self, local: Timestamp) -> Timestamp {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(service) => service.minus(MARGIN),
            None => local.minus(LOCAL_CLOCK_ERROR),
        }
    }
}

fn date_of(header: &str) -> Option<Timestamp> {
    let date = DateTime::from_str(header, DateTimeFormat::HttpDate).ok()?;
    date.to_millis().ok().map(Timestamp::from_millis)
}

impl Intercept for OpenedAt {
    fn name(&self) -> &'static str {
        "OpenedAt"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(date_of);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_clock_is_preferred() {
        let opened = OpenedAt::default();
        let local = Timestamp::from_millis(1_000_000_000);
        assert_eq!(opened.not_after(local), local.minus(LOCAL_CLOCK_ERROR));
        *opened.0.lock().expect("not poisoned") = date_of("Tue, 01 Jan 2013 05:15:00 GMT");
        assert_eq!(opened.not_after(local), Timestamp::from_millis(1_357_017_300_000 - 2_000));
        assert_eq!(date_of("yesterday"), None);
    }
}
