//! From files to a cluster: strict, with every error at its file, line and column.
//!
//! A document is parsed once, by serde-saphyr's event parser, into a tree whose nodes know their
//! places, and the readers of the kinds take typed and validated values straight out of it. The parser's
//! serde side stops at the first error of a document and costs a synthesized map for each position; the
//! tree gives every error of every document at once, a suggestion for each unknown field and a position for
//! each value, in one pass, and a validated value is read and checked in the same expression.
//!
//! ```text
//! bytes ─files─▶ text ─parse─▶ Tree ─object─▶ recognized ─kinds─▶ Object ─▶ cluster::Objects ─▶ Cluster
//! ```

mod address;
mod diagnostics;
mod fields;
mod files;
mod kinds;
mod names;
mod node;
mod object;
mod parse;
mod pieces;
mod scalar;
mod text;
mod tree;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

pub(crate) use self::kinds::Value;
pub use self::{
    diagnostics::{Diagnostic, Diagnostics, Excerpt, Severity, escape},
    kinds::Kind,
    object::{Key, Object},
    text::Text,
};
use self::{pieces::Unit, tree::Origin};
use crate::check::PolicyCheck;

/// Bytes of files that are read together: a text is kept no longer than it has to be.
const AT_ONCE: usize = 32 << 20;

/// Objects that were read, each valid by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents {
    /// The objects in the order of the files, each of them once.
    pub objects: Vec<Object>,
    /// Objects of kinds that do not concern weir: how many of each `apiVersion/kind`.
    pub skipped: BTreeMap<String, usize>,
    /// Expectations for `weir check`, which no agent acts on; they are counted in `skipped` too.
    pub checks: Vec<PolicyCheck>,
    /// What the author may want to know though nothing is refused.
    pub warnings: Diagnostics,
}

impl Documents {
    /// Adds what was read after it.
    fn append(&mut self, mut after: Self) {
        self.objects.append(&mut after.objects);
        self.checks.append(&mut after.checks);
        self.warnings.extend(after.warnings);
        for (kind, count) in after.skipped {
            *self.skipped.entry(kind).or_default() += count;
        }
    }
}

/// Reads files, and directories with all that is below them.
pub fn read(paths: &[PathBuf]) -> Result<Documents, Diagnostics> {
    Reader::default().paths(paths).finish()
}

/// Reads a text; `name` stands for its file in messages.
pub fn from_text(name: &str, text: &str) -> Result<Documents, Diagnostics> {
    Reader::default().text(name, text).finish()
}

/// The documents of any YAML or JSON text as JSON, with words meaning what they mean in manifests.
pub fn to_json(name: &str, text: &str) -> Result<Vec<serde_json::Value>, Diagnostics> {
    let mut documents = Vec::new();
    let mut found = Diagnostics::default();
    parse::documents(&Origin::of_file(name, text), &mut found, |tree, _| {
        documents.push(tree.root().to_json());
    });
    if found.is_empty() { Ok(documents) } else { Err(found) }
}

/// Reads several sources as one set of objects.
#[derive(Debug, Default)]
pub struct Reader {
    documents: Documents,
    found: Diagnostics,
}

impl Reader {
    /// Adds files, and directories with all that is below them.
    #[must_use]
    pub fn paths(mut self, paths: &[PathBuf]) -> Self {
        let mut seen = BTreeSet::new();
        let mut files: Vec<_> = paths.iter().flat_map(|path| files::list(path, &mut self.found)).collect();
        // A file that is named, and its directory too.
        files.retain(|path| seen.insert(path.clone()));
        let mut files = files.iter();
        while !files.as_slice().is_empty() {
            let (mut texts, mut bytes) = (Vec::new(), 0);
            while bytes < AT_ONCE
                && let Some(path) = files.next()
            {
                let Some(text) = files::read(path, &mut self.found) else { continue };
                bytes += text.len();
                texts.push((path.display().to_string(), text));
            }
            let origins = texts.iter().map(|(name, text)| Origin::of_file(name, text));
            self.units(origins.map(|origin| Unit { origin, implied: None }));
        }
        self
    }

    /// Adds bytes that came from elsewhere, as from standard input.
    #[must_use]
    pub fn bytes(mut self, name: &str, bytes: Vec<u8>) -> Self {
        match files::text(name, bytes, &mut self.found) {
            Some(text) => self.text(name, &text),
            None => self,
        }
    }

    /// Adds a text.
    #[must_use]
    pub fn text(mut self, name: &str, text: &str) -> Self {
        self.units([Unit { origin: Origin::of_file(name, text), implied: None }]);
        self
    }

    /// Adds objects whose texts were kept.
    #[must_use]
    pub fn kept<'t>(mut self, texts: impl IntoIterator<Item = &'t Text>) -> Self {
        let texts: Vec<_> = texts.into_iter().map(|text| (text, text.padded())).collect();
        self.units(texts.iter().map(|(text, padded)| {
            let implied = text.implied.as_deref().map(|(version, kind)| (&**version, &**kind));
            Unit { origin: text.origin(padded), implied }
        }));
        self
    }

    fn units<'t>(&mut self, units: impl IntoIterator<Item = Unit<'t>>) {
        let units: Vec<_> = units.into_iter().collect();
        pieces::read(&units, pieces::LONG, &mut self.documents, &mut self.found);
    }

    /// The objects, unless anything is wrong.
    pub fn finish(mut self) -> Result<Documents, Diagnostics> {
        self.refuse_duplicates();
        self.found.sort();
        if self.found.errors() > 0 {
            return Err(self.found);
        }
        self.documents.warnings = self.found;
        Ok(self.documents)
    }

    fn refuse_duplicates(&mut self) {
        let mut seen = BTreeMap::new();
        for object in &self.documents.objects {
            if let Some(first) = seen.insert(&object.key, &object.text.source) {
                let message = format!("{} is already defined at {first}", object.key);
                self.found.push(object.text.error(|_, _| false, &message));
            }
        }
    }
}
