//! What people write around a value that belongs to a shell or to another format: quotation marks, white space, a comment.
//!
//! In `ecs.config` all of these are part of the value. This module finds them in a text; it knows no variables. Invariant: every
//! result is a part of the text.

/// The text before a comment at its end; `None`: there is no comment. A `#` without white space before it is no comment.
pub(super) fn without_comment(text: &str) -> Option<&str> {
    let mut before = text.match_indices('#').map(|(at, _)| &text[..at]);
    before.find(|before| before.ends_with(char::is_whitespace)).map(str::trim_end)
}

/// The text has the same quotation mark at both ends.
pub(super) fn is_quoted(text: &str) -> bool {
    let has = |mark: char| text.len() > 1 && text.starts_with(mark) && text.ends_with(mark);
    has('"') || has('\'')
}

/// The text without quotation marks, and without white space, around it.
pub(super) fn bare(text: &str) -> &str {
    text.trim().trim_matches(['"', '\'']).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_quotation_marks_are_found() {
        for (text, before) in [
            ("true # yes", Some("true")),
            ("true\t#yes", Some("true")),
            (" # yes", Some("")),
            ("a#b", None),
            ("a#b # c", Some("a#b")),
            ("#", None),
            ("", None),
        ] {
            assert_eq!(without_comment(text), before, "{text:?}");
        }
        for (text, quoted, inside) in [
            ("\"a\"", true, "a"),
            ("'a'", true, "a"),
            (" \"a\" ", false, "a"),
            ("\"a", false, "a"),
            ("\"", false, ""),
            ("a", false, "a"),
        ] {
            assert_eq!((is_quoted(text), bare(text)), (quoted, inside), "{text:?}");
        }
    }
}
