//! How far a fleet of Java workers has come: which of them a worker may join.
//!
//! The KCL 3.x still runs fleets in the manner of 2.x (no leader; whoever wants a lease takes it) while they are upgraded, and those
//! that were born before 3.5 keep workers' items and the leader lock in tables beside the lease table until they are migrated.
//! A worker of ours does neither: it would have to be two more workers for the sake of a passing state.

use aws_sdk_dynamodb::types::AttributeValue;
use shardwell_core::{StoreError, StoreErrorKind, Timestamp};

use super::error::Target;
use super::item::{Attributes, ENTITY_TYPE, Item, key, number, string};

/// The key of the item that says in which manner the fleet runs, and the attribute.
pub(super) const CLIENT_VERSION: &str = "Migration3.0";
const VERSION: &str = "cv";
const VERSION_3X: &str = "CLIENT_VERSION_3X";
const MODIFIED_BY: &str = "mb";
const MODIFIED_AT: &str = "mts";
const HISTORY: &str = "h";

/// The key of the item that says where the fleet keeps its state, and the attribute.
pub(super) const TABLE_MIGRATION: &str = "TableMigration3.5";
const STATUS: &str = "tm";
const COMPLETE: &str = "TABLE_MIGRATION_STATUS_COMPLETE";

/// The table of fleets that were born with a KCL of 3.0 to 3.4, and the key of its items.
pub(super) const LEGACY_KEY: &str = "key";

pub(super) fn legacy_table(table: &str) -> String {
    format!("{table}-CoordinatorState")
}

/// What is seen of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fleet {
    /// Its manner, as an item says; `None` where no item does.
    pub(super) version: Option<String>,
    /// How far its tables are migrated, as an item of the lease table says.
    pub(super) tables: Option<String>,
    /// Whether there is a table for its state.
    pub(super) has_legacy_table: bool,
    /// Whether the lease table has the index, which workers of 3.x make before they do anything.
    pub(super) has_index: bool,
    pub(super) has_leases: bool,
}

/// Why a fleet cannot be joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Runs2x(String),
    Looks2x,
    TwoTables,
    Unknown(String),
}

impl Fleet {
    /// Whether a worker may join. `adopts_2x_tables` is whether somebody says that what looks like a fleet of 2.x is none any more.
    pub(super) fn may_be_joined(&self, adopts_2x_tables: bool) -> Result<(), Obstacle> {
        match self.version.as_deref() {
            None | Some(VERSION_3X | "CLIENT_VERSION_3X_WITH_ROLLBACK") => {}
            Some(version @ ("CLIENT_VERSION_2X" | "CLIENT_VERSION_UPGRADE_FROM_2X")) => {
                return Err(Obstacle::Runs2x(version.to_owned()));
            }
            Some(version) => return Err(Obstacle::Unknown(version.to_owned())),
        }
        if self.has_legacy_table && self.tables.as_deref() != Some(COMPLETE) {
            return Err(Obstacle::TwoTables);
        }
        if self.version.is_none() && self.has_leases && !self.has_index && !adopts_2x_tables {
            return Err(Obstacle::Looks2x);
        }
        Ok(())
    }
}

/// What says that the fleet runs in the manner of 3.x, as the first Java worker of a new fleet writes it.
pub(super) fn version_3x(now: Timestamp) -> Item {
    let change = |version: &str| {
        [(VERSION, string(version)), (MODIFIED_BY, string("shardwell")), (MODIFIED_AT, number(now.as_millis()))]
            .map(|(name, value)| (name.to_owned(), value))
    };
    let mut item = key(CLIENT_VERSION);
    item.insert(ENTITY_TYPE.to_owned(), string("CLIENT_VERSION_MIGRATION"));
    item.extend(change(VERSION_3X));
    item.insert(HISTORY.to_owned(), AttributeValue::L(vec![AttributeValue::M(change("CLIENT_VERSION_INIT").into())]));
    item
}

pub(super) fn version_of(item: Option<&Item>) -> Option<String> {
    text_of(item, VERSION)
}

