//! Who syncs which stream.

use crate::{WorkerId, WorkerMetrics};

/// Whether `worker`, which does not lead, is to sync a stream that it consumes: where the leader does not consume it, the
/// first of those who do. Two that believe so for a while do no harm, since every write of a sync may be made twice.
pub fn syncs_for_leader(stream: &str, worker: &WorkerId, leader: Option<&WorkerId>, workers: &[WorkerMetrics]) -> bool {
    let consumes = |metrics: &&WorkerMetrics| metrics.consumes(Some(stream));
    let by_leader = workers.iter().filter(consumes).any(|metrics| Some(&metrics.worker) == leader);
    let first = workers.iter().filter(consumes).map(|metrics| &metrics.worker).min();
    !by_leader && first == Some(worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    #[test]
    fn the_first_that_consumes_a_stream_syncs_it_where_the_leader_does_not() {
        let item = |id: &str, streams: Option<&[&str]>| {
            let mut item = WorkerMetrics::new(id.into(), Timestamp::default());
            item.streams = streams.map(|streams| streams.iter().map(|stream| (*stream).to_owned()).collect());
            item
        };
        let workers = [item("c", Some(&["x", "y"])), item("a", Some(&["y"])), item("b", Some(&["x"])), item("j", None)];
        let who = |stream: &str, leader: Option<&str>| -> Vec<&str> {
            let leader = leader.map(WorkerId::from);
            let syncs = |metrics: &&WorkerMetrics| syncs_for_leader(stream, &metrics.worker, leader.as_ref(), &workers);
            workers.iter().filter(syncs).map(|metrics| metrics.worker.as_str()).collect()
        };
        assert_eq!(who("x", Some("a")), ["b"]);
        assert_eq!(who("x", Some("gone")), ["b"]);
        assert_eq!(who("y", None), ["a"]);
        assert!(who("x", Some("c")).is_empty(), "the leader does");
        assert!(who("x", Some("j")).is_empty(), "the leader consumes all");
    }
}
