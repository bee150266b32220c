//! The table as text for people: `--help`, the reference file, and the report of `-check-config`.
//!
//! This module only makes text; `main` and `commands::check_config` print it. Invariant: `examples/ecs.config.reference` is
//! exactly the text of [`reference()`] (tested), and no text here holds a secret.

use super::args::FLAGS;
use super::keys::{Group, KEYS, Key, Stage};
use super::{Loaded, kind::Kind};
use std::fmt::Write as _;

const WIDTH: usize = 100;

/// The text of `--help`.
pub fn usage() -> String {
    let mut text = String::from("Usage: ecs-agent [flags]\n\nFlags (one or two dashes):\n");
    for flag in FLAGS {
        let name = flag.value.map_or_else(|| format!("-{}", flag.name), |value| format!("-{} {value}", flag.name));
        let _ = writeln!(text, "{}", wrapped(&format!("  {name:<29}"), flag.help, 31));
    }
    text.push_str(
        "\nExit codes: 0 stopped as asked, 1 error (start it again), 5 error that a restart does not cure.\n\n\
         Variables. The first source that has a value is used: the environment; /etc/ecs/ecs.config (NAME=value\n\
         lines, read verbatim); under the name given after JSON, the file of ECS_AGENT_CONFIG_FILE_PATH; EC2 user\n\
         data of the form {\"ECSAgentConfiguration\":{...}}. In JSON a duration is in nanoseconds.\n",
    );
    for (group, rows) in grouped() {
        let _ = writeln!(text, "\n{}", group.title());
        for key in rows {
            let _ = writeln!(text, "  {}", names(key));
            let _ = writeln!(text, "{}", wrapped("      ", &facts(key), 6));
        }
    }
    text
}

/// Every variable, as an `ecs.config` in which all lines are comments.
pub fn reference() -> String {
    let mut text = String::from(
        "# Every variable of ecs-agent. Copy what you need to /etc/ecs/ecs.config and remove the # in front of it.\n\
         # Lines are NAME=value as `docker run --env-file` takes them: no quotes, no export, nothing is expanded.\n\
         # Printed by `ecs-agent -config-reference`.\n",
    );
    for (group, rows) in grouped() {
        let _ = writeln!(text, "\n# ==== {} ====", group.title());
        for key in rows {
            let lines = |facts: &str| wrapped("# ", facts, 2).replace("\n  ", "\n# ");
            if key.is_only_json() {
                let _ = writeln!(text, "\n{}", lines(&format!("{}: {}", key.name, facts(key))));
                continue;
            }
            let _ = writeln!(text, "\n{}", lines(&facts(key)));
            let _ = writeln!(text, "#{}={}", key.name, key.default);
        }
    }
    text
}

/// The text of `-check-config`: every problem, every setting without effect with its reason, then every value in effect.
pub fn report(loaded: &Loaded) -> String {
    let mut text = String::new();
    for problem in &loaded.problems {
        let _ = writeln!(text, "{}: {problem}", if problem.fatal { "fatal" } else { "warning" });
    }
    if !loaded.unsupported.is_empty() {
        let _ = writeln!(text, "not supported yet, without effect: {}", loaded.unsupported.join(", "));
    }
    for name in &loaded.foreign {
        let why = super::keys::find(name).map_or("", |key| key.help);
        let _ = writeln!(text, "without effect: {name}: {why}");
    }
    text.push_str(
        "in effect (only a starting agent reads EC2 user data, which has lower precedence than all files):\n",
    );
    let has_no_effect = |name: &str| loaded.unsupported.contains(&name) || loaded.foreign.contains(&name);
    for value in loaded.effective.iter().filter(|value| !has_no_effect(value.name)) {
        let place = value.place.as_deref().unwrap_or("default");
        let _ = writeln!(text, "  {}={}  ({place})", value.name, value.value);
    }
    text.push_str(if loaded.config.is_some() { "The agent would start.\n" } else { "The agent would not start.\n" });
    text
}

