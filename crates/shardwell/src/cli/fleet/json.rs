//! Fleets for programs.

use serde_json::{Value, json};
use shardwell::{LeaseKey, ShardId, Timestamp, WorkerId};

use super::report::{Leader, Report, Shard, Worker};
use super::watched::Still;
use crate::cli::list::as_millis;

/// One application. What is not known is null.
pub(super) fn report(report: &Report<'_>) -> Value {
    let mut value = head(report);
    value["workers"] = report.workers.iter().map(worker).collect();
    value["leases"] = report.shards.iter().map(shard).collect();
    value["unreadable"] = report.look.listing.unreadable.iter().map(LeaseKey::as_str).collect();
    value
}

/// What holds for the whole of an application.
pub(super) fn head(report: &Report<'_>) -> Value {
    json!({
        "application": report.application,
        "at": report.look.at.to_string(),
        "watched_for_ms": report.watched_for.map(as_millis),
        "lease_duration_ms": report.look.settings.as_ref().map(|settings| as_millis(settings.lease_duration)),
        "draining": ids(&report.look.draining()),
        "leader": report.leader.as_ref().map(leader),
    })
}

fn leader(leader: &Leader<'_>) -> Value {
    json!({
        "worker": leader.lock.owner.as_str(),
        "state": leader.state(),
        "standbys": ids(&leader.lock.standbys),
        "lock_duration_ms": as_millis(leader.lock.duration),
        "silent_for": leader.silent_for.map(still),
    })
}

pub(super) fn worker(worker: &Worker) -> Value {
    let item = worker.item.as_ref();
    json!({
        "worker": worker.id.as_str(),
        "registered": item.is_some(),
        "alive": worker.is_alive,
        "stopping": worker.is_stopping,
        "draining": worker.is_draining,
        "busy": worker.is_busy(),
        "last_update": item.map(|item| item.last_update.to_string()),
        "cpu_percent": item.and_then(|item| item.cpu),
        "max_cpu_percent": item.and_then(|item| item.max_cpu),
        "streams": item.and_then(|item| item.streams.as_ref()),
        "leases": worker.leases,
        "leases_leaving": worker.leaving,
        "leases_coming": worker.coming,
    })
}

fn shard(shard: &Shard<'_>) -> Value {
    let lease = shard.lease;
    let handoff = shard.handoff.map(|handoff| {
        json!({
            "seen_for_ms": as_millis(handoff.seen_for),
            "limit_ms": as_millis(handoff.limit),
            "overdue": handoff.seen_for > handoff.limit,
        })
    });
    json!({
        "key": lease.key.as_str(),
        "stream": lease.stream_name(),
        "shard": lease.shard.as_str(),
        "state": shard.state(),
        "owner": lease.owner.as_ref().map(WorkerId::as_str),
        "checkpoint_owner": lease.checkpoint_owner.as_ref().map(WorkerId::as_str),
        "waits_for": shard.waits_for().iter().map(ShardId::as_str).collect::<Vec<_>>(),
        "caught_up_at": shard.caught_up_at.map(|time: Timestamp| time.to_string()),
        "renewed": shard.renewed.map(still),
        "checkpoint_age": shard.checkpoint_age.map(still),
        "handoff": handoff,
    })
}

/// Where it was not seen to change, it has stood still for longer.
fn still(still: Still) -> Value {
    json!({ "unchanged_for_ms": as_millis(still.time), "change_was_seen": still.is_exact })
}

fn ids<'a>(workers: impl IntoIterator<Item = &'a WorkerId>) -> Vec<&'a str> {
    workers.into_iter().map(WorkerId::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::super::look::Look;
    use super::super::sample::{HANDOFF, caught_up, handed, item, lease, lock, look, wall, with_cpu};
    use super::super::watched::Watched;
    use super::*;

    #[test]
    fn what_one_look_cannot_tell_is_null() {
        let leases = [caught_up(lease("a", Some("w")), wall(3)), handed("b", "w", "x")];
        let seen =
            Look { workers: vec![with_cpu(item("w", 5), -1.0)], leader: Some(lock("w", "1")), ..look(10, &leases) };
        let value = report(&Report::new("delays", &seen, None, HANDOFF));
        assert_eq!((&value["at"], &value["watched_for_ms"]), (&json!("2026-01-01T00:00:10.000Z"), &Value::Null));
        assert_eq!(value["leader"]["state"], "leads");
        let worker = &value["workers"][0];
        assert_eq!((&worker["alive"], &worker["cpu_percent"]), (&Value::Null, &Value::Null));
        assert_eq!((&worker["leases"], &worker["leases_leaving"]), (&json!(2), &json!(1)));
        let [a, b] = [&value["leases"][0], &value["leases"][1]];
        assert_eq!((&a["state"], &a["caught_up_at"]), (&json!("owned"), &json!("2026-01-01T00:00:03.000Z")));
        assert_eq!((&b["checkpoint_owner"], &b["owner"]), (&json!("w"), &json!("x")));
        assert!(["renewed", "checkpoint_age", "handoff"].iter().all(|key| b[*key].is_null()), "{b}");
    }

    #[test]
    fn a_watch_fills_in_the_times() {
        let mut watched = Watched::default();
        let leases = [handed("b", "w", "x")];
        watched.note(&look(0, &leases));
        let value = report(&Report::new("delays", &look(11, &leases), Some(&watched), HANDOFF));
        let lease = &value["leases"][0];
        assert_eq!(lease["state"], "expired");
        assert_eq!(lease["renewed"], json!({ "unchanged_for_ms": 11_000, "change_was_seen": false }));
        assert_eq!(lease["handoff"], json!({ "seen_for_ms": 11_000, "limit_ms": 40_000, "overdue": false }));
    }
}
