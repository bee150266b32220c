//! The encoding of answers: compact JSON in the order of the struct's fields, escaped as the Go agent escapes.
//!
//! Owns no shapes. Invariant: the text is valid JSON that is also safe inside HTML and JavaScript.

use serde::Serialize;

/// Compact JSON without a trailing newline; `<`, `>`, `&`, U+2028 and U+2029 are written as `\u` escapes.
pub(crate) fn encode(value: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string(value)?;
    let mut out = String::with_capacity(plain.len());
    // All five can occur only inside strings, so replacing them in the finished text is safe.
    for c in plain.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn special_characters_are_escaped_as_in_the_go_agent() {
        let cases = [
            ("a<b>&c", r#""a\u003cb\u003e\u0026c""#),
            ("line\u{2028}sep\u{2029}", r#""line\u2028sep\u2029""#),
            ("quote\" back\\ tab\t bell\u{7}", r#""quote\" back\\ tab\t bell\u0007""#),
            ("grün", r#""grün""#),
        ];
        for (text, expected) in cases {
            assert_eq!(encode(&text).unwrap(), expected);
        }
    }
}