fn grouped() -> impl Iterator<Item = (Group, Vec<&'static Key>)> {
    let mut groups: Vec<Group> = KEYS.iter().map(|key| key.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into_iter().map(|group| (group, KEYS.iter().filter(|key| key.group == group).collect()))
}

fn names(key: &Key) -> String {
    key.alias.map_or_else(|| key.name.to_owned(), |alias| format!("{}, {alias}", key.name))
}

/// The help, expectation, default and stage of a row in one paragraph.
fn facts(key: &Key) -> String {
    let mut text = key.help.to_owned();
    if key.kind != Kind::Text && key.kind != Kind::Trimmed && key.kind != Kind::Secret {
        let _ = write!(text, " Expects {}.", key.kind.expected());
    }
    if let Some(json) = key.json.filter(|json| *json != key.name) {
        let _ = write!(text, " JSON: {json}.");
    }
    if !key.default.is_empty() {
        let _ = write!(text, " Default: {}", key.default);
    }
    text.push_str(match key.stage {
        Stage::Now => "",
        Stage::Later => " [accepted, not supported yet]",
        Stage::Process | Stage::NamesFile => "",
        Stage::Foreign => " [accepted, without effect]",
    });
    if key.fatal {
        text.push_str(" [a bad value is fatal]");
    }
    text
}

/// `first` followed by the words of `text`, wrapped; lines after the first have this indent.
fn wrapped(first: &str, text: &str, indent: usize) -> String {
    let mut out = first.to_owned();
    let mut column = first.chars().count();
    let mut is_line_start = true;
    for word in text.split(' ') {
        let length = word.chars().count();
        if !is_line_start && column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
            is_line_start = true;
        }
        if !is_line_start {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
        is_line_start = false;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_help_names_every_key_and_flag_and_fits_the_screen() {
        let text = usage();
        for key in KEYS {
            assert!(text.contains(&format!("  {}", key.name)), "{}", key.name);
            assert!(key.alias.is_none_or(|alias| text.contains(alias)), "{}", key.name);
        }
        for flag in FLAGS {
            assert!(text.contains(&format!("  -{}", flag.name)), "{}", flag.name);
        }
        for line in text.lines().filter(|line| line.trim().contains(' ')) {
            assert!(line.chars().count() <= 110, "{line}");
        }
    }

    #[test]
    fn the_reference_file_is_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ecs.config.reference");
        let on_disk = std::fs::read_to_string(path).unwrap_or_default();
        assert!(on_disk == reference(), "run: cargo run -- -config-reference > examples/ecs.config.reference");
    }

    #[test]
    fn the_report_lists_values_without_effect_separately() {
        use crate::config::{Environment, Role, Sources};
        let variables = [
            ("ECS_CONFIG_FILE", "/dev/null"),
            ("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS", "true"),
            ("ECS_OFFHOST_INTROSPECTION_INTERFACE_NAME", "eth1"),
            ("ECS_AGENT_LABELS", "{}"),
            ("ECS_ENABLE_TASK_ENI", "true"),
        ];
        let loaded = Sources::open(Environment::new(variables), Role::Agent).load(None);
        let text = report(&loaded);
        let (apart, in_effect) = text.split_once("in effect (").expect("a heading");
        for name in ["ECS_OFFHOST_INTROSPECTION_INTERFACE_NAME: ecs-init", "ECS_AGENT_LABELS: "] {
            assert!(apart.contains(&format!("without effect: {name}")), "{name}\n{text}");
        }
        assert!(apart.contains("without effect: ECS_ENABLE_TASK_ENI"), "{text}");
        assert!(in_effect.contains("ECS_ALLOW_OFFHOST_INTROSPECTION_ACCESS=true"), "{text}");
        for name in ["ECS_OFFHOST_INTROSPECTION_INTERFACE_NAME", "ECS_AGENT_LABELS", "ECS_ENABLE_TASK_ENI="] {
            assert!(!in_effect.contains(name), "{name}\n{text}");
        }
        assert_eq!(loaded.without_effect().len(), 2, "the log names them, too");
    }

    #[test]
    fn the_reference_file_sets_nothing_until_a_hash_is_removed() {
        use crate::config::{EnvFile, Environment, Source};
        let (file, problems) = EnvFile::parse("reference", reference().as_bytes(), &Environment::default());
        assert!(file.keys().is_empty() && problems.is_empty(), "{problems:?}");
    }
}
