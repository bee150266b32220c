//! The report of `check-config` about one loaded configuration, as text and as JSON.
//!
//! This module makes text only; `commands::check_config` loads and prints. The JSON is described in `src/config/ecs_config.md`.
//! Invariants: no secret is in a report; names of members in the JSON do not change.

use super::args::COMMAND_LINE;
use super::defaults::SERVICE;
use super::document::USER_DATA;
use super::keys::{Key, Stage};
use super::resolve::CLUSTER;
use super::rules::REFUSED;
use super::source::ENVIRONMENT;
use super::{Effective, Loaded, Problem, Severity, Unused};
use ecs_core::model::text::cleaned;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The text: the values in effect that are not defaults, with `lists_all` also those, what is wrong, the worst last, and the verdict.
/// The values come first, since they are long and a terminal shows the end.
pub fn text(loaded: &Loaded, lists_all: bool) -> String {
    let mut text = String::new();
    if loaded.has_unusable_file {
        text.push_str("A file cannot be used, so the values in effect are not shown.\n");
    } else {
        values(loaded, lists_all, &mut text);
    }
    if let Some(file) = &loaded.missing_file {
        let _ = writeln!(text, "{} is not there: the environment and the defaults are used.", cleaned(file));
    }
    if let Some(config) = &loaded.config {
        text.push_str(match config.manage_firewall {
            true => {
                "firewall: the agent makes rules for 169.254.170.2 and port 51678 if it has CAP_NET_ADMIN and finds iptables; if not, \
                 run `ecs-agent host-setup` on the host (-print shows the rules)\n"
            }
            false => "firewall: left to others; containers reach the agent at 169.254.170.2 only by their rules\n",
        });
    }
    let unused = loaded.unused.iter().map(|Unused { key, place }| {
        let (why, severity) = (reason(key), key.severity);
        let line = format!("{} ({place}): {why}; {}", key.name, key.consequence);
        (rank(severity, place), format!("without effect, {}: {}", severity.word(), cleaned(&line)))
    });
    let problems = loaded
        .problems
        .iter()
        .map(|problem| (rank(problem.severity, &problem.place), format!("{}: {problem}", problem.severity.word())));
    let mut findings: Vec<_> = unused.chain(problems).collect();
    findings.sort_by(|(rank, _), (other, _)| rank.cmp(other));
    for (_, line) in findings {
        let _ = writeln!(text, "{line}");
    }
    text.push_str(match loaded.severity() {
        Some(Severity::Fatal) => "The agent would not start.\n",
        Some(Severity::Changes) if loaded.problems.iter().any(|problem| problem.instead == REFUSED) => {
            "The agent would start, but the instance could not register: see the warnings.\n"
        }
        Some(Severity::Changes) => "The agent would start, but not do all that is written: see the warnings.\n",
        Some(Severity::Notice) | None => "The agent would start.\n",
    });
    text
}

fn values(loaded: &Loaded, lists_all: bool, text: &mut String) {
    text.push_str(
        "in effect (only a starting agent reads EC2 user data, which has lower precedence than all files):\n",
    );
    // The most important setting is shown in any case.
    let is_own = |value: &&Effective| !value.is_default || value.name == CLUSTER;
    let (own, defaults): (Vec<&Effective>, Vec<&Effective>) = loaded.effective.iter().partition(is_own);
    text.extend(own.into_iter().map(line));
    if lists_all {
        text.extend(defaults.into_iter().map(line));
    } else if !defaults.is_empty() {
        let _ = writeln!(text, "  and {} defaults, which -all lists", defaults.len());
    }
    if !loaded.idle.is_empty() {
        text.push_str("the same without these lines, since their features are not supported yet:\n");
    }
    text.extend(loaded.idle.iter().map(line));
}

/// One value in effect.
fn line(Effective { name, value, place, .. }: &Effective) -> String {
    let place = place.as_deref().unwrap_or("default");
    match value {
        Some(value) => format!("  {name}={value}  ({place})\n"),
        None => format!("  {name}  (unusable, {place})\n"),
    }
}

/// The order of findings: what is fatal last, beside the verdict; else by source and line.
fn rank(severity: Severity, place: &str) -> (bool, u8, String, u64) {
    let (file, line) = file_and_line(place);
    let source = match place {
        ENVIRONMENT => 0,
        COMMAND_LINE => 3,
        _ if file.is_some() => 1,
        _ => 2,
    };
    (severity == Severity::Fatal, source, file.unwrap_or(place).to_owned(), line.unwrap_or_default())
}

/// One member of `checks` in the JSON document. `file` is the checked file; `None`: the files of a start.
pub fn json(file: Option<&str>, loaded: &Loaded) -> Value {
    let unused = |stage| Value::from_iter(loaded.unused_at(stage).map(unused));
    json!({
        "file": file,
        "starts": loaded.config.is_some(),
        "severity": loaded.severity().map(Severity::word),
        "problems": Value::from_iter(sorted(&loaded.problems).into_iter().map(problem)),
        "unsupported": unused(Stage::Later),
        "foreign": unused(Stage::Foreign),
        "effective": Value::from_iter(loaded.effective.iter().filter(|_| !loaded.has_unusable_file).map(|value| {
            json!({"setting": value.name, "value": value.value, "place": value.place})
        })),
    })
}

fn sorted(problems: &[Problem]) -> Vec<&Problem> {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|problem| rank(problem.severity, &problem.place));
    sorted
}

fn problem(problem: &Problem) -> Value {
    let Problem { variable, place, shape, expected, instead, severity } = problem;
    let (file, line) = file_and_line(place);
    json!({
        "severity": severity.word(),
        "setting": (!variable.is_empty()).then(|| cleaned(variable)),
        "place": place,
        "file": file,
        "line": line,
        "found": cleaned(shape),
        "expected": expected,
        "consequence": instead,
    })
}

fn unused(Unused { key, place }: &Unused) -> Value {
    let (file, line) = file_and_line(place);
    json!({
        "severity": key.severity.word(),
        "setting": key.name,
        "place": place,
        "file": file,
        "line": line,
        "consequence": key.consequence,
    })
}

fn reason(key: &Key) -> &'static str {
    if key.stage == Stage::Foreign { "without a meaning for this agent" } else { "not supported yet" }
}

/// The file and the line of a place; `None` if it is no file, or has no line.
fn file_and_line(place: &str) -> (Option<&str>, Option<u64>) {
    let with_line = place.rsplit_once(':').and_then(|(file, line)| Some((file, Some(line.parse().ok()?))));
    let (file, line) = with_line.unwrap_or((place, None));
    let is_file = ![ENVIRONMENT, COMMAND_LINE, USER_DATA, SERVICE].contains(&file);
    (Some(file).filter(|file| is_file && !file.is_empty()), line)
}
