//! Many texts, or a long one, read on all processors as if one after the other.
//!
//! `---` at the beginning of a line ends a document wherever it stands, in the middle of a scalar too. So a
//! long text is cut there into pieces, and each is read by itself. Only what is right is taken from pieces: a
//! text in which anything is wrong is read again as a whole, so that the parser says what it has to say in
//! sight of all of it.

use super::{Documents, diagnostics::Diagnostics, object, parse::MAX_COPIED, tree::Origin};
use crate::processors::on_all_processors;

/// Bytes from which on a text is cut.
pub(super) const LONG: usize = 64 << 10;

/// A text with its place, and `apiVersion` and `kind` of the object in it where it does not say them.
pub(super) struct Unit<'t> {
    pub(super) origin: Origin<'t>,
    pub(super) implied: Option<(&'t str, &'t str)>,
}

/// What was read of a text or a piece of one.
#[derive(Default)]
struct Outcome {
    documents: Documents,
    found: Diagnostics,
    /// Nodes that aliases stood for.
    copied: usize,
}

/// Reads the units in order; texts longer than `long` are cut.
pub(super) fn read(units: &[Unit<'_>], long: usize, into: &mut Documents, found: &mut Diagnostics) {
    let pieces: Vec<_> = units.iter().map(|unit| cut(&unit.origin, long)).collect();
    let all: Vec<_> = pieces
        .iter()
        .zip(units)
        .flat_map(|(pieces, unit)| pieces.iter().map(|piece| (piece, unit.implied)))
        .collect();
    let mut outcomes = on_all_processors(&all, |(piece, implied)| Outcome::of(piece, *implied)).into_iter();
    for (pieces, unit) in pieces.iter().zip(units) {
        let mut outcomes: Vec<_> = outcomes.by_ref().take(pieces.len()).collect();
        let copied: usize = outcomes.iter().map(|outcome| outcome.copied).sum();
        let is_wrong = copied > MAX_COPIED || outcomes.iter().any(|outcome| outcome.found.errors() > 0);
        if is_wrong && pieces.len() > 1 {
            outcomes = vec![Outcome::of(&unit.origin, unit.implied)];
        }
        for outcome in outcomes {
            into.append(outcome.documents);
            found.extend(outcome.found);
        }
    }
}

impl Outcome {
    fn of(origin: &Origin<'_>, implied: Option<(&str, &str)>) -> Self {
        let mut outcome = Self::default();
        outcome.copied = object::read(origin, implied, &mut outcome.documents, &mut outcome.found);
        outcome
    }
}

/// The text in pieces of whole documents, which have at least `long` bytes but for the last.
fn cut<'t>(origin: &Origin<'t>, long: usize) -> Vec<Origin<'t>> {
    let mut pieces = Vec::new();
    let mut rest = origin.clone();
    // Directives stand before the document that they are about.
    let has_directives =
        ["\n%", "\r%"].iter().any(|line| rest.text.contains(line)) || rest.text.starts_with('%');
    while !has_directives && let Some(end) = next_document(rest.text, long) {
        let (piece, after) = rest.text.split_at(end);
        let lines_before = rest.lines_before + line_breaks(piece);
        pieces.push(Origin { text: piece, ..rest });
        rest = Origin { file: origin.file.clone(), text: after, lines_before, columns_before: 0 };
    }
    pieces.push(rest);
    pieces
}

/// Where the first document begins that has `least` bytes before it.
fn next_document(text: &str, least: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_marker = |at: &usize| {
        bytes[*at..].starts_with(b"---")
            && bytes.get(at + 3).is_none_or(|next| matches!(next, b' ' | b'\t' | b'\r' | b'\n'))
    };
    let mut lines = (least.max(1)..bytes.len()).filter(|at| bytes[at - 1] == b'\n');
    lines.find(is_marker)
}

/// How many lines end in a text, as the parser counts them.
fn line_breaks(text: &str) -> u32 {
    let bytes = text.as_bytes();
    let is_break =
        |(at, byte): (usize, &u8)| *byte == b'\n' || *byte == b'\r' && bytes.get(at + 1) != Some(&b'\n');
    u32::try_from(bytes.iter().enumerate().filter(|at| is_break(*at)).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn in_pieces(texts: &[String], long: usize) -> (Documents, Diagnostics) {
        let (mut documents, mut found) = (Documents::default(), Diagnostics::default());
        let origins = texts.iter().map(|text| Origin::of_file("a.yaml", text));
        let units: Vec<_> = origins.map(|origin| Unit { origin, implied: None }).collect();
        read(&units, long, &mut documents, &mut found);
        found.sort();
        (documents, found)
    }

    /// What documents and their ends are made of, good and bad.
    const PARTS: [&str; 24] = [
        "---\n",
        "--- ",
        "\n---\n",
        "\r\n---\r\n",
        "\r---\r",
        "...\n",
        "---x\n",
        " ---\n",
        "\u{feff}---\n",
        "# comment\n",
        "%TAG ! tag:weir.dev,2000:\n",
        "|\n",
        ">-\n",
        "\"",
        "'",
        "[",
        "&a {x: 1}\n",
        "*a\n",
        "x: [1, 2]\n",
        "- ---\n",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
        "apiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: b\r\n",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: c, labels: {x: |\n---\n}}\n",
        "apiVersion: v1\nkind: Namespace\nmetadata: {nmae: d}\n",
    ];

    proptest! {
        #[test]
        fn a_text_in_pieces_says_what_it_says_as_a_whole(
            texts in prop::collection::vec(prop::collection::vec(prop::sample::select(&PARTS[..]), 0..12), 1..4),
            long in 1_usize..80,
        ) {
            let texts: Vec<_> = texts.iter().map(|parts| parts.concat()).collect();
            prop_assert_eq!(in_pieces(&texts, long), in_pieces(&texts, usize::MAX));
        }
    }

    #[test]
    fn a_long_text_is_cut_where_documents_begin() {
        let text = "a: 1\n---\nb: |\n ---\n--- # c\nc: 3\n---\n";
        let pieces = cut(&Origin::of_file("a.yaml", text), 1);
        let texts: Vec<_> = pieces.iter().map(|piece| (piece.lines_before, piece.text)).collect();
        assert_eq!(texts, [(0, "a: 1\n"), (1, "---\nb: |\n ---\n"), (4, "--- # c\nc: 3\n"), (6, "---\n")]);
    }

    #[test]
    fn aliases_of_all_pieces_are_counted_together() {
        let document = |name: &str| {
            let items = vec!["x"; 300].join(", ");
            let aliases = vec!["*a"; 300].join(", ");
            format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\na: &a [{items}]\nb: [{aliases}]\n"
            )
        };
        let texts = [["a", "b", "c"].map(document).concat()];
        let (_, found) = in_pieces(&texts, 100);
        assert!(found.to_string().contains("aliases stand for more than"), "{found}");
        assert_eq!(in_pieces(&texts, usize::MAX).1, found);
    }
}
