//! From the events of the YAML parser to [`Tree`]s, one for each document.
//!
//! After a syntax error the parser goes on with the next document, so that one bad document does not hide
//! the errors of the others. Memory is bounded by the text: nesting by the parser, what aliases expand to
//! by [`MAX_COPIED`].

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use serde_yaml::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag, options};

use super::{
    diagnostics::{Diagnostics, Severity, quote},
    tree::{Data, Entry, Mark, Origin, Tree},
};

/// Nodes that all the aliases of a file may stand for together.
pub(super) const MAX_COPIED: usize = 200_000;

/// Hands each document that is YAML to `each`; what is wrong goes to `found`. Says for how many nodes aliases
/// stood.
pub(super) fn documents(
    origin: &Origin<'_>,
    found: &mut Diagnostics,
    mut each: impl FnMut(&Tree<'_>, &mut Diagnostics),
) -> usize {
    let options = options! { emit_comments: false, emit_unresolved_aliases: true };
    let mut parser = Parser::new_from_str_with_options(origin.text, options);
    let mut builder = Builder::new(origin);
    while let Some(event) = parser.next() {
        match event {
            Ok((Event::DocumentStart(..), _)) => {
                builder = Builder { copied: builder.copied, ..Builder::new(origin) };
            }
            Ok((Event::DocumentEnd, _)) => {
                let entries = std::mem::take(&mut builder.entries);
                found.extend(std::mem::take(&mut builder.found));
                if !entries.is_empty() {
                    let tree = Tree::new(origin.clone(), entries, std::mem::take(&mut builder.aliases));
                    each(&tree, found);
                    tree.take_found(found);
                }
            }
            Ok((event, span)) => builder.add(event, &span),
            Err(error) => {
                found.extend(std::mem::take(&mut builder.found));
                let mark = mark(error.marker());
                let message = format!("syntax error: {}", error.info());
                found.push(origin.diagnostic(Severity::Error, (mark, mark.byte + 1), message));
                if !parser.proceed_next_document().unwrap_or(false) {
                    break;
                }
            }
        }
    }
    builder.copied
}

fn mark(marker: &Marker) -> Mark {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mark {
        byte: narrow(marker.byte_offset().unwrap_or(0)),
        line: narrow(marker.line()).max(1),
        column: narrow(marker.col()).saturating_add(1),
    }
}

struct Builder<'o, 't> {
    origin: &'o Origin<'t>,
    entries: Vec<Entry<'t>>,
    /// Lists and mappings that are not complete, outermost first, with the numbers of their anchors.
    open: Vec<(u32, usize)>,
    /// Complete nodes that have an anchor, by its number.
    anchors: HashMap<usize, Range<u32>>,
    aliases: Vec<(u32, u32)>,
    copied: usize,
    /// Where the last piece of text ended; `None` after an empty value, which has no text.
    last_end: Option<u32>,
    found: Diagnostics,
}

impl<'o, 't> Builder<'o, 't> {
    fn new(origin: &'o Origin<'t>) -> Self {
        Self {
            origin,
            entries: Vec::new(),
            open: Vec::new(),
            anchors: HashMap::new(),
            aliases: Vec::new(),
            copied: 0,
            last_end: None,
            found: Diagnostics::default(),
        }
    }

    fn add(&mut self, event: Event<'t>, span: &Span) {
        let (start, end) = (mark(&span.start), mark(&span.end).byte);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = self.is_plain(style, tag.as_deref(), (start, end));
                let index = self.push(Data::Scalar { text, plain }, start, end);
                self.last_end = (start.byte < end).then_some(end);
                self.set_anchor(anchor, index..index + 1);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(Data::List, (anchor, tag.as_deref()), (start, end));
            }
            Event::MappingStart(_, anchor, tag) => {
                self.open(Data::Map, (anchor, tag.as_deref()), (start, end));
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(start, end),
            Event::Alias(anchor) => self.alias(anchor, start, end),
            Event::UnresolvedAlias(name) => {
                self.error((start, end), format!("no anchor `&{name}` before this alias"));
                self.push(Data::Scalar { text: "".into(), plain: true }, start, end);
                self.last_end = Some(end);
            }
            _ => {}
        }
    }

    fn push(&mut self, data: Data<'t>, start: Mark, end: u32) -> u32 {
        let index = u32::try_from(self.entries.len()).expect("no more nodes than bytes of text and copies");
        let parent = self.open.last().map_or(index, |(parent, _)| *parent);
        self.entries.push(Entry { data, start, end, parent, after: index + 1 });
        index
    }

    fn open(&mut self, data: Data<'t>, (anchor, tag): (usize, Option<&Tag>), (start, end): (Mark, u32)) {
        let expected = if matches!(data, Data::List) { "seq" } else { "map" };
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(expected)) {
            self.error((start, end), format!("tag {} is not supported", quote(&tag.original())));
        }
        let index = self.push(data, start, end);
        self.open.push((index, anchor));
        self.last_end = (start.byte < end).then_some(end);
    }

    fn close(&mut self, start: Mark, end: u32) {
        let Some((index, anchor)) = self.open.pop() else { return };
        // A block ends without a character of its own: where its last piece of text does.
        let end = match self.last_end {
            _ if start.byte < end => end,
            Some(end) => end,
            None => {
                let before = &self.origin.text[..start.byte as usize];
                u32::try_from(before.trim_end().len()).unwrap_or(start.byte)
            }
        };
        let after = self.entries.len() as u32;
        let entry = &mut self.entries[index as usize];
        entry.end = end.max(entry.start.byte);
        entry.after = after;
        self.last_end = Some(end);
        self.set_anchor(anchor, index..after);
        if matches!(self.entries[index as usize].data, Data::Map) {
            self.check_keys(index);
        }
    }

    fn set_anchor(&mut self, anchor: usize, nodes: Range<u32>) {
        // The parser's number for no anchor.
        if anchor != 0 {
            self.anchors.insert(anchor, nodes);
        }
    }

    fn alias(&mut self, anchor: usize, start: Mark, end: u32) {
        let range = self.anchors.get(&anchor).cloned().unwrap_or(0..0);
        self.last_end = Some(end);
        self.copied += range.len();
        if range.is_empty() || self.copied > MAX_COPIED {
            let message = match range.is_empty() {
                true => "an alias inside of its own anchor".to_owned(),
                false => format!("aliases stand for more than {MAX_COPIED} values"),
            };
            self.error((start, end), message);
            self.push(Data::Scalar { text: "".into(), plain: true }, start, end);
            return;
        }
        let index = self.entries.len() as u32;
        let parent = self.open.last().map_or(index, |(parent, _)| *parent);
        let moved = |old: u32| index + (old - range.start);
        for old in range.clone() {
            let entry = self.entries[old as usize].clone();
            let parent = if old == range.start { parent } else { moved(entry.parent) };
            self.entries.push(Entry { parent, after: moved(entry.after), ..entry });
        }
        self.aliases.push((index, range.start));
    }

    /// Whether a scalar means what an unquoted word means.
    fn is_plain(&mut self, style: ScalarStyle, tag: Option<&Tag>, span: (Mark, u32)) -> bool {
        match tag.map(|tag| (tag, tag.core_suffix())) {
            None => style == ScalarStyle::Plain,
            Some((_, Some("str"))) => false,
            Some((_, Some("int" | "bool" | "null" | "float"))) => true,
            Some((tag, _)) => {
                self.error(span, format!("tag {} is not supported", quote(&tag.original())));
                false
            }
        }
    }

    /// Keys are words, each stands in its mapping once, and `<<` merges mappings.
    fn check_keys(&mut self, map: u32) {
        let mut seen: BTreeMap<&str, Mark> = BTreeMap::new();
        let mut bad = Vec::new();
        let (mut index, after) = (map + 1, self.entries[map as usize].after);
        while index < after {
            let key = &self.entries[index as usize];
            let value = key.after;
            let span = (key.start, key.end);
            match &key.data {
                Data::Scalar { text, plain: true } if text == "<<" && !self.is_mergeable(value) => {
                    bad.push((span, "expected an object to merge, or a list of them".to_owned()));
                }
                Data::Scalar { text, .. } => {
                    if let Some(first) = seen.insert(text, key.start) {
                        let line = self.origin.source(first).line;
                        bad.push((span, format!("{} is already set in line {line}", quote(text))));
                    }
                }
                Data::List | Data::Map => bad.push((span, "a key must be a word".to_owned())),
            }
            index = self.entries.get(value as usize).map_or(after, |value| value.after);
        }
        for (span, message) in bad {
            self.error(span, message);
        }
    }

    fn is_mergeable(&self, value: u32) -> bool {
        let is_map = |index: u32| matches!(self.entries[index as usize].data, Data::Map);
        let Some(entry) = self.entries.get(value as usize) else { return false };
        let mut item = value + 1;
        while matches!(entry.data, Data::List) && item < entry.after && is_map(item) {
            item = self.entries[item as usize].after;
        }
        is_map(value) || matches!(entry.data, Data::List) && item == entry.after
    }

    fn error(&mut self, span: (Mark, u32), message: String) {
        self.found.push(self.origin.diagnostic(Severity::Error, span, message));
    }
}
