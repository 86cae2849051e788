//! Input that is out to harm.

use std::{fmt::Write as _, time::Instant};

use proptest::prelude::*;
use weir::manifest::{self, Reader};

use super::{errors, policy, read};

const VALID: &str = include_str!("valid.yaml");

#[test]
fn the_sample_is_valid() {
    assert_eq!(read(VALID).objects.len(), 10);
}

#[test]
fn aliases_do_not_grow_without_bound() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let item = format!("*a{}", level - 1);
        writeln!(bomb, "a{level}: &a{level} [{}]", vec![item; 9].join(", ")).unwrap();
    }
    let begin = Instant::now();
    let said = errors(&bomb);
    assert!(said.iter().any(|said| said.contains("aliases stand for more than")), "{:?}", &said[..1]);
    assert!(begin.elapsed().as_secs() < 5);
}

#[test]
fn an_alias_inside_of_its_own_anchor_is_an_error() {
    assert!(errors("a: &a [*a]").concat().contains("inside of its own anchor"));
    assert!(errors("a: *b").concat().contains("no anchor `&b`"));
}

#[test]
fn merged_keys_yield_to_those_that_stand_there() {
    let merge = |with: &str| {
        format!("a: &a {{x: one, z: one}}\nb: &b {{x: two, w: two}}\nc: {{<<: {with}, z: own}}\n")
    };
    let json = |with: &str| manifest::to_json("x", &merge(with)).unwrap()[0]["c"].to_string();
    assert_eq!(json("*a"), r#"{"x":"one","z":"own"}"#);
    assert_eq!(json("[*b, *a]"), r#"{"w":"two","x":"two","z":"own"}"#);
    for bad in ["1", "[1]", "null"] {
        assert!(manifest::to_json("x", &merge(bad)).is_err(), "{bad}");
    }
    let misspelled = "{apiVersion: v1, kind: Namespace, metadata: {name: a}, <<: 1, sepc: {}}";
    assert_eq!(errors(misspelled).len(), 2);
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")] {
        let said = errors(&(open.repeat(10_000) + &close.repeat(10_000)));
        assert!(said.iter().any(|said| said.contains("syntax error")), "{:?}", &said[..1]);
    }
}

#[test]
fn line_ends_tabs_and_byte_order_marks_are_taken_as_they_are() {
    let plain = read(VALID);
    assert_eq!(read(&VALID.replace('\n', "\r\n")).objects.len(), plain.objects.len());
    assert_eq!(read(&format!("\u{feff}{VALID}")).objects.len(), plain.objects.len());
    assert!(!errors("a:\n\t- b").is_empty());
    assert!(!errors("a: \0").is_empty());
    let said = errors(&format!("\u{feff}{}", policy("{x: 1}")));
    assert!(said[0].starts_with("test.yaml:5:8:"), "{said:?}");
    assert!(Reader::default().bytes("x", vec![0xff, 0xfe, 0x61, 0]).finish().is_err());
}

#[test]
fn documents_without_content_are_nothing() {
    for text in ["", "\n", "---\n---\n", "# only\n---\n# comments\n", "...\n", "---\nnull\n", "---\n~\n..."] {
        assert!(read(text).objects.is_empty(), "{text:?}");
    }
}

#[test]
fn ten_thousand_documents_are_each_read() {
    let mut text = String::new();
    for number in 0..10_000 {
        writeln!(text, "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: n{number}}}").unwrap();
    }
    let documents = read(&text);
    assert_eq!(documents.objects.len(), 10_000);
    assert_eq!(documents.objects[9_999].text().source.line, 39_998);
}

#[test]
fn errors_without_number_are_told_up_to_a_number() {
    let ports = vec!["{port: 0}"; 20_000].join(", ");
    let said = errors(&policy(&format!("{{ingress: [{{ports: [{ports}]}}]}}")));
    assert!(said.iter().any(|said| said.contains("too many errors")), "{}", said.len());
}

#[test]
fn tags_of_yaml_are_honoured_and_others_refused() {
    read(&policy("{podSelector: {matchLabels: {a: !!str 80}}}"));
    read(&policy("{ingress: [{ports: [{port: !!int \"80\"}]}]}"));
    for tag in ["!!binary", "!secret", "!!python/object:x"] {
        assert!(
            errors(&policy(&format!("{{podSelector: {{matchLabels: {{a: {tag} b}}}}}}")))[0].contains("tag")
        );
    }
}

/// A change to a text at some place.
#[derive(Clone, Debug)]
enum Change {
    Remove(usize, usize),
    Insert(usize, String),
    Copy(usize, usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..VALID.len();
    let hostile = prop::sample::select(vec![
        "\0",
        "\t",
        "\r",
        "*a",
        "&a ",
        "<<: ",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "---\n",
        "...\n",
        "!!x ",
        "|",
        ">",
        "'",
        "\"",
        "\u{feff}",
        "é",
        "\u{202e}",
        "70000",
        "null",
        "? ",
        "%YAML 1.1\n",
        "#",
        "\n",
        "  ",
        "-1",
        "10.0.0.0/8",
        "true",
    ]);
    prop_oneof![
        (at.clone(), 0..40_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (at.clone(), hostile).prop_map(|(at, text)| Change::Insert(at, text.to_owned())),
        (at.clone(), ".{0,8}").prop_map(|(at, text)| Change::Insert(at, text)),
        (at.clone(), at, 0..200_usize).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
    ]
}

fn apply(changes: &[Change]) -> String {
    let mut text = VALID.to_owned();
    for change in changes {
        let floor = |text: &str, at: usize| text.floor_char_boundary(at.min(text.len()));
        match change {
            Change::Remove(at, length) => {
                let (from, to) = (floor(&text, *at), floor(&text, at + length));
                text.replace_range(from..to, "");
            }
            Change::Insert(at, new) => text.insert_str(floor(&text, *at), new),
            Change::Copy(from, to, length) => {
                let piece = text[floor(&text, *from)..floor(&text, from + length)].to_owned();
                text.insert_str(floor(&text, *to), &piece);
            }
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_to_a_manifest_makes_the_reader_panic(changes in prop::collection::vec(change(), 1..6)) {
        let text = apply(&changes);
        match manifest::from_text("x", &text) {
            Ok(documents) => {
                // What was accepted is accepted again from where it is kept.
                let reader = Reader::default().kept(documents.objects.iter().map(manifest::Object::text));
                prop_assert_eq!(reader.finish().map(|kept| kept.objects), Ok(documents.objects));
            }
            Err(diagnostics) => {
                let rendered = diagnostics.render(false);
                prop_assert!(rendered.chars().all(|c| c == '\n' || !c.is_control()));
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*", bytes: Vec<u8>) {
        let _ = manifest::from_text("x", &text);
        let _ = Reader::default().bytes("x", bytes).finish();
    }
}
