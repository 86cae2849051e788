//! What is wrong with the input, and where.

use std::{borrow::Cow, fmt, fmt::Write as _, sync::Arc};

use crate::source::Source;

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The input is refused.
    Error,
    /// The input is accepted, though it may not do what its author expects.
    Warning,
}

/// One thing to say about the input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Diagnostic {
    /// Where; line 0 stands for the file as a whole.
    pub source: Source,
    /// How bad.
    pub severity: Severity,
    /// What, with any text of the input in it as it came: [`Diagnostics::render`] escapes it.
    pub message: String,
    /// The line it is about.
    pub excerpt: Option<Excerpt>,
}

/// A line of the input with the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Excerpt {
    /// The line, already escaped, cut to what fits around the marked part.
    pub line: String,
    /// Characters of `line` before the marked part.
    pub indent: usize,
    /// Characters of the marked part, at least 1.
    pub width: usize,
}

impl Excerpt {
    /// Characters shown before the marked part, and from its beginning on.
    const BEFORE: usize = 80;
    const AFTER: usize = 80;

    /// The line around the bytes from `start` to `end` of `text`, marked as far as they go on that line.
    /// Looks no further than what it shows: a line may have megabytes, and as many errors.
    pub(super) fn new(text: &str, start: usize, end: usize) -> Self {
        let start = text.floor_char_boundary(start);
        let end = text.floor_char_boundary(end).max(start);
        let (before, begins) = until_line_end(text[..start].chars().rev(), Self::BEFORE);
        let (after, ends) = until_line_end(text[start..].chars(), Self::AFTER);
        let marked = text[start..end].chars().take(after.len()).collect::<String>();
        let marked = marked.trim_end().chars().count();

        let mut line = String::from(if begins { "" } else { "…" });
        line.extend(before.into_iter().rev().map(Visible));
        let indent = line.chars().count();
        line.extend(after[..marked].iter().copied().map(Visible));
        let width = (line.chars().count() - indent).max(1);
        line.extend(after[marked..].iter().copied().map(Visible));
        line.truncate(line.trim_end().len());
        line.push_str(if ends { "" } else { "…" });
        Self { line, indent, width }
    }
}

/// The characters up to the end of the line, at most `most`, and whether that is all of the line.
fn until_line_end(characters: impl Iterator<Item = char>, most: usize) -> (Vec<char>, bool) {
    let mut line: Vec<_> = characters.take_while(|c| *c != '\n').take(most + 1).collect();
    let is_all = line.len() <= most;
    line.truncate(most);
    (line, is_all)
}

/// What there is to say about some input, in the order of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one about a file as a whole.
    pub(crate) fn file_error(&mut self, file: &str, message: impl Into<String>) {
        let source = Source { file: Arc::from(file), line: 0, column: 0 };
        self.push(Diagnostic { source, severity: Severity::Error, message: message.into(), excerpt: None });
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds others.
    pub fn extend(&mut self, others: impl IntoIterator<Item = Diagnostic>) {
        self.0.extend(others);
    }

    /// Brings them into the order of files, lines and columns; what was said twice is said once.
    pub(crate) fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// How many are warnings.
    pub fn warnings(&self) -> usize {
        self.0.len() - self.errors()
    }

    /// For people: each with its line and a caret under what is meant. Nothing of the input can reach the
    /// terminal as a control sequence.
    pub fn render(&self, color: bool) -> String {
        let mut out = String::new();
        for diagnostic in &self.0 {
            diagnostic.render(&mut out, color).expect("a String takes everything");
        }
        out
    }
}

