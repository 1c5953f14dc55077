//! Conditions and updates, with a placeholder for every name and value: names that DynamoDB reserves need no care then.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::item::{Item, Names, number};

/// What must hold of an item.
#[derive(Clone, Debug)]
pub(super) enum Condition<'a> {
    /// The attribute has this value.
    Is(&'a str, AttributeValue),
    /// The attribute has a value that sorts before this one.
    Below(&'a str, AttributeValue),
    /// There is no such attribute; of the key, that there is no such item.
    Absent(&'a str),
    /// There is such an attribute; of the key, that there is such an item.
    Present(&'a str),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl<'a> Condition<'a> {
    /// That an attribute is as it was seen.
    pub(super) fn as_seen(name: &'a str, seen: Option<AttributeValue>) -> Self {
        seen.map_or(Self::Absent(name), |value| Self::Is(name, value))
    }

    pub(super) fn render(self, placeholders: &mut Placeholders) -> String {
        match self {
            Self::Is(name, value) => format!("{} = {}", placeholders.name(name), placeholders.value(value)),
            Self::Below(name, value) => format!("{} < {}", placeholders.name(name), placeholders.value(value)),
            Self::Absent(name) => format!("attribute_not_exists({})", placeholders.name(name)),
            Self::Present(name) => format!("attribute_exists({})", placeholders.name(name)),
            Self::All(conditions) => Self::joined(conditions, " AND ", placeholders),
            Self::Any(conditions) => Self::joined(conditions, " OR ", placeholders),
        }
    }

    fn joined(conditions: Vec<Self>, word: &str, placeholders: &mut Placeholders) -> String {
        let parts: Vec<String> = conditions.into_iter().map(|condition| condition.render(placeholders)).collect();
        format!("({})", parts.join(word))
    }
}

/// What stands for names and values.
#[derive(Clone, Debug, Default)]
pub(super) struct Placeholders {
    names: BTreeMap<String, String>,
    values: BTreeMap<String, AttributeValue>,
}

impl Placeholders {
    pub(super) fn name(&mut self, name: &str) -> String {
        // What a placeholder may not have is left out; two names that would be the same then are told apart.
        let mut placeholder = format!("#{}", name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_"));
        while self.names.get(&placeholder).is_some_and(|other| other != name) {
            placeholder.push('_');
        }
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    pub(super) fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    pub(super) fn names(&self) -> Option<Names> {
        (!self.names.is_empty()).then(|| self.names.clone().into_iter().collect())
    }

    /// DynamoDB refuses a request with an empty map.
    pub(super) fn values(&self) -> Option<Item> {
        (!self.values.is_empty()).then(|| self.values.clone().into_iter().collect())
    }
}

/// A change of an item.
#[derive(Clone, Debug, Default)]
pub(super) struct Update {
    set: Vec<String>,
    remove: Vec<String>,
    add: Vec<String>,
    placeholders: Placeholders,
}

/// A change as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Rendered {
    pub(super) update: String,
    pub(super) condition: String,
    pub(super) placeholders: Placeholders,
}

impl Update {
    pub(super) fn set(&mut self, name: &str, value: AttributeValue) -> &mut Self {
        let assignment = format!("{} = {}", self.placeholders.name(name), self.placeholders.value(value));
        self.set.push(assignment);
        self
    }

    pub(super) fn remove(&mut self, name: &str) -> &mut Self {
        let name = self.placeholders.name(name);
        self.remove.push(name);
        self
    }

    /// Sets an attribute, or removes it where there is no value for it.
    pub(super) fn put(&mut self, name: &str, value: Option<AttributeValue>) -> &mut Self {
        match value {
            Some(value) => self.set(name, value),
            None => self.remove(name),
        }
    }

    /// Raises a number, which counts as 0 where it is not there.
    pub(super) fn raise(&mut self, name: &str) -> &mut Self {
        self.add(name, number(1))
    }

    /// Adds to a number, which counts as 0 where it is not there.
    pub(super) fn add(&mut self, name: &str, value: AttributeValue) -> &mut Self {
        let step = format!("{} {}", self.placeholders.name(name), self.placeholders.value(value));
        self.add.push(step);
        self
    }

    pub(super) fn when(mut self, condition: Condition<'_>) -> Rendered {
        let condition = condition.render(&mut self.placeholders);
        Rendered { condition, ..self.always() }
    }

    /// Whatever the item is.
    pub(super) fn always(self) -> Rendered {
        let clauses = [("SET", self.set), ("REMOVE", self.remove), ("ADD", self.add)];
        let clauses = clauses.into_iter().filter(|(_, parts)| !parts.is_empty());
        let update = clauses.map(|(word, parts)| format!("{word} {}", parts.join(", "))).collect::<Vec<_>>().join(" ");
        Rendered { update, condition: String::new(), placeholders: self.placeholders }
    }
}

#[cfg(test)]
mod tests {
    use super::super::item::string;
    use super::*;

    #[test]
    fn any_name_has_a_placeholder_of_its_own() {
        let mut placeholders = Placeholders::default();
        let names = ["tail number", "tail-number", "tail_number", "tail number"].map(|name| placeholders.name(name));
        assert_eq!(names, ["#tail_number", "#tail_number_", "#tail_number__", "#tail_number"]);
    }

    #[test]
    fn a_change_is_written_with_its_condition_and_nothing_is_left_over() {
        let mut update = Update::default();
        update.set("owner", string("a")).put("token", None).raise("counter");
        let condition = Condition::All(vec![
            Condition::Is("counter", number(7)),
            Condition::Any(vec![Condition::Absent("owner"), Condition::Present("leaseKey")]),
        ]);
        let rendered = update.when(condition);
        assert_eq!(rendered.update, "SET #owner = :v0 REMOVE #token ADD #counter :v1");
        assert_eq!(
            rendered.condition,
            "(#counter = :v2 AND (attribute_not_exists(#owner) OR attribute_exists(#leaseKey)))"
        );
        assert_eq!(rendered.placeholders.names().map(|names| names.len()), Some(4));
        assert_eq!(rendered.placeholders.values().map(|values| values.len()), Some(3));
    }
}
