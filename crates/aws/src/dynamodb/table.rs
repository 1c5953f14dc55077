//! What a lease table is created as.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ProvisionedThroughput, ScalarAttributeType, Tag,
};

use super::item::{KEY, lease};

/// The index by which a worker finds what it was given (the KCL's name).
pub(super) const INDEX: &str = "LeaseOwnerToLeaseKeyIndex";

/// How a lease table is created. A table that is there already stays as it is.
///
/// ```
/// use shardwell_aws::{Billing, TableSettings};
///
/// let settings = TableSettings::default()
///     .with_billing(Billing::Provisioned { read_units: 10, write_units: 40 })
///     .with_deletion_protection(true)
///     .with_tag("team", "delays");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSettings {
    pub(super) billing: Billing,
    pub(super) deletion_protection: bool,
    pub(super) point_in_time_recovery: bool,
    pub(super) tags: BTreeMap<String, String>,
}

/// How a table is paid for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Billing {
    /// By the request; the KCL's default and ours.
    #[default]
    OnDemand,
    /// By capacity, in units a second, which the index gets too.
    Provisioned {
        /// Read capacity units.
        read_units: u32,
        /// Write capacity units. A lease takes about one every three seconds.
        write_units: u32,
    },
}

impl TableSettings {
    /// How the table is paid for. Default: [`Billing::OnDemand`].
    #[must_use]
    pub const fn with_billing(mut self, billing: Billing) -> Self {
        self.billing = billing;
        self
    }

    /// Whether the table cannot be deleted before that is switched off. Default: no.
    #[must_use]
    pub const fn with_deletion_protection(mut self, protected: bool) -> Self {
        self.deletion_protection = protected;
        self
    }

    /// Whether the table can be restored to any second of the last 35 days. Default: no.
    #[must_use]
    pub const fn with_point_in_time_recovery(mut self, enabled: bool) -> Self {
        self.point_in_time_recovery = enabled;
        self
    }

    /// A tag of the table. Default: none.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.insert(key.into(), value.into());
        self
    }

    pub(super) fn tags(&self) -> Result<Option<Vec<Tag>>, BuildError> {
        let tags = self.tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        tags.collect::<Result<Vec<_>, _>>().map(|tags| Some(tags).filter(|tags| !tags.is_empty()))
    }
}

impl Billing {
    pub(super) const fn mode(self) -> BillingMode {
        match self {
            Self::OnDemand => BillingMode::PayPerRequest,
            Self::Provisioned { .. } => BillingMode::Provisioned,
        }
    }

    pub(super) fn throughput(self) -> Result<Option<ProvisionedThroughput>, BuildError> {
        let Self::Provisioned { read_units, write_units } = self else { return Ok(None) };
        let throughput = ProvisionedThroughput::builder()
            .read_capacity_units(i64::from(read_units))
            .write_capacity_units(i64::from(write_units));
        throughput.build().map(Some)
    }
}

/// The attributes that keys are made of.
pub(super) fn attributes() -> Result<Vec<AttributeDefinition>, BuildError> {
    let attribute =
        |name| AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build();
    [KEY, lease::OWNER].into_iter().map(attribute).collect()
}

pub(super) fn key_schema() -> Result<Vec<KeySchemaElement>, BuildError> {
    Ok(vec![element(KEY, KeyType::Hash)?])
}

pub(super) fn index_key_schema() -> Result<Vec<KeySchemaElement>, BuildError> {
    Ok(vec![element(lease::OWNER, KeyType::Hash)?, element(KEY, KeyType::Range)?])
}

fn element(name: &str, kind: KeyType) -> Result<KeySchemaElement, BuildError> {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build()
}

pub(super) fn projection() -> Projection {
    Projection::builder().projection_type(ProjectionType::KeysOnly).build()
}

/// The index as it is created with its table, which costs no time; the KCL adds it afterwards.
pub(super) fn index(billing: Billing) -> Result<GlobalSecondaryIndex, BuildError> {
    GlobalSecondaryIndex::builder()
        .index_name(INDEX)
        .set_key_schema(Some(index_key_schema()?))
        .projection(projection())
        .set_provisioned_throughput(billing.throughput()?)
        .build()
}
