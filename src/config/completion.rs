//! Completions for shells, made from the table of flags.
//!
//! This module only makes text. Invariant: every command, flag, shell and log level is completed in each shell, and no text of the
//! table needs quoting there (tested).

use super::flags::{FLAGS, Flag, SHELLS, Shell, find};
use super::keys::LEVELS;
use std::fmt::Write as _;

/// The script that the shell reads.
pub fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

/// The first sentence of the help. zsh takes a colon as the end of a name.
fn brief(flag: &Flag) -> String {
    let sentence = flag.help.split(". ").next().unwrap_or_default();
    sentence.trim_end_matches('.').replace(": ", " - ")
}

fn commands() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| flag.is_command() && flag.name.len() > 1)
}

/// The words, with a text before each and a blank between two.
fn words(names: impl Iterator<Item = &'static str>, before: &str) -> String {
    names.map(|name| format!("{before}{name}")).collect::<Vec<_>>().join(" ")
}

/// A pattern for the flags that have a level.
fn with_level() -> String {
    let names = FLAGS.iter().filter(|flag| flag.takes_level()).map(|flag| flag.name);
    names.map(|name| format!("-{name}|--{name}")).collect::<Vec<_>>().join("|")
}

fn shells() -> String {
    words(SHELLS.iter().map(|(name, _)| *name), "")
}

/// The commands that have flags of their own, each with its flags.
fn commands_with_flags() -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'static Flag>)> {
    let flags = |command: &'static Flag| command.flags.iter().filter_map(|name| find(name));
    commands().filter(|command| !command.flags.is_empty()).map(move |command| (command.name, flags(command)))
}

/// The flags of a command line without a command, and the commands as flags.
fn without_command() -> impl Iterator<Item = &'static Flag> {
    FLAGS.iter().filter(|flag| !flag.is_only_for_check())
}

/// The flags that may have another value than true and false, as `healthcheck=http`, each with its row.
fn with_choices() -> impl Iterator<Item = (String, &'static Flag)> {
    FLAGS.iter().flat_map(|flag| flag.choices.iter().map(move |choice| (format!("{}={choice}", flag.name), flag)))
}

fn bash() -> String {
    let choices = with_choices().map(|(name, _)| format!(" {name}")).collect::<String>();
    let by_command = commands_with_flags()
        .map(|(command, flags)| format!("    {command}) flags='{}' ;;\n", words(flags.map(|flag| flag.name), "")));
    format!(
        r#"# bash completion for ecs-agent
_ecs_agent() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} commands='{commands}' command='' word words='' flags='' dashes=-
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        word=${{word#-}} word=${{word#-}}
        [[ " $commands " == *" $word "* ]] && command=$word && break
    done
    case $command in
    '') flags='{flags}{choices}' ;;
{by_command}    esac
    case ${{COMP_WORDS[COMP_CWORD-1]}} in
    {levels_of}) words='{levels}' ;;
    completion|-completion|--completion) words='{shells}' ;;
    *)
        case $cur in
        -*)
            [[ $cur == --* ]] && dashes=--
            [[ $flags ]] && words=$dashes${{flags// / $dashes}}
            ;;
        *)
            if [[ $command == check-config ]]; then
                compopt -o filenames
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
                return
            fi
            [[ $command && ${{COMP_WORDS[COMP_CWORD-1]}} != help ]] || words=$commands
            ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}}
complete -F _ecs_agent ecs-agent
"#,
        levels_of = with_level(),
        levels = words(LEVELS.iter().copied(), ""),
        shells = shells(),
        flags = words(without_command().map(|flag| flag.name), ""),
        by_command = by_command.collect::<String>(),
        commands = words(commands().map(|flag| flag.name), ""),
    )
}