pub(super) fn tables_of(item: Option<&Item>) -> Option<String> {
    text_of(item, STATUS)
}

/// What cannot be read is told as it is, and known to nobody.
fn text_of(item: Option<&Item>, name: &'static str) -> Option<String> {
    let text = Attributes(item?).string(name);
    Some(text.ok().flatten().unwrap_or("(unreadable)").to_owned())
}

impl Obstacle {
    pub(super) fn error(&self, target: &Target) -> StoreError {
        let table = &target.table;
        let legacy = legacy_table(table);
        let what = match self {
            Self::Runs2x(version) => format!(
                "its workers run in the manner of the KCL 2.x ({version}), in which there is no leader. Upgrade all of them to \
                 `CLIENT_VERSION_CONFIG_3X` first, or stop them and delete the item `{CLIENT_VERSION}`"
            ),
            Self::Looks2x => {
                "it has leases and no index, as the table of a KCL 1.x or 2.x. Upgrade its workers to the KCL 3.x \
                              first; or, if none of them runs any more, build the store `with_adoption_of_2x_tables`"
                    .to_owned()
            }
            Self::TwoTables => format!(
                "its workers keep their state in the table `{legacy}`. Let the KCL 3.5 migrate it into the lease table \
                 (`migrateAllEntitiesToLeaseTable`) first; or, if none of them runs any more, delete that table and \
                 `{table}-WorkerMetricStats`"
            ),
            Self::Unknown(version) => format!(
                "its item `{CLIENT_VERSION}` says `{version}`, which this version of shardwell does not know; use a newer one, or \
                 stop all workers and delete the item"
            ),
        };
        StoreError::new(StoreErrorKind::Unusable, format!("the fleet of {target} cannot be joined: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(version: Option<&str>) -> Fleet {
        Fleet { version: version.map(ToOwned::to_owned), has_index: true, ..Fleet::default() }
    }

    #[test]
    fn fleets_in_the_manner_of_3x_and_new_ones_are_joined() {
        for version in [None, Some("CLIENT_VERSION_3X"), Some("CLIENT_VERSION_3X_WITH_ROLLBACK")] {
            assert_eq!(fleet(version).may_be_joined(false), Ok(()), "{version:?}");
        }
        let new = Fleet { has_index: false, ..fleet(None) };
        assert_eq!(new.may_be_joined(false), Ok(()), "a table without leases");
    }

    #[test]
    fn others_are_not() {
        for version in ["CLIENT_VERSION_2X", "CLIENT_VERSION_UPGRADE_FROM_2X"] {
            assert_eq!(fleet(Some(version)).may_be_joined(true), Err(Obstacle::Runs2x(version.to_owned())));
        }
        assert!(matches!(fleet(Some("CLIENT_VERSION_4X")).may_be_joined(true), Err(Obstacle::Unknown(_))));
        let old = Fleet { has_leases: true, has_index: false, ..fleet(None) };
        assert_eq!(old.may_be_joined(false), Err(Obstacle::Looks2x));
        assert_eq!(old.may_be_joined(true), Ok(()), "somebody says that it is over");
    }

    #[test]
    fn a_fleet_with_two_tables_is_joined_once_it_has_migrated() {
        let legacy = |tables: Option<&str>| Fleet {
            has_legacy_table: true,
            tables: tables.map(ToOwned::to_owned),
            ..fleet(Some("CLIENT_VERSION_3X"))
        };
        assert_eq!(legacy(None).may_be_joined(true), Err(Obstacle::TwoTables));
        assert_eq!(legacy(Some("TABLE_MIGRATION_STATUS_PENDING")).may_be_joined(true), Err(Obstacle::TwoTables));
        assert_eq!(legacy(Some(COMPLETE)).may_be_joined(false), Ok(()));
    }

    #[test]
    fn an_item_that_cannot_be_read_is_known_to_nobody() {
        assert_eq!(version_of(None), None);
        assert_eq!(version_of(Some(&Item::new())).as_deref(), Some("(unreadable)"));
    }
}
