//! Reading typed values out of a [`Node`], with an error for each that is not of its type.

use std::ops::RangeInclusive;

use super::{
    diagnostics::{Severity, quote},
    names::Form,
    node::Node,
    scalar::Scalar,
};

/// The fields of an object.
pub(crate) struct Fields<'t> {
    node: Node<'t>,
    entries: Vec<(&'t str, Node<'t>, Node<'t>)>,
    /// False for what is not an object at all, which has been said.
    is_object: bool,
    /// One of them is unknown, and may stand for one that seems to be missing.
    has_unknown: bool,
}

impl<'t> Node<'t> {
    /// Its fields, of which the API knows `known`: any other is an error.
    pub(crate) fn fields(self, known: &[&str]) -> Fields<'t> {
        let mut fields = self.some_fields();
        for (name, key, _) in &fields.entries {
            if !known.contains(name) {
                key.unknown_field(self, name, known);
                fields.has_unknown = true;
            }
        }
        fields
    }

    /// Its fields, of which only some are read.
    pub(crate) fn some_fields(self) -> Fields<'t> {
        let entries = self.entries();
        if entries.is_none() {
            self.mistyped("an object");
        }
        let is_object = entries.is_some();
        Fields { node: self, entries: entries.unwrap_or_default(), is_object, has_unknown: false }
    }

    fn unknown_field(self, object: Self, name: &str, known: &[&str]) {
        self.say_here(Severity::Error, || {
            let kind = object.object().kind();
            let path = object.path();
            let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
            let hint = suggest(name, known).map(|near| format!("; did you mean `{near}`?"));
            format!("unknown field {} in {kind}{dot}{path}{}", quote(name), hint.unwrap_or_default())
        });
    }

    /// The value of one of its fields, if it is an object that has it.
    pub(crate) fn value_of(self, name: &str) -> Option<Self> {
        let entries = self.entries()?;
        entries.into_iter().find(|(key, ..)| *key == name).map(|(.., value)| value)
    }

    /// The value of its field `kind`.
    pub(super) fn kind(self) -> &'t str {
        let entries = self.entries().unwrap_or_default();
        entries
            .iter()
            .find(|(name, ..)| *name == "kind")
            .and_then(|(.., value)| value.text())
            .unwrap_or("object")
    }

    fn mistyped(self, expected: &str) {
        self.error(format!("expected {expected}, found {}", self.describe()));
    }

    /// A string.
    pub(crate) fn string(self) -> Option<&'t str> {
        match self.scalar() {
            Some(Scalar::String(value)) => return Some(value),
            Some(Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Number) => {
                self.error(format!("expected a string, found {}; put it in quotes", self.describe()));
            }
            _ => self.mistyped("a string"),
        }
        None
    }

    /// A string of a certain form.
    pub(crate) fn formed(self, form: Form) -> Option<&'t str> {
        let value = self.string()?;
        match form(value) {
            Ok(()) => Some(value),
            Err(expected) => {
                self.error(format!("{} is not {expected}", quote(value)));
                None
            }
        }
    }

    /// A string that `parse` understands.
    pub(crate) fn parsed<T>(self, parse: impl Fn(&'t str) -> Result<T, String>) -> Option<T> {
        parse(self.string()?).map_err(|error| self.error(error)).ok()
    }

    /// One of the words, as what it stands for.
    pub(crate) fn one_of<T: Copy>(self, words: &[(&str, T)]) -> Option<T> {
        let value = self.string()?;
        let found = words.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.error(format!("unsupported value {}; it is one of {}", quote(value), known.join(", ")));
        }
        found.map(|(_, meaning)| *meaning)
    }

    /// A truth value.
    pub(crate) fn boolean(self) -> Option<bool> {
        match self.scalar() {
            Some(Scalar::Bool(value)) => return Some(value),
            _ => self.mistyped("true or false"),
        }
        None
    }

    /// A whole number of a range; `what` names it in the error.
    pub(crate) fn integer(self, range: RangeInclusive<i64>, what: &str) -> Option<i64> {
        match self.scalar() {
            Some(Scalar::Integer(value)) if range.contains(&value) => return Some(value),
            Some(Scalar::Integer(value)) => {
                self.error(format!("{value} is not {what} ({}-{})", range.start(), range.end()));
            }
            Some(Scalar::Number) => {
                let text = quote(self.text().unwrap_or_default());
                self.error(format!("{text} is not {what}: expected a plain whole number"));
            }
            _ => self.mistyped("a number"),
        }
        None
    }

    /// A port number.
    pub(crate) fn port(self) -> Option<u16> {
        self.integer(1..=65535, "a port").and_then(|port| u16::try_from(port).ok())
    }

    /// The items of a list, at most `most`; more are an error, and left out.
    pub(crate) fn list(self, most: usize) -> Vec<Self> {
        let Some(items) = self.items() else {
            self.mistyped("a list");
            return Vec::new();
        };
        let mut items: Vec<_> = items.collect();
        if items.len() > most {
            self.error(format!("has {} items; at most {most} are allowed", items.len()));
            items.truncate(most);
        }
        items
    }

    /// The keys and values of a mapping of strings.
    pub(crate) fn strings(self) -> impl Iterator<Item = (&'t str, Self, &'t str, Self)> {
        let entries = self.entries();
        if entries.is_none() {
            self.mistyped("an object");
        }
        // Null is an empty string to the API.
        entries.unwrap_or_default().into_iter().filter_map(|(key, key_node, value)| {
            let text = if value.is_null() { "" } else { value.string()? };
            Some((key, key_node, text, value))
        })
    }
}