fn zsh() -> String {
    let described = |flags: &mut dyn Iterator<Item = &'static Flag>| {
        flags.map(|flag| format!("'{}:{}'", flag.name, brief(flag))).collect::<Vec<_>>().join(" ")
    };
    let choices = with_choices().map(|(name, flag)| format!(" '{name}:{}'", brief(flag))).collect::<String>();
    let by_command = commands_with_flags()
        .map(|(command, mut flags)| format!("    {command}) flags=({}) ;;\n", described(&mut flags)));
    format!(
        r"#compdef ecs-agent
compdef _ecs_agent ecs-agent
_ecs_agent() {{
    local -a commands flags before
    local dashes=-
    commands=({commands})
    before=(${{(M)words[2,CURRENT-1]:#(|-|--)({names})}})
    case ${{${{before[1]#-}}#-}} in
    '') flags=({flags}{choices}) ;;
{by_command}    esac
    case $words[CURRENT-1] in
    {levels_of}) compadd {levels}; return ;;
    completion|-completion|--completion) compadd {shells}; return ;;
    esac
    case $PREFIX in
    -*)
        [[ $PREFIX == --* ]] && dashes=--
        flags=($dashes$^flags)
        (( ! $#flags )) || _describe flag flags
        ;;
    *)
        if (( ${{words[(I)(|-|--)check-config]}} )); then
            _files
        elif [[ $#before == 0 || $words[CURRENT-1] == help ]]; then
            _describe command commands
        fi
        ;;
    esac
}}
if [[ $funcstack[1] == _ecs_agent ]]; then _ecs_agent; fi
",
        commands = described(&mut commands()),
        names = commands().map(|flag| flag.name).collect::<Vec<_>>().join("|"),
        levels_of = with_level(),
        levels = words(LEVELS.iter().copied(), ""),
        shells = shells(),
        flags = described(&mut without_command()),
        by_command = by_command.collect::<String>(),
    )
}

fn fish() -> String {
    let mut text = String::from("# fish completion for ecs-agent\ncomplete -c ecs-agent -f\n");
    for flag in FLAGS {
        let (name, help) = (flag.name, brief(flag));
        let level =
            if flag.takes_level() { format!(" -x -a '{}'", words(LEVELS.iter().copied(), "")) } else { String::new() };
        let takers = commands().filter(|command| command.flags.contains(&name)).map(|command| command.name);
        let takers: Vec<&str> = takers.collect();
        let alone = if flag.is_only_for_check() { "" } else { "__fish_use_subcommand" };
        let after =
            if takers.is_empty() { String::new() } else { format!("__fish_seen_subcommand_from {}", takers.join(" ")) };
        let or = if alone.is_empty() || after.is_empty() { "" } else { "; or " };
        let _ = writeln!(text, "complete -c ecs-agent -n '{alone}{or}{after}' -o {name} -l {name}{level} -d '{help}'");
    }
    for (name, flag) in with_choices() {
        // Only where a flag is begun: these are arguments to fish.
        let is_flag = "__fish_use_subcommand; and string match -q -- '-*' (commandline -ct)";
        let _ = writeln!(text, "complete -c ecs-agent -n \"{is_flag}\" -a '-{name} --{name}' -d '{}'", brief(flag));
    }
    for command in commands() {
        let (name, help) = (command.name, brief(command));
        let place = "__fish_use_subcommand; or __fish_prev_arg_in help";
        let _ = writeln!(text, "complete -c ecs-agent -n '{place}' -a {name} -d '{help}'");
    }
    let _ = writeln!(text, "complete -c ecs-agent -n '__fish_seen_subcommand_from check-config' -F");
    let _ = writeln!(text, "complete -c ecs-agent -n '__fish_seen_subcommand_from completion' -a '{}'", shells());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_word_of_the_table() {
        for (name, shell) in SHELLS {
            let script = script(shell);
            for flag in FLAGS {
                assert!(script.contains(flag.name), "{name}: {}", flag.name);
            }
            assert!(script.contains("healthcheck=http"), "{name}");
            for word in LEVELS.iter().copied().chain(SHELLS.map(|(name, _)| name)) {
                assert!(script.contains(word), "{name}: {word}");
            }
            assert!(script.len() < 8_000, "{name}: {}", script.len());
        }
    }

    #[test]
    fn no_text_of_the_table_needs_quoting_in_a_shell() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " -,/_.".contains(c);
        for flag in FLAGS {
            assert!(flag.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte == b'2'));
            assert!(brief(flag).chars().all(is_plain) && brief(flag).len() > 4, "{}: {}", flag.name, brief(flag));
        }
    }
}
