//! A lease table for people.

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table};
use shardwell::core::FleetSettings;
use shardwell::core::delivery::ResumeState;
use shardwell::core::leasing::Unfinished;
use shardwell::{Checkpoint, Lease, LeaseKey, ShardId};

use super::list::{Application, State};

const HEADER: [&str; 9] = [STREAM, "shard", "state", "owner", "counter", "checkpoint", "parents", "children", "KiB/s"];

/// The column before all others where a table has several streams.
pub(super) const STREAM: &str = "stream";

/// One application: a heading, its leases, and what could not be read.
pub(super) fn render(application: &Application, full: bool) -> String {
    let leases = &application.listing.leases;
    let mut text = heading(&application.name, leases.len(), application.settings.as_ref());
    if !leases.is_empty() {
        let mut table = unlimited(&HEADER);
        let unfinished = Unfinished::of(leases);
        for lease in leases {
            table.add_row(row(lease, &unfinished, full));
        }
        let table = with_streams(table, leases);
        text.push_str(&format!("{table}\n"));
    }
    text.push_str(&unreadable(&application.listing.unreadable));
    text
}

/// The line above everything about an application.
pub(super) fn heading(application: &str, leases: usize, settings: Option<&FleetSettings>) -> String {
    let settings = settings.map(|settings| format!(", {settings}")).unwrap_or_default();
    format!("Application {application}: {}{settings}\n", count(leases))
}

/// A line for each row that could not be read.
pub(super) fn unreadable(keys: &[LeaseKey]) -> String {
    let line = |key| format!("The row of lease {key} cannot be read: written by something newer, or damaged.\n");
    keys.iter().map(line).collect()
}

/// A table that is as wide as what is in it.
pub(super) fn unlimited(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    table
}

/// A table of leases without its first column, the stream, where there is only one.
pub(super) fn with_streams<'a>(mut table: Table, leases: impl IntoIterator<Item = &'a Lease>) -> Table {
    if leases.into_iter().all(|lease| lease.stream.is_none()) {
        hide(&mut table, 0);
    }
    table
}

/// Leaves a column out.
pub(super) fn hide(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_constraint(ColumnConstraint::Hidden);
    }
}

/// The name of a lease's stream.
pub(super) fn stream(lease: &Lease) -> Cell {
    Cell::new(lease.stream_name().unwrap_or_default())
}

/// A number in a table.
pub(super) fn number(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// Shards in a table, one below the other.
pub(super) fn shards<'a>(shards: impl IntoIterator<Item = &'a ShardId>) -> Cell {
    Cell::new(shards.into_iter().map(ShardId::as_str).collect::<Vec<_>>().join("\n"))
}

/// `3 leases`, and so on.
pub(super) fn count(leases: usize) -> String {
    match leases {
        0 => "no leases".to_owned(),
        1 => "1 lease".to_owned(),
        n => format!("{n} leases"),
    }
}

fn row(lease: &Lease, unfinished: &Unfinished<'_>, full: bool) -> Vec<Cell> {
    vec![
        stream(lease),
        Cell::new(lease.shard.as_str()),
        Cell::new(State::of(lease, unfinished).name()),
        Cell::new(owner(lease)),
        number(lease.counter.to_string()),
        Cell::new(checkpoint_of(lease, full)),
        shards(&lease.parents),
        shards(&lease.children),
        number(lease.throughput_kbps.map(|rate| format!("{rate:.1}")).unwrap_or_default()),
    ]
}

/// During a handoff, who has it and who is to have it.
pub(super) fn owner(lease: &Lease) -> String {
    match (&lease.checkpoint_owner, &lease.owner) {
        (Some(from), Some(to)) => format!("{from}\n-> {to}"),
        (Some(owner), None) | (None, Some(owner)) => owner.to_string(),
        (None, None) => "-".to_owned(),
    }
}

/// The digits that are kept of a long sequence number: those that tell the stream and time, and those that tell records
/// apart.
const HEAD: usize = 8;
const TAIL: usize = 16;

/// The checkpoint, and the time from which a shard is read if it names no record.
fn checkpoint_of(lease: &Lease, full: bool) -> String {
    let checkpoint = checkpoint(lease.checkpoint, full);
    let since = || lease.state().and_then(ResumeState::decode)?.opened_at();
    match lease.checkpoint {
        Checkpoint::TrimHorizon => since().map_or(checkpoint.clone(), |time| format!("{checkpoint}\nfrom {time}")),
        _ => checkpoint,
    }
}

fn checkpoint(checkpoint: Checkpoint, full: bool) -> String {
    let Checkpoint::At(position) = checkpoint else { return checkpoint.to_string() };
    let digits = position.sequence_number.to_string();
    let digits = if full { digits } else { shortened(&digits) };
    match position.sub_sequence_number {
        0 => digits,
        sub => format!("{digits}/{sub}"),
    }
}

/// ASCII digits with their middle left out, where that saves anything.
pub(super) fn shortened(digits: &str) -> String {
    match (digits.get(..HEAD), digits.len().checked_sub(TAIL).and_then(|from| digits.get(from..))) {
        (Some(head), Some(tail)) if digits.len() > HEAD + TAIL + 3 => format!("{head}...{tail}"),
        _ => digits.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use shardwell::{ExtendedSequenceNumber, LeaseListing};

    use super::*;

    const LONG: &str = "49590338271490256608559692538361571095921575989136588898";

    fn at(number: &str, sub: u64) -> Checkpoint {
        Checkpoint::At(ExtendedSequenceNumber::new(number.parse().expect("digits"), sub))
    }

    #[test]
    fn long_sequence_numbers_keep_both_ends_unless_all_is_wanted() {
        assert_eq!(checkpoint(at(LONG, 0), false), "49590338...1575989136588898");
        assert_eq!(checkpoint(at(LONG, 7), true), format!("{LONG}/7"));
        assert_eq!(checkpoint(at("1234", 7), false), "1234/7");
        assert_eq!(checkpoint(Checkpoint::TrimHorizon, false), "TRIM_HORIZON");
    }

    #[test]
    fn where_there_are_several_streams_each_lease_tells_its_own() {
        let table = |streams: &[Option<&str>]| {
            let lease = |stream: &Option<&str>| Lease::in_stream(*stream, "shardId-0".into(), Checkpoint::Latest);
            let listing = LeaseListing { leases: streams.iter().map(lease).collect(), unreadable: Vec::new() };
            render(&Application { name: "delays".to_owned(), settings: None, listing }, false)
        };
        assert!(!table(&[None]).contains(STREAM));
        let several = table(&[Some("1:flights:2"), Some("1:trains:2")]);
        assert!([STREAM, " flights ", " trains "].iter().all(|part| several.contains(part)), "{several}");
    }

    #[test]
    fn a_table_shows_every_lease_and_reports_what_it_cannot_read() {
        let mut one = Lease::new("shardId-000000000000".into(), at("42", 0));
        one.owner = Some("new".into());
        one.checkpoint_owner = Some("old".into());
        one.throughput_kbps = Some(12.34);
        one.children = ["shardId-000000000001".into(), "shardId-000000000002".into()].into();
        let listing = LeaseListing { leases: vec![one], unreadable: vec!["shardId-000000000009".into()] };
        let settings = Some(FleetSettings::new(std::time::Duration::from_secs(10)));
        let text = render(&Application { name: "delays".to_owned(), settings, listing }, false);
        for part in ["Application delays: 1 lease, lease duration 10s", "handing over", "old", "-> new", "42", "12.3"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.contains("shardId-000000000002"));
        assert!(text.contains("shardId-000000000009 cannot be read"));
    }
}
