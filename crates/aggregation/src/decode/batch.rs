//! Many records at once.

use std::{fmt, vec};

use bytes::Bytes;

use super::{Deaggregated, NotAggregated, Outer, RawRecord, body, check_digest, enveloped, read};
use crate::digest::md5_many;
use crate::format::DIGEST_BYTES;

/// Reads many records, as [`deaggregate`](super::deaggregate) reads each, in their order.
///
/// The digests are checked here and side by side, which is several times as fast as one after the other: some records
/// suffice, and those that a read from a stream returns are plenty. Everything else is done record by record, as the
/// iterator is advanced, so that no more key tables are held than are in use. It allocates for the list of records.
///
/// ```
/// use bytes::Bytes;
/// use shardwell_aggregation::{Aggregator, Classification, Limits, Outer, deaggregate_batch};
///
/// let mut aggregator = Aggregator::new(Limits::default());
/// aggregator.try_add("N14228", None, b"departed")?;
/// aggregator.try_add("N24211", None, b"arrived")?;
/// let aggregated = aggregator.finish().expect("it holds two user records").data;
///
/// let read = [aggregated, Bytes::from_static(b"plain")];
/// let batch = deaggregate_batch(read.into_iter().map(|data| (data, Outer::default())));
/// let kinds: Vec<_> = batch.map(|record| record.classification()).collect();
/// assert_eq!(kinds, [Classification::Aggregated, Classification::TooShort]);
/// # Ok::<(), shardwell_aggregation::AddError>(())
/// ```
pub fn deaggregate_batch(records: impl IntoIterator<Item = (Bytes, Outer)>) -> DeaggregatedBatch {
    let mut records: Vec<_> = records
        .into_iter()
        .map(|(data, outer)| {
            let envelope = enveloped(&data).map(drop);
            Entry { data, outer, envelope }
        })
        .collect();
    check_digests(&mut records);
    DeaggregatedBatch { records: records.into_iter() }
}

/// The records of a batch, read one by one. See [`deaggregate_batch`].
pub struct DeaggregatedBatch {
    records: vec::IntoIter<Entry>,
}

struct Entry {
    data: Bytes,
    outer: Outer,
    envelope: Result<(), NotAggregated>,
}

/// Only what has length and magic is hashed.
fn check_digests(records: &mut [Entry]) {
    let enveloped: Vec<_> = (0..records.len()).filter(|n| records[*n].envelope.is_ok()).collect();
    let mut digests = vec![[0; DIGEST_BYTES]; enveloped.len()];
    md5_many(enveloped.iter().map(|n| body(&records[*n].data)), |number, digest| digests[number] = digest);
    for (n, digest) in enveloped.into_iter().zip(digests) {
        records[n].envelope = check_digest(&records[n].data, &digest);
    }
}

impl Iterator for DeaggregatedBatch {
    type Item = Deaggregated;

    fn next(&mut self) -> Option<Deaggregated> {
        let Entry { data, outer, envelope } = self.records.next()?;
        Some(match envelope {
            Ok(()) => read(data, outer),
            Err(reason) => Deaggregated::NotAggregated { record: RawRecord::new(data, outer), reason },
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.records.size_hint()
    }
}

impl ExactSizeIterator for DeaggregatedBatch {}

/// Only how many are left: keys and payloads can be private.
impl fmt::Debug for DeaggregatedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeaggregatedBatch").field("records", &self.records.len()).finish()
    }
}
