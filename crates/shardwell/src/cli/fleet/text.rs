//! Fleets for people.

use std::time::Duration;

use comfy_table::Cell;
use shardwell::{Timestamp, WorkerId};

use super::report::{Handoff, Item, Leader, Report, Worker};
use super::watched::Still;
use crate::cli::table::{STREAM, heading, hide, number, owner, shards, stream, unlimited, unreadable, with_streams};

/// One application: who leads, who works, and a row for each shard.
pub(super) fn render(report: &Report<'_>) -> String {
    let mut text = heading(report.application, report.shards.len(), report.look.settings.as_ref());
    if let Some(time) = report.watched_for {
        text.push_str(&format!("At {}, watched for {}\n", report.look.at, brief(time)));
    }
    text.push_str(&leader(report.leader.as_ref()));
    let draining = report.look.draining();
    if !draining.is_empty() {
        text.push_str(&format!("Draining: {}\n", names(&draining)));
    }
    if !report.workers.is_empty() {
        text.push_str(&workers(report));
    }
    if !report.shards.is_empty() {
        text.push_str(&shard_table(report));
    }
    text.push_str(&unreadable(&report.look.listing.unreadable));
    text
}

/// A line that says who leads.
pub(super) fn leader(leader: Option<&Leader<'_>>) -> String {
    let Some(leader) = leader else { return "Leader: none\n".to_owned() };
    let owner = &leader.lock.owner;
    let who = match (leader.state(), leader.silent_for) {
        ("gave up", _) => format!("none; {owner} gave the lead up"),
        ("silent", Some(still)) => {
            let duration = leader.lock.duration;
            format!("{owner}, silent for {}: anybody may take over after {duration:?}", age(still))
        }
        (_, _) => owner.to_string(),
    };
    match leader.lock.standbys.as_slice() {
        [] => format!("Leader: {who}\n"),
        standbys => format!("Leader: {who}; standbys: {}\n", names(standbys)),
    }
}

/// `a, b`, and so on.
pub(super) fn names<'a>(workers: impl IntoIterator<Item = &'a WorkerId>) -> String {
    workers.into_iter().map(WorkerId::as_str).collect::<Vec<_>>().join(", ")
}

fn workers(report: &Report<'_>) -> String {
    let mut table = unlimited(&["worker", "state", "leases", "updated", "CPU", "streams"]);
    let streams = |worker: &Worker| worker.item.as_ref().and_then(|item| item.streams.clone());
    if report.workers.iter().all(|worker| streams(worker).is_none()) {
        hide(&mut table, 5);
    }
    for worker in &report.workers {
        let updated = worker.item.as_ref().map(|item| ago(report.look.at, item.last_update)).unwrap_or_default();
        table.add_row([
            Cell::new(&worker.id),
            Cell::new(worker_state(worker)),
            Cell::new(lease_count(worker)),
            Cell::new(updated),
            Cell::new(worker.item.as_ref().map(cpu).unwrap_or_default()),
            Cell::new(streams(worker).unwrap_or_default().join(", ")),
        ]);
    }
    format!("{table}\n")
}

/// What is known of a worker beside its leases.
pub(super) fn worker_state(worker: &Worker) -> String {
    let life = match (&worker.item, worker.is_alive) {
        (Some(_), Some(true)) => "alive",
        (Some(_), Some(false)) => "dead",
        (Some(_), None) => "registered",
        (None, Some(true)) => "(not registered), alive",
        (None, Some(false)) => "(not registered), dead",
        (None, None) => "(not registered)",
    };
    let is_stopping = worker.is_stopping == Some(true);
    let more = [(is_stopping, ", stopping"), (worker.is_busy(), ", busy"), (worker.is_draining, ", draining")];
    more.into_iter().filter(|(is_so, _)| *is_so).fold(life.to_owned(), |text, (_, what)| text + what)
}

