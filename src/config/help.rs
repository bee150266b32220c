//! The tables as text for people: the help, and the reference file.
//!
//! This module only makes text; `main` prints it. Invariant: `examples/ecs.config.reference` is
//! exactly the text of [`reference()`] (tested), and no text here holds a secret.

use super::flags::{FLAGS, Flag, find};
use super::keys::{Group, KEYS, Key, Stage};
use super::kind::Kind;
use std::fmt::Write as _;

const WIDTH: usize = 100;

/// The exit codes of all commands, with their meanings.
pub(super) const EXIT_CODES: [(u8, &str); 4] = [
    (0, "stopped as asked; a command has done its work"),
    (1, "error (start it again); not healthy"),
    (
        2,
        "unknown command, or a wrong argument of one; check-config has found something that changes what the agent does",
    ),
    (5, "error that a restart does not cure; bad flag"),
];

/// The sources of variables, and how they are read.
pub(super) const SOURCES: &str = "The first source that has a value is used: the environment; /etc/ecs/ecs.config (NAME=value lines, read \
     verbatim); under the name given after JSON, the file of ECS_AGENT_CONFIG_FILE_PATH; EC2 user data of the form \
     {\"ECSAgentConfiguration\":{...}}. In JSON a duration is in nanoseconds.";

/// The signals that an operator may send, with their effects.
pub(super) const SIGNALS: [(&str, &str); 3] = [
    ("SIGTERM, SIGINT", "Stop. No task is stopped."),
    ("SIGHUP", "Read ECS_LOGLEVEL and ECS_LOGLEVEL_ON_INSTANCE again."),
    ("SIGUSR1", "Log what every task waits for, and the progress of its pulls."),
];

/// The files of the agent; those of the unit, which starts it with -service.
pub(super) const FILES: [(&str, &str); 7] = [
    ("/usr/libexec/ecs-agent", "This program, where the unit expects it. The directory is not in PATH."),
    ("/etc/ecs/ecs.config", "The settings, as NAME=value lines."),
    ("/var/lib/ecs/ecs.config", "With -service: settings of the machine image, below those of the operator."),
    ("/etc/ecs/ecs.config.json", "With -service: settings in JSON."),
    ("/var/lib/ecs/data", "With -service: the state (ECS_DATADIR)."),
    ("/var/log/ecs/ecs-agent.log", "With -service: the log, which is also on standard output (ECS_LOGFILE)."),
    ("/run/ecs-agent", "Locks: one agent for one Docker engine."),
];

/// The exit codes of a command that only prints a text.
const PRINTED: &[(u8, &str)] = &[(0, "printed")];

/// The text of `ecs-agent help`, or of `ecs-agent help COMMAND`.
pub fn usage(topic: Option<&str>) -> String {
    topic.and_then(find).map_or_else(all, command)
}

/// The help of one command, with its flags, exit codes and examples.
fn command(command: &Flag) -> String {
    let value = command.value.map_or_else(String::new, |value| format!(" {value}"));
    let mut text = format!("Usage: ecs-agent {}{value} [FLAG...]\n\n{}\n", command.name, wrapped("", command.help, 0));
    let flags = command.flags.iter().filter_map(|name| find(name));
    for (number, flag) in flags.enumerate() {
        let heading = if number == 0 { "\nFlags (one or two dashes):\n" } else { "" };
        let _ = write!(text, "{heading}{}", flag_line(flag, "-"));
    }
    text.push_str("\nExit codes:\n");
    let exits = if command.exits.is_empty() { PRINTED } else { command.exits };
    for (code, meaning) in exits {
        let _ = writeln!(text, "{}", wrapped(&format!("  {code}  "), meaning, 5));
    }
    for (number, (line, effect)) in command.examples.iter().enumerate() {
        let heading = if number == 0 { "\nExamples:\n" } else { "" };
        let _ = write!(text, "{heading}  {line}\n      {effect}\n");
    }
    text
}

fn flag_line(flag: &Flag, dash: &str) -> String {
    let name = flag.value.map_or_else(|| flag.name.to_owned(), |value| format!("{} {value}", flag.name));
    format!("{}\n", wrapped(&format!("  {:<29}", format!("{dash}{name}")), flag.help, 31))
}

/// Every command, flag and variable.
fn all() -> String {
    let mut text = String::from(
        "Usage: ecs-agent [FLAG...]             run the agent\n       ecs-agent COMMAND [FLAG...]\n\n\
         Commands (also as flags, such as -version):\n",
    );
    let (commands, flags): (Vec<&Flag>, Vec<&Flag>) = FLAGS.iter().partition(|flag| flag.is_command());
    let named = commands.iter().filter(|flag| flag.name.len() > 1);
    text.extend(named.map(|flag| flag_line(flag, "")));
    text.push_str("\nFlags (one or two dashes):\n");
    text.extend(flags.iter().map(|flag| flag_line(flag, "-")));
    text.push_str("\nExit codes:\n");
    for (code, meaning) in EXIT_CODES {
        let _ = writeln!(text, "{}", wrapped(&format!("  {code}  "), meaning, 5));
    }
    let _ = writeln!(text, "\n{}", wrapped("Variables.", &format!(" {SOURCES}"), 0));
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

pub(super) fn grouped() -> impl Iterator<Item = (Group, Vec<&'static Key>)> {
    let mut groups: Vec<Group> = KEYS.iter().map(|key| key.group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups.into_iter().map(|group| (group, KEYS.iter().filter(|key| key.group == group).collect()))
}

pub(super) fn names(key: &Key) -> String {
    key.alias.map_or_else(|| key.name.to_owned(), |alias| format!("{}, {alias}", key.name))
}

/// The help, expectation, default and stage of a row in one paragraph.
pub(super) fn facts(key: &Key) -> String {
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
        let text = usage(None);
        for key in KEYS {
            assert!(text.contains(&format!("  {}", key.name)), "{}", key.name);
            assert!(key.alias.is_none_or(|alias| text.contains(alias)), "{}", key.name);
        }
        for flag in FLAGS {
            let dash = if flag.is_command() { "" } else { "-" };
            assert!(flag.name == "h" || text.contains(&format!("\n  {dash}{}", flag.name)), "{}", flag.name);
        }
        for line in text.lines().filter(|line| line.trim().contains(' ')) {
            assert!(line.chars().count() <= 110, "{line}");
        }
    }

    #[test]
    fn the_help_of_a_command_has_its_flags_codes_and_examples() {
        let text = usage(Some("check-config"));
        for part in
            ["Usage: ecs-agent check-config [FILE...] [FLAG...]\n", "  -strict", "  -service", "\n  2  ", "new.config"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("ECS_CLUSTER") && text.lines().count() < 40, "{text}");
        for flag in FLAGS.iter().filter(|flag| flag.is_command()) {
            let text = usage(Some(flag.name));
            assert!(text.contains("Exit codes:\n  0  ") && text.len() < 3_000, "{}: {text}", flag.name);
        }
        assert_eq!(usage(Some("nothing")), usage(None));
    }

    #[test]
    fn the_reference_file_is_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/ecs.config.reference");
        let on_disk = std::fs::read_to_string(path).unwrap_or_default();
        assert!(on_disk == reference(), "run: cargo run -- -config-reference > examples/ecs.config.reference");
    }

    #[test]
    fn the_reference_file_sets_nothing_until_a_hash_is_removed() {
        use crate::config::{EnvFile, Environment, Source};
        let (file, problems) = EnvFile::parse("reference", reference().as_bytes(), &Environment::default());
        assert!(file.keys().is_empty() && problems.is_empty(), "{problems:?}");
    }
}
