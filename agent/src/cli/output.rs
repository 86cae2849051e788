//! What goes to the terminal: escaped, aligned, coloured only where that is wanted.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io::{self, IsTerminal, Write},
};

use serde::Serialize;
use serde_json::Value;

/// `text` with every character made visible that could steer a terminal or reorder what it shows: control
/// characters, bidirectional and other invisible format characters. Names in manifests and packets come from
/// others; a terminal must not obey them.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    escape_unless(text, |_| false)
}

/// [`escape`], but lines stay lines.
pub(super) fn escape_lines(text: &str) -> Cow<'_, str> {
    escape_unless(text, |c| c == '\n')
}

/// A list in the stable form for programs: fields may be added under the same `apiVersion`, and none changes its
/// meaning.
pub(super) fn list(kind: &str, items: &[impl Serialize]) -> Value {
    serde_json::json!({ "apiVersion": "weir.dev/v1alpha1", "kind": kind, "items": items })
}

/// A value as JSON, with everything in it escaped that [`escape`] would make visible.
pub(super) fn json(value: &Value) -> String {
    escape_json(&format!("{value:#}\n"))
}

/// The same in one line, without its end.
pub(super) fn json_line(value: &Value) -> String {
    escape_json(&value.to_string())
}

fn escape_json(text: &str) -> String {
    let mut json = String::new();
    // Beyond the control characters below U+0020, JSON leaves text as it is.
    for c in text.chars() {
        if c != '\n' && steers(c) {
            let mut units = [0; 2];
            json.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            json.push(c);
        }
    }
    json
}

/// A value as YAML; as JSON, which is YAML too, where something has to be escaped.
pub(super) fn yaml(value: &Value) -> String {
    match serde_yaml::to_string(value) {
        Ok(yaml) if !yaml.contains(|c| c != '\n' && steers(c)) => yaml,
        _ => json(value),
    }
}

fn escape_unless(text: &str, kept: fn(char) -> bool) -> Cow<'_, str> {
    let steers = |c: char| !kept(c) && steers(c);
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if steers(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn steers(c: char) -> bool {
    c.is_control() || is_invisible(c)
}

/// Format characters (Unicode category Cf), line and paragraph separators.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Whether to colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    /// For standard output: colour on a terminal, unless `NO_COLOR` is set or the terminal is a dumb one.
    pub(super) fn stdout() -> Self {
        Self::of(io::stdout().is_terminal())
    }

    /// The same for standard error.
    pub(super) fn stderr() -> Self {
        Self::of(io::stderr().is_terminal())
    }

    fn of(terminal: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: terminal && !dumb && !set("NO_COLOR") }
    }

    /// Whether there is any colour.
    pub(super) fn is_coloured(self) -> bool {
        self.colour
    }

    /// Something is wrong.
    pub(super) fn red(self, text: impl fmt::Display) -> String {
        self.paint("31", text)
    }

    /// All is well.
    pub(super) fn green(self, text: impl fmt::Display) -> String {
        self.paint("32", text)
    }

    /// A heading.
    pub(super) fn bold(self, text: impl fmt::Display) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: impl fmt::Display) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// Columns side by side, without lines around them. Cells are escaped.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headers.
    pub(super) fn new<S: AsRef<str>>(headers: impl IntoIterator<Item = S>) -> Self {
        let mut table = Self::default();
        table.row(headers);
        table
    }

    /// One more row. An empty cell is shown as `-`.
    pub(super) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        let cell = |cell: S| match cell.as_ref() {
            "" => "-".to_owned(),
            text => escape(text).into_owned(),
        };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// Whether there is nothing under the headers.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |cell: &String| cell.chars().count();
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(width).max().unwrap_or(0))
            .collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}   ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Writes `text` to standard output at once. A reader that went away (`| head`) is not an error.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A number of bytes, packets or elements in groups of three digits: `1 234 567` would be two cells to `awk`,
/// so the groups are joined by `_`, as in Rust.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of seconds for people: `3d4h`, `2m5s`.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// `1 pod`, `2 pods`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_made_visible() {
        assert_eq!(escape("demo/\x1b[31mdb\r\n"), r"demo/\u{1b}[31mdb\u{d}\u{a}");
        assert_eq!(escape("a\u{202e}b\u{2066}c\u{200b}d\u{9b}e"), r"a\u{202e}b\u{2066}c\u{200b}d\u{9b}e");
        assert_eq!(escape("tag\u{e0041}"), r"tag\u{e0041}");
    }

    #[test]
    fn plain_text_of_any_language_stays() {
        for text in ["demo/db", "größe", "データベース", "a b"] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn lines_stay_lines_but_carriage_returns_do_not() {
        assert_eq!(escape_lines("one\ntwo\rthree"), "one\ntwo\\u{d}three");
    }

    #[test]
    fn json_and_yaml_are_escaped_and_say_the_same() {
        let value = serde_json::json!({ "a\u{202e}": "\u{1b}[31m\u{9b}\u{e0041}\n", "b": ["plain", 1] });

        for text in [json(&value), yaml(&value)] {
            assert!(!text.contains(['\u{1b}', '\u{9b}', '\u{202e}', '\u{e0041}']), "{text:?}");
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
        }
        assert_eq!(yaml(&serde_json::json!({ "a": "b" })), "a: b\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "X"]);
        table.row(["a", ""]);
        table.row(["a-long-name", "é"]);

        assert_eq!(table.to_string(), "NAME          X\na             -\na-long-name   é\n");
    }

    #[test]
    fn a_cell_cannot_break_its_row() {
        let mut table = Table::new(["NAME"]);
        table.row(["a\nroot 0 0"]);

        assert_eq!(table.to_string().lines().count(), 2);
    }

    #[test]
    fn numbers_and_durations_are_readable() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1234567), "1_234_567");
        assert_eq!(duration(59), "59s");
        assert_eq!(duration(3_725), "1h2m");
        assert_eq!(duration(90_000), "1d1h");
    }
}
