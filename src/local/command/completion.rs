//! Completions of the command line for shells. This module owns their text, which is made from the tables of options. Invariant: every
//! command and every option is in it.

use super::option_names::{COMMANDS, FLAGS, ONLY_UP, TAKE_VALUES, TOP_FLAGS, TOP_VALUES};
use std::fmt::Write;

/// The shells that have completions.
const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The completions for a shell.
///
/// # Errors
/// The name is missing, or names no shell that has completions.
pub(super) fn script(shell: Option<&str>) -> Result<String, String> {
    match shell {
        Some("bash") => Ok(bash()),
        Some("zsh") => Ok(zsh()),
        Some("fish") => Ok(fish()),
        other => {
            let given = other.map(|name| format!(", not `{name}`")).unwrap_or_default();
            Err(format!("completion needs the name of a shell: bash, zsh or fish{given}"))
        }
    }
}

/// The options of `serve` or `up`.
fn options(is_serve: bool) -> impl Iterator<Item = &'static str> {
    TAKE_VALUES.into_iter().chain(FLAGS).filter(move |name| !is_serve || !ONLY_UP.contains(name))
}

fn words(is_serve: bool) -> String {
    options(is_serve).collect::<Vec<_>>().join(" ")
}

/// The options of `top`.
fn top_words() -> String {
    TOP_VALUES.into_iter().chain(TOP_FLAGS).collect::<Vec<_>>().join(" ")
}

fn bash() -> String {
    format!(
        r#"# bash completion for ecs-local
_ecs_local() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if [ "$COMP_CWORD" = 1 ]; then
        words='{commands}'
    elif [ "${{COMP_WORDS[1]}}" = completion ]; then
        words='{shells}'
    elif [ "${{word:0:1}}" = - ]; then
        case ${{COMP_WORDS[1]}} in
        serve) words='{serve}' ;;
        up) words='{up}' ;;
        top) words='{top}' ;;
        clean) words='--all --help' ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _ecs_local ecs-local"#,
        commands = COMMANDS.join(" "),
        shells = SHELLS.join(" "),
        serve = words(true),
        up = words(false),
        top = top_words(),
    )
}

fn zsh() -> String {
    format!(
        r#"#compdef ecs-local
_ecs_local() {{
    if (( CURRENT == 2 )); then
        compadd {commands}
    elif [[ $words[2] == completion ]]; then
        compadd {shells}
    elif [[ $words[CURRENT] == -* ]]; then
        case $words[2] in
        serve) compadd -- {serve} ;;
        up) compadd -- {up} ;;
        top) compadd -- {top} ;;
        clean) compadd -- --all --help ;;
        esac
    else
        _files
    fi
}}
compdef _ecs_local ecs-local"#,
        commands = COMMANDS.join(" "),
        shells = SHELLS.join(" "),
        serve = words(true),
        up = words(false),
        top = top_words(),
    )
}

fn fish() -> String {
    let mut text = format!(
        "# fish completion for ecs-local\ncomplete -c ecs-local -n __fish_use_subcommand -f -a '{}'\n\
         complete -c ecs-local -n '__fish_seen_subcommand_from completion' -f -a '{}'\n\
         complete -c ecs-local -n '__fish_seen_subcommand_from clean' -f -l all",
        COMMANDS.join(" "),
        SHELLS.join(" ")
    );
    let all = [
        ("serve", options(true).collect::<Vec<_>>()),
        ("up", options(false).collect()),
        ("top", TOP_VALUES.into_iter().chain(TOP_FLAGS).collect()),
    ];
    for (command, options) in all {
        for option in options {
            let value = if TAKE_VALUES.contains(&option) || TOP_VALUES.contains(&option) { " -r" } else { "" };
            let name = option.trim_start_matches('-');
            // Writing to a String cannot fail.
            let _ = write!(text, "\ncomplete -c ecs-local -n '__fish_seen_subcommand_from {command}' -l {name}{value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn every_option_has_completions_in_every_shell() {
        for shell in SHELLS {
            let text = script(Some(shell)).unwrap();
            for word in options(false).chain(COMMANDS).chain(TOP_VALUES).chain(TOP_FLAGS) {
                assert!(text.contains(word.trim_start_matches('-')), "{shell}: {word}");
            }
        }
        assert_eq!(script(None), Err("completion needs the name of a shell: bash, zsh or fish".to_owned()));
        assert!(script(Some("tcsh")).unwrap_err().ends_with(", not `tcsh`"));
    }

    #[test]
    fn bash_completes_commands_and_options() {
        let cases = [
            ("ecs-local cl", "clean"),
            ("ecs-local up --agent-", "--agent-log"),
            ("ecs-local serve --agent", ""),
            ("ecs-local serve --quiet --clu", "--cluster"),
            ("ecs-local up task", ""),
            ("ecs-local completion z", "zsh"),
            ("ecs-local top --so", "--sort"),
            ("ecs-local top --agent", ""),
        ];
        let mut test = bash();
        for (line, _) in cases {
            test += &format!(
                "\nCOMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _ecs_local; echo \"${{COMPREPLY[*]}}\""
            );
        }
        let output = Command::new("bash").args(["-c", &test]).output().unwrap();
        let found = String::from_utf8(output.stdout).unwrap();
        assert_eq!(found.lines().collect::<Vec<_>>(), cases.map(|(_, wanted)| wanted));
    }
}
