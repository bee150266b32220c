//! Settings that are used as they are written, but contradict each other or do not have the effect that their writer expects.
//!
//! This module only warns: it changes no value. It works on canonical values, after [`super::rules`]. Invariant: nothing here keeps
//! the agent from starting.

use super::keys::{Group, KEYS};
use super::names::{LOG_DRIVERS, PLUGIN_CAPABILITIES, unknown_words};
use super::problem::{Problem, Severity};
use super::resolve::{Resolved, Values};
use super::source::Source;
use super::suggest::did_you_mean;

/// Adds the warnings.
pub(super) fn find(values: &Values, sources: &[&dyn Source], problems: &mut Vec<Problem>) {
    problems.extend(log_driver(values));
    problems.extend(disk_limits(values));
    problems.extend(plugin_capability(values));
    problems.extend(closed_port(values));
    problems.extend(no_metrics(values));
    problems.extend(no_firewall(values));
    problems.extend(two_spellings(sources));
}

/// A value that an operator has set.
fn set<'a>(values: &'a Values, name: &str) -> Option<&'a Resolved> {
    values.get(name).filter(|value| value.place.is_some())
}

fn doubt(value: &Resolved, shape: String, expected: String, instead: String) -> Problem {
    let place = value.place.clone().unwrap_or_default();
    Problem { variable: value.name.to_owned(), place, shape, expected, instead, severity: Severity::Changes }
}

/// A log driver of the agent's container. This agent does not pass its log to a driver; as in the Go agent, the setting turns the
/// log file off.
fn log_driver(values: &Values) -> Option<Problem> {
    let driver = set(values, "ECS_LOG_DRIVER")?;
    if values.contains_key("ECS_LOGLEVEL_ON_INSTANCE") {
        return None;
    }
    let shown = LOG_DRIVERS.into_iter().find(|known| *known == driver.canonical).unwrap_or("it");
    let (expected, instead) = if values.contains_key("ECS_LOGFILE") {
        ("no line, or also ECS_LOGLEVEL_ON_INSTANCE", "and no log file is written")
    } else {
        ("no line: `docker run --log-driver` decides", "only to standard output")
    };
    let shape = "set, but this agent does not pass its log to a log driver".to_owned();
    Some(doubt(driver, shape, expected.to_owned(), format!("the agent's log does not go to {shown}, {instead}")))
}

/// Limits of the disk that exclude each other, or have no effect.
fn disk_limits(values: &Values) -> Vec<Problem> {
    const HIGH: &str = "ECS_IMAGE_DISK_HIGH_PERCENT";
    const CLEAN_UP: &str = "ECS_DISABLE_IMAGE_CLEANUP";
    let percent = |value: &Resolved| value.canonical.parse::<u8>().unwrap_or_default();
    let (high, low) = (set(values, HIGH), set(values, "ECS_IMAGE_DISK_LOW_PERCENT"));
    let mut found = Vec::new();
    match (high, low) {
        (None, Some(low)) => {
            let shape = format!("set without a usable {HIGH}");
            found.push(doubt(low, shape, "both".to_owned(), "no image is deleted because of the disk".to_owned()));
        }
        (Some(high), Some(low)) if percent(low) > percent(high) => {
            let shape = format!("`{}` is above {HIGH}, which is {}", low.canonical, high.canonical);
            let expected = format!("at most {}", high.canonical);
            found.push(doubt(low, shape, expected, format!("{} is used for both", high.canonical)));
        }
        _ => {}
    }
    let is_off = |value: &&Resolved| value.canonical == "true";
    if let (Some(_), Some(off)) = (high, set(values, CLEAN_UP).filter(is_off)) {
        let shape = format!("true with {HIGH}");
        let instead = "images are still deleted before a pull while the disk is above it".to_owned();
        found.push(doubt(off, shape, "one of the two".to_owned(), instead));
    }
    found
}

/// A port that is to serve other hosts, which cannot reach it.
fn closed_port(values: &Values) -> Option<Problem> {
    const LOOPBACK: &str = "ECS_INTROSPECTION_LOOPBACK_ONLY";
    let is_on = |value: &&Resolved| value.canonical == "true";
    set(values, LOOPBACK).filter(is_on)?;
    let open = set(values, "ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS").filter(is_on)?;
    let instead = "no other host can connect".to_owned();
    Some(doubt(open, format!("true with {LOOPBACK}"), "one of the two".to_owned(), instead))
}

/// A port that is to serve other hosts, and that is not opened.
fn no_metrics(values: &Values) -> Option<Problem> {
    const ENABLE: &str = "ECS_ENABLE_PROMETHEUS_METRICS";
    let is_on = |value: &&Resolved| value.canonical == "true";
    let open = set(values, "ECS_ALLOW_OFFHOST_PROMETHEUS_ACCESS").filter(is_on)?;
    let enabled = values.get(ENABLE).filter(is_on);
    let shape = format!("true, and {ENABLE} is not");
    enabled.is_none().then(|| doubt(open, shape, "both, or none".to_owned(), "no metrics are served".to_owned()))
}

/// A setting for firewall rules that are not made.
fn no_firewall(values: &Values) -> Option<Problem> {
    const MANAGE: &str = "ECS_MANAGE_FIREWALL";
    set(values, MANAGE).filter(|value| value.canonical == "false")?;
    let skip = set(values, "ECS_SKIP_LOCALHOST_TRAFFIC_FILTER").filter(|value| value.canonical == "true")?;
    let instead = "the agent makes no rules in any case".to_owned();
    Some(doubt(skip, format!("true, and {MANAGE} is false"), "one of the two".to_owned(), instead))
}

/// A capability that no task can ask for.
fn plugin_capability(values: &Values) -> Option<Problem> {
    let value = set(values, "ECS_VOLUME_PLUGIN_CAPABILITIES")?;
    let list: Vec<String> = serde_json::from_str(&value.canonical).unwrap_or_default();
    let (shown, meant) = unknown_words(&list, &PLUGIN_CAPABILITIES).into_iter().next()?;
    let expected = format!("efsAuth{}", meant.map_or_else(String::new, did_you_mean));
    let instead = "it is offered to ECS, but no task asks for it".to_owned();
    Some(doubt(value, format!("{shown} is no capability of the volume plugin"), expected, instead))
}

/// The two spellings of a variable with different values in one source. Those of OpenTelemetry may differ: one is for traces, the
/// other for everything.
fn two_spellings(sources: &[&dyn Source]) -> Vec<Problem> {
    let mut found = Vec::new();
    for (key, alias) in KEYS.iter().filter(|key| key.group != Group::Traces).filter_map(|key| Some((key, key.alias?))) {
        let value = |source: &&dyn Source, name: &str| source.get(name).filter(|value| !value.is_empty());
        let differ = |source: &&&dyn Source| match (value(*source, key.name), value(*source, alias)) {
            (Some(upper), Some(lower)) => upper != lower,
            _ => false,
        };
        found.extend(sources.iter().filter(differ).map(|source| Problem {
            variable: alias.to_owned(),
            place: source.place(alias),
            shape: format!("another value than that of {} beside it", key.name),
            expected: "one of the two".to_owned(),
            instead: format!("{} is used", key.name),
            severity: Severity::Changes,
        }));
    }
    found
}
