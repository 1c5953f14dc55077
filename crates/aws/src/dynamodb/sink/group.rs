//! Writes of the same item, together.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::stream;

use super::table::ItemKey;
use super::{Applied, Version, WriteError};

/// How many items are written at the same time.
const CONCURRENT_WRITES: usize = 32;

/// What came of some writes, by the places at which they were given.
pub(super) type Results = Vec<(usize, Result<Applied, WriteError>)>;

/// Has the writes of each item written together, several items at the same time; gives what came of each in the order in which they
/// were given. A write that has no key fails with that.
pub(super) async fn by_item<W, F>(
    writes: Vec<(Version, Result<ItemKey, WriteError>, W)>,
    write: impl Fn(ItemKey, Vec<(usize, W)>) -> F + Send,
) -> Vec<(Version, Result<Applied, WriteError>)>
where
    W: Send,
    F: Future<Output = Results> + Send,
{
    let (mut versions, mut results) = (Vec::new(), BTreeMap::new());
    let mut groups: BTreeMap<ItemKey, Vec<(usize, W)>> = BTreeMap::new();
    for (index, (version, key, write)) in writes.into_iter().enumerate() {
        versions.push(version);
        match key {
            Ok(key) => groups.entry(key).or_default().push((index, write)),
            Err(error) => drop(results.insert(index, Err(error))),
        }
    }
    let mut done = stream::iter(groups).map(move |(key, group)| write(key, group)).buffer_unordered(CONCURRENT_WRITES);
    while let Some(group) = done.next().await {
        results.extend(group);
    }
    versions.into_iter().zip(results.into_values()).collect()
}
