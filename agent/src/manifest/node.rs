//! A node of a [`Tree`]: its value, its place, and what there is to say about it.

use std::{fmt::Write as _, ops::Range};

use super::{
    diagnostics::{Diagnostic, Severity, quote},
    scalar::Scalar,
    tree::{Data, Entry, Tree},
};
use crate::source::Source;

/// A node of a [`Tree`].
#[derive(Clone, Copy)]
pub(crate) struct Node<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

impl<'t> Node<'t> {
    pub(super) fn root(tree: &'t Tree<'t>) -> Self {
        Self { tree, index: 0 }
    }

    fn entry(self) -> &'t Entry<'t> {
        &self.tree.entries[self.index as usize]
    }

    fn at(self, index: u32) -> Self {
        Self { index, ..self }
    }

    /// Its children in order; a mapping's are keys and values in turn.
    fn children(self) -> impl Iterator<Item = Self> {
        let end = self.entry().after;
        let mut next = self.index + 1;
        std::iter::from_fn(move || {
            let child = self.at(next);
            (next < end).then(|| {
                next = child.entry().after;
                child
            })
        })
    }

    /// What a scalar stands for; `None` for a list or a mapping.
    pub(crate) fn scalar(self) -> Option<Scalar<'t>> {
        match &self.entry().data {
            Data::Scalar { text, plain: true } => Some(Scalar::plain(text)),
            Data::Scalar { text, plain: false } => Some(Scalar::String(text)),
            Data::List | Data::Map => None,
        }
    }

    /// A scalar as it stands there.
    pub(super) fn text(self) -> Option<&'t str> {
        match &self.entry().data {
            Data::Scalar { text, .. } => Some(text),
            Data::List | Data::Map => None,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// The items of a list.
    pub(super) fn items(self) -> Option<impl Iterator<Item = Self>> {
        matches!(self.entry().data, Data::List).then(|| self.children())
    }

    /// The keys and values of a mapping, with what `<<` merges into it.
    pub(super) fn entries(self) -> Option<Vec<(&'t str, Self, Self)>> {
        let mut entries = Vec::new();
        let mut merged = Vec::new();
        self.direct_entries(&mut entries, &mut merged)?;
        while let Some(source) = merged.pop() {
            let mut others = Vec::new();
            if source.direct_entries(&mut others, &mut merged).is_none() {
                // The first that has a key wins, and the last pushed is looked at first.
                let first = merged.len();
                merged.extend(source.items().into_iter().flatten());
                merged[first..].reverse();
            }
            for other in others {
                if !entries.iter().any(|(key, ..)| *key == other.0) {
                    entries.push(other);
                }
            }
        }
        Some(entries)
    }

    fn direct_entries(self, entries: &mut Vec<(&'t str, Self, Self)>, merged: &mut Vec<Self>) -> Option<()> {
        if !matches!(self.entry().data, Data::Map) {
            return None;
        }
        let mut children = self.children();
        while let (Some(key), Some(value)) = (children.next(), children.next()) {
            match &key.entry().data {
                Data::Scalar { text, plain: true } if text == "<<" => merged.push(value),
                Data::Scalar { text, .. } => entries.push((text, key, value)),
                // Refused when the tree was built.
                Data::List | Data::Map => {}
            }
        }
        Some(())
    }

    /// What it is, for a message.
    pub(super) fn describe(self) -> String {
        match (&self.entry().data, self.scalar()) {
            (Data::List, _) => "a list".to_owned(),
            (Data::Map, _) => "an object".to_owned(),
            (
                Data::Scalar { text, .. },
                Some(scalar @ (Scalar::Bool(_) | Scalar::Integer(_) | Scalar::Number)),
            ) => {
                format!("{} {}", scalar.describe(), quote(text))
            }
            (_, scalar) => scalar.map_or("nothing", Scalar::describe).to_owned(),
        }
    }

    /// Where it stands.
    pub(crate) fn source(self) -> Source {
        self.tree.origin.source(self.entry().start)
    }

    /// The place in its object, as `spec.ingress[0].ports`; empty for the object itself.
    pub(super) fn path(self) -> String {
        let mut way = vec![];
        let mut node = self;
        while node.index != self.tree.root.get() && node.index != node.entry().parent {
            way.push(node);
            node = node.at(node.entry().parent);
        }
        let mut path = String::new();
        for node in way.into_iter().rev() {
            node.write_step(&mut path);
        }
        path
    }

    /// Appends the step from its parent to it: `.key`, `[key]` or `[index]`.
    fn write_step(self, path: &mut String) {
        let parent = self.at(self.entry().parent);
        let position = parent.children().position(|sibling| sibling.index == self.index).unwrap_or(0);
        let key = match parent.entry().data {
            Data::Map => parent.children().nth(position / 2 * 2).and_then(Self::text).unwrap_or_default(),
            _ => return write!(path, "[{position}]").expect("a String takes everything"),
        };
        if !key.bytes().all(|c| c.is_ascii_alphanumeric()) {
            let _ = write!(path, "[{key}]");
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(key);
        }
    }

    /// Adds an error about it; the message is put after its path.
    pub(crate) fn error(self, message: impl Into<String>) {
        self.say(Severity::Error, message.into());
    }

    /// Adds a warning about it.
    pub(crate) fn warning(self, message: impl Into<String>) {
        self.say(Severity::Warning, message.into());
    }

    fn say(self, severity: Severity, message: String) {
        self.say_here(severity, || match self.path() {
            path if path.is_empty() => message,
            path => format!("{path}: {message}"),
        });
    }

    /// Adds a diagnostic about it whose message says itself what it is about.
    pub(super) fn say_here(self, severity: Severity, message: impl FnOnce() -> String) {
        self.tree.say(|| self.diagnostic(severity, message()));
    }

    pub(super) fn diagnostic(self, severity: Severity, message: String) -> Diagnostic {
        let entry = self.entry();
        self.tree.origin.diagnostic(severity, (entry.start, entry.end), message)
    }

    /// Makes it the object that paths are told from.
    pub(super) fn begin_object(self) {
        self.tree.root.set(self.index);
    }

    /// The object that is being read.
    pub(super) fn object(self) -> Self {
        self.at(self.tree.root.get())
    }

    /// Its own text, unless it cannot stand alone because it refers to anchors outside of it.
    pub(super) fn own_text(self) -> Option<&'t str> {
        let entry = self.entry();
        let own = self.index..entry.after;
        let is_outside =
            |(at, from): &(u32, u32)| own.contains(at) && !(own.contains(from) && *from > own.start);
        if self.tree.aliases.iter().any(is_outside) {
            return None;
        }
        self.tree.origin.text.get(Range { start: entry.start.byte as usize, end: entry.end as usize })
    }

    /// The value as JSON; merged keys in their places, aliases as what they stand for.
    pub(super) fn to_json(self) -> serde_json::Value {
        use serde_json::Value;
        if let Some(items) = self.items() {
            return Value::Array(items.map(Self::to_json).collect());
        }
        if let Some(entries) = self.entries() {
            return entries.into_iter().map(|(key, _, value)| (key.to_owned(), value.to_json())).collect();
        }
        match self.scalar() {
            None | Some(Scalar::Null) => Value::Null,
            Some(Scalar::Bool(value)) => value.into(),
            Some(Scalar::Integer(value)) => value.into(),
            Some(Scalar::String(value)) => value.into(),
            Some(Scalar::Number) => {
                let text = self.text().unwrap_or_default();
                text.parse::<f64>().map_or_else(|_| text.into(), Value::from)
            }
        }
    }
}
