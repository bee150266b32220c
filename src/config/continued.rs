//! JSON that goes on in the lines after its setting, as an editor or `jq` lays it out. A value ends with its line, so the rest is lost.
//!
//! This module finds such lines; `laid_out` makes one finding of them. Invariant: a line that could be a setting of its own is never taken
//! for a part of the JSON.

/// Maximum number of lines of one value that are looked at. The rest of a longer one is reported line by line.
const MAX_LINES: usize = 10_000;

/// A setting whose JSON goes on in later lines.
#[derive(Clone, Debug)]
pub struct Continued {
    /// Its place, as in [`Problem::place`](super::Problem::place).
    pub(super) place: String,
    /// The variable of this agent that the line names; empty: none.
    pub(super) variable: &'static str,
    /// The line in which the JSON ends.
    pub(super) last: usize,
}

/// The number of lines after the first one that belong to its JSON.
pub(super) fn further_lines(lines: &[&[u8]]) -> usize {
    let Some((first, rest)) = lines.split_first() else { return 0 };
    let first = String::from_utf8_lossy(first);
    let first = first.trim();
    if first.starts_with('#') {
        return 0;
    }
    let value = first.split_once('=').or_else(|| first.split_once(':')).map_or(first, |(_, value)| value);
    let value = value.trim_start().trim_start_matches(['\'', '"']);
    let begins_later = value.is_empty() && first.contains('=');
    if !value.starts_with(['{', '[']) && !begins_later {
        return 0;
    }
    let mut depth = depth_after(0, value);
    if depth <= 0 && !begins_later {
        return 0;
    }
    let mut count = 0;
    for (line, number) in rest.iter().zip(1..=MAX_LINES) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        let is_blank = line.is_empty() || line.starts_with('#');
        let is_part = if begins_later && count == 0 { line.starts_with(['{', '[']) } else { is_part(line) };
        if !is_blank && !is_part {
            break;
        }
        depth = depth_after(depth, line);
        // A blank line belongs to the JSON only if more of it follows.
        count = if is_blank { count } else { number };
        if !is_blank && depth <= 0 {
            break;
        }
    }
    count
}

/// The text may begin a line of JSON. A name of a setting begins with a letter, and is followed by `=`.
fn is_part(line: &str) -> bool {
    line.starts_with(['{', '}', '[', ']', '"', ',', ':', '-'])
        || line.starts_with(|first: char| first.is_ascii_digit())
        || ["true", "false", "null"].iter().any(|word| line.trim_end_matches([',', ' ']) == *word)
}

/// How many brackets are open after a line. A string ends with its line.
fn depth_after(before: i64, line: &str) -> i64 {
    let (mut depth, mut is_string, mut is_escaped) = (before, false, false);
    for character in line.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_string => is_escaped = true,
            '"' => is_string = !is_string,
            '{' | '[' if !is_string => depth += 1,
            '}' | ']' if !is_string => depth -= 1,
            _ => {}
        }
    }
    depth
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str) -> usize {
        further_lines(&text.split('\n').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn the_lines_of_one_json_value_are_counted() {
        for (text, wanted) in [
            ("A={", 0),
            ("A={\n}", 1),
            ("A={\n  \"a\": \"}\",\n  \"b\": [1,\n 2]\n}\nB=1", 4),
            ("A=[\"a\",\n\"b\"]\n{", 1),
            ("A='{\n\"a\": \"b=c\"\n}'\nB=1", 2),
            ("A=\n{\n}\n\"x\"", 2),
            ("export A = {\n}\n}", 1),
            ("A: {\n\"b\": 1\n}", 2),
            ("A=[80,\\\n443]", 1),
            ("A={\n\n# why\n\"a\": true,\n\"b\":\nnull\n}\n", 6),
            // What could be a setting ends it.
            ("A={\nB=1\n}", 0),
            ("A={\n\"a\": 1,\nECS_CLUSTER=prod\n}", 1),
            ("A={\n\n# nothing more", 0),
            ("A={\"a\": 1}\n{", 0),
            ("A=\nB=1", 0),
            ("A=x {\n\"a\"", 0),
            ("# A={\n\"a\": 1}", 0),
            ("", 0),
        ] {
            assert_eq!(count(text), wanted, "{text}");
        }
    }
}