fn lease_count(worker: &Worker) -> String {
    let more = [(worker.leaving, "leaving"), (worker.coming, "coming")].into_iter().filter(|(n, _)| *n > 0);
    more.fold(worker.leases.to_string(), |text, (n, what)| format!("{text}, {n} {what}"))
}

fn cpu(item: &Item) -> String {
    match (item.cpu, item.max_cpu) {
        (Some(cpu), Some(max)) => format!("{cpu:.0}% of {max:.0}%"),
        (Some(cpu), None) => format!("{cpu:.0}%"),
        (None, _) => String::new(),
    }
}

/// What one look cannot tell has no column there.
fn shard_table(report: &Report<'_>) -> String {
    let watched = report.watched_for.is_some();
    let header = [STREAM, "shard", "state", "owner", "waits for", "caught up", "renewed", "checkpoint age", "handoff"];
    let mut table = unlimited(if watched { &header } else { &header[..6] });
    for shard in &report.shards {
        let mut row = vec![
            stream(shard.lease),
            Cell::new(shard.lease.shard.as_str()),
            Cell::new(shard.state()),
            Cell::new(owner(shard.lease)),
            shards(shard.waits_for()),
            Cell::new(shard.caught_up_at.map(|time| ago(report.look.at, time)).unwrap_or_default()),
        ];
        if watched {
            let age = |still: Option<Still>| number(still.map(age).unwrap_or_default());
            let handoff = Cell::new(shard.handoff.map(handoff).unwrap_or_default());
            row.extend([age(shard.renewed), age(shard.checkpoint_age), handoff]);
        }
        table.add_row(row);
    }
    let table = with_streams(table, report.shards.iter().map(|shard| shard.lease));
    format!("{table}\n")
}

/// How far a handoff is on its way to where the leader ends it.
fn handoff(Handoff { seen_for, limit }: Handoff) -> String {
    let overdue = if seen_for > limit { ", overdue" } else { "" };
    format!("{} of {}{overdue}", brief(seen_for), brief(limit))
}

fn ago(now: Timestamp, time: Timestamp) -> String {
    format!("{} ago", brief(now.since(time)))
}

/// How long something has stood still; at least so long, where nobody saw it change.
fn age(still: Still) -> String {
    let time = brief(still.time);
    if still.is_exact { time } else { format!(">{time}") }
}

/// A duration in as many units as matter.
pub(super) fn brief(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0 => return format!("{}ms", duration.as_millis()),
        1..3600 => 1,
        3600..86_400 => 60,
        _ => 3600,
    };
    humantime::format_duration(Duration::from_secs(seconds / unit * unit)).to_string()
}

#[cfg(test)]
mod tests {
    use shardwell::Lease;

    use super::super::look::Look;
    use super::super::row::row;
    use super::super::sample::{
        HANDOFF, caught_up, draining, handed, item, lease, lock, look, position, wall, with_cpu,
    };
    use super::super::watched::Watched;
    use super::*;

