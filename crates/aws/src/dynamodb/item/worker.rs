//! Workers' items as the Java KCL 3.5 keeps them (`WorkerMetricStats`), with three attributes of our own.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use shardwell_core::{Heartbeat, Timestamp, WorkerMetrics};

use super::{Attributes, Item, KEY, Unreadable, required};

pub(in crate::dynamodb) const TYPE: &str = "WORKER_METRIC_STATS";
pub(in crate::dynamodb) const LAST_UPDATE: &str = "lut";
pub(in crate::dynamodb) const SAMPLES: &str = "sts";
pub(in crate::dynamodb) const OPERATING_RANGE: &str = "opr";
pub(in crate::dynamodb) const SUPPORT_CODE: &str = "sup";
pub(in crate::dynamodb) const SUPPORT_HEARTBEAT: &str = "slu";

/// Ours: which process wrote the item, 16 hexadecimal digits.
pub(in crate::dynamodb) const INCARNATION: &str = "shardwellIncarnation";
/// Ours: rises with every write.
pub(in crate::dynamodb) const BEAT: &str = "shardwellBeat";
/// Ours: the streams that the worker consumes, a list, since it may be empty.
pub(in crate::dynamodb) const STREAMS: &str = "shardwellStreams";

/// Reads a worker's item.
pub(in crate::dynamodb) fn read(item: &Item) -> Result<WorkerMetrics, Unreadable> {
    let attributes = Attributes(item);
    let worker = required(KEY, attributes.string(KEY)?)?;
    let mut metrics = WorkerMetrics::new(worker.into(), seconds(attributes, LAST_UPDATE)?.unwrap_or_default());
    metrics.samples = series(item, SAMPLES)?;
    metrics.operating_range = series(item, OPERATING_RANGE)?;
    metrics.support_code = attributes.number(SUPPORT_CODE)?.unwrap_or(0);
    metrics.support_heartbeat = seconds(attributes, SUPPORT_HEARTBEAT)?.unwrap_or_default();
    let (incarnation, beat) = (attributes.hexadecimal(INCARNATION)?, attributes.number(BEAT)?);
    metrics.heartbeat = incarnation.zip(beat).map(|(incarnation, beat)| Heartbeat { incarnation, beat });
    metrics.streams = attributes.list(STREAMS)?.map(|streams| streams.into_iter().map(ToOwned::to_owned).collect());
    Ok(metrics)
}

fn seconds(attributes: Attributes<'_>, name: &'static str) -> Result<Option<Timestamp>, Unreadable> {
    let seconds = attributes.number::<i64>(name)?;
    Ok(seconds.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1000))))
}

/// Lists of numbers by name.
fn series(item: &Item, name: &'static str) -> Result<BTreeMap<String, Vec<f64>>, Unreadable> {
    let Some(map) = item.get(name) else { return Ok(BTreeMap::new()) };
    let numbers = |values: &AttributeValue| {
        let values = values.as_l().ok()?.iter();
        values.map(|value| value.as_n().ok()?.parse().ok()).collect::<Option<Vec<f64>>>()
    };
    let read = |(name, values): (&String, &AttributeValue)| Some((name.clone(), numbers(values)?));
    let map = map.as_m().map_err(|_| Unreadable(name))?;
    map.iter().map(read).collect::<Option<_>>().ok_or(Unreadable(name))
}

/// Whole seconds since 1970.
pub(in crate::dynamodb) fn seconds_value(time: Timestamp) -> AttributeValue {
    super::number(time.as_millis().div_euclid(1000))
}

/// What was not measured is stored as such: there are no other numbers than finite ones.
pub(in crate::dynamodb) fn series_value(series: &BTreeMap<String, Vec<f64>>) -> AttributeValue {
    let finite = |value: &f64| super::number(if value.is_finite() { *value } else { NOT_MEASURED });
    let list = |values: &Vec<f64>| AttributeValue::L(values.iter().map(finite).collect());
    AttributeValue::M(series.iter().map(|(name, values)| (name.clone(), list(values))).collect())
}

/// What the KCL writes for a value that could not be had.
const NOT_MEASURED: f64 = -1.0;
