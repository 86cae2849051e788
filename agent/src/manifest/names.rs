//! The forms of names, label keys and label values, as the Kubernetes API prescribes them.

/// What a name must look like; the text of the error completes "`x` is not …".
pub(crate) type Form = fn(&str) -> Result<(), &'static str>;

/// One label of a DNS name, RFC 1123: names of namespaces and of service ports.
pub(crate) fn dns_label(name: &str) -> Result<(), &'static str> {
    check(
        name.len() <= 63 && is_label(name),
        "a DNS label: at most 63 lower case letters, digits and `-`, with a letter or digit at both ends",
    )
}

/// One label of a DNS name, RFC 1035: names of services, which become host names.
pub(crate) fn dns_label_1035(name: &str) -> Result<(), &'static str> {
    check(
        name.len() <= 63 && is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase()),
        "a service name: at most 63 lower case letters, digits and `-`, beginning with a letter, not ending with `-`",
    )
}

/// A DNS name, RFC 1123: names of most objects.
pub(crate) fn dns_subdomain(name: &str) -> Result<(), &'static str> {
    check(
        name.len() <= 253 && name.split('.').all(is_label),
        "a DNS name: at most 253 lower case letters, digits, `-` and `.`, with a letter or digit at both ends of each part",
    )
}

/// A key of labels and annotations.
pub(crate) fn label_key(key: &str) -> Result<(), &'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    check(
        prefix.is_none_or(|prefix| dns_subdomain(prefix).is_ok()) && !name.is_empty() && is_label_word(name),
        "a label key: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, after an optional DNS name and `/`",
    )
}

/// A key of annotations: upper case is taken for lower case in its check.
pub(crate) fn annotation_key(key: &str) -> Result<(), &'static str> {
    label_key(&key.to_ascii_lowercase()).map_err(|_| {
        "an annotation key: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, after an optional DNS name and `/`"
    })
}

/// A value of a label.
pub(crate) fn label_value(value: &str) -> Result<(), &'static str> {
    check(
        is_label_word(value),
        "a label value: at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends, or nothing",
    )
}

/// The name of a port that a container declares and others refer to (IANA_SVC_NAME).
pub(crate) fn port_name(name: &str) -> Result<(), &'static str> {
    check(
        name.len() <= 15
            && is_label(name)
            && !name.contains("--")
            && name.contains(|c: char| c.is_ascii_lowercase()),
        "a port name: at most 15 lower case letters, digits and `-`, at least one letter, no `-` at an end or twice in a row",
    )
}

fn check(holds: bool, form: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(form) }
}

fn is_label(text: &str) -> bool {
    text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_label_word(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        && !text.starts_with(['-', '_', '.'])
        && !text.ends_with(['-', '_', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_form(form: Form, good: &[&str], bad: &[&str]) {
        for name in good {
            assert!(form(name).is_ok(), "{name:?} is good");
        }
        for name in bad {
            assert!(form(name).is_err(), "{name:?} is bad");
        }
    }

    #[test]
    fn names_follow_dns() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        assert_form(
            dns_label,
            &["a", "1a", "a-1", &long],
            &["", "-a", "a-", "A", "a.b", "a_b", &longer, "é"],
        );
        assert_form(dns_label_1035, &["a", "a1"], &["1a", "", "a-"]);
        assert_form(dns_subdomain, &["a", "a.b-c.d"], &["", ".a", "a.", "a..b", "a/b", &"a.".repeat(130)]);
    }

    #[test]
    fn label_keys_and_values_are_qualified_names() {
        let longer = "a".repeat(64);
        assert_form(
            label_key,
            &["a", "A_b.c-d", "k8s.io/a"],
            &["", "/a", "a/", "a/b/c", "A/b", "a b", &longer],
        );
        assert_form(annotation_key, &["A/b"], &["", "a b"]);
        assert_form(label_value, &["", "a", "A.b"], &["-", "a b", "a/b", "é", &longer]);
    }

    #[test]
    fn port_names_are_service_names() {
        assert_form(
            port_name,
            &["http", "a1", "1a", "fifteen-letters"],
            &["", "80", "Web", "web-", "-web", "a--b", "a-sixteen-letters", "a.b"],
        );
    }
}
