//! What an unquoted word of YAML stands for.
//!
//! As kubectl reads it, which is YAML 1.1 with Go's numbers: `yes` and `on` are booleans, and where a string is
//! wanted they are refused rather than taken for one.

/// The meaning of a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'t> {
    /// Nothing, `~` or `null`.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number, written so that every YAML version reads the same.
    Integer(i64),
    /// Any other number.
    Number,
    /// Text.
    String(&'t str),
}

impl<'t> Scalar<'t> {
    /// What `text` stands for when it is not quoted.
    pub(super) fn plain(text: &'t str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Self::Bool(true),
            "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Self::Bool(false),
            _ => number(text).unwrap_or(Self::String(text)),
        }
    }

    /// What it is, for a message.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Integer(_) | Self::Number => "a number",
            Self::String(_) => "a string",
        }
    }
}

fn number(text: &str) -> Option<Scalar<'static>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Scalar::Number);
    }
    let digits = unsigned.replace('_', "");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = digits.strip_prefix(prefix) {
            return (!digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)))
                .then_some(Scalar::Number);
        }
    }
    if digits.bytes().all(|c| c.is_ascii_digit()) {
        // 010 is eight to some and ten to others.
        let unambiguous = digits.len() == unsigned.len() && (digits == "0" || !digits.starts_with('0'));
        return Some(match text.parse() {
            Ok(integer) if unambiguous => Scalar::Integer(integer),
            _ => Scalar::Number,
        });
    }
    is_float(unsigned).then_some(Scalar::Number)
}

/// Digits with a point, an exponent or both.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (text, None),
    };
    let all_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(exponent))
}

#[cfg(test)]
mod tests {
    use super::{Scalar::*, *};

    #[test]
    fn words_mean_what_kubectl_takes_them_for() {
        for (text, expected) in [
            ("", Null),
            ("~", Null),
            ("yes", Bool(true)),
            ("Off", Bool(false)),
            ("y", String("y")),
            ("80", Integer(80)),
            ("-1", Integer(-1)),
            ("+7", Integer(7)),
            ("0", Integer(0)),
            ("99999999999999999999", Number),
            ("010", Number),
            ("1_000", Number),
            ("0x50", Number),
            ("0b102", String("0b102")),
            ("1.0", Number),
            ("1e3", Number),
            (".5", Number),
            ("-.inf", Number),
            (".nan", Number),
            (".", String(".")),
            ("e3", String("e3")),
            ("1e", String("1e")),
            ("10.0.0.0", String("10.0.0.0")),
            ("10.0.0.0/8", String("10.0.0.0/8")),
            ("::1", String("::1")),
            ("2024-01-01T00:00:00Z", String("2024-01-01T00:00:00Z")),
            ("http", String("http")),
            ("-", String("-")),
        ] {
            assert_eq!(Scalar::plain(text), expected, "{text:?}");
        }
    }
}