impl Diagnostic {
    fn render(&self, out: &mut String, color: bool) -> fmt::Result {
        let (word, paint) = match self.severity {
            Severity::Error => ("error", "\x1b[1;31m"),
            Severity::Warning => ("warning", "\x1b[1;33m"),
        };
        let (bold, paint, plain) = if color { ("\x1b[1m", paint, "\x1b[0m") } else { ("", "", "") };

        write!(out, "{bold}{}", escape(&self.source.file))?;
        if self.source.line > 0 {
            write!(out, ":{}:{}", self.source.line, self.source.column)?;
        }
        writeln!(out, ":{plain} {paint}{word}:{plain} {}", escape(&self.message))?;
        if let Some(Excerpt { line, indent, width }) = &self.excerpt {
            // Escaped once more: a diagnostic may have come over a socket.
            writeln!(out, "{:>5} | {}", self.source.line, escape(line))?;
            writeln!(out, "{:>5} | {:indent$}{paint}{:^<width$}{plain}", "", "", "")?;
        }
        Ok(())
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The text with everything made visible that a terminal would act upon instead of showing it: control
/// characters, and those that reorder or hide their neighbours. Whatever comes from manifests or packets
/// passes through here before it is printed.
pub fn escape(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_treacherous) {
        text.chars().map(Visible).collect::<String>().into()
    } else {
        text.into()
    }
}

/// A value of the input for use in a message: in backquotes, and not longer than one can read.
pub(crate) fn quote(value: &str) -> String {
    const ROOM: usize = 64;
    match value.char_indices().nth(ROOM) {
        Some((cut, _)) => format!("`{}…`", &value[..cut]),
        None => format!("`{value}`"),
    }
}

fn is_treacherous(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// A character as it may be shown.
struct Visible(char);

impl Extend<Visible> for String {
    fn extend<I: IntoIterator<Item = Visible>>(&mut self, characters: I) {
        for Visible(c) in characters {
            match c {
                '\t' => self.push(' '),
                c if is_treacherous(c) => self.extend(c.escape_default()),
                c => self.push(c),
            }
        }
    }
}

impl FromIterator<Visible> for String {
    fn from_iter<I: IntoIterator<Item = Visible>>(characters: I) -> Self {
        let mut text = Self::new();
        text.extend(characters);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(text: &str, start: usize, end: usize, line: u32, column: u32) -> Diagnostics {
        let mut diagnostics = Diagnostics::default();
        diagnostics.push(Diagnostic {
            source: Source { file: "policies/db.yaml".into(), line, column },
            severity: Severity::Error,
            message: "70000 is not a port (1-65535)".into(),
            excerpt: Some(Excerpt::new(text, start, end)),
        });
        diagnostics
    }

    #[test]
    fn the_caret_stands_under_what_is_meant() {
        let text = "ports:\n    - port: 70000\n";
        let expected = "policies/db.yaml:2:13: error: 70000 is not a port (1-65535)\n    \
                        2 |     - port: 70000\n      |             ^^^^^\n";
        assert_eq!(diagnostic(text, 19, 24, 2, 13).render(false), expected);
    }

    #[test]
    fn a_tab_and_an_escaped_character_do_not_move_the_caret() {
        let text = "\t\"\u{1b}[31m\": 70000";
        let start = text.find("70000").unwrap();
        let rendered = diagnostic(text, start, text.len(), 1, 1).render(false);
        let lines: Vec<_> = rendered.lines().collect();
        assert_eq!(lines[1].find("70000"), lines[2].find('^'));
        assert!(!rendered.contains('\u{1b}'), "{rendered:?}");
    }

    #[test]
    fn a_line_of_a_megabyte_is_cut_around_the_marked_part() {
        let text = format!("{}HERE{}", "é".repeat(500_000), "ü".repeat(500_000));
        let start = text.find("HERE").unwrap();
        let rendered = diagnostic(&text, start, start + 4, 1, 500_001).render(false);
        let lines: Vec<_> = rendered.lines().collect();
        let caret = lines[2].chars().position(|c| c == '^').unwrap();
        assert_eq!(lines[1].chars().skip(caret).take(4).collect::<String>(), "HERE");
        assert!(lines[1].chars().count() < 200);
    }

    #[test]
    fn colours_are_given_only_when_asked_for() {
        assert!(diagnostic("a", 0, 1, 1, 1).render(true).contains("\u{1b}[1;31merror"));
    }

    #[test]
    fn characters_that_deceive_a_reader_are_escaped() {
        for c in ['\u{1b}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200b}', '\n', '\0', '\u{7f}', '\u{e0041}'] {
            let escaped = escape(&format!("a{c}b")).into_owned();
            assert!(!escaped.contains(c) && escaped.starts_with('a') && escaped.ends_with('b'), "{escaped}");
        }
        assert_eq!(escape("größe 大"), "größe 大");
    }
}
