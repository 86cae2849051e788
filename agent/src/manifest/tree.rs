//! A YAML document as a tree whose every node knows where it stands.
//!
//! The nodes lie in one array in the order of the text, each with the end of its subtree: children follow
//! their parent, a sibling follows a subtree, and what an alias stands for is a copied range.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    sync::Arc,
};

use super::{
    diagnostics::{Diagnostic, Diagnostics, Excerpt, Severity},
    node::Node,
};
use crate::source::Source;

/// Errors kept of one document: nobody reads more, and each costs a walk to its place.
const MAX_FOUND: usize = 1_000;

/// The text that nodes come from.
#[derive(Clone, Debug)]
pub(crate) struct Origin<'t> {
    pub(super) file: Arc<str>,
    pub(super) text: &'t str,
    /// Lines of the file before `text`.
    pub(super) lines_before: u32,
    /// Columns of the file before the first line of `text`.
    pub(super) columns_before: u32,
}

/// A place in the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) byte: u32,
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Data<'t> {
    /// Text, and whether it is plain: a plain `80` is a number, a quoted one a string.
    Scalar { text: Cow<'t, str>, plain: bool },
    /// A sequence: its children are its items.
    List,
    /// A mapping: its children are keys and values in turn.
    Map,
}

#[derive(Clone, Debug)]
pub(super) struct Entry<'t> {
    pub(super) data: Data<'t>,
    pub(super) start: Mark,
    /// Where its text ends.
    pub(super) end: u32,
    /// The one it is a child of; the root's is its own.
    pub(super) parent: u32,
    /// The first entry that is not of its subtree.
    pub(super) after: u32,
}

/// A document.
pub(crate) struct Tree<'t> {
    pub(super) origin: Origin<'t>,
    pub(super) entries: Vec<Entry<'t>>,
    /// For each alias: the entry made of it, and the one it was copied from.
    pub(super) aliases: Vec<(u32, u32)>,
    /// The object that is being read: paths in messages begin there.
    pub(super) root: Cell<u32>,
    /// What was found wrong. Collected here so that reading a field is an expression.
    found: RefCell<Vec<Diagnostic>>,
}

impl<'t> Tree<'t> {
    pub(super) fn new(origin: Origin<'t>, entries: Vec<Entry<'t>>, aliases: Vec<(u32, u32)>) -> Self {
        Self { origin, entries, aliases, root: Cell::new(0), found: RefCell::default() }
    }

    /// The top of the document.
    pub(super) fn root(&self) -> Node<'_> {
        Node::root(self)
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Adds a diagnostic.
    pub(super) fn say(&self, diagnostic: impl FnOnce() -> Diagnostic) {
        let count = self.found.borrow().len();
        if count > MAX_FOUND {
            return;
        }
        let mut diagnostic = diagnostic();
        if count == MAX_FOUND {
            diagnostic.severity = Severity::Error;
            diagnostic.message = "too many errors; what follows is not checked".to_owned();
        }
        self.found.borrow_mut().push(diagnostic);
    }

    /// What was found wrong so far; forgotten here.
    pub(super) fn take_found(&self, into: &mut Diagnostics) {
        into.extend(self.found.take());
    }
}

impl<'t> Origin<'t> {
    /// A whole file, without its byte order mark.
    pub(super) fn of_file(name: &str, text: &'t str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { file: name.into(), text, lines_before: 0, columns_before: 0 }
    }

    pub(super) fn source(&self, mark: Mark) -> Source {
        let columns_before = if mark.line == 1 { self.columns_before } else { 0 };
        Source {
            file: self.file.clone(),
            line: mark.line.saturating_add(self.lines_before),
            column: mark.column.saturating_add(columns_before),
        }
    }

    pub(super) fn diagnostic(
        &self,
        severity: Severity,
        span: (Mark, u32),
        message: impl Into<String>,
    ) -> Diagnostic {
        let (start, end) = span;
        Diagnostic {
            source: self.source(start),
            severity,
            message: message.into(),
            excerpt: Some(Excerpt::new(self.text, start.byte as usize, end as usize)),
        }
    }
}
