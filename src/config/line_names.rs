//! The variable that a line of `ecs.config` names, in whatever notation it is written. Invariant: no part of a value is returned, only a
//! name of the table.

use super::keys::find;

/// The name is that of a list of variables in another file: `Environment=NAME=value` of a unit, `--env=NAME=value` of a command.
pub(super) fn names_variables(name: &str) -> bool {
    ["environment", "env"].contains(&name.trim_start_matches('-').to_ascii_lowercase().as_str())
}

/// As [`variable_of`], also in such a list.
pub(super) fn variable_in(line: &[u8]) -> &'static str {
    let (name, list) = line.split_at(line.iter().position(|byte| *byte == b'=').unwrap_or(line.len()));
    let is_list = str::from_utf8(name).is_ok_and(|name| names_variables(name.trim()));
    variable_of(if is_list { list.get(1..).unwrap_or_default() } else { line })
}

/// The variable of this agent that a line names in any notation, such as `export NAME=value` or `- NAME: value`; empty if there is
/// none. Only the part before the value is read: at most up to the first `=`.
pub(super) fn variable_of(line: &[u8]) -> &'static str {
    let line = String::from_utf8_lossy(line);
    let names = line.split('=').next().unwrap_or_default();
    let mut words = names.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.find_map(find).map_or("", |key| key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_found_in_every_notation() {
        for (line, wanted) in [
            ("ECS_CLUSTER=prod", "ECS_CLUSTER"),
            ("- ECS_CLUSTER: prod", "ECS_CLUSTER"),
            ("Environment=\"ECS_CLUSTER=prod\"", "ECS_CLUSTER"),
            ("--env=ECS_LOGLEVEL=info", "ECS_LOGLEVEL"),
            ("MY_OWN=ECS_CLUSTER=prod", ""),
            ("Environment=", ""),
            ("Environment", ""),
            ("", ""),
        ] {
            assert_eq!(variable_in(line.as_bytes()), wanted, "{line}");
        }
        assert_eq!(variable_in(b"\xff=ECS_CLUSTER"), "");
    }
}
