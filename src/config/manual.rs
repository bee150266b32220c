//! The manual page `ecs-agent(8)`, made from the tables of flags and variables.
//!
//! This module only makes text, in the macros of man(7). Invariant: no text of a table is taken as a macro or an escape (tested with
//! `man` in `tests/agent`).

use super::flags::FLAGS;
use super::help::{EXIT_CODES, FILES, SIGNALS, SOURCES, facts, grouped, names};
use std::fmt::Write as _;

/// The text of the page.
pub fn page() -> String {
    let mut text = format!(
        ".TH ECS\\-AGENT 8 \"\" \"ecs\\-agent {}\" \"Amazon ECS\"\n\
         .SH NAME\necs\\-agent \\- agent of an Amazon ECS container instance\n\
         .SH SYNOPSIS\n.B ecs\\-agent\n[\\fIFLAG\\fR...]\n.br\n.B ecs\\-agent\n\\fICOMMAND\\fR [\\fIFLAG\\fR...]\n\
         .SH DESCRIPTION\nWithout a command, the agent registers this instance with a cluster, runs the tasks that ECS sends \
         with Docker, and reports their state. A command may be written as a word, or as a flag with one or two dashes.\n",
        env!("CARGO_PKG_VERSION")
    );
    for (title, is_command) in [("COMMANDS", true), ("FLAGS", false)] {
        let _ = writeln!(text, ".SH {title}");
        for flag in FLAGS.iter().filter(|flag| flag.is_command() == is_command && flag.name != "h") {
            let value = flag.value.map_or_else(String::new, |value| format!(" \\fI{}\\fR", escaped(value)));
            let dash = if is_command { "" } else { "\\-" };
            item(&mut text, &format!("\\fB{dash}{}\\fR{value}", escaped(flag.name)), flag.help);
        }
    }
    text.push_str(".SH EXIT STATUS\n");
    for (code, meaning) in EXIT_CODES {
        item(&mut text, &format!("\\fB{code}\\fR"), meaning);
    }
    let _ = writeln!(text, ".SH VARIABLES\n{}", escaped(SOURCES));
    for (group, rows) in grouped() {
        let _ = writeln!(text, ".SS {}", escaped(group.title()));
        for key in rows {
            item(&mut text, &format!("\\fB{}\\fR", escaped(&names(key))), &facts(key));
        }
    }
    text.push_str(".SH EXAMPLES\n");
    for (line, effect) in FLAGS.iter().flat_map(|flag| flag.examples) {
        item(&mut text, &format!("\\fB{}\\fR", escaped(line)), effect);
    }
    for (title, rows) in [("FILES", &FILES[..]), ("SIGNALS", &SIGNALS[..])] {
        let _ = writeln!(text, ".SH {title}");
        for (name, meaning) in rows {
            item(&mut text, &format!("\\fB{}\\fR", escaped(name)), meaning);
        }
    }
    text.push_str(".SH SEE ALSO\n.BR docker (1),\n.BR systemctl (1)\n");
    text
}

fn item(text: &mut String, name: &str, help: &str) {
    let _ = writeln!(text, ".TP\n{name}\n{}", escaped(help));
}

/// A text in which nothing is an escape or a macro.
fn escaped(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::super::keys::KEYS;
    use super::*;

    #[test]
    fn the_page_has_every_flag_and_variable() {
        let page = page();
        for flag in FLAGS.iter().filter(|flag| flag.name != "h") {
            let dash = if flag.is_command() { "" } else { "\\-" };
            assert!(page.contains(&format!("\n\\fB{dash}{}\\fR", escaped(flag.name))), "{}", flag.name);
        }
        for title in ["EXAMPLES", "FILES", "SIGNALS", "EXIT STATUS"] {
            assert_eq!(page.matches(&format!("\n.SH {title}\n")).count(), 1, "{title}");
        }
        for key in KEYS {
            assert!(page.contains(&format!("\n\\fB{}", escaped(key.name))), "{}", key.name);
        }
    }

    #[test]
    fn no_text_is_taken_as_a_macro() {
        for (text, wanted) in [("a-b", "a\\-b"), ("a\\b", "a\\eb"), (".x", "\\&.x"), ("'x", "\\&'x"), ("x.", "x.")] {
            assert_eq!(escaped(text), wanted);
        }
        let macros = [".TH", ".SH", ".SS", ".TP", ".B ", ".BR", ".br"];
        for line in page().lines().filter(|line| line.starts_with(['.', '\''])) {
            assert!(macros.iter().any(|name| line.starts_with(name)), "{line}");
        }
    }
}
