//! Annotations that say how the backends of a service are checked.

use std::{ops::RangeInclusive, time::Duration};

use crate::{
    cluster::{Probe, ProbeKind},
    manifest::{diagnostics::quote, fields::Fields, kinds::meta, node::Node},
};

const PREFIX: &str = "weir.dev/health-check";
const KINDS: [(&str, bool); 2] = [("tcp", false), ("http", true)];
/// What may follow the prefix.
const SETTINGS: [&str; 5] = ["-path", "-interval", "-timeout", "-failures", "-successes"];

const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
const THRESHOLDS: RangeInclusive<u32> = 1..=100;

/// The check that the annotations ask for. Settings that no check reads are errors, and so are unknown ones.
pub(super) fn read(object: &Fields<'_>) -> Option<Probe> {
    refuse_unknown(object);
    let setting = |name: &str| meta::annotation(object, &format!("{PREFIX}{name}"));
    let kind = setting("");
    let Some(node) = kind else {
        for set in SETTINGS.iter().filter_map(|name| setting(name)) {
            set.error(format!("without effect: {PREFIX} is not set"));
        }
        return None;
    };
    let is_http = node.one_of(&KINDS)?;
    let path = setting("-path");
    if let (false, Some(path)) = (is_http, path) {
        path.error(format!("only a check by http has a path; this one is by {}", quote("tcp")));
    }
    let path = path.map_or(Some("/"), |node| node.parsed(request_path));
    let span = |name, default: Duration| setting(name).map_or(Some(default), |node| node.parsed(duration));
    let count = |name, default| setting(name).map_or(Some(default), |node| node.parsed(threshold));
    let interval = span("-interval", Duration::from_secs(5));
    let timeout = span("-timeout", Duration::from_secs(1).min(interval.unwrap_or(Duration::MAX)));
    let (failures, successes) = (count("-failures", 3), count("-successes", 2));
    if let (Some(interval), Some(timeout), Some(node)) = (interval, timeout, setting("-timeout"))
        && timeout > interval
    {
        node.error(format!("the timeout is longer than the interval, {interval:?}"));
    }
    let kind = match is_http {
        true => ProbeKind::Http { path: path?.to_owned() },
        false => ProbeKind::Tcp,
    };
    Some(Probe { kind, interval: interval?, timeout: timeout?, failures: failures?, successes: successes? })
}

fn refuse_unknown(object: &Fields<'_>) {
    let annotations = object.get("metadata").and_then(|meta| meta.value_of("annotations"));
    for (key, node, _) in annotations.and_then(Node::entries).unwrap_or_default() {
        if let Some(rest) = key.strip_prefix(PREFIX).filter(|rest| !rest.is_empty())
            && !SETTINGS.contains(&rest)
        {
            node.error(format!(
                "unknown annotation {}; after {PREFIX} may come {}",
                quote(key),
                SETTINGS.join(", ")
            ));
        }
    }
}

/// What may stand in a request line: a path from the root, in printable ASCII.
fn request_path(text: &str) -> Result<&str, String> {
    let fits =
        text.len() <= 1024 && text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    match fits && !text.contains('#') {
        true => Ok(text),
        false => {
            Err(format!("{} is not a path of a request: it begins with `/`, without spaces", quote(text)))
        }
    }
}

/// `500ms`, `5s`, `2m`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let number = digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let unit = match &text[digits.len()..] {
        "ms" => Some(Duration::from_millis(1)),
        "s" => Some(Duration::from_secs(1)),
        "m" => Some(Duration::from_secs(60)),
        _ => None,
    };
    let duration = number.zip(unit).and_then(|(number, unit)| unit.checked_mul(number));
    duration
        .filter(|duration| INTERVALS.contains(duration))
        .ok_or_else(|| format!("{} is not a time from 100ms to 60m, as `500ms`, `5s`, `2m`", quote(text)))
}

fn threshold(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| THRESHOLDS.contains(number) && !text.starts_with('+'));
    number.ok_or_else(|| format!("{} is not a number from 1 to 100", quote(text)))
}