    #[test]
    fn durations_have_the_units_that_matter() {
        for (seconds, text) in
            [(0.3, "300ms"), (59.9, "59s"), (3599.0, "59m 59s"), (3661.0, "1h 1m"), (90_061.0, "1day 1h")]
        {
            assert_eq!(brief(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn where_there_are_several_streams_it_shows_who_consumes_which() {
        let mut worker = item("a", 5);
        worker.streams = Some(["1:flights:2".to_owned(), "1:trains:2".to_owned()].into());
        let lease = Lease::in_stream(Some("1:trains:2"), "s".into(), shardwell::Checkpoint::Latest);
        let text = render(&Report::new("delays", &Look { workers: vec![worker], ..look(10, &[lease]) }, None, HANDOFF));
        assert_eq!(row(&text, "a").last().map(String::as_str), Some("flights, trains"));
        assert_eq!(row(&text, "trains")[1..3], ["s", "free"]);
        let single =
            render(&Report::new("delays", &Look { workers: vec![item("a", 5)], ..look(10, &[]) }, None, HANDOFF));
        assert!(!single.contains(STREAM), "{single}");
    }

    #[test]
    fn one_look_shows_who_has_what() {
        let mut child = lease("child", None);
        child.parents = ["owned".into()].into();
        let owned = caught_up(lease("owned", Some("a")), wall(-120));
        let seen = Look {
            workers: vec![with_cpu(item("a", 5), 91.0), item("b", 5)],
            leader: Some(lock("a", "1")),
            ..look(10, &[child, lease("free", None), handed("moving", "gone", "b"), owned])
        };
        let text = render(&Report::new("delays", &draining(seen, &["b"]), None, HANDOFF));
        assert!(
            text.starts_with("Application delays: 4 leases, lease duration 10s\nLeader: a\nDraining: b\n"),
            "{text}"
        );
        assert_eq!(row(&text, "a"), ["a", "registered, busy", "1", "5s ago", "91% of 80%"]);
        assert_eq!(row(&text, "b"), ["b", "registered, draining", "0, 1 coming", "5s ago", ""]);
        assert_eq!(row(&text, "gone"), ["gone", "(not registered)", "1, 1 leaving", "", ""]);
        assert_eq!(row(&text, "owned"), ["owned", "owned", "a", "", "2m 10s ago"]);
        assert_eq!(row(&text, "child"), ["child", "waiting for parents", "-", "owned", ""]);
        assert_eq!(row(&text, "free"), ["free", "free", "-", "", ""]);
        assert_eq!(row(&text, "moving"), ["moving", "handing over", "gone", "", ""]);
    }

    #[test]
    fn a_watch_shows_what_stands_still() {
        let mut watched = Watched::default();
        let mut note = |seconds, leases: &[Lease]| {
            let seen = Look { workers: vec![item("d", 0)], leader: Some(lock("d", "1")), ..look(seconds, leases) };
            watched.note(&seen);
            render(&Report::new("delays", &seen, Some(&watched), HANDOFF))
        };
        let mut leases = [lease("dead", Some("d")), lease("live", Some("a")), handed("moving", "a", "b")];
        note(0, &leases);
        leases[1].counter += 1;
        leases[1].checkpoint = position(7);
        note(8, &leases);
        leases[2].counter += 1;
        let text = note(41, &leases);
        assert!(text.contains("watched for 41s\n"), "{text}");
        assert!(text.contains("Leader: d, silent for >41s: anybody may take over after 10s\n"), "{text}");
        assert_eq!([&row(&text, "a")[1], &row(&text, "d")[1]], ["(not registered), alive", "dead"]);
        assert_eq!(row(&text, "dead"), ["dead", "expired", "d", "", "", ">41s", ">41s", ""]);
        assert_eq!(row(&text, "live"), ["live", "expired", "a", "", "", "33s", "33s", ""]);
        assert_eq!(row(&text, "moving")[1..], ["handing over", "a", "", "", "0ms", ">41s", "41s of 40s, overdue"]);
    }

    #[test]
    fn a_watch_shows_who_stops() {
        let mut watched = Watched::default();
        let seen = look(0, &[lease("a", Some("w"))]);
        watched.note(&Look { workers: vec![item("w", 0)], ..seen.clone() });
        watched.note(&seen);
        let text = render(&Report::new("delays", &seen, Some(&watched), HANDOFF));
        assert_eq!(row(&text, "w")[1], "(not registered), alive, stopping");
    }

    #[test]
    fn a_leader_that_gave_up_leads_no_more() {
        let mut given_up = lock("a", "1");
        assert_eq!(leader(None), "Leader: none\n");
        given_up.released = true;
        given_up.standbys = vec!["b".into(), "c".into()];
        let text = leader(Some(&Leader { lock: &given_up, silent_for: None }));
        assert_eq!(text, "Leader: none; a gave the lead up; standbys: b, c\n");
    }
}
