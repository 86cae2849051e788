//! An object as it was written, kept so that it can be stored, printed and read again with its places.

use std::{borrow::Cow, sync::Arc};

use super::{
    diagnostics::{Diagnostic, Diagnostics, Severity},
    node::Node,
    parse,
    tree::Origin,
};
use crate::source::Source;

/// The text of one object.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Text {
    /// Where its first character stands.
    pub source: Source,
    /// The text from there on; its other lines are indented as in the file.
    pub text: String,
    /// `apiVersion` and `kind`, where a typed list around the object says them and the object does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implied: Option<Box<(String, String)>>,
}

impl Text {
    pub(super) fn of(object: Node<'_>, implied: Option<(&str, &str)>) -> Self {
        let text = object.own_text().map_or_else(|| object.to_json().to_string(), str::to_owned);
        let implied = implied.map(|(version, kind)| Box::new((version.to_owned(), kind.to_owned())));
        Self { source: object.source(), text, implied }
    }

    /// The object as YAML at the left margin.
    pub fn to_yaml(&self) -> String {
        let mut yaml = String::with_capacity(self.text.len() + 64);
        if let Some((version, kind)) = self.implied.as_deref().filter(|_| !self.is_flow()) {
            yaml = format!("apiVersion: {version}\nkind: {kind}\n");
        }
        let indent = self.columns_before() as usize;
        for line in self.text.split_inclusive('\n') {
            let spaces = line.bytes().take(indent).take_while(|byte| *byte == b' ').count();
            yaml.push_str(if yaml.is_empty() { line } else { &line[spaces..] });
        }
        if !yaml.ends_with('\n') {
            yaml.push('\n');
        }
        yaml
    }

    /// The object as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::Value::Null;
        self.parse(|root| json = root.to_json());
        if let (Some(fields), Some((version, kind))) = (json.as_object_mut(), self.implied.as_deref()) {
            fields.insert("apiVersion".to_owned(), version.clone().into());
            fields.insert("kind".to_owned(), kind.clone().into());
        }
        json
    }

    /// An error about the first value of the object, outside of its metadata, that `is_it` recognizes by
    /// the name of its field and its text; about the object when there is none.
    pub(crate) fn error(&self, is_it: impl Fn(&str, &str) -> bool, message: &str) -> Diagnostic {
        let mut diagnostic = None;
        self.parse(|root| {
            let fields = root.entries().unwrap_or_default().into_iter();
            let mut fields = fields.filter(|(name, ..)| !matches!(*name, "metadata" | "kind" | "apiVersion"));
            let found = fields.find_map(|(name, _, value)| find(name, value, &is_it));
            diagnostic = Some(found.unwrap_or(root).diagnostic(Severity::Error, message.to_owned()));
        });
        diagnostic.unwrap_or_else(|| Diagnostic {
            source: self.source.clone(),
            severity: Severity::Error,
            message: message.to_owned(),
            excerpt: None,
        })
    }

    /// Hands the object to `read`.
    fn parse(&self, mut read: impl FnMut(Node<'_>)) {
        let text = self.padded();
        parse::documents(&self.origin(&text), &mut Diagnostics::default(), |tree, _| read(tree.root()));
    }

    /// The text as YAML can be parsed from: the first line of a block indented like the others.
    pub(super) fn padded(&self) -> Cow<'_, str> {
        match self.columns_before() {
            0 => Cow::Borrowed(&self.text),
            _ if self.is_flow() => Cow::Borrowed(&self.text),
            columns => Cow::Owned(" ".repeat(columns as usize) + &self.text),
        }
    }

    /// How places in `padded` become places in the file.
    pub(super) fn origin<'t>(&self, padded: &'t str) -> Origin<'t> {
        Origin {
            file: Arc::clone(&self.source.file),
            text: padded,
            lines_before: self.source.line.saturating_sub(1),
            columns_before: if self.is_flow() { self.columns_before() } else { 0 },
        }
    }

    fn columns_before(&self) -> u32 {
        self.source.column.saturating_sub(1)
    }

    /// In braces, where indentation means nothing.
    fn is_flow(&self) -> bool {
        self.text.starts_with('{')
    }
}

/// In the order of the text.
fn find<'t>(field: &str, node: Node<'t>, is_it: &impl Fn(&str, &str) -> bool) -> Option<Node<'t>> {
    if let Some(entries) = node.entries() {
        return entries.into_iter().find_map(|(name, _, value)| find(name, value, is_it));
    }
    if let Some(mut items) = node.items() {
        return items.find_map(|item| find(field, item, is_it));
    }
    node.text().is_some_and(|text| is_it(field, text)).then_some(node)
}
