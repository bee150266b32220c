//! Checks that no text for a person holds the `Debug` form of a value: `Some(7)`, `DispatchFailure { … }`, `1.5s`.
//!
//! Texts are the arguments of `tracing`'s macros and the format strings of the product. `Debug` itself, panics and tests are free
//! to use that form.

use super::files;
use std::path::Path;

/// Files whose format strings are no texts for people, or that are compiled for tests only.
const FREE: &[(&str, &str)] = &[
    ("runtime/logging/line.rs", "receives the fields of log lines, which `tracing` passes as `Debug`"),
    ("runtime/logging/surroundings.rs", "the same for the fields of spans"),
    ("runtime/supervisor.rs", "an implementation of `Debug`"),
    ("core/model/resource.rs", "implementations of `Debug`"),
];

/// The text of a file before its tests.
fn product(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod ").map_or(text, |end| &text[..end])
}

/// The macros of `tracing` in the text, each with its line and its arguments.
fn log_calls(text: &str) -> Vec<(usize, &str)> {
    let mut calls = Vec::new();
    for (start, _) in text.match_indices("tracing::") {
        let rest = &text[start..];
        let Some(open) = rest.find("!(") else { continue };
        if !rest["tracing::".len()..open].bytes().all(|byte| byte.is_ascii_lowercase()) {
            continue;
        }
        let arguments = &rest[open + 2..];
        let (mut depth, mut is_text, mut was_escape) = (1, false, false);
        let end = arguments.find(|c| {
            match c {
                _ if was_escape => was_escape = false,
                '\\' if is_text => was_escape = true,
                '"' => is_text = !is_text,
                '(' if !is_text => depth += 1,
                ')' if !is_text => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        calls.push((text[..start].matches('\n').count() + 1, &arguments[..end.expect("a macro ends")]));
    }
    calls
}

/// A field that is recorded as `Debug`: `?field`, or `field = ?value`.
fn has_debug_field(arguments: &str) -> bool {
    // The operator `?` follows a value, this one precedes it.
    let before = |start: usize| arguments[..start].trim_end().chars().next_back();
    arguments.match_indices('?').any(|(start, _)| matches!(before(start), None | Some(',' | '=' | '(')))
}

/// A placeholder with `?`, such as `{:?}` or `{name:#?}`.
fn has_debug_placeholder(line: &str) -> bool {
    let mut rest = line;
    while let Some(end) = rest.find("?}") {
        let start = rest[..end].rfind('{');
        if start.is_some_and(|start| rest[start..end].contains(':') && !rest[start..end].contains(['"', '}'])) {
            return true;
        }
        rest = &rest[end + 2..];
    }
    false
}

/// Each place of a file that shows a `Debug` form.
fn problems(file: &str, text: &str) -> Vec<String> {
    let text = product(text);
    let fields = log_calls(text).into_iter().filter(|(_, arguments)| has_debug_field(arguments));
    let fields = fields.map(|(line, _)| format!("{file}:{line}: a field of a log line is recorded as Debug (?)"));
    let is_free = |line: &str| ["assert", "panic!", "unreachable!"].iter().any(|word| line.contains(word));
    let lines = text.lines().zip(1..).filter(|(line, _)| has_debug_placeholder(line) && !is_free(line));
    let texts = lines.map(|(_, line)| format!("{file}:{line}: a text shows a value as Debug"));
    fields.chain(texts).collect()
}

#[test]
fn no_text_for_a_person_shows_a_debug_form() {
    let is_test = |file: &str| file.contains("tests") || file.ends_with("fuzz.rs");
    let is_free = |file: &str| is_test(file) || FREE.iter().any(|(free, _)| *free == file);
    let source = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let found: Vec<String> =
        source.iter().filter(|(file, _)| !is_free(file)).flat_map(|(file, text)| problems(file, text)).collect();
    assert!(found.is_empty(), "write a text that a person reads:\n{}", found.join("\n"));
    for (free, why) in FREE {
        let (_, text) = source.iter().find(|(file, _)| file == free).unwrap_or_else(|| panic!("{free} is gone: {why}"));
        assert!(!problems(free, text).is_empty(), "{free} needs no exception any more");
    }
}

#[test]
fn debug_forms_are_found() {
    for (text, count) in [
        ("tracing::info!(?pause, \"waits\");", 1),
        ("tracing::info!(a = 1, why = ?error, \"waits\");", 1),
        ("tracing::info!(\n    ?a,\n    \"(?, \\\"?\"\n);", 1),
        ("tracing::info!(%error, name = call()?, \"what?\");", 0),
        ("format!(\"{why:?}\")", 1),
        ("format!(\"{0:#?}\", a)", 1),
        ("format!(\"{why}: {name}?\")", 0),
        ("assert!(ok, \"{why:?}\");", 0),
        ("#[cfg(test)]\nmod tests {\n    format!(\"{:?}\", a);", 0),
    ] {
        assert_eq!(problems("a.rs", text).len(), count, "{text}");
    }
}
