//! Says in words why a task definition, its overrides, or another document of a person cannot be read. This module owns the translation of the decoder's
//! errors, in the terms of JSON. Invariant: no value is shown, since it may be a secret in the wrong place.

use crate::suggestion::did_you_mean;

/// Maximum number of member names in a message.
const MAX_NAMES: usize = 60;

/// The text between the first two back quotes.
fn quoted(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// The member that is missing, according to the decoder's error.
pub(super) fn missing_member(text: &str) -> Option<&str> {
    text.strip_prefix("missing field ").and_then(quoted)
}

/// The name of the member that is unknown, and those that are known there, according to the decoder's error.
pub(super) fn unknown_member(text: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    // The text lists the known names in back quotes too.
    let mut names = text.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    Some((names.next().unwrap_or_default(), names))
}

/// What the decoder's error says, in words.
pub(super) fn problem(text: &str) -> String {
    if let Some((given, names)) = unknown_member(text) {
        let known: Vec<&str> = names.take(MAX_NAMES).collect();
        let suggestion = did_you_mean(given, known.iter().copied());
        return match suggestion.as_str() {
            "" => format!("there is no member `{given}`. The members here are {}.", known.join(", ")),
            _ => format!("there is no member `{given}`.{suggestion}"),
        };
    }
    if let Some(name) = missing_member(text) {
        return format!("`{name}` is missing.");
    }
    // A value comes before the expected kind, and may itself contain this word.
    let Some((given, expected)) = text.rsplit_once(", expected ") else {
        return "it has another form than the API's.".to_owned();
    };
    let given = given.strip_prefix("invalid type: ").map(kind);
    let wanted = wanted(expected);
    match given {
        Some(given) if !wanted.starts_with(given) => {
            format!("it must be {wanted}, not {given}.{}", quotes(given, wanted))
        }
        _ => format!("it must be {wanted}."),
    }
}

/// The kind of a value in the decoder's error, without the value.
fn kind(text: &str) -> &'static str {
    let kinds = [
        ("string", "a string"),
        ("integer", "a number"),
        ("floating point", "a number with a fraction"),
        ("boolean", "a boolean"),
        ("sequence", "an array"),
        ("map", "an object"),
        ("null", "null"),
    ];
    kinds.into_iter().find(|(name, _)| text.starts_with(name)).map_or("this", |(_, words)| words)
}

/// The expected kind in words.
fn wanted(expected: &str) -> &'static str {
    match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, not below 0",
        "i32" | "i64" => "a whole number",
        "a boolean" => "a boolean: true or false",
        "a string" => "a string",
        "a sequence" => "an array: [ ... ]",
        _ => "an object: { ... }",
    }
}

/// The usual remedy if a string was written for a number, or the other way round.
fn quotes(given: &str, wanted: &str) -> &'static str {
    let is_string = |words: &str| words.starts_with("a string");
    let is_plain =
        |words: &str| ["a number", "a whole number", "a boolean"].iter().any(|beginning| words.starts_with(beginning));
    match (is_string(given) && is_plain(wanted), is_plain(given) && is_string(wanted)) {
        (true, _) => " Write it without quotes.",
        (_, true) => " Write it in quotes.",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TaskDefinition, read};
    use serde_json::{Value, json};

    fn explained(definition: &Value) -> String {
        read::<TaskDefinition>("It", definition).unwrap_err()
    }

    #[test]
    fn errors_name_the_member_and_what_it_must_be() {
        let container = |members: Value| json!({"family": "f", "containerDefinitions": [{"name": "a"}, members]});
        for (definition, wanted) in [
            (json!({"famly": "f"}), "It cannot be read: famly: there is no member `famly`. Did you mean `family`?"),
            (
                container(json!({"memroy": 1})),
                "It cannot be read: containerDefinitions[1].memroy: there is no member `memroy`. Did you mean `memory`?",
            ),
            (
                container(json!({"portMappings": [{"zzz": 1}]})),
                "there is no member `zzz`. The members here are containerPort, hostPort, protocol, containerPortRange, name, appProtocol.",
            ),
            (
                container(json!({"memory": "512"})),
                "containerDefinitions[1].memory: it must be a whole number, not below 0, not a string. Write it without quotes.",
            ),
            (container(json!({"memory": -1})), "memory: it must be a whole number, not below 0."),
            (container(json!({"memory": 1.5})), "a whole number, not below 0, not a number with a fraction."),
            (
                container(json!({"essential": "yes"})),
                "essential: it must be a boolean: true or false, not a string. Write it without quotes.",
            ),
            (json!({"cpu": 256}), "cpu: it must be a string, not a number. Write it in quotes."),
            (container(json!({"command": "sleep 1"})), "command: it must be an array: [ ... ], not a string."),
            (container(json!({"command": ["sleep", 1]})), "command[1]: it must be a string, not a number."),
            (
                container(json!({"environment": {"A": "b"}})),
                "environment: it must be an array: [ ... ], not an object.",
            ),
            (container(json!({"logConfiguration": "awslogs"})), "logConfiguration: it must be an object: { ... }, not"),
            (
                container(json!({"portMappings": [{"containerPort": 70000}]})),
                "portMappings[0].containerPort: it must be a whole number from 0 to 65535.",
            ),
            (container(json!({"secrets": [{"name": "A"}]})), "secrets[0]: `valueFrom` is missing."),
            (container(json!({"command": [null]})), "command[0]: it must be a string, not null."),
        ] {
            let text = explained(&definition);
            assert!(text.contains(wanted), "{definition}: {text}");
        }
    }

    #[test]
    fn no_value_is_shown() {
        for value in [json!("hunter2"), json!("x, expected hunter2"), json!(["hunter2"]), json!({"x": "hunter2"})] {
            for member in ["memory", "essential", "user", "logConfiguration", "linuxParameters", "ulimits"] {
                let definition = json!({"family": "f", "containerDefinitions": [{member: value}]});
                let Err(error) = read::<TaskDefinition>("It", &definition) else { continue };
                assert!(!error.contains("hunter2"), "{member}: {value}");
            }
        }
    }
}