impl<'t> Fields<'t> {
    /// A field that may be absent, which null is too.
    pub(crate) fn get(&self, name: &str) -> Option<Node<'t>> {
        self.entries
            .iter()
            .find(|(key, ..)| *key == name)
            .map(|(.., value)| *value)
            .filter(|value| !value.is_null())
    }

    /// A field of text that may be absent, which null and an empty text are too.
    pub(crate) fn nonempty(&self, name: &str) -> Option<Node<'t>> {
        self.get(name).filter(|value| value.text() != Some(""))
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &str) -> Option<Node<'t>> {
        let value = self.get(name);
        if value.is_none() && self.is_object {
            self.missing(name);
        }
        value
    }

    /// The items of a list; none when it is absent.
    pub(crate) fn list(&self, name: &str, most: usize) -> Vec<Node<'t>> {
        self.get(name).map(|list| list.list(most)).unwrap_or_default()
    }

    /// The one field of `names` that is set, where exactly one must be.
    pub(crate) fn exactly_one<'n>(&self, names: &[&'n str]) -> Option<(&'n str, Node<'t>)> {
        let set: Vec<_> = names.iter().filter_map(|name| Some((*name, self.get(name)?))).collect();
        match set[..] {
            [one] => return Some(one),
            _ if !self.is_object => {}
            [] if self.has_unknown => {}
            [] => self.node.error(format!("one of {} is required", names.join(", "))),
            _ => {
                let found: Vec<_> = set.iter().map(|(name, _)| *name).collect();
                self.node.error(format!("only one of {} may be set", found.join(", ")));
            }
        }
        None
    }

    /// Says that a field is not there.
    pub(crate) fn missing(&self, name: &str) {
        self.node.say_here(Severity::Error, || match self.node.path() {
            path if path.is_empty() => format!("{name} is required"),
            path => format!("{path}.{name} is required"),
        });
    }

    /// Warns about the object as a whole.
    pub(crate) fn warning(&self, message: impl Into<String>) {
        self.node.warning(message);
    }

    /// Says something about the object as a whole.
    pub(crate) fn error(&self, message: impl Into<String>) {
        self.node.error(message);
    }
}

/// The known word that was probably meant.
pub(super) fn suggest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Long words are not near anything, and would take long to compare.
    let word: String = word.chars().take(64).collect();
    let distance = |near: &str| strsim::osa_distance(&word.to_lowercase(), &near.to_lowercase());
    let (near, distance) =
        known.iter().map(|near| (*near, distance(near))).min_by_key(|(_, distance)| *distance)?;
    (distance <= 2.min(near.len() / 2)).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognized_and_nothing_else() {
        let known = ["podSelector", "policyTypes", "ingress", "egress", "to"];
        assert_eq!(suggest("podselector", &known), Some("podSelector"));
        assert_eq!(suggest("podSelecter", &known), Some("podSelector"));
        assert_eq!(suggest("polcyTypse", &known), Some("policyTypes"));
        assert_eq!(suggest("ports", &known), None);
        assert_eq!(suggest("ab", &known), None);
        assert_eq!(suggest(&"podSelector".repeat(100_000), &known), None);
    }
}
